"""The network, and who may reach whom in it. Nothing from outside gets in."""

from types import SimpleNamespace

import pulumi
import pulumi_aws as aws

from settings import Settings

EVERYWHERE = {"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"], "description": "Everywhere"}


def make(given: Settings) -> SimpleNamespace:
    if given.new_network:
        # Machines have public addresses, since a NAT gateway is billed by the hour.
        vpc = aws.ec2.Vpc(
            "Network",
            cidr_block=given.vpcCidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=given.named(),
        )
        gateway = aws.ec2.InternetGateway("Gateway", tags=given.named())
        attached = aws.ec2.InternetGatewayAttachment(
            "GatewayAttachment", vpc_id=vpc.id, internet_gateway_id=gateway.id
        )
        routes = aws.ec2.RouteTable("Routes", vpc_id=vpc.id, tags=given.named())
        aws.ec2.Route(
            "RouteOut",
            route_table_id=routes.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=pulumi.ResourceOptions(depends_on=[attached]),
        )
        subnets = []
        for letter, cidr, zone in [
            ("A", given.subnetACidr, given.zoneA),
            ("B", given.subnetBCidr, given.zoneB),
        ]:
            subnet = aws.ec2.Subnet(
                f"NewSubnet{letter}",
                vpc_id=vpc.id,
                cidr_block=cidr,
                availability_zone=zone,
                map_public_ip_on_launch=True,
                tags=given.named(f"-{letter.lower()}"),
            )
            aws.ec2.RouteTableAssociation(
                f"RoutesOfSubnet{letter}", subnet_id=subnet.id, route_table_id=routes.id
            )
            subnets.append(subnet.id)
        vpc_id = vpc.id
    else:
        vpc_id, subnets = given.vpc, [given.subnetA, given.subnetB]

    # Who is inside: every machine of the cluster bears this group, which opens nothing.
    members = aws.ec2.SecurityGroup(
        "MemberGroup",
        description="Machines of the cluster",
        vpc_id=vpc_id,
        egress=[EVERYWHERE],
        tags=given.named("-members"),
    )

    def opened(protocol: str, port: int, description: str) -> dict:
        return {
            "protocol": protocol,
            "from_port": port,
            "to_port": port,
            "security_groups": [members.id],
            "description": description,
        }

    nodes = aws.ec2.SecurityGroup(
        "NodeGroup",
        description="What members may reach on every node",
        vpc_id=vpc_id,
        ingress=[
            opened("udp", 8472, "Pods of other nodes (flannel VXLAN)"),
            opened("tcp", 10250, "kubelet"),
            opened("tcp", 9100, "node-exporter"),
            opened("tcp", 30090, "Prometheus"),
        ],
        egress=[EVERYWHERE],
        tags=given.named("-nodes"),
    )
    server = aws.ec2.SecurityGroup(
        "ServerGroup",
        description="What members may reach on the server",
        vpc_id=vpc_id,
        ingress=[opened("tcp", 6443, "Kubernetes"), opened("tcp", 7443, "Coordinator")],
        egress=[EVERYWHERE],
        tags=given.named("-server"),
    )
    return SimpleNamespace(
        subnet_a=subnets[0], subnet_b=subnets[1], members=members.id, nodes=nodes.id, server=server.id
    )
