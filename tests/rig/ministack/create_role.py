"""Creates a role with a trust policy and an inline policy.

usage: create_role.py ENDPOINT ROLE TRUST POLICY     (key and region from the environment, policies as JSON)

A script, since the Rust SDK for IAM takes minutes to compile and this is all that the rig asks of it.
"""

import sys

import boto3

endpoint, role, trust, policy = sys.argv[1:]
iam = boto3.client("iam", endpoint_url=endpoint)
iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
iam.put_role_policy(RoleName=role, PolicyName="inline", PolicyDocument=policy)
