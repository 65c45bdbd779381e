"""Roles, with the statements of packaging/iam."""

import json
from types import SimpleNamespace

import pulumi
import pulumi_aws as aws

from settings import Settings


def trusting(service: str) -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
            ],
        }
    )


def worker(given: Settings, kept: SimpleNamespace) -> SimpleNamespace:
    role = aws.iam.Role(
        "WorkerRole",
        description="Workers of a SmartScale cluster",
        assume_role_policy=trusting("ec2.amazonaws.com"),
    )
    if given.shared_tokens:
        attach("WorkerRole", role, given, "worker", **secrets(kept))
    return SimpleNamespace(role=role, profile=aws.iam.InstanceProfile("WorkerProfile", role=role.name))


def server(given: Settings, net, kept, told, worker: SimpleNamespace) -> aws.iam.InstanceProfile:
    role = aws.iam.Role(
        "ServerRole",
        description="K3s server and coordinator of a SmartScale cluster",
        assume_role_policy=trusting("ec2.amazonaws.com"),
    )
    attach(
        "ServerRole",
        role,
        given,
        "coordinator",
        SubnetA=net.subnet_a,
        SubnetB=net.subnet_b,
        MemberGroup=net.members,
        NodeGroup=net.nodes,
        WorkerRole__Arn=worker.role.arn,
        Table__Arn=kept.table.arn,
        Topic=told.topic.arn,
        Notices__Arn=told.notices.arn,
        DecisionLog__Arn=pulumi.Output.concat(kept.decisions.arn, ":*"),
    )
    attach("ServerRole", role, given, "server")
    if given.authorityKey:
        attach("ServerRole", role, given, "coordinator-sealed-authority")
    if given.shared_tokens:
        attach("ServerRole", role, given, "server-join-token", **secrets(kept))
    if given.standby_wanted:
        attach("ServerRole", role, given, "coordinator-standby", StandbySecret__Id=kept.standby.arn)
    if given.shell == "session-manager":
        attach("ServerRole", role, given, "server-shell")
    return aws.iam.InstanceProfile("ServerProfile", role=role.name)


def secrets(kept: SimpleNamespace) -> dict:
    return {"JoinToken__Id": kept.join_token.arn, "ServerAddressSecret__Id": kept.address.arn}


def attach(name: str, role: aws.iam.Role, given: Settings, document: str, **values):
    aws.iam.RolePolicy(
        f"{name}-{document}",
        role=role.name,
        name=document,
        policy=given.filled(f"iam/{document}.json", **values),
    )
