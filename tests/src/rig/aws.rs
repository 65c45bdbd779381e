//! What the AWS stand-ins have in common: one region, one root key, SDK clients that speak plain HTTP to loopback, and
//! the environment that makes a program do the same.

use anyhow::Context as _;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};

/// The region of all stand-ins.
pub const REGION: &str = "us-east-1";

/// The account of all stand-ins.
pub const ACCOUNT: &str = "123456789012";

/// The queue of EC2's notices, where a test has one.
pub const NOTICES: &str = "notices";

/// A key pair, with the session token of a role's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
    /// Session token, for a role's session.
    pub token: Option<String>,
}

impl Key {
    /// The key that may do everything (and the one that the stand-ins take for the account's root).
    #[must_use]
    pub fn root() -> Self {
        Self {
            id: "AKIARIGROOT000000000".into(),
            secret: "rigrootsecret".into(),
            token: None,
        }
    }

    /// The key with which the rig itself speaks to EC2, which takes any.
    #[must_use]
    pub fn rig() -> Self {
        Self {
            id: "AKIARIGITSELF0000000".into(),
            ..Self::root()
        }
    }

    /// The variables that make an AWS SDK use this key in [`REGION`].
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![
            ("AWS_REGION".to_owned(), REGION.to_owned()),
            ("AWS_DEFAULT_REGION".to_owned(), REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID".to_owned(), self.id.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), self.secret.clone()),
        ];
        if let Some(token) = &self.token {
            environment.push(("AWS_SESSION_TOKEN".to_owned(), token.clone()));
        }
        environment
    }
}

/// What workers may do, as it is shipped, for the secrets of every cluster of the rig's account.
///
/// # Errors
/// The document is no JSON.
pub fn worker_policy() -> anyhow::Result<serde_json::Value> {
    let secret = |name: &str| format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:k3s/*/{name}-??????");
    let text = include_str!("../../../packaging/iam/worker.json")
        .replace("${JoinToken.Id}", &secret("join-token"))
        .replace("${ServerAddressSecret.Id}", &secret("master-ip"));
    serde_json::from_str(&text).context("packaging/iam/worker.json")
}

/// What coordinators may do, as it is shipped, with this topic, the queue [`NOTICES`], log groups below `/smartscale/`, and any key of
/// KMS.
///
/// Where ministack would refuse what AWS allows, it is told: it does not know the condition on the encryption context, nor
/// that the right to delete a message is one to delete a batch. It lets everybody use CloudWatch; EC2 and DynamoDB are other
/// servers here, which ask nobody's leave.
///
/// # Errors
/// A document is no JSON, or has no list of statements.
pub fn coordinator_policy(topic: &str) -> anyhow::Result<serde_json::Value> {
    let documents = [
        include_str!("../../../packaging/iam/coordinator.json"),
        include_str!("../../../packaging/iam/coordinator-sealed-authority.json"),
    ];
    let mut statements = Vec::new();
    for document in documents {
        let text = document
            .replace("${Topic}", topic)
            .replace(
                "${Notices.Arn}",
                &format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{NOTICES}"),
            )
            .replace(
                "${DecisionLog.Arn}",
                &format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/smartscale/*"),
            )
            .replace(
                "${AuthorityKey}",
                &format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/*"),
            );
        let mut document: serde_json::Value = serde_json::from_str(&text).context("packaging/iam")?;
        let list = document["Statement"]
            .as_array_mut()
            .context("a policy without statements")?;
        statements.append(list);
    }
    for statement in &mut statements {
        if statement["Sid"] == "OpenOwnAuthority" {
            statement["Condition"] = serde_json::json!({});
        }
        if let Some(actions) = statement["Action"].as_array_mut()
            && actions.iter().any(|action| action == "sqs:DeleteMessage")
        {
            actions.push("sqs:DeleteMessageBatch".into());
        }
    }
    Ok(serde_json::json!({"Version": "2012-10-17", "Statement": statements}))
}

/// An SDK configuration for the service at `endpoint` (`http://…`).
pub async fn config(endpoint: &str, key: &Key) -> SdkConfig {
    let mut credentials = Credentials::builder()
        .access_key_id(&key.id)
        .secret_access_key(&key.secret)
        .provider_name("rig");
    credentials.set_session_token(key.token.clone());
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::from_static(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials.build()))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .load()
        .await
}
