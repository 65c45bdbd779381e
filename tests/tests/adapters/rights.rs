//! What the shipped policy lets a coordinator do where the emulator enforces it: in SNS, SQS, KMS and Secrets Manager. (All
//! statements, conditions included, go through a simulator of IAM in `tests/infrastructure`.)

use std::fmt::Debug;

use smartscale_tests::rig::aws::{self, NOTICES, coordinator_policy};
use smartscale_tests::rig::{Folder, Ministack};

#[track_caller]
fn is_refused<T: Debug, E: Debug>(answer: Result<T, E>) {
    let error = format!("{:?}", answer.unwrap_err());
    assert!(
        error.contains("AccessDenied") || error.contains("AuthorizationError"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_tells_its_own_topic_hears_its_own_queue_and_reads_no_secret() {
    let folder = Folder::new("rights").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let own = server.create_topic("smartscale").await.unwrap();
    let other = server.create_topic("payroll").await.unwrap();
    let notices = server.create_queue(NOTICES).await.unwrap();
    let others = server.create_queue("payments").await.unwrap();
    server
        .create_secret("k3s/rig/join-token", "secret")
        .await
        .unwrap();
    let policy = coordinator_policy(&own.arn).unwrap();
    server.create_instance_role("coordinator", &policy).await.unwrap();
    let key = server.instance_key("coordinator", "i-1").await.unwrap();
    let config = aws::config(&server.url(), &key).await;

    let sns = aws_sdk_sns::Client::new(&config);
    let publish = |arn: &str| sns.publish().topic_arn(arn).message("hello").send();
    publish(&own.arn).await.unwrap();
    is_refused(publish(&other.arn).await);
    is_refused(sns.delete_topic().topic_arn(&own.arn).send().await);

    let sqs = aws_sdk_sqs::Client::new(&config);
    let receive = |url: &str| sqs.receive_message().queue_url(url).send();
    receive(&notices).await.unwrap();
    is_refused(receive(&others).await);
    is_refused(
        sqs.send_message()
            .queue_url(&notices)
            .message_body("{}")
            .send()
            .await,
    );

    let secrets = aws_sdk_secretsmanager::Client::new(&config);
    let token = secrets.get_secret_value().secret_id("k3s/rig/join-token");
    is_refused(token.send().await);
}
