//! The attestor of EC2: AWS says whose credentials signed, EC2 says what that instance is, and both have to agree with what
//! we launched.
//!
//! ```text
//!   proof ─▶ host, date, scope, signed headers ─▶ STS: whose signature? ─▶ account, instance id of the ARN
//!                                                                              │ = the record's
//!            state, VPC, image, profile, age ◀── EC2: what is that instance? ◀─┘
//! ```
//! The request is built here ([`attestation`]); of the caller's come only a host that must be on the list, a date, a session
//! token and a signature, each of a strict form. STS verifies the signature over what was built.

mod authorization;
mod caller;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use smartscale_planner::model::{PoolName, Zone};
use smartscale_proto::{
    attestation,
    time::{SharedClock, age},
    tls::client::Expected,
    v1::{Ec2Proof, enrol_request::Proof},
};
use tokio::sync::Semaphore;

pub use self::caller::Signer;
use self::{
    authorization::Authorization,
    caller::{IDENTITY_ROLE, Session},
};
use super::{Attestor, Claim, NotAttested};
use crate::{act::fleet::InstanceState, ids::InstanceId, state::records::NodeRecord};

/// How old a signed request may be, and how far ahead the clock of its signer.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// STS may be asked so often at once: callers without a certificate cause these calls.
const ASKED_AT_ONCE: usize = 16;
/// Bytes of a session token; AWS' have one to two thousand and no promised limit.
const LONGEST_TOKEN: usize = 8 * 1024;
/// EC2's clock may be ahead of or behind ours by so much.
const CLOCKS: Duration = Duration::from_secs(10 * 60);

/// The request that STS is asked with, complete but for method, path and body, which never differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// The endpoint's host.
    pub host: String,
    /// Its headers, all that are signed and `authorization`.
    pub headers: Vec<(&'static str, String)>,
}

/// A question to AWS that brought no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// AWS says no: to the signature, or to the request.
    #[error("{0}")]
    Refused(String),
    /// It does not answer, or not now.
    #[error("{0}")]
    Unavailable(String),
}

/// Says whose signature a request bears: AWS STS.
#[async_trait]
pub trait Signatures: Send + Sync {
    /// Sends the request on, as it is, to its host and to nobody else.
    async fn whose(&self, request: &SignedRequest) -> Result<Signer, AwsError>;
}

/// What an instance was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Making {
    /// Its image; `None`: nobody says (a template may name an alias).
    pub image: Option<String>,
    /// Name of its instance profile; `None`: it has none.
    pub profile: Option<String>,
    /// Its network.
    pub vpc: Option<String>,
}

/// An instance as the cloud describes it, and as a launch of its pool from its template would have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The account that it belongs to.
    pub account: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// When it was launched, or started last.
    pub launched_at: Timestamp,
    /// What it is.
    pub is: Making,
    /// What it should be.
    pub meant: Making,
}

/// Describes instances: EC2.
#[async_trait]
pub trait Instances: Send + Sync {
    /// The instance, held against how machines of `pool` in `zone` are made; `None`: there is none of that id.
    async fn describe(
        &self,
        instance: &InstanceId,
        pool: &PoolName,
        zone: &Zone,
    ) -> Result<Option<Described>, AwsError>;
}

/// What is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our region: its endpoint of STS is the only host that a request may be signed for.
    pub region: String,
    /// The role of the workers' instance profile, if sessions of it are accepted beside EC2's identity role.
    pub role: Option<String>,
    /// A machine that is older enrols no first key.
    pub oldest: Duration,
}

/// The attestor.
pub struct Ec2Attestor {
    settings: Settings,
    host: String,
    coordinator: Expected,
    signatures: Arc<dyn Signatures>,
    instances: Arc<dyn Instances>,
    clock: SharedClock,
    places: Semaphore,
}

/// A region that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a region, for example us-east-1")]
pub struct BadRegion(String);

impl Ec2Attestor {
    /// An attestor for machines that mean `coordinator`.
    ///
    /// # Errors
    /// [`BadRegion`].
    pub fn new(
        settings: Settings,
        coordinator: Expected,
        signatures: Arc<dyn Signatures>,
        instances: Arc<dyn Instances>,
        clock: SharedClock,
    ) -> Result<Self, BadRegion> {
        let host =
            attestation::sts_host(&settings.region).ok_or_else(|| BadRegion(settings.region.clone()))?;
        Ok(Self {
            settings,
            host,
            coordinator,
            signatures,
            instances,
            clock,
            places: Semaphore::new(ASKED_AT_ONCE),
        })
    }

    /// The request that the proof is about. Nothing was asked of anybody yet.
    fn request(&self, claim: Claim<'_>, proof: &Ec2Proof) -> Result<SignedRequest, NotAttested> {
        let wrong = NotAttested::not_proven;
        if proof.host != self.host {
            let host: String = proof.host.chars().take(100).collect();
            return Err(wrong(format!(
                "the request is signed for {host:?}, which is not {}",
                self.host
            )));
        }
        let signed_at = date(&proof.date).ok_or_else(|| wrong("the date is no date".into()))?;
        let now = self.clock.now();
        if age(signed_at, now) > FRESH || age(now, signed_at) > FRESH {
            return Err(wrong(format!("it was signed at {signed_at}, and now is {now}")));
        }
        let token = &proof.security_token;
        if token.is_empty()
            || token.len() > LONGEST_TOKEN
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(wrong("the session token is no token".into()));
        }
        let day = proof.date.get(..8).unwrap_or_default();
        Authorization::parse(&proof.authorization)
            .and_then(|authorization| authorization.check(day, &self.settings.region))
            .map_err(|why| wrong(format!("authorization: {why}")))?;
        let bound = attestation::bound_headers(&self.host, claim.challenge, claim.request, &self.coordinator);
        let mut headers = Vec::from(bound);
        headers.extend([
            (attestation::DATE, proof.date.clone()),
            (attestation::SECURITY_TOKEN, token.clone()),
            ("authorization", proof.authorization.clone()),
        ]);
        Ok(SignedRequest {
            host: self.host.clone(),
            headers,
        })
    }

    /// Whether `signer` is the machine of the record, by a kind of credentials that counts.
    fn session(&self, signer: &Signer, record: &NodeRecord) -> Result<Session, NotAttested> {
        let session = Session::of(signer).map_err(NotAttested::not_proven)?;
        let counts =
            session.role == IDENTITY_ROLE || self.settings.role.as_deref() == Some(session.role.as_str());
        if !counts {
            return Err(NotAttested::not_proven(format!(
                "the signer is a session of role {}, which proves nothing here",
                session.role
            )));
        }
        if session.name != record.instance.as_str() {
            return Err(NotAttested::not_proven(format!(
                "the signer is {}, and {} is claimed",
                session.name, record.instance
            )));
        }
        Ok(session)
    }

    /// Whether the instance is what we launched.
    fn judge(&self, described: &Described, session: &Session, record: &NodeRecord) -> Result<(), String> {
        if described.account != session.account {
            return Err(format!(
                "the signer is of account {}, the instance of {}",
                session.account, described.account
            ));
        }
        if !matches!(described.state, InstanceState::Pending | InstanceState::Running) {
            return Err(format!("the instance is {:?}", described.state));
        }
        let (is, meant) = (&described.is, &described.meant);
        if meant.vpc.is_none() || is.vpc != meant.vpc {
            return Err(format!("its VPC is {:?}, and its pool's {:?}", is.vpc, meant.vpc));
        }
        if meant.image.is_some() && is.image != meant.image {
            return Err(format!(
                "its image is {:?}, and its template's {:?}",
                is.image, meant.image
            ));
        }
        if is.profile != meant.profile {
            return Err(format!(
                "its instance profile is {:?}, and its template's {:?}",
                is.profile, meant.profile
            ));
        }
        // An instance that was stopped and started is younger than its launch, never older.
        if age(described.launched_at, record.launched_at) > CLOCKS {
            return Err(format!(
                "it runs since {}, which is before its launch at {}",
                described.launched_at, record.launched_at
            ));
        }
        if record.enrolled_key.is_none() && age(record.launched_at, self.clock.now()) > self.settings.oldest {
            return Err(format!(
                "it was launched at {}, too long ago for a first key",
                record.launched_at
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Attestor for Ec2Attestor {
    async fn attest(&self, claim: Claim<'_>, proof: &Proof) -> Result<(), NotAttested> {
        let Proof::Ec2(proof) = proof else {
            return Err(NotAttested::other_kind("ec2"));
        };
        let request = self.request(claim, proof)?;
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| NotAttested::unavailable("STS is asked by too many at once"))?;
        let record = claim.record;
        let signer = self
            .signatures
            .whose(&request)
            .await
            .map_err(|error| match error {
                AwsError::Refused(why) => NotAttested::not_proven(format!("STS: {why}")),
                AwsError::Unavailable(why) => NotAttested::unavailable(format!("STS: {why}")),
            })?;
        let session = self.session(&signer, record)?;
        let described = self
            .instances
            .describe(&record.instance, &record.pool, &record.zone)
            .await
            .map_err(|error| NotAttested::unavailable(format!("EC2: {error}")))?
            // Its lists lag behind a launch.
            .ok_or_else(|| NotAttested::unavailable("EC2 does not know the instance yet"))?;
        self.judge(&described, &session, record)
            .map_err(NotAttested::not_proven)?;
        tracing::info!(instance = %record.instance, arn = signer.arn, "an instance has proven itself");
        Ok(())
    }

    fn attests_again(&self) -> bool {
        true
    }
}

/// A time in the form of SigV4.
fn date(text: &str) -> Option<Timestamp> {
    let digits = |part: Option<&str>| part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let sound = text.len() == 16
        && digits(text.get(..8))
        && text.get(8..9) == Some("T")
        && digits(text.get(9..15))
        && text.get(15..) == Some("Z");
    let time = sound.then(|| DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok())??;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests;
