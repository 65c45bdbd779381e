"""Parameters under which the stack is looked at, in both of its forms."""

NEEDED = {
    "CaFingerprint": "sha256:" + "0123456789abcdef" * 4,
    "ServerImage": "ami-0aaaaaaaaaaaaaaa1",
    "K3sVersion": "v1.36.3+k3s1",
}

# Everything by default.
DEFAULT = NEEDED

# Every choice the other way.
OTHER = NEEDED | {
    "ClusterId": "shop",
    "Mode": "observe",
    "MinNodes": "3",
    "MaxNodes": "30",
    "WorkerTypes": "t3.small,t3a.small",
    "SpotSharePercent": "70",
    "JoinTokens": "shared",
    "TrustDomain": "example.org",
    "AuthoritySecret": "shop/authority",
    "AuthorityKey": "arn:aws:kms:eu-west-1:123456789012:key/0aaaaaaa-0000-0000-0000-000000000001",
    "SecretPrefix": "shop/k3s",
    "Standby": "yes",
    "StandbyType": "t3.small",
    "StandbyAddress": "172.31.16.10",
    "ServerType": "t3.large",
    "ServerRootDevice": "/dev/xvda",
    "ServerVolume": "50",
    "WorkerImage": "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
    "WorkerRootDevice": "/dev/xvda",
    "WorkerVolume": "40",
    "CoordinatorPackage": "https://packages.example.org/smartscale-coordinator.rpm",
    "CoordinatorPackageSha256": "c" * 64,
    "AgentPackage": "https://packages.example.org/smartscale-agent.rpm",
    "AgentPackageSha256": "a" * 64,
    "Vpc": "vpc-0aaaaaaaaaaaaaaa1",
    "SubnetA": "subnet-0aaaaaaaaaaaaaaa1",
    "SubnetB": "subnet-0aaaaaaaaaaaaaaa2",
    "ZoneA": "eu-west-1b",
    "ZoneB": "eu-west-1c",
    "ServerAddress": "172.31.0.10",
    "Email": "on-call@example.org",
    "MetricsNamespace": "Shop",
    "DecisionLogDays": "7",
    "Shell": "none",
    "Trail": "no",
}

GIVEN = {"default": DEFAULT, "other": OTHER}

# A new network in zones of one's choice, with a second coordinator.
ZONES = NEEDED | {"ZoneA": "eu-west-1b", "ZoneB": "eu-west-1c", "Standby": "yes"}
