//! STS that verifies: `GetCallerIdentity` for keys that the rig handed out, each signature computed anew from the request as it
//! arrived.
//!
//! Written from AWS' description of Signature Version 4 and not with the SDK's code, which is what signs in the agent.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::aws::{ACCOUNT, Key, REGION};

/// STS takes a request for so long after its date.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// The role of the credentials that EC2 gives to every instance.
const IDENTITY_ROLE: &str = "aws:ec2-instance";

/// The service of the region's endpoint. It ends when dropped.
#[derive(Debug)]
pub struct Sts {
    address: SocketAddr,
    shared: Shared,
    task: tokio::task::JoinHandle<()>,
}

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The `host` header.
    pub host: String,
    /// The key's id.
    pub key: String,
    /// The status of the answer, and the error's code.
    pub answer: (u16, String),
}

#[derive(Debug, Default)]
struct Ledger {
    keys: BTreeMap<String, Known>,
    asked: Vec<Asked>,
    misbehaviour: Option<Misbehaviour>,
}

/// A key and whose it is.
#[derive(Debug, Clone)]
struct Known {
    key: Key,
    arn: String,
    user_id: String,
}

/// What STS does instead of answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Sends the caller elsewhere.
    Redirect(String),
    /// Answers this text.
    Text(String),
    /// Fails.
    Error(u16),
}

/// The keys of a running STS, for those who hand out more.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key of the identity role of `instance`, as EC2 makes one for each.
    #[must_use]
    pub fn identity_key(&self, instance: &str) -> Key {
        let key = Key {
            id: format!("ASIA{:016X}", rand::random::<u64>()),
            secret: format!("{:040x}", rand::random::<u128>()),
            token: Some(format!(
                "{:032x}{:032x}",
                rand::random::<u128>(),
                rand::random::<u128>()
            )),
        };
        self.know(&key, IDENTITY_ROLE, instance);
        key
    }

    /// From now on `key` is known as a session of `role` called `session`.
    pub fn know(&self, key: &Key, role: &str, session: &str) {
        let user = if role == IDENTITY_ROLE {
            format!("{ACCOUNT}:{role}")
        } else {
            "AROARIG0000000000000".to_owned()
        };
        let known = Known {
            key: key.clone(),
            arn: format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}"),
            user_id: format!("{user}:{session}"),
        };
        self.lock().keys.insert(key.id.clone(), known);
    }
}

impl Sts {
    /// Starts it; it knows no key yet.
    ///
    /// # Errors
    /// No port is left.
    pub async fn start() -> anyhow::Result<Self> {
        let shared = Shared::default();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("bind STS")?;
        let address = listener.local_addr().context("read STS' port")?;
        let router = Router::new().fallback(answer).with_state(shared.clone());
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

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL_STS`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Shared {
        &self.shared
    }

    /// What arrived so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().asked.clone()
    }

    /// From now on it does this; `None`: what it should.
    pub fn misbehave(&self, how: Option<Misbehaviour>) {
        self.shared.lock().misbehaviour = how;
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let mut state = shared.lock();
    let judged = judge(&state.keys, &method, &uri, &headers, &body, Timestamp::now());
    let key = Signature::of(&text("authorization")).map_or_else(String::new, |signature| signature.key);
    let (status, code, content) = match (state.misbehaviour.clone(), judged) {
        (Some(Misbehaviour::Redirect(_)), _) => (307, String::new(), String::new()),
        (Some(Misbehaviour::Text(text)), _) => (200, String::new(), text),
        (Some(Misbehaviour::Error(status)), _) => (status, String::new(), String::new()),
        (None, Ok(known)) => (200, String::new(), identity(&known)),
        (None, Err((status, code))) => (status, code.to_owned(), refusal(code)),
    };
    let to = match &state.misbehaviour {
        Some(Misbehaviour::Redirect(to)) => Some(to.clone()),
        _ => None,
    };
    state.asked.push(Asked {
        host: text("host"),
        key,
        answer: (status, code),
    });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, "text/xml")], content).into_response();
    if let Some(to) = to.and_then(|to| to.parse().ok()) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

type Refused = (u16, &'static str);

fn judge(
    keys: &BTreeMap<String, Known>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Known, Refused> {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    };
    let authorization = one("authorization").ok_or((403, "MissingAuthenticationToken"))?;
    let signature = Signature::of(authorization).ok_or((400, "IncompleteSignature"))?;
    let known = keys.get(&signature.key).ok_or((403, "InvalidClientTokenId"))?;
    if one("x-amz-security-token") != known.key.token.as_deref() {
        return Err((403, "InvalidClientTokenId"));
    }
    let date = one("x-amz-date").ok_or((400, "IncompleteSignature"))?;
    let signed_at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .ok()
        .and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .ok_or((400, "IncompleteSignature"))?
        .timestamp();
    if signed_at.duration_since(now).unsigned_abs() > FRESH {
        return Err((400, "RequestExpired"));
    }
    let scope = format!("{}/{REGION}/sts/aws4_request", date.get(..8).unwrap_or_default());
    let signs = |name: &str| signature.headers.iter().any(|header| header == name);
    if signature.scope != scope || !signs("host") || !signs("x-amz-date") {
        return Err((403, "SignatureDoesNotMatch"));
    }
    // Every x-amz header that is sent has to be signed.
    let mut sent = headers.keys().map(header::HeaderName::as_str);
    if sent.any(|name| name.starts_with("x-amz-") && !signs(name)) {
        return Err((403, "SignatureDoesNotMatch"));
    }
    let canonical = canonical(method, uri, headers, &signature.headers, body);
    if signed(&known.key, date, &scope, &canonical) != signature.value {
        return Err((403, "SignatureDoesNotMatch"));
    }
    if method != Method::POST || uri.path() != "/" || body != b"Action=GetCallerIdentity&Version=2011-06-15" {
        return Err((400, "InvalidAction"));
    }
    Ok(known.clone())
}

/// The signature of a canonical request.
fn signed(key: &Key, date: &str, scope: &str, canonical: &str) -> String {
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hexadecimal(&Sha256::digest(canonical))
    );
    let mut derived = format!("AWS4{}", key.secret).into_bytes();
    for part in scope.split('/') {
        derived = keyed(&derived, part.as_bytes());
    }
    hexadecimal(&keyed(&derived, to_sign.as_bytes()))
}

/// The `Authorization` header of a `POST` to `/` that `key` signs with all of these headers, the date among them: for those
/// who sign what no agent would.
#[must_use]
pub fn sign(key: &Key, headers: &[(&str, String)], body: &str) -> String {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).expect("the name of a header");
        map.insert(name, value.parse().expect("the value of a header"));
    }
    let mut names: Vec<String> = map.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    let date = map["x-amz-date"].to_str().unwrap_or_default();
    let scope = format!("{}/{REGION}/sts/aws4_request", date.get(..8).unwrap_or_default());
    let canonical = canonical(
        &Method::POST,
        &Uri::from_static("/"),
        &map,
        &names,
        body.as_bytes(),
    );
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={}",
        key.id,
        names.join(";"),
        signed(key, date, &scope, &canonical)
    )
}

/// The canonical request. Paths other than `/` and queries do not occur here.
fn canonical(method: &Method, uri: &Uri, headers: &HeaderMap, signed: &[String], body: &[u8]) -> String {
    let mut text = format!("{method}\n{}\n{}\n", uri.path(), uri.query().unwrap_or_default());
    for name in signed {
        let values: Vec<String> = headers
            .get_all(name.as_str())
            .iter()
            .map(|value| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                value.split_whitespace().collect::<Vec<_>>().join(" ")
            })
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}:{}", values.join(","));
    }
    let _ = write!(
        text,
        "\n{}\n{}",
        signed.join(";"),
        hexadecimal(&Sha256::digest(body))
    );
    text
}

fn keyed(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The parts of an `Authorization` header.
#[derive(Debug)]
struct Signature {
    key: String,
    scope: String,
    headers: Vec<String>,
    value: String,
}

impl Signature {
    fn of(header: &str) -> Option<Self> {
        let mut parts = BTreeMap::new();
        for part in header.strip_prefix("AWS4-HMAC-SHA256")?.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            parts.insert(name, value);
        }
        let (key, scope) = parts.get("Credential")?.split_once('/')?;
        Some(Self {
            key: key.to_owned(),
            scope: scope.to_owned(),
            headers: parts
                .get("SignedHeaders")?
                .split(';')
                .map(str::to_owned)
                .collect(),
            value: (*parts.get("Signature")?).to_owned(),
        })
    }
}

/// The answer, in the form of the API's reference.
fn identity(known: &Known) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  \
           <GetCallerIdentityResult>\n    \
             <Arn>{}</Arn>\n    <UserId>{}</UserId>\n    <Account>{ACCOUNT}</Account>\n  \
           </GetCallerIdentityResult>\n  \
           <ResponseMetadata>\n    <RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>\n  </ResponseMetadata>\n\
         </GetCallerIdentityResponse>\n",
        known.arn, known.user_id
    )
}

fn refusal(code: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    <Type>Sender</Type>\n    \
         <Code>{code}</Code>\n    <Message>refused by the rig</Message>\n  </Error>\n  \
         <RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>\n</ErrorResponse>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The derivation of AWS' documentation, whose result is known:
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-examples.html>.
    #[test]
    fn the_signing_key_is_that_of_the_documentation() {
        let mut key = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
        for part in ["20120215", "us-east-1", "iam", "aws4_request"] {
            key = keyed(&key, part.as_bytes());
        }
        assert_eq!(
            hexadecimal(&key),
            "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
        );
    }
}
