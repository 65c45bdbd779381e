//! EC2's instance metadata service, version 2 alone.
//!
//! A session token is asked for with PUT and sent with each GET; a service that gives none is never asked without one, since
//! version 1 answers whoever can make the machine send a GET. The token's requests carry a small time-to-live, so that
//! neither question nor token leaves the machine's neighbourhood.
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html>)

use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, body::Bytes};
use smartscale_planner::model::Market;
use smartscale_proto::time::{SharedClock, within};

use super::{Machine, MachineIdentity};
use crate::{
    error::Failure,
    http::{self, HttpError},
    secrets::Secret,
};

/// How long a session token is asked for.
const TOKEN_LIFE: Duration = Duration::from_secs(6 * 3600);
/// How long before its end a token is replaced.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);
/// Time for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why IMDS did not tell.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// The service cannot be reached.
    #[error("the instance metadata service cannot be asked")]
    Http(#[from] HttpError),
    /// It gives no session token.
    #[error(
        "the instance metadata service gave no IMDSv2 token (status {0}): enable the service and IMDSv2 for this instance"
    )]
    NoToken(StatusCode),
    /// It answered with something else.
    #[error("the instance metadata service answered {status} for {path}")]
    Status {
        /// What was asked.
        path: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// A category that every instance has is missing.
    #[error("the instance metadata service does not know {0}")]
    Missing(&'static str),
    /// A value makes no sense.
    #[error("the instance metadata service says `{value}` for {path}, expected {expected}")]
    Nonsense {
        /// What was asked.
        path: &'static str,
        /// The answer, shortened.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

struct Token {
    value: Secret,
    /// By the clock's elapsed time.
    until: Duration,
}

/// A client of the instance metadata service.
pub struct Imds {
    address: String,
    hops: u32,
    clock: SharedClock,
    token: Mutex<Option<Token>>,
    /// The connection of the last call, where the service keeps it open: notices are asked for every second.
    idle: Mutex<Option<http::Link>>,
}

impl Imds {
    /// A client of the service at `endpoint` (`http://host[:port]`), whose packets pass at most `hops` routers.
    ///
    /// # Errors
    /// [`HttpError::Address`] when `endpoint` is no such address.
    pub fn new(endpoint: &str, hops: u32, clock: SharedClock) -> Result<Self, HttpError> {
        Ok(Self {
            address: http::authority(endpoint)?,
            hops,
            clock,
            token: Mutex::new(None),
            idle: Mutex::new(None),
        })
    }

    /// The value at `path` below `/latest/`; `None` when there is none (404).
    ///
    /// # Errors
    /// [`ImdsError`].
    pub async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let mut fresh = false;
        loop {
            let (token, new) = self.token(fresh).await?;
            let answer = self
                .call(Method::GET, path, ("x-aws-ec2-metadata-token", token.reveal()))
                .await?;
            match answer.status {
                StatusCode::OK => return Ok(Some(String::from_utf8_lossy(&answer.body).trim().to_owned())),
                StatusCode::NOT_FOUND => return Ok(None),
                // The service restarted, or the instance was resumed on another host.
                StatusCode::UNAUTHORIZED if !new => fresh = true,
                status => {
                    return Err(ImdsError::Status {
                        path: path.to_owned(),
                        status,
                    });
                }
            }
        }
    }

    async fn token(&self, fresh: bool) -> Result<(Secret, bool), ImdsError> {
        let now = self.clock.elapsed();
        if !fresh
            && let Ok(guard) = self.token.lock()
            && let Some(token) = guard.as_ref()
            && now < token.until
        {
            return Ok((token.value.clone(), false));
        }
        let seconds = TOKEN_LIFE.as_secs().to_string();
        let answer = self
            .call(
                Method::PUT,
                "api/token",
                ("x-aws-ec2-metadata-token-ttl-seconds", &seconds),
            )
            .await?;
        if answer.status != StatusCode::OK {
            return Err(ImdsError::NoToken(answer.status));
        }
        let value = Secret::new(String::from_utf8_lossy(&answer.body).trim().to_owned());
        if let Ok(mut guard) = self.token.lock() {
            *guard = Some(Token {
                value: value.clone(),
                until: now + TOKEN_LIFE - TOKEN_MARGIN,
            });
        }
        Ok((value, true))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        header: (&str, &str),
    ) -> Result<http::Answer, HttpError> {
        let mut value = hyper::header::HeaderValue::try_from(header.1).map_err(|_| HttpError::Body {
            address: self.address.clone(),
            reason: "the token is no text".into(),
        })?;
        value.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(format!("/latest/{path}"))
            .header(header.0, value)
            .body(Full::<Bytes>::default())
            .map_err(|_| HttpError::Address(path.to_owned()))?;
        within(&*self.clock, ANSWER_TIME, self.exchange(request))
            .await
            .unwrap_or_else(|| {
                Err(HttpError::TooLate {
                    address: self.address.clone(),
                })
            })
    }

    /// Over the connection that is open, or over a new one.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<http::Answer, HttpError> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.take());
        if let Some(mut link) = idle.filter(|link| !link.is_closed()) {
            match link.exchange(request.clone(), http::LIMIT).await {
                // It was closed meanwhile, before the request went out.
                Err(HttpError::Closed { .. }) => {}
                answer => return self.keep(link, answer),
            }
        }
        let mut link = http::connect(&self.address, Some(self.hops)).await?;
        let answer = link.exchange(request, http::LIMIT).await;
        self.keep(link, answer)
    }

    fn keep(
        &self,
        link: http::Link,
        answer: Result<http::Answer, HttpError>,
    ) -> Result<http::Answer, HttpError> {
        if answer.is_ok()
            && let Ok(mut idle) = self.idle.lock()
        {
            *idle = Some(link);
        }
        answer
    }

    async fn must(&self, path: &'static str) -> Result<String, ImdsError> {
        self.get(path)
            .await?
            .filter(|value| !value.is_empty())
            .ok_or(ImdsError::Missing(path))
    }
}

fn nonsense(path: &'static str, value: &str, expected: &'static str) -> ImdsError {
    ImdsError::Nonsense {
        path,
        value: value.chars().take(80).collect(),
        expected,
    }
}

/// A word as EC2 uses it for types and zones: what ends in labels and in the provider id.
fn word(path: &'static str, value: String, expected: &'static str) -> Result<String, ImdsError> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if value.len() <= 63 && value.bytes().all(sound) {
        Ok(value)
    } else {
        Err(nonsense(path, &value, expected))
    }
}

#[async_trait]
impl MachineIdentity for Imds {
    async fn identity(&self) -> Result<Machine, Failure> {
        let id = self.must("meta-data/instance-id").await?;
        let id = id
            .parse()
            .map_err(|_| nonsense("meta-data/instance-id", &id, "an instance id"))?;
        let instance_type = self.must("meta-data/instance-type").await?;
        let instance_type = word(
            "meta-data/instance-type",
            instance_type,
            "an instance type such as t3.small",
        )?;
        let zone = self.must("meta-data/placement/availability-zone").await?;
        let zone = word(
            "meta-data/placement/availability-zone",
            zone,
            "a zone such as us-east-1a",
        )?;
        // `on-demand`, `spot`, `scheduled` or `capacity-block`; absent on some stand-ins and on old hypervisors.
        let market = match self.get("meta-data/instance-life-cycle").await?.as_deref() {
            Some("spot") => Market::Spot,
            _ => Market::OnDemand,
        };
        let ip = self.must("meta-data/local-ipv4").await?;
        let private_ip = ip
            .parse()
            .map_err(|_| nonsense("meta-data/local-ipv4", &ip, "an address"))?;
        // The form of AWS' cloud provider, by which the coordinator finds the node of an instance.
        let provider_id = Some(format!("aws:///{zone}/{id}"));
        Ok(Machine {
            id,
            instance_type,
            zone,
            market,
            private_ip,
            provider_id,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
