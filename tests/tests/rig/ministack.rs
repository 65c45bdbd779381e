//! Secrets Manager, SNS → SQS, CloudWatch, STS.

use std::time::Duration;

use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, Statistic};
use serde_json::json;
use smartscale_tests::rig::aws::{ACCOUNT, Key, REGION};
use smartscale_tests::rig::{Folder, Ministack, wait};

#[tokio::test(flavor = "multi_thread")]
async fn a_role_session_reads_its_secret_and_no_other_and_is_named_after_the_instance() {
    let folder = Folder::new("ministack-role").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    server
        .create_secret("k3s/join-token", "K10abc::node:secret")
        .await
        .unwrap();
    server.create_secret("other", "no").await.unwrap();
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:k3s/*"),
        }],
    });
    server.create_instance_role("worker", &policy).await.unwrap();
    let key = server.instance_key("worker", "i-0abc").await.unwrap();
    let config = server.config(&key).await;

    let identity = aws_sdk_sts::Client::new(&config)
        .get_caller_identity()
        .send()
        .await
        .unwrap();
    assert_eq!(
        identity.arn(),
        Some(&*format!("arn:aws:sts::{ACCOUNT}:assumed-role/worker/i-0abc"))
    );

    let secrets = aws_sdk_secretsmanager::Client::new(&config);
    let secret = secrets
        .get_secret_value()
        .secret_id("k3s/join-token")
        .send()
        .await
        .unwrap();
    assert_eq!(secret.secret_string(), Some("K10abc::node:secret"));
    assert!(
        secrets
            .get_secret_value()
            .secret_id("other")
            .send()
            .await
            .is_err()
    );

    let mut forged = key;
    forged.secret.push('x');
    let sts = aws_sdk_sts::Client::new(&server.config(&forged).await);
    assert!(sts.get_caller_identity().send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_message_arrives_in_the_queue_and_a_metric_can_be_read_back() {
    let folder = Folder::new("ministack").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let config = server.config(&Key::root()).await;

    let topic = server.create_topic("smartscale").await.unwrap();
    let sns = aws_sdk_sns::Client::new(&config);
    sns.publish()
        .topic_arn(&topic.arn)
        .message("scaled up")
        .send()
        .await
        .unwrap();
    wait::until_true("the message", Duration::from_secs(20), || async {
        Ok(server.take_messages(&topic).await? == ["scaled up"])
    })
    .await
    .unwrap();

    let cloudwatch = aws_sdk_cloudwatch::Client::new(&config);
    let dimension = Dimension::builder().name("ClusterId").value("c").build();
    let datum = MetricDatum::builder()
        .metric_name("CurrentNodeCount")
        .dimensions(dimension.clone())
        .unit(StandardUnit::Count)
        .value(3.0)
        .build();
    cloudwatch
        .put_metric_data()
        .namespace("SmartScale")
        .metric_data(datum)
        .send()
        .await
        .unwrap();
    let now = jiff::Timestamp::now().as_second();
    let read = cloudwatch
        .get_metric_statistics()
        .namespace("SmartScale")
        .metric_name("CurrentNodeCount")
        .dimensions(dimension)
        .start_time(DateTime::from_secs(now - 600))
        .end_time(DateTime::from_secs(now + 600))
        .period(60)
        .statistics(Statistic::Maximum)
        .send()
        .await
        .unwrap();
    assert_eq!(
        read.datapoints()
            .iter()
            .filter_map(aws_sdk_cloudwatch::types::Datapoint::maximum)
            .collect::<Vec<_>>(),
        [3.0]
    );
}
