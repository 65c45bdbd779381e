"""Runs packaging/pulumi with mocks in place of Pulumi's engine and of AWS.

usage: mocked.py       (standard input: the configuration, as JSON; standard output: what was asked for, as JSON)

A program of its own, since a run of Pulumi's leaves its modules and its loop behind. What only AWS can know is a token, as in
template.py.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import pulumi

STACK = Path(__file__).resolve().parents[2] / "packaging" / "pulumi"
# What the id of a resource is, where it is not an id.
ID = {
    "aws:dynamodb/table:Table": "name",
    "aws:iam/instanceProfile:InstanceProfile": "name",
    "aws:iam/role:Role": "name",
    "aws:cloudwatch/eventRule:EventRule": "name",
    "aws:cloudwatch/logGroup:LogGroup": "name",
    "aws:s3/bucket:Bucket": "name",
    "aws:sns/topic:Topic": "arn",
    "aws:secretsmanager/secret:Secret": "arn",
    "aws:sqs/queue:Queue": "url",
}


class Mocks(pulumi.runtime.Mocks):
    def __init__(self):
        self.asked = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs):
        assert args.name not in self.asked, args.name
        self.asked[args.name] = {"type": args.typ, "inputs": args.inputs}
        token = lambda what: f"<{args.name} {what}>"
        known = {"arn": token("arn"), "name": token("name"), "url": token("url"), "bucket": token("name")}
        return token(ID.get(args.typ, "id")), {**args.inputs, **known}

    def call(self, args: pulumi.runtime.MockCallArgs):
        match args.token.split(":")[-1]:
            case "getAvailabilityZones":
                return {"names": ["eu-west-1a", "eu-west-1b", "eu-west-1c"]}
            case "getPartition":
                return {"partition": "aws"}
            case "getRegion":
                return {"region": "eu-west-1"}
            case "getCallerIdentity":
                return {"accountId": "123456789012"}
            case "getParameter":
                return {"value": f"<ssm {args.args['name']}>"}
        raise AssertionError(args.token)


def main():
    given = json.load(sys.stdin)
    mocks = Mocks()
    pulumi.runtime.set_mocks(mocks, project="smartscale", stack="test", preview=False)
    pulumi.runtime.set_all_config({f"smartscale:{name}": str(value) for name, value in given.items()})
    os.chdir(STACK)
    sys.path.insert(0, str(STACK))
    outputs = {}
    pulumi.export = lambda name, value: pulumi.Output.from_input(value).apply(
        lambda known: outputs.update({name: known})
    )
    pulumi.runtime.test(lambda: runpy.run_path(str(STACK / "__main__.py"), run_name="__main__"))()
    json.dump({"resources": mocks.asked, "outputs": outputs}, sys.stdout)


main()
