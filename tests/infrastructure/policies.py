"""The policy documents of packaging/iam, filled in for a cluster of the tests' own."""

import json
import re
from pathlib import Path

IAM = Path(__file__).resolve().parents[2] / "packaging" / "iam"

ACCOUNT = "123456789012"
REGION = "eu-west-1"
CLUSTER = "demo"

VALUES = {
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "ClusterId": CLUSTER,
    "TrustDomain": "smartscale",
    "MetricsNamespace": "SmartScale",
    "AuthoritySecret": "smartscale/authority",
    "AuthorityKey": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0aaaaaaa-0000-0000-0000-000000000001",
    "SubnetA": "subnet-0aaaaaaaaaaaaaaa1",
    "SubnetB": "subnet-0aaaaaaaaaaaaaaa2",
    "MemberGroup": "sg-0aaaaaaaaaaaaaaa1",
    "NodeGroup": "sg-0aaaaaaaaaaaaaaa2",
    "WorkerRole.Arn": f"arn:aws:iam::{ACCOUNT}:role/demo-worker",
    "Table.Arn": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/smartscale-demo",
    "Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:smartscale-demo",
    "Notices.Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:smartscale-demo-notices",
    "DecisionLog.Arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/smartscale/{CLUSTER}/decisions:*",
    "StandbySecret.Id": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:smartscale/{CLUSTER}/standby-AbCdEf",
    "JoinToken.Id": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:k3s/join-token-AbCdEf",
    "ServerAddressSecret.Id": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:k3s/master-ip-AbCdEf",
}


def documents() -> dict:
    """Every document by its name, filled in. A placeholder without a value is a KeyError."""
    fill = lambda text: re.sub(r"\$\{([^}]+)\}", lambda match: VALUES[match[1]], text)
    return {path.stem: json.loads(fill(path.read_text())) for path in sorted(IAM.glob("*.json"))}


# Which documents each role has, at most. What is refused to a role is refused to all of its documents together.
ROLES = {
    "worker": ["worker"],
    "server": [
        "coordinator",
        "coordinator-sealed-authority",
        "coordinator-standby",
        "server",
        "server-join-token",
        "server-shell",
    ],
}
