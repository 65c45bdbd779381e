"""packaging/cloudformation is deployed to ministack, and what came of it is used as the programs use it.

Where ministack is not AWS: it knows neither of the types in MISSING; it makes tables without their time to live and backups;
it does not tell policies the leading keys of a request to DynamoDB nor the namespace of one to CloudWatch, and names a log group
without the `:*` that policies are to have behind it, so that it refuses all three. The first two are held against the table of
expectations alone, the last three against the simulator of IAM (test_policies.py).
"""

import json
import subprocess
import time
from pathlib import Path

import botocore.exceptions
import pytest

import ministack
import template
from given import DEFAULT, GIVEN, OTHER
from policies import ACCOUNT, REGION

MISSING = {"AWS::CloudTrail::Trail", "AWS::EC2::Instance"}


def test_cfn_lint_has_nothing_to_say(rig):
    linted = subprocess.run(
        [rig / "infrastructure/venv/bin/cfn-lint", "--format", "parseable", template.PATH],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_the_template_is_short_enough_to_be_sent_as_it_is():
    """Longer ones have to lie in a bucket first:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html."""
    assert len(template.PATH.read_bytes()) <= 51_200


def test_every_parameter_is_described_and_used():
    document = template.load()
    text = json.dumps({name: document[name] for name in ["Conditions", "Resources", "Outputs"]})
    grouped = [
        name
        for group in document["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    ]
    assert sorted(grouped) == sorted(document["Parameters"])
    for name, about in document["Parameters"].items():
        assert about["Description"], name
        assert f'"Ref": "{name}"' in text or f"${{{name}}}" in text, name


# The public parameters of images are AWS' own; this one stands in for them.
IMAGE = {"WorkerImage": "/smartscale/worker-image"}


class Deployed:
    """A stack on ministack."""

    def __init__(self, server: ministack.Ministack, given: dict):
        self.server = server
        client = server.client("cloudformation")
        document = template.load()
        lacking = [name for name, one in document["Resources"].items() if one["Type"] in MISSING]
        for name in lacking:
            del document["Resources"][name]
        del document["Outputs"]["ServerId"]
        parameters = given | IMAGE
        self.name = f"smartscale-{parameters.get('ClusterId', 'demo')}"
        self.document, self.parameters = document, parameters
        self.await_end(client.create_stack)
        described = client.describe_stack_resources(StackName=self.name)["StackResources"]
        self.states = {one["LogicalResourceId"]: one["ResourceStatus"] for one in described}
        self.ids = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in described}
        wanted = template.Stack(parameters, document)
        self.wanted = set(wanted.resources())

    def update(self, changed: dict):
        self.parameters |= changed
        self.await_end(self.server.client("cloudformation").update_stack)

    def await_end(self, call):
        client = self.server.client("cloudformation")
        call(
            StackName=self.name,
            TemplateBody=json.dumps(self.document),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
        deadline = time.monotonic() + 60
        while True:
            [stack] = client.describe_stacks(StackName=self.name)["Stacks"]
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                break
            assert time.monotonic() < deadline, stack
            time.sleep(0.1)
        self.status = stack["StackStatus"]
        self.outputs = {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}

    def session(self, role: str) -> dict:
        """Credentials of a role of the stack, as EC2 hands them to an instance. EC2 takes them by the role's trust in it; here
        root is let in as well, since nobody here is EC2."""
        iam, name = self.server.client("iam"), self.ids[role]
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        assert [one["Principal"] for one in trust["Statement"]] == [{"Service": "ec2.amazonaws.com"}]
        both = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
        document = {"Version": "2012-10-17", "Statement": [*trust["Statement"], both]}
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(document))
        key = self.server.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{name}", RoleSessionName="i-0aaaaaaaaaaaaaaa1"
        )["Credentials"]
        trust = {"Version": "2012-10-17", "Statement": trust["Statement"]}
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
        return {
            "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"],
            "aws_session_token": key["SessionToken"],
        }


@pytest.fixture(scope="module")
def server(rig, tmp_path_factory):
    with ministack.started(rig, tmp_path_factory.mktemp("ministack")) as running:
        running.client("ssm").put_parameter(
            Name=IMAGE["WorkerImage"], Type="String", Value="ami-0aaaaaaaaaaaaaaa2"
        )
        yield running


@pytest.fixture(scope="module")
def deployed(server):
    return {name: Deployed(server, given) for name, given in GIVEN.items()}


def test_ministack_lacks_what_we_say_and_nothing_else(server):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        server.client("cloudformation").create_stack(
            StackName="whole",
            TemplateBody=template.PATH.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in (DEFAULT | IMAGE).items()],
            Capabilities=["CAPABILITY_IAM"],
        )
    assert f"Unrecognized resource types: [{', '.join(sorted(MISSING))}]" in str(refused.value)


@pytest.mark.parametrize("given", GIVEN)
def test_everything_is_made(deployed, given):
    stack = deployed[given]
    assert stack.status == "CREATE_COMPLETE"
    assert set(stack.states) == stack.wanted
    assert set(stack.states.values()) == {"CREATE_COMPLETE"}


def test_an_update_makes_another_version_of_the_launch_template_and_leaves_the_default(deployed, server):
    """Which is why the coordinator launches from `$Latest`."""
    stack, ec2 = deployed["default"], server.client("ec2")
    of = lambda version: ec2.describe_launch_template_versions(
        LaunchTemplateId=stack.outputs["WorkerTemplateId"], Versions=[version]
    )["LaunchTemplateVersions"][0]
    before = of("$Latest")
    assert before["VersionNumber"] == 1
    data = before["LaunchTemplateData"]
    assert data["ImageId"] == "ami-0aaaaaaaaaaaaaaa2"
    assert (data["MetadataOptions"]["HttpTokens"], data["MetadataOptions"]["HttpPutResponseHopLimit"]) == ("required", 1)
    stack.update({"WorkerVolume": "25"})
    assert stack.status == "UPDATE_COMPLETE"
    assert of("$Latest")["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 25
    assert (of("$Latest")["VersionNumber"], of("$Default")["VersionNumber"]) == (2, 1)


def test_the_table_is_what_the_coordinator_expects(deployed, server):
    source = (template.PATH.parents[2] / "coordinator/src/aws/dynamodb/table.rs").read_text()
    dynamodb, name = server.client("dynamodb"), deployed["default"].outputs["TableName"]
    table = dynamodb.describe_table(TableName=name)["Table"]
    assert [(one["AttributeName"], one["KeyType"]) for one in table["KeySchema"]] == [
        ("cluster_id", "HASH"),
        ("item", "RANGE"),
    ]
    for key, kind in [("cluster_id", "Hash"), ("item", "Range")]:
        assert f'key("{key}", KeyType::{kind})' in source
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    made = template.Stack(DEFAULT).resources()["Table"]
    assert made["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert '.attribute_name("expires_at")' in source


# What docs/notices.md names, and what of the same sources is none.
HEARD = [
    ("aws.ec2", "EC2 Spot Instance Interruption Warning", {"instance-id": "i-0aaaaaaaaaaaaaaa1"}),
    ("aws.ec2", "EC2 Instance Rebalance Recommendation", {"instance-id": "i-0aaaaaaaaaaaaaaa1"}),
    ("aws.ec2", "EC2 Instance State-change Notification", {"instance-id": "i-0aaaaaaaaaaaaaaa1"}),
    ("aws.health", "AWS Health Event", {"service": "EC2", "eventTypeCategory": "scheduledChange"}),
]
PASSED_OVER = [
    ("aws.ec2", "EBS Volume Notification", {}),
    ("aws.health", "AWS Health Event", {"service": "EC2", "eventTypeCategory": "issue"}),
    ("aws.health", "AWS Health Event", {"service": "RDS", "eventTypeCategory": "scheduledChange"}),
]


@pytest.mark.parametrize("event, heard", [(one, True) for one in HEARD] + [(one, False) for one in PASSED_OVER])
def test_rules_hear_notices_of_machines_and_nothing_else(deployed, server, event, heard):
    source, kind, detail = event
    events = server.client("events")
    whole = {
        "id": "1",
        "source": source,
        "detail-type": kind,
        "detail": detail,
        "account": ACCOUNT,
        "region": REGION,
        "time": "2026-01-02T03:04:05Z",
        "resources": [],
    }
    patterns = [
        events.describe_rule(Name=deployed["default"].ids[rule])["EventPattern"]
        for rule in ["MachineRule", "MaintenanceRule"]
    ]
    matches = [
        events.test_event_pattern(EventPattern=pattern, Event=json.dumps(whole))["Result"]
        for pattern in patterns
    ]
    assert any(matches) == heard


def test_what_a_rule_hears_arrives_where_the_coordinator_reads(deployed, server):
    """Events of `aws.…` are AWS' own to send, so the rule is made to hear another one for a moment."""
    own, events = deployed["default"], server.client("events")
    rule = events.describe_rule(Name=own.ids["MachineRule"])
    events.put_rule(Name=rule["Name"], EventPattern=json.dumps({"source": ["test"]}))
    entry = {"Source": "test", "DetailType": "hello", "Detail": "{}"}
    assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0
    events.put_rule(Name=rule["Name"], EventPattern=rule["EventPattern"])
    sqs, queue = server.client("sqs", **own.session("ServerRole")), own.outputs["NoticesUrl"]
    [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"]
    assert json.loads(message["Body"])["detail-type"] == "hello"
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] in {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
    }, error.value


def test_a_server_may_what_the_coordinator_does_and_no_more(deployed, server):
    own, other = deployed["default"], deployed["other"]
    key = own.session("ServerRole")
    client = lambda service: server.client(service, **key)

    sns = client("sns")
    sns.publish(TopicArn=own.outputs["TopicArn"], Message="hello")
    refused(sns.publish, TopicArn=other.outputs["TopicArn"], Message="hello")

    sqs = client("sqs")
    refused(sqs.receive_message, QueueUrl=other.outputs["NoticesUrl"])
    refused(sqs.purge_queue, QueueUrl=own.outputs["NoticesUrl"])

    table, row = own.outputs["TableName"], {"cluster_id": {"S": "k3s-demo"}, "item": {"S": "state"}}
    refused(client("dynamodb").get_item, TableName=other.outputs["TableName"], Key=row)
    refused(client("dynamodb").delete_table, TableName=table)
    refused(client("cloudwatch").put_metric_data, Namespace="Shop", MetricData=[{"MetricName": "x", "Value": 1}])
    refused(client("iam").create_user, UserName="mallory")


def test_a_worker_reads_its_two_secrets_where_it_needs_them_and_nothing_else(deployed, server):
    secrets = server.client("secretsmanager")
    secrets.put_secret_value(SecretId="shop/k3s/join-token", SecretString="K10…::node:…")
    secrets.create_secret(Name="shop/authority", SecretBinary=b"tar")
    worker = server.client("secretsmanager", **deployed["other"].session("WorkerRole"))
    assert worker.get_secret_value(SecretId="shop/k3s/join-token")["SecretString"].startswith("K10")
    assert worker.get_secret_value(SecretId="shop/k3s/master-ip")["SecretString"] == OTHER["ServerAddress"]
    refused(worker.get_secret_value, SecretId="shop/authority")
    refused(worker.put_secret_value, SecretId="shop/k3s/join-token", SecretString="mine")
    # With minted tokens there is nothing to read.
    idle = server.client("secretsmanager", **deployed["default"].session("WorkerRole"))
    refused(idle.get_secret_value, SecretId="shop/k3s/master-ip")


def test_a_server_reads_the_authority_and_stores_the_shared_token(deployed, server):
    key = deployed["other"].session("ServerRole")
    secrets = server.client("secretsmanager", **key)
    assert secrets.get_secret_value(SecretId="shop/authority")["SecretBinary"] == b"tar"
    secrets.put_secret_value(SecretId="shop/k3s/join-token", SecretString="K10…::node:…")
    refused(secrets.get_secret_value, SecretId="shop/k3s/join-token")
    refused(secrets.put_secret_value, SecretId="shop/authority", SecretBinary=b"other")


def test_an_alarm_goes_off_and_is_told(deployed, server):
    own = deployed["default"]
    sqs = server.client("sqs")
    queue = sqs.create_queue(QueueName="on-call")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:on-call"
    allow = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
    sqs.set_queue_attributes(
        QueueUrl=queue, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allow]})}
    )
    server.client("sns").subscribe(TopicArn=own.outputs["TopicArn"], Protocol="sqs", Endpoint=arn)
    server.client("cloudwatch").put_metric_data(
        Namespace="SmartScale",
        MetricData=[
            {
                "MetricName": "ScalingFailures",
                "Dimensions": [{"Name": "ClusterId", "Value": "k3s-demo"}],
                "Value": 3,
                "Unit": "Count",
            }
        ],
    )
    told, deadline = [], time.monotonic() + 60
    while ("k3s-demo-ScalingFailure", "ALARM") not in told and time.monotonic() < deadline:
        for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
            alarm = json.loads(json.loads(message["Body"])["Message"])
            told.append((alarm["AlarmName"], alarm["NewStateValue"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert ("k3s-demo-ScalingFailure", "ALARM") in told
