"""The workers' launch template and the K3s server."""

from types import SimpleNamespace

import pulumi
import pulumi_aws as aws

from settings import Settings

# No container of a pod gets at the machine's credentials.
METADATA = {"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1}


def worker_template(given: Settings, net: SimpleNamespace, worker: SimpleNamespace) -> aws.ec2.LaunchTemplate:
    doors = [given.serverAddress, given.standbyAddress] if given.standby_wanted else [given.serverAddress]
    user_data = given.filled(
        "worker/user-data.yaml",
        SecretsFrom="store" if given.shared_tokens else "coordinator",
        Coordinators='", "'.join(f"{address}:7443" for address in doors),
    )
    return aws.ec2.LaunchTemplate(
        "WorkerTemplate",
        # The coordinator may launch from templates that bear its cluster's tag.
        tags={"smartscale.io/cluster": given.clusterId, "smartscale.io/pool": "workers"},
        image_id=aws.ssm.get_parameter(name=given.workerImage).value,
        iam_instance_profile={"arn": worker.profile.arn},
        vpc_security_group_ids=[net.members, net.nodes],
        metadata_options=METADATA,
        block_device_mappings=[
            {
                "device_name": given.workerRootDevice,
                "ebs": {
                    "volume_size": given.workerVolume,
                    "volume_type": "gp3",
                    "encrypted": "true",
                    "delete_on_termination": "true",
                },
            }
        ],
        user_data=pulumi.Output.from_input(user_data).apply(base64),
    )


def base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


def server(given: Settings, net, kept, told, template, profile) -> aws.ec2.Instance:
    address = given.serverAddress
    user_data = given.filled(
        "server/user-data.yaml",
        Table=kept.table.name,
        WorkerTemplate=template.id,
        SubnetA=net.subnet_a,
        SubnetB=net.subnet_b,
        WorkerTypes='", "'.join(given.workerTypes.split(",")),
        Peers=f'peers = {{ coordinator-b = "{given.standbyAddress}:7443" }}' if given.standby_wanted else "",
        JoinServer="" if given.shared_tokens else f'server = "https://{address}:6443"',
        Notices=told.notices.url,
        Topic=told.topic.arn,
        DecisionLog=kept.decisions.name,
    )
    return instance(
        "Server",
        given,
        instance_type=given.serverType,
        iam_instance_profile=profile.name,
        subnet_id=net.subnet_a,
        private_ip=address,
        vpc_security_group_ids=[net.members, net.nodes, net.server],
        # What K3s knows outlives the machine.
        root_block_device=disk(given, stays=True),
        tags=given.named("-server"),
        user_data=user_data,
    )


def standby(given: Settings, net, profile) -> aws.ec2.Instance:
    return instance(
        "StandbyServer",
        given,
        instance_type=given.standbyType,
        iam_instance_profile=profile.name,
        subnet_id=net.subnet_b,
        private_ip=given.standbyAddress,
        vpc_security_group_ids=[net.members, net.server],
        root_block_device=disk(given, stays=False),
        tags=given.named("-standby"),
        user_data=given.filled("server/standby-user-data.yaml"),
    )


def instance(name: str, given: Settings, **inputs) -> aws.ec2.Instance:
    return aws.ec2.Instance(
        name,
        ami=given.serverImage,
        metadata_options=METADATA,
        # Another image would replace the machine and all that it knows.
        opts=pulumi.ResourceOptions(ignore_changes=["ami", "userData"]),
        **inputs,
    )


def disk(given: Settings, stays: bool) -> dict:
    return {
        "volume_size": given.serverVolume,
        "volume_type": "gp3",
        "encrypted": True,
        "delete_on_termination": not stays,
    }
