"""What is kept (table, log of decisions, secrets), and how people and the coordinator are told (topic, queue with its rules)."""

import json
from types import SimpleNamespace

import pulumi
import pulumi_aws as aws

from settings import Settings


def make(given: Settings) -> SimpleNamespace:
    # It outlives the stack: without it a coordinator would not know which machines are its own.
    table = aws.dynamodb.Table(
        "Table",
        name=f"smartscale-{given.clusterId}",
        billing_mode="PAY_PER_REQUEST",
        attributes=[{"name": "cluster_id", "type": "S"}, {"name": "item", "type": "S"}],
        hash_key="cluster_id",
        range_key="item",
        ttl={"attribute_name": "expires_at", "enabled": True},
        point_in_time_recovery={"enabled": True},
        opts=pulumi.ResourceOptions(retain_on_delete=True),
    )
    decisions = aws.cloudwatch.LogGroup(
        "DecisionLog",
        name=f"/smartscale/{given.clusterId}/decisions",
        retention_in_days=given.decisionLogDays,
    )
    join_token = address = None
    if given.shared_tokens:
        # What workers join with. The server writes the token at its first boot.
        join_token = aws.secretsmanager.Secret(
            "JoinToken",
            name=f"{given.secretPrefix}/join-token",
            description="K3s' agent token, in its secure form",
        )
        address = aws.secretsmanager.Secret(
            "ServerAddressSecret",
            name=f"{given.secretPrefix}/master-ip",
            description="Address of the K3s server",
        )
        aws.secretsmanager.SecretVersion(
            "ServerAddressValue", secret_id=address.arn, secret_string=given.serverAddress
        )
    standby = None
    if given.standby_wanted:
        # What the second coordinator has of the first: configuration, policy, and the way into the cluster.
        standby = aws.secretsmanager.Secret(
            "StandbySecret",
            name=f"smartscale/{given.clusterId}/standby",
            description="Configuration of the second coordinator",
        )
    return SimpleNamespace(
        table=table, decisions=decisions, join_token=join_token, address=address, standby=standby
    )


def tell(given: Settings) -> SimpleNamespace:
    name = f"smartscale-{given.clusterId}"
    topic = aws.sns.Topic("Topic", name=name)
    aws.sns.TopicPolicy(
        "TopicPolicy",
        arn=topic.arn,
        policy=statement(
            "AlarmsOfThisAccount",
            "cloudwatch.amazonaws.com",
            "sns:Publish",
            topic.arn,
            {"StringEquals": {"aws:SourceAccount": given.account}},
        ),
    )
    if given.email:
        aws.sns.TopicSubscription("Mail", topic=topic.arn, protocol="email", endpoint=given.email)

    # What EC2 says of machines, to the coordinator (docs/notices.md).
    notices = aws.sqs.Queue(
        "Notices",
        name=f"{name}-notices",
        message_retention_seconds=3600,
        sqs_managed_sse_enabled=True,
    )
    rules = [
        rule(
            "MachineRule",
            "Spot interruptions, rebalance recommendations and changes of state, for SmartScale",
            {
                "source": ["aws.ec2"],
                "detail-type": [
                    "EC2 Spot Instance Interruption Warning",
                    "EC2 Instance Rebalance Recommendation",
                    "EC2 Instance State-change Notification",
                ],
            },
            notices,
        ),
        rule(
            "MaintenanceRule",
            "Scheduled maintenance of machines, for SmartScale",
            {
                "source": ["aws.health"],
                "detail-type": ["AWS Health Event"],
                "detail": {"service": ["EC2"], "eventTypeCategory": ["scheduledChange"]},
            },
            notices,
        ),
    ]
    aws.sqs.QueuePolicy(
        "NoticesPolicy",
        queue_url=notices.url,
        policy=statement(
            "RulesOfThisCluster",
            "events.amazonaws.com",
            "sqs:SendMessage",
            notices.arn,
            {"ArnEquals": {"aws:SourceArn": [one.arn for one in rules]}},
        ),
    )
    return SimpleNamespace(topic=topic, notices=notices)


def rule(name: str, description: str, pattern: dict, queue: aws.sqs.Queue) -> aws.cloudwatch.EventRule:
    made = aws.cloudwatch.EventRule(name, description=description, event_pattern=json.dumps(pattern))
    aws.cloudwatch.EventTarget(f"{name}Target", rule=made.name, target_id="notices", arn=queue.arn)
    return made


def statement(sid: str, service: str, action: str, resource, condition: dict) -> pulumi.Output[str]:
    return pulumi.Output.json_dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": sid,
                    "Effect": "Allow",
                    "Principal": {"Service": service},
                    "Action": action,
                    "Resource": resource,
                    "Condition": condition,
                }
            ],
        }
    )
