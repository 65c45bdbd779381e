"""What each statement of packaging/iam allows, as the programs ask for it, and what it refuses.

Every refused request differs from an allowed one in one fact, so that it is refused for that fact alone.
"""

from dataclasses import dataclass, field, replace

from policies import ACCOUNT, CLUSTER, REGION, VALUES

EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
FOREIGN = "other"
TAG = "smartscale.io/cluster"


@dataclass(frozen=True)
class Request:
    action: str
    resource: str = "*"
    context: dict = field(default_factory=dict)

    def to(self, resource: str) -> "Request":
        return replace(self, resource=resource)

    def doing(self, action: str) -> "Request":
        return replace(self, action=action)

    def having(self, key: str, value) -> "Request":
        """With another value of a key of the context; None: without that key."""
        context = {name: old for name, old in self.context.items() if name != key}
        return replace(self, context=context if value is None else {**context, key: value})


@dataclass(frozen=True)
class Case:
    allowed: list
    refused: list


def each(actions: str, resource: str, context: dict | None = None) -> list:
    return [Request(action, resource, context or {}) for action in actions.split()]


FROM_TEMPLATE = {"ec2:LaunchTemplate": f"{EC2}:launch-template/lt-0aaaaaaaaaaaaaaa1"}
TAGGED = {f"aws:RequestTag/{TAG}": CLUSTER}
OURS = {f"aws:ResourceTag/{TAG}": CLUSTER}

look = Request("ec2:DescribeInstances", "*", {"ec2:Region": REGION})
template = Request("ec2:RunInstances", f"{EC2}:launch-template/lt-0aaaaaaaaaaaaaaa1", OURS)
asked = Request("ec2:CreateFleet", f"{EC2}:instance/*", TAGGED)
run = Request("ec2:RunInstances", f"{EC2}:instance/*", {**TAGGED, **FROM_TEMPLATE})
tags = Request(
    "ec2:CreateTags",
    f"{EC2}:instance/i-0aaaaaaaaaaaaaaa1",
    {
        **TAGGED,
        "ec2:CreateAction": "CreateFleet",
        "aws:TagKeys": [TAG, "smartscale.io/pool", "smartscale.io/operation", "Name"],
    },
)
terminate = Request("ec2:TerminateInstances", f"{EC2}:instance/i-0aaaaaaaaaaaaaaa1", OURS)
hand_on = Request("iam:PassRole", VALUES["WorkerRole.Arn"], {"iam:PassedToService": "ec2.amazonaws.com"})
keep = Request("dynamodb:UpdateItem", VALUES["Table.Arn"], {"dynamodb:LeadingKeys": [CLUSTER]})
tell = Request("sns:Publish", VALUES["Topic"])
hear = Request("sqs:ReceiveMessage", VALUES["Notices.Arn"])
put = Request("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "SmartScale"})
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
DECISIONS = f"{LOGS}:/smartscale/{CLUSTER}/decisions"
log = Request("logs:PutLogEvents", f"{DECISIONS}:log-stream:{CLUSTER}/coordinator-a")
unseal = Request(
    "kms:Decrypt",
    VALUES["AuthorityKey"],
    {
        "kms:EncryptionContext:smartscale:cluster": CLUSTER,
        "kms:EncryptionContext:smartscale:trust": "smartscale",
    },
)
AUTHORITY = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:smartscale/authority-AbCdEf"
OTHER_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:payroll/database-AbCdEf"
read = Request("secretsmanager:GetSecretValue", VALUES["JoinToken.Id"])
authority = Request("secretsmanager:GetSecretValue", AUTHORITY)
standby = Request("secretsmanager:GetSecretValue", VALUES["StandbySecret.Id"])
store = Request("secretsmanager:PutSecretValue", VALUES["JoinToken.Id"])

# By document and statement.
CASES = {
    "worker": {
        "ReadJoinSecrets": Case(
            [read, read.to(VALUES["ServerAddressSecret.Id"])],
            [
                read.to(f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:k3s/server-token-AbCdEf"),
                read.to(AUTHORITY),
                read.to(OTHER_SECRET),
                read.doing("secretsmanager:PutSecretValue"),
            ],
        ),
    },
    "coordinator": {
        "LookAtEC2": Case(
            each(
                "ec2:DescribeInstances ec2:DescribeInstanceTypes ec2:DescribeInstanceTypeOfferings"
                " ec2:DescribeLaunchTemplates ec2:DescribeLaunchTemplateVersions ec2:DescribeSpotPriceHistory"
                " ec2:DescribeSubnets",
                "*",
                {"ec2:Region": REGION},
            ),
            [look.having("ec2:Region", "us-east-1"), look.doing("ec2:DescribeSnapshots")],
        ),
        "LookAtPrices": Case([Request("pricing:GetProducts")], [Request("pricing:DescribeServices")]),
        "LaunchFromOwnTemplates": Case(
            [template, template.doing("ec2:CreateFleet")],
            [
                template.having(f"aws:ResourceTag/{TAG}", FOREIGN),
                template.having(f"aws:ResourceTag/{TAG}", None),
                template.doing("ec2:CreateLaunchTemplateVersion"),
                template.to(f"arn:aws:ec2:{REGION}:999999999999:launch-template/lt-0aaaaaaaaaaaaaaa1"),
            ],
        ),
        "AskForOwnMachines": Case(
            [asked, asked.to(f"{EC2}:volume/*")],
            [
                asked.having(f"aws:RequestTag/{TAG}", FOREIGN),
                asked.having(f"aws:RequestTag/{TAG}", None),
                asked.to(f"{EC2}:placement-group/any").having(f"aws:RequestTag/{TAG}", None),
                asked.to(f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/*"),
            ],
        ),
        "RunOwnMachines": Case(
            [run, run.to(f"{EC2}:volume/*")],
            [
                run.having(f"aws:RequestTag/{TAG}", FOREIGN),
                run.having(f"aws:RequestTag/{TAG}", None),
                run.having("ec2:LaunchTemplate", None),
                run.having(
                    "ec2:LaunchTemplate",
                    f"arn:aws:ec2:{REGION}:999999999999:launch-template/lt-0aaaaaaaaaaaaaaa1",
                ),
                run.to(f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/*"),
            ],
        ),
        "AskInOwnSubnets": Case(
            [
                Request("ec2:CreateFleet", f"{EC2}:fleet/*"),
                Request("ec2:CreateFleet", f"arn:aws:ec2:{REGION}::image/ami-0aaaaaaaaaaaaaaa1"),
                Request("ec2:CreateFleet", f"{EC2}:subnet/{VALUES['SubnetA']}"),
                Request("ec2:CreateFleet", f"{EC2}:subnet/{VALUES['SubnetB']}"),
            ],
            [
                Request("ec2:CreateFleet", f"{EC2}:subnet/subnet-0bbbbbbbbbbbbbbb1"),
                Request("ec2:DeleteFleets", f"{EC2}:fleet/fleet-0aaaaaaaaaaaaaaa1"),
            ],
        ),
        "RunInOwnSubnets": Case(
            [
                Request("ec2:RunInstances", resource, FROM_TEMPLATE)
                for resource in [
                    f"arn:aws:ec2:{REGION}::image/ami-0aaaaaaaaaaaaaaa1",
                    f"arn:aws:ec2:{REGION}::snapshot/snap-0aaaaaaaaaaaaaaa1",
                    f"{EC2}:network-interface/*",
                    f"{EC2}:security-group/{VALUES['MemberGroup']}",
                    f"{EC2}:security-group/{VALUES['NodeGroup']}",
                    f"{EC2}:subnet/{VALUES['SubnetA']}",
                    f"{EC2}:subnet/{VALUES['SubnetB']}",
                ]
            ],
            [
                Request("ec2:RunInstances", f"{EC2}:subnet/subnet-0bbbbbbbbbbbbbbb1", FROM_TEMPLATE),
                Request("ec2:RunInstances", f"{EC2}:security-group/sg-0bbbbbbbbbbbbbbb1", FROM_TEMPLATE),
                Request("ec2:RunInstances", f"{EC2}:key-pair/mine", FROM_TEMPLATE),
                Request("ec2:RunInstances", f"{EC2}:subnet/{VALUES['SubnetA']}"),
                Request("ec2:RunInstances", f"arn:aws:ec2:{REGION}::image/ami-0aaaaaaaaaaaaaaa1"),
            ],
        ),
        "RunOnSpot": Case(
            [Request("ec2:RunInstances", f"{EC2}:spot-instances-request/*")],
            [
                Request("ec2:RunInstances", f"arn:aws:ec2:us-east-1:{ACCOUNT}:spot-instances-request/*"),
                Request("ec2:CancelSpotInstanceRequests", f"{EC2}:spot-instances-request/sir-aaaaaaaa"),
            ],
        ),
        "TagAtLaunch": Case(
            [
                tags,
                tags.having("ec2:CreateAction", "RunInstances"),
                tags.to(f"{EC2}:volume/vol-0aaaaaaaaaaaaaaa1"),
            ],
            [
                # A machine that is there already must not become ours, nor stop being ours.
                tags.having("ec2:CreateAction", None),
                tags.having("ec2:CreateAction", "CreateVolume"),
                tags.having(f"aws:RequestTag/{TAG}", FOREIGN),
                tags.having(f"aws:RequestTag/{TAG}", None),
                tags.having("aws:TagKeys", [TAG, "cost-centre"]),
                tags.to(f"{EC2}:launch-template/lt-0aaaaaaaaaaaaaaa1"),
                tags.doing("ec2:DeleteTags"),
            ],
        ),
        "TerminateOwnMachines": Case(
            [terminate],
            [
                terminate.having(f"aws:ResourceTag/{TAG}", FOREIGN),
                terminate.having(f"aws:ResourceTag/{TAG}", None),
                terminate.doing("ec2:StopInstances"),
                terminate.to(f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/i-0aaaaaaaaaaaaaaa1"),
            ],
        ),
        "PassWorkerRole": Case(
            [hand_on],
            [
                hand_on.to(f"arn:aws:iam::{ACCOUNT}:role/admin"),
                hand_on.to(f"arn:aws:iam::{ACCOUNT}:role/demo-server"),
                hand_on.having("iam:PassedToService", "lambda.amazonaws.com"),
                hand_on.having("iam:PassedToService", None),
            ],
        ),
        "KeepOwnState": Case(
            each(
                "dynamodb:ConditionCheckItem dynamodb:DeleteItem dynamodb:GetItem dynamodb:Query dynamodb:UpdateItem",
                VALUES["Table.Arn"],
                {"dynamodb:LeadingKeys": [CLUSTER]},
            ),
            [
                keep.having("dynamodb:LeadingKeys", [FOREIGN]),
                keep.having("dynamodb:LeadingKeys", [CLUSTER, FOREIGN]),
                keep.having("dynamodb:LeadingKeys", None),
                keep.to(f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/payroll"),
                Request("dynamodb:Scan", VALUES["Table.Arn"]),
                Request("dynamodb:DeleteTable", VALUES["Table.Arn"]),
            ],
        ),
        "TellOwnTopic": Case(
            [tell, tell.doing("sns:GetTopicAttributes")],
            [tell.to(f"arn:aws:sns:{REGION}:{ACCOUNT}:alerts"), tell.doing("sns:Subscribe")],
        ),
        "HearOwnQueue": Case(
            [hear, hear.doing("sqs:DeleteMessage"), hear.doing("sqs:GetQueueAttributes")],
            [
                hear.to(f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders"),
                hear.doing("sqs:SendMessage"),
                hear.doing("sqs:PurgeQueue"),
            ],
        ),
        "PutOwnMetrics": Case(
            [put],
            [
                put.having("cloudwatch:namespace", "AWS/EC2"),
                put.having("cloudwatch:namespace", None),
                Request("cloudwatch:DeleteAlarms", f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:any"),
            ],
        ),
        "LogOwnDecisions": Case(
            [log, *each("logs:CreateLogStream logs:DescribeLogStreams", f"{DECISIONS}:*")],
            [
                log.to(f"{LOGS}:/smartscale/{CLUSTER}/trail:log-stream:any"),
                log.to(f"{LOGS}:/smartscale/{FOREIGN}/decisions:log-stream:any"),
                Request("logs:CreateLogStream", f"{LOGS}:/smartscale/{CLUSTER}/trail:*"),
                # What was decided is not to be read, taken back or kept for less long by whoever took the coordinator over.
                log.doing("logs:GetLogEvents"),
                log.doing("logs:DeleteLogStream"),
                Request("logs:DeleteLogGroup", f"{DECISIONS}:*"),
                Request("logs:PutRetentionPolicy", f"{DECISIONS}:*"),
                Request("logs:CreateLogGroup", f"{DECISIONS}:*"),
            ],
        ),
    },
    "coordinator-sealed-authority": {
        "OpenOwnAuthority": Case(
            [unseal],
            [
                unseal.having("kms:EncryptionContext:smartscale:cluster", FOREIGN),
                unseal.having("kms:EncryptionContext:smartscale:cluster", None),
                unseal.having("kms:EncryptionContext:smartscale:trust", FOREIGN),
                unseal.to(f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0bbbbbbb-0000-0000-0000-000000000001"),
                unseal.doing("kms:Encrypt"),
            ],
        ),
    },
    "coordinator-standby": {
        "HandOverToStandby": Case(
            [standby, standby.doing("secretsmanager:PutSecretValue")],
            [
                standby.to(VALUES["StandbySecret.Id"].replace("standby", "other")),
                standby.to(OTHER_SECRET),
                standby.doing("secretsmanager:DeleteSecret"),
            ],
        ),
    },
    "server": {
        "ReadAuthority": Case(
            [authority],
            [
                authority.to(OTHER_SECRET),
                authority.to(AUTHORITY.replace("authority", "authority-of-another")),
                authority.to(VALUES["JoinToken.Id"]),
                authority.doing("secretsmanager:PutSecretValue"),
            ],
        ),
    },
    "server-join-token": {
        "StoreJoinToken": Case(
            [store],
            [store.to(VALUES["ServerAddressSecret.Id"]), store.to(AUTHORITY), store.doing("secretsmanager:DeleteSecret")],
        ),
    },
    "server-shell": {
        "OfferShell": Case(
            each(
                "ssm:UpdateInstanceInformation ssmmessages:CreateControlChannel ssmmessages:CreateDataChannel"
                " ssmmessages:OpenControlChannel ssmmessages:OpenDataChannel",
                "*",
            ),
            [
                Request("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/any"),
                Request("ssm:SendCommand", f"{EC2}:instance/i-0aaaaaaaaaaaaaaa1"),
            ],
        ),
    },
}
