"""What is seen: dashboard, alarms, and the trail of calls."""

import pulumi
import pulumi_aws as aws

from rights import trusting
from settings import Settings


def make(given: Settings, told):
    aws.cloudwatch.Dashboard(
        "Dashboard",
        dashboard_name=f"smartscale-{given.clusterId}",
        dashboard_body=given.filled("cloudwatch/dashboard.json"),
    )
    at_least, above, below = "GreaterThanOrEqualToThreshold", "GreaterThanThreshold", "LessThanThreshold"
    quiet = "notBreaching"
    for name, description, metric, error, statistic, period, times, threshold, how, missing in [
        (
            "ScalingFailure",
            "Three launches or removals failed within a quarter of an hour.",
            *("ScalingFailures", None, "Sum", 900, 1, 3, at_least, quiet),
        ),
        (
            "ClusterCPUCritical",
            "The cluster's CPU is above 90 % for five minutes.",
            *("ClusterCPUUtilization", None, "Average", 60, 5, 90, above, "missing"),
        ),
        (
            "MaxCapacityReached",
            "The cluster has had its most nodes for ten minutes.",
            *("CurrentNodeCount", None, "Minimum", 60, 10, given.maxNodes, at_least, "missing"),
        ),
        (
            "NodeJoinFailure",
            "A machine was not Ready within five minutes, and is replaced.",
            *("ScalingFailures", "join_timeout", "Sum", 60, 1, 1, at_least, quiet),
        ),
        (
            "CoordinatorSilent",
            "No coordinator has decided anything for five minutes.",
            *("AutoscalerInvocations", None, "Sum", 60, 5, 1, below, "breaching"),
        ),
    ]:
        aws.cloudwatch.MetricAlarm(
            name,
            name=f"{given.clusterId}-{name}",
            alarm_description=description,
            namespace=given.metricsNamespace,
            metric_name=metric,
            dimensions={"ClusterId": given.clusterId, **({"ErrorType": error} if error else {})},
            statistic=statistic,
            period=period,
            evaluation_periods=times,
            threshold=threshold,
            comparison_operator=how,
            treat_missing_data=missing,
            alarm_actions=[told.topic.arn],
            ok_actions=[told.topic.arn],
        )


def trail(given: Settings):
    """Who did what: calls of AWS, in a bucket and for two weeks to search in."""
    name = f"smartscale-{given.clusterId}"
    bucket = aws.s3.Bucket("TrailBucket", opts=pulumi.ResourceOptions(retain_on_delete=True))
    aws.s3.BucketServerSideEncryptionConfiguration(
        "TrailBucketEncryption",
        bucket=bucket.bucket,
        rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
    )
    aws.s3.BucketPublicAccessBlock(
        "TrailBucketPrivacy",
        bucket=bucket.bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
    )
    aws.s3.BucketLifecycleConfiguration(
        "TrailBucketLife",
        bucket=bucket.bucket,
        rules=[{"id": "year", "status": "Enabled", "expiration": {"days": 365}}],
    )
    arn = f"arn:{given.partition}:cloudtrail:{given.region}:{given.account}:trail/{name}"
    by_trail = {"Principal": {"Service": "cloudtrail.amazonaws.com"}, "Condition": {"StringEquals": {"aws:SourceArn": arn}}}
    allowed = aws.s3.BucketPolicy(
        "TrailBucketPolicy",
        bucket=bucket.bucket,
        policy=pulumi.Output.json_dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Sid": "TrailLooks",
                        "Effect": "Allow",
                        "Action": "s3:GetBucketAcl",
                        "Resource": bucket.arn,
                        **by_trail,
                    },
                    {
                        "Sid": "TrailWrites",
                        "Effect": "Allow",
                        "Action": "s3:PutObject",
                        "Resource": pulumi.Output.concat(bucket.arn, f"/AWSLogs/{given.account}/*"),
                        **by_trail,
                    },
                    {
                        "Sid": "NobodyWithoutTls",
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "s3:*",
                        "Resource": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")],
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    },
                ],
            }
        ),
    )
    log = aws.cloudwatch.LogGroup(
        "TrailLog", name=f"/smartscale/{given.clusterId}/trail", retention_in_days=14
    )
    role = aws.iam.Role(
        "TrailRole",
        description="CloudTrail writes its log",
        assume_role_policy=trusting("cloudtrail.amazonaws.com"),
    )
    group = f"arn:{given.partition}:logs:{given.region}:{given.account}:log-group:/smartscale/{given.clusterId}/trail"
    aws.iam.RolePolicy(
        "TrailRole-write",
        role=role.name,
        name="write",
        policy=pulumi.Output.json_dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Sid": "WriteLog",
                        "Effect": "Allow",
                        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                        "Resource": f"{group}:log-stream:*",
                    }
                ],
            }
        ),
    )
    aws.cloudtrail.Trail(
        "CloudTrail",
        name=name,
        enable_logging=True,
        is_multi_region_trail=False,
        include_global_service_events=True,
        enable_log_file_validation=True,
        s3_bucket_name=bucket.bucket,
        cloud_watch_logs_group_arn=pulumi.Output.concat(log.arn, ":*"),
        cloud_watch_logs_role_arn=role.arn,
        opts=pulumi.ResourceOptions(depends_on=[allowed]),
    )
