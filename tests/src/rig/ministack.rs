//! ministack: Secrets Manager, SNS, SQS, CloudWatch and its Logs, KMS and STS behind one port. Signatures are verified and IAM policies
//! enforced (`AUTH=true`); the root key may do everything.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_config::SdkConfig;

use super::aws::{ACCOUNT, Key, REGION};
use super::process::{Process, Program};
use super::{Folder, aws, cache, http, port, process};

/// A ministack of the test's own.
#[derive(Debug)]
pub struct Ministack {
    process: Process,
    address: SocketAddr,
}

/// An SNS topic with a queue that gets all its messages.
#[derive(Debug, Clone)]
pub struct Topic {
    /// The topic's ARN.
    pub arn: String,
    queue_url: String,
}

impl Ministack {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not come up within 60 s.
    pub async fn start(folder: &Folder) -> anyhow::Result<Self> {
        let program = cache::installed("venv/bin/ministack")?;
        let home = folder.sub("ministack")?;
        let root = Key::root();
        let attempt = || {
            let address = port::free()?;
            let program = Program::new("ministack", &program)
                .env("GATEWAY_PORT", address.port().to_string())
                .env("BIND_HOST", "127.0.0.1")
                .env("MINISTACK_HOST", "127.0.0.1")
                .env("MINISTACK_ACCOUNT_ID", ACCOUNT)
                .env("MINISTACK_REGION", REGION)
                .env("AUTH", "true")
                .env("AWS_ACCESS_KEY_ID", &root.id)
                .env("AWS_SECRET_ACCESS_KEY", &root.secret)
                .env("TMPDIR", &home)
                .env("HOME", &home)
                // Listeners beside the gateway, on ports of their own.
                .env("SFTP_ENABLED", "0")
                .env("IOT_MTLS_ENABLED", "0")
                .folder(&home);
            Ok((program, address))
        };
        let ready = async |address| {
            Ok(http::get(&format!("http://{address}/_ministack/health"))
                .await?
                .status
                .is_success())
        };
        let (process, address) = process::start(folder, Duration::from_secs(60), attempt, ready).await?;
        Ok(Self { process, address })
    }

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An SDK configuration with the given key.
    pub async fn config(&self, key: &Key) -> SdkConfig {
        aws::config(&self.url(), key).await
    }

    /// The process, to pause it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Creates a secret with a string value.
    ///
    /// # Errors
    /// Secrets Manager refused.
    pub async fn create_secret(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let client = aws_sdk_secretsmanager::Client::new(&self.config(&Key::root()).await);
        client
            .create_secret()
            .name(name)
            .secret_string(value)
            .send()
            .await
            .with_context(|| format!("create secret {name}"))?;
        Ok(())
    }

    /// Creates a symmetric key of KMS, and gives its ARN.
    ///
    /// # Errors
    /// KMS refused.
    pub async fn create_kms_key(&self) -> anyhow::Result<String> {
        let client = aws_sdk_kms::Client::new(&self.config(&Key::root()).await);
        let created = client.create_key().send().await.context("create a key of KMS")?;
        let metadata = created.key_metadata().context("a key without metadata")?;
        Ok(metadata.arn().context("a key without ARN")?.to_owned())
    }

    /// Creates a queue, and gives its URL.
    ///
    /// # Errors
    /// SQS refused.
    pub async fn create_queue(&self, name: &str) -> anyhow::Result<String> {
        let sqs = aws_sdk_sqs::Client::new(&self.config(&Key::root()).await);
        let queue = sqs
            .create_queue()
            .queue_name(name)
            .send()
            .await
            .with_context(|| format!("create queue {name}"))?;
        Ok(queue.queue_url().context("a queue without URL")?.to_owned())
    }

    /// Sends a message to a queue.
    ///
    /// # Errors
    /// SQS refused.
    pub async fn send_message(&self, queue_url: &str, body: &str) -> anyhow::Result<()> {
        let sqs = aws_sdk_sqs::Client::new(&self.config(&Key::root()).await);
        sqs.send_message()
            .queue_url(queue_url)
            .message_body(body)
            .send()
            .await
            .context("send a message")?;
        Ok(())
    }

    /// How many messages a queue has, those included that somebody has received and not deleted.
    ///
    /// # Errors
    /// SQS refused.
    pub async fn messages_in(&self, queue_url: &str) -> anyhow::Result<u32> {
        use aws_sdk_sqs::types::QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesNotVisible as Hidden,
        };
        let sqs = aws_sdk_sqs::Client::new(&self.config(&Key::root()).await);
        let answer = sqs
            .get_queue_attributes()
            .queue_url(queue_url)
            .attribute_names(Visible)
            .attribute_names(Hidden)
            .send()
            .await
            .context("ask for a queue's attributes")?;
        let attributes = answer.attributes().context("a queue without attributes")?;
        let mut all = 0;
        for name in [Visible, Hidden] {
            let value = attributes.get(&name).with_context(|| format!("no {name}"))?;
            all += value.parse::<u32>().with_context(|| format!("{name}"))?;
        }
        Ok(all)
    }

    /// Creates a topic and a queue subscribed to it (raw delivery).
    ///
    /// # Errors
    /// SNS or SQS refused.
    pub async fn create_topic(&self, name: &str) -> anyhow::Result<Topic> {
        let config = self.config(&Key::root()).await;
        let sns = aws_sdk_sns::Client::new(&config);
        let sqs = aws_sdk_sqs::Client::new(&config);
        let arn = sns
            .create_topic()
            .name(name)
            .send()
            .await
            .context("create topic")?;
        let arn = arn.topic_arn().context("a topic without ARN")?.to_owned();
        let queue = sqs
            .create_queue()
            .queue_name(name)
            .send()
            .await
            .context("create queue")?;
        let queue_url = queue.queue_url().context("a queue without URL")?.to_owned();
        let queue_arn = format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}");
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {"Service": "sns.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": arn}},
            }],
        });
        sqs.set_queue_attributes()
            .queue_url(&queue_url)
            .attributes(aws_sdk_sqs::types::QueueAttributeName::Policy, policy.to_string())
            .send()
            .await
            .context("let the topic send to the queue")?;
        sns.subscribe()
            .topic_arn(&arn)
            .protocol("sqs")
            .endpoint(&queue_arn)
            .attributes("RawMessageDelivery", "true")
            .send()
            .await
            .context("subscribe the queue")?;
        Ok(Topic { arn, queue_url })
    }

    /// Takes the messages that have arrived at the topic's queue (at most 10), each once.
    ///
    /// # Errors
    /// SQS refused.
    pub async fn take_messages(&self, topic: &Topic) -> anyhow::Result<Vec<String>> {
        let sqs = aws_sdk_sqs::Client::new(&self.config(&Key::root()).await);
        let received = sqs
            .receive_message()
            .queue_url(&topic.queue_url)
            .max_number_of_messages(10)
            .send()
            .await
            .context("receive messages")?;
        let mut bodies = Vec::new();
        for message in received.messages() {
            bodies.push(message.body().unwrap_or_default().to_owned());
            if let Some(receipt) = message.receipt_handle() {
                sqs.delete_message()
                    .queue_url(&topic.queue_url)
                    .receipt_handle(receipt)
                    .send()
                    .await
                    .context("delete the message")?;
            }
        }
        Ok(bodies)
    }

    /// Creates a log group.
    ///
    /// # Errors
    /// CloudWatch Logs refused.
    pub async fn create_log_group(&self, name: &str) -> anyhow::Result<()> {
        let client = aws_sdk_cloudwatchlogs::Client::new(&self.config(&Key::root()).await);
        client
            .create_log_group()
            .log_group_name(name)
            .send()
            .await
            .with_context(|| format!("create log group {name}"))?;
        Ok(())
    }

    /// What a stream of a log group says, line by line.
    ///
    /// # Errors
    /// CloudWatch Logs refused, or there is no such stream.
    pub async fn logged(&self, group: &str, stream: &str) -> anyhow::Result<Vec<String>> {
        let client = aws_sdk_cloudwatchlogs::Client::new(&self.config(&Key::root()).await);
        let answer = client
            .get_log_events()
            .log_group_name(group)
            .log_stream_name(stream)
            .start_from_head(true)
            .send()
            .await
            .with_context(|| format!("read {stream} of {group}"))?;
        let lines = answer.events().iter().map(|event| event.message());
        Ok(lines.map(|line| line.unwrap_or_default().to_owned()).collect())
    }

    /// Creates a role that EC2 may hand to instances, with an inline policy (IAM JSON).
    ///
    /// # Errors
    /// IAM refused.
    pub async fn create_instance_role(&self, role: &str, policy: &serde_json::Value) -> anyhow::Result<()> {
        let trust = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
                // What EC2 does inside AWS, the rig does with the root key.
                {"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")}, "Action": "sts:AssumeRole"},
            ],
        });
        let output = tokio::process::Command::new(cache::installed("venv/bin/python")?)
            .arg(cache::source("ministack/create_role.py"))
            .args([&self.url(), role, &trust.to_string(), &policy.to_string()])
            .envs(Key::root().environment())
            .output()
            .await
            .context("run create_role.py")?;
        if !output.status.success() {
            bail!("create role {role}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The credentials that an instance gets from its profile: a session of `role` named after the instance, so that
    /// `GetCallerIdentity` answers `arn:aws:sts::ACCOUNT:assumed-role/ROLE/i-…` as on EC2.
    ///
    /// # Errors
    /// STS refused.
    pub async fn instance_key(&self, role: &str, instance: &str) -> anyhow::Result<Key> {
        instance_key(&self.url(), role, instance).await
    }
}

/// [`Ministack::instance_key`] of the ministack at `url`.
///
/// # Errors
/// STS refused.
pub(super) async fn instance_key(url: &str, role: &str, instance: &str) -> anyhow::Result<Key> {
    let sts = aws_sdk_sts::Client::new(&aws::config(url, &Key::root()).await);
    let assumed = sts
        .assume_role()
        .role_arn(format!("arn:aws:iam::{ACCOUNT}:role/{role}"))
        .role_session_name(instance)
        .send()
        .await
        .with_context(|| format!("assume role {role} as {instance}"))?;
    let key = assumed
        .credentials()
        .context("STS answered without credentials")?;
    Ok(Key {
        id: key.access_key_id().to_owned(),
        secret: key.secret_access_key().to_owned(),
        token: Some(key.session_token().to_owned()),
    })
}
