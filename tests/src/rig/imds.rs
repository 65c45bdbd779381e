//! An instance metadata service (IMDSv2 alone) for one instance, whose notices the test posts.
//!
//! As on EC2 with `HttpTokens=required`: a token comes by `PUT` and lasts as long as asked for, a `GET` without a valid
//! one is 401, a forwarded `PUT` is 403, a notice that was not given is 404.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::aws::{ACCOUNT, Key, REGION};

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
/// The longest life of a token, in seconds.
const LONGEST_TTL: u64 = 21_600;

/// What EC2 knows of the instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Such as `i-0123456789abcdef0`.
    pub id: String,
    /// Such as `m5.large`.
    pub instance_type: String,
    /// Such as `us-east-1a`.
    pub zone: String,
    /// Whether it is a spot instance.
    pub spot: bool,
    /// Its private address.
    pub private_ip: Ipv4Addr,
    /// Its image.
    pub image: String,
    /// Its user-data, plain.
    pub user_data: String,
    /// The role of its instance profile and a key of that role's session.
    pub role: Option<(String, Key)>,
    /// A key of its identity role, which EC2 gives to every instance.
    pub identity: Option<Key>,
    /// Tags, when the instance may read them.
    pub tags: BTreeMap<String, String>,
}

impl Instance {
    /// An on-demand `m5.large` in zone a, without role, user-data or tags.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            instance_type: "m5.large".into(),
            zone: format!("{REGION}a"),
            spot: false,
            private_ip: Ipv4Addr::new(10, 7, 0, 10),
            image: "ami-0123456789abcdef0".into(),
            user_data: String::new(),
            role: None,
            identity: None,
            tags: BTreeMap::new(),
        }
    }
}

/// The service of one instance. It ends when dropped.
#[derive(Debug)]
pub struct Imds {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    instance: Instance,
    tokens: BTreeMap<String, Instant>,
    /// Path and content of the notices that were given.
    notices: BTreeMap<&'static str, String>,
    maintenance: Vec<Value>,
    silent: bool,
    refused: u32,
}

impl Imds {
    /// Starts the service of `instance`.
    ///
    /// # Errors
    /// No port is left.
    pub async fn start(instance: Instance) -> anyhow::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared {
            instance,
            tokens: BTreeMap::new(),
            notices: BTreeMap::new(),
            maintenance: Vec::new(),
            silent: false,
            refused: 0,
        }));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("bind IMDS")?;
        let address = listener.local_addr().context("read IMDS' port")?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Accepting ends with the task; there is nobody to tell.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// `http://127.0.0.1:PORT`, for `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Gives the two minutes' notice of a spot interruption; `action` is `terminate`, `stop` or `hibernate`.
    pub fn interrupt(&self, action: &str, at: Timestamp) {
        let notice = json!({"action": action, "time": seconds(at)});
        let mut shared = self.lock();
        shared
            .notices
            .insert("/latest/meta-data/spot/instance-action", notice.to_string());
        if action == "terminate" {
            shared
                .notices
                .insert("/latest/meta-data/spot/termination-time", seconds(at));
        }
    }

    /// Gives a rebalance recommendation.
    pub fn recommend_rebalance(&self, at: Timestamp) {
        let notice = json!({"noticeTime": seconds(at)});
        self.lock().notices.insert(
            "/latest/meta-data/events/recommendations/rebalance",
            notice.to_string(),
        );
    }

    /// Announces maintenance; `code` is `instance-reboot`, `system-reboot`, `system-maintenance`,
    /// `instance-retirement` or `instance-stop`.
    pub fn announce_maintenance(&self, code: &str, not_before: Timestamp) {
        let mut shared = self.lock();
        let after = |hours: u64| {
            (not_before + Duration::from_secs(hours * 3600))
                .strftime("%-d %b %Y %H:%M:%S GMT")
                .to_string()
        };
        let event = json!({
            "NotBefore": after(0),
            "NotAfter": after(2),
            "NotBeforeDeadline": after(7 * 24),
            "Code": code,
            "Description": "scheduled by the rig",
            "EventId": format!("instance-event-{:017x}", shared.maintenance.len()),
            "State": "active",
        });
        shared.maintenance.push(event);
    }

    /// Takes all notices back.
    pub fn clear_notices(&self) {
        let mut shared = self.lock();
        shared.notices.clear();
        shared.maintenance.clear();
    }

    /// Answers everything with 503 until told otherwise.
    pub fn silence(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// Replaces the role's key, as EC2 does before it expires.
    pub fn rotate_key(&self, key: Key) {
        if let Some((_, current)) = &mut self.lock().instance.role {
            *current = key;
        }
    }

    /// Replaces the identity role's key.
    pub fn rotate_identity(&self, key: Key) {
        self.lock().instance.identity = Some(key);
    }

    /// How many requests came without a valid token: an agent that falls back to version 1 is found by this.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.lock().refused
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.silent {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if uri.path() == "/latest/api/token" {
        return match (method == Method::PUT, header("x-forwarded-for"), header(TTL)) {
            (false, _, _) => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
            (true, Some(_), _) => (StatusCode::FORBIDDEN, String::new()),
            (true, None, ttl) => shared.token(ttl),
        };
    }
    let now = Instant::now();
    let valid = header(TOKEN)
        .and_then(|token| shared.tokens.get(token))
        .is_some_and(|end| *end > now);
    if !valid {
        shared.refused += 1;
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    if method != Method::GET {
        return (StatusCode::METHOD_NOT_ALLOWED, String::new());
    }
    match shared.content(uri.path()) {
        Some(content) => (StatusCode::OK, content),
        None => (StatusCode::NOT_FOUND, String::new()),
    }
}

impl Shared {
    fn token(&mut self, ttl: Option<&str>) -> (StatusCode, String) {
        let Some(seconds) = ttl
            .and_then(|ttl| ttl.parse().ok())
            .filter(|ttl| (1..=LONGEST_TTL).contains(ttl))
        else {
            return (StatusCode::BAD_REQUEST, String::new());
        };
        let token = format!("{:032x}{:08x}", rand::random::<u128>(), self.tokens.len());
        self.tokens
            .insert(token.clone(), Instant::now() + Duration::from_secs(seconds));
        (StatusCode::OK, token)
    }

    fn content(&self, path: &str) -> Option<String> {
        let instance = &self.instance;
        if let Some(notice) = self.notices.get(path) {
            return Some(notice.clone());
        }
        match path {
            "/latest/user-data" if !instance.user_data.is_empty() => Some(instance.user_data.clone()),
            "/latest/dynamic/instance-identity/document" => Some(self.identity_document()),
            _ => self.meta_data(path.strip_prefix("/latest/meta-data/")?),
        }
    }

    fn meta_data(&self, path: &str) -> Option<String> {
        let instance = &self.instance;
        let host = format!(
            "ip-{}.ec2.internal",
            instance.private_ip.to_string().replace('.', "-")
        );
        let role = instance.role.as_ref();
        match path {
            "instance-id" => Some(instance.id.clone()),
            "instance-type" => Some(instance.instance_type.clone()),
            "instance-life-cycle" => Some(if instance.spot { "spot" } else { "on-demand" }.to_owned()),
            "ami-id" => Some(instance.image.clone()),
            "local-ipv4" => Some(instance.private_ip.to_string()),
            "hostname" | "local-hostname" => Some(host),
            "placement/availability-zone" => Some(instance.zone.clone()),
            "placement/region" => Some(REGION.to_owned()),
            "services/domain" => Some("amazonaws.com".to_owned()),
            "services/partition" => Some("aws".to_owned()),
            "events/maintenance/scheduled" => Some(Value::from(self.maintenance.clone()).to_string()),
            "events/maintenance/history" => Some("[]".to_owned()),
            "iam/info" => role.map(|(role, _)| {
                json!({
                    "Code": "Success",
                    "LastUpdated": seconds(Timestamp::now()),
                    "InstanceProfileArn": format!("arn:aws:iam::{ACCOUNT}:instance-profile/{role}"),
                    "InstanceProfileId": "AIPARIG0000000000000",
                })
                .to_string()
            }),
            "iam/security-credentials" | "iam/security-credentials/" => role.map(|(role, _)| role.clone()),
            "identity-credentials/ec2/security-credentials/ec2-instance" => {
                instance.identity.as_ref().map(credentials)
            }
            "tags/instance" | "tags/instance/" if !instance.tags.is_empty() => {
                Some(instance.tags.keys().cloned().collect::<Vec<_>>().join("\n"))
            }
            _ => {
                if let Some(tag) = path.strip_prefix("tags/instance/") {
                    return instance.tags.get(tag).cloned();
                }
                let asked = path.strip_prefix("iam/security-credentials/")?;
                role.filter(|(role, _)| role == asked)
                    .map(|(_, key)| credentials(key))
            }
        }
    }

    fn identity_document(&self) -> String {
        let instance = &self.instance;
        json!({
            "accountId": ACCOUNT,
            "architecture": "x86_64",
            "availabilityZone": instance.zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "marketplaceProductCodes": null,
            "imageId": instance.image,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "kernelId": null,
            "pendingTime": seconds(Timestamp::now()),
            "privateIp": instance.private_ip,
            "ramdiskId": null,
            "region": REGION,
            "version": "2017-09-30",
        })
        .to_string()
    }
}

fn credentials(key: &Key) -> String {
    let now = Timestamp::now();
    json!({
        "Code": "Success",
        "LastUpdated": seconds(now),
        "Type": "AWS-HMAC",
        "AccessKeyId": key.id,
        "SecretAccessKey": key.secret,
        "Token": key.token.clone().unwrap_or_default(),
        "Expiration": seconds(now + Duration::from_secs(6 * 3600)),
    })
    .to_string()
}

/// A time as EC2 writes it: whole seconds, `Z`.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
