"""What packaging/pulumi makes of given parameters, in the words of CloudFormation.

Each resource has to give all that it says away: an input that is not translated here is an error, so that neither of the two
stacks can say something that the other one is not held against.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path

STACK = Path(__file__).resolve().parents[2] / "packaging" / "pulumi"
# The root device of an instance is for Pulumi that of its image, whatever its name.
NOT_IN_PULUMI = {"ServerRootDevice"}


def key(parameter: str) -> str:
    """The name in Pulumi.yaml of a parameter of the template."""
    return parameter[0].lower() + parameter[1:]


def run(parameters: dict) -> dict:
    given = {key(name): value for name, value in parameters.items() if name not in NOT_IN_PULUMI}
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("mocked.py")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


class Inputs:
    """The inputs of a resource, each of which is taken once."""

    def __init__(self, name: str, asked: dict):
        self.name, self.type = name, asked["type"].rsplit(":", 1)[1]
        self.left = dict(asked["inputs"])

    def take(self, name: str, default=None):
        return self.left.pop(name, default)

    def document(self, name: str) -> dict:
        return json.loads(self.take(name))

    def rest(self) -> dict:
        """What is called the same in CloudFormation but for its first letter."""
        rest, self.left = self.left, {}
        return {one[0].upper() + one[1:]: value for one, value in rest.items()}


def capitalised(value: dict) -> dict:
    return {one[0].upper() + one[1:]: inner for one, inner in value.items()}


def owner(token: str) -> str:
    """The resource that `<Table name>` is of."""
    return token.strip("<>").split(" ")[0]


def security_rule(rule: dict) -> dict:
    ports = {} if rule["protocol"] == "-1" else {"FromPort": rule["fromPort"], "ToPort": rule["toPort"]}
    sources = [("CidrIp", one) for one in rule.get("cidrBlocks", [])]
    sources += [("SourceSecurityGroupId", one) for one in rule.get("securityGroups", [])]
    known = {"protocol", "fromPort", "toPort", "cidrBlocks", "securityGroups", "description"}
    assert set(rule) <= known and len(sources) == 1, rule
    return {"IpProtocol": rule["protocol"], **ports, **dict(sources), "Description": rule["description"]}


def security_group(inputs: Inputs) -> dict:
    described = {"GroupDescription": inputs.take("description")}
    for mine, theirs in [("ingress", "SecurityGroupIngress"), ("egress", "SecurityGroupEgress")]:
        if rules := inputs.take(mine):
            described[theirs] = [security_rule(rule) for rule in rules]
    return described


def device(name: str, ebs: dict) -> dict:
    return {"DeviceName": name, "Ebs": capitalised(ebs)}


def launch_template(inputs: Inputs) -> dict:
    return {
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": inputs.take("tags")}],
        "LaunchTemplateData": {
            "ImageId": inputs.take("imageId"),
            "IamInstanceProfile": capitalised(inputs.take("iamInstanceProfile")),
            "SecurityGroupIds": inputs.take("vpcSecurityGroupIds"),
            "MetadataOptions": capitalised(inputs.take("metadataOptions")),
            "BlockDeviceMappings": [
                device(one["deviceName"], one["ebs"]) for one in inputs.take("blockDeviceMappings")
            ],
            "UserData": base64.b64decode(inputs.take("userData")).decode(),
        },
    }


def instance(inputs: Inputs) -> dict:
    return {
        "ImageId": inputs.take("ami"),
        "PrivateIpAddress": inputs.take("privateIp"),
        "SecurityGroupIds": inputs.take("vpcSecurityGroupIds"),
        "MetadataOptions": capitalised(inputs.take("metadataOptions")),
        "BlockDeviceMappings": [{"Ebs": capitalised(inputs.take("rootBlockDevice"))}],
    }


def table(inputs: Inputs) -> dict:
    return {
        "TableName": inputs.take("name"),
        "AttributeDefinitions": [
            {"AttributeName": one["name"], "AttributeType": one["type"]}
            for one in inputs.take("attributes")
        ],
        "KeySchema": [
            {"AttributeName": inputs.take("hashKey"), "KeyType": "HASH"},
            {"AttributeName": inputs.take("rangeKey"), "KeyType": "RANGE"},
        ],
        "TimeToLiveSpecification": capitalised(inputs.take("ttl")),
        "PointInTimeRecoverySpecification": {
            "PointInTimeRecoveryEnabled": inputs.take("pointInTimeRecovery")["enabled"]
        },
    }


def alarm(inputs: Inputs) -> dict:
    return {
        "AlarmName": inputs.take("name"),
        "OKActions": inputs.take("okActions"),
        "Dimensions": [{"Name": name, "Value": value} for name, value in sorted(inputs.take("dimensions").items())],
    }


def trail(inputs: Inputs) -> dict:
    return {
        "TrailName": inputs.take("name"),
        "IsLogging": inputs.take("enableLogging"),
        "CloudWatchLogsLogGroupArn": inputs.take("cloudWatchLogsGroupArn"),
        "CloudWatchLogsRoleArn": inputs.take("cloudWatchLogsRoleArn"),
    }


def renamed(**names):
    return lambda inputs: {theirs: inputs.take(mine) for mine, theirs in names.items() if mine in inputs.left}


# By the type of Pulumi: that of CloudFormation, and what is called otherwise there.
KINDS = {
    "Vpc": ("AWS::EC2::VPC", renamed()),
    "InternetGateway": ("AWS::EC2::InternetGateway", renamed()),
    "InternetGatewayAttachment": ("AWS::EC2::VPCGatewayAttachment", renamed()),
    "RouteTable": ("AWS::EC2::RouteTable", renamed()),
    "Route": ("AWS::EC2::Route", renamed()),
    "Subnet": ("AWS::EC2::Subnet", renamed()),
    "RouteTableAssociation": ("AWS::EC2::SubnetRouteTableAssociation", renamed()),
    "SecurityGroup": ("AWS::EC2::SecurityGroup", security_group),
    "LaunchTemplate": ("AWS::EC2::LaunchTemplate", launch_template),
    "Instance": ("AWS::EC2::Instance", instance),
    "Role": (
        "AWS::IAM::Role",
        lambda inputs: {"AssumeRolePolicyDocument": inputs.document("assumeRolePolicy")},
    ),
    "InstanceProfile": ("AWS::IAM::InstanceProfile", lambda inputs: {"Roles": [inputs.take("role")]}),
    "Table": ("AWS::DynamoDB::Table", table),
    "Secret": ("AWS::SecretsManager::Secret", renamed()),
    "Topic": ("AWS::SNS::Topic", renamed(name="TopicName")),
    "TopicPolicy": (
        "AWS::SNS::TopicPolicy",
        lambda inputs: {"Topics": [inputs.take("arn")], "PolicyDocument": inputs.document("policy")},
    ),
    "TopicSubscription": ("AWS::SNS::Subscription", renamed(topic="TopicArn")),
    "Queue": (
        "AWS::SQS::Queue",
        renamed(name="QueueName", messageRetentionSeconds="MessageRetentionPeriod"),
    ),
    "QueuePolicy": (
        "AWS::SQS::QueuePolicy",
        lambda inputs: {"Queues": [inputs.take("queueUrl")], "PolicyDocument": inputs.document("policy")},
    ),
    "EventRule": ("AWS::Events::Rule", lambda inputs: {"EventPattern": inputs.document("eventPattern")}),
    "Dashboard": (
        "AWS::CloudWatch::Dashboard",
        lambda inputs: {"DashboardBody": inputs.document("dashboardBody")},
    ),
    "MetricAlarm": ("AWS::CloudWatch::Alarm", alarm),
    "Bucket": ("AWS::S3::Bucket", renamed()),
    "BucketPolicy": (
        "AWS::S3::BucketPolicy",
        lambda inputs: {"PolicyDocument": inputs.document("policy")},
    ),
    "LogGroup": ("AWS::Logs::LogGroup", renamed(name="LogGroupName")),
    "Trail": ("AWS::CloudTrail::Trail", trail),
}


def role_policy(inputs: Inputs) -> tuple:
    policy = {"PolicyName": inputs.take("name"), "PolicyDocument": inputs.document("policy")}
    return owner(inputs.take("role")), lambda role: role.setdefault("Policies", []).append(policy)


def event_target(inputs: Inputs) -> tuple:
    target = {"Id": inputs.take("targetId"), "Arn": inputs.take("arn")}
    return owner(inputs.take("rule")), lambda rule: rule.setdefault("Targets", []).append(target)


def secret_version(inputs: Inputs) -> tuple:
    # Pulumi marks what is secret.
    value = {"SecretString": inputs.take("secretString")["value"]}
    return owner(inputs.take("secretId")), lambda secret: secret.update(value)


def bucket_encryption(inputs: Inputs) -> tuple:
    rules = [
        {"ServerSideEncryptionByDefault": {"SSEAlgorithm": one["applyServerSideEncryptionByDefault"]["sseAlgorithm"]}}
        for one in inputs.take("rules")
    ]
    value = {"BucketEncryption": {"ServerSideEncryptionConfiguration": rules}}
    return owner(inputs.take("bucket")), lambda bucket: bucket.update(value)


def bucket_privacy(inputs: Inputs) -> tuple:
    bucket_of = owner(inputs.take("bucket"))
    value = {"PublicAccessBlockConfiguration": inputs.rest()}
    return bucket_of, lambda bucket: bucket.update(value)


def bucket_life(inputs: Inputs) -> tuple:
    rules = [
        {"Id": one["id"], "Status": one["status"], "ExpirationInDays": one["expiration"]["days"]}
        for one in inputs.take("rules")
    ]
    value = {"LifecycleConfiguration": {"Rules": rules}}
    return owner(inputs.take("bucket")), lambda bucket: bucket.update(value)


# What is a resource for Pulumi and a property of another one for CloudFormation.
PARTS = {
    "RolePolicy": role_policy,
    "EventTarget": event_target,
    "SecretVersion": secret_version,
    "BucketServerSideEncryptionConfiguration": bucket_encryption,
    "BucketPublicAccessBlock": bucket_privacy,
    "BucketLifecycleConfiguration": bucket_life,
}


def resources(asked: dict) -> dict:
    """By the name of each resource: its type and properties, as CloudFormation has them."""
    whole, parts = {}, []
    for name, one in sorted(asked.items()):
        inputs = Inputs(name, one)
        if inputs.type in PARTS:
            parts.append(PARTS[inputs.type](inputs))
        else:
            kind, translated = KINDS[inputs.type]
            properties = translated(inputs)
            whole[name] = {"Type": kind, **properties, **inputs.rest()}
        assert not inputs.left, (name, inputs.left)
    for name, put in parts:
        put(whole[name])
    return whole
