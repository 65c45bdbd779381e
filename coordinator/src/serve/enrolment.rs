//! Enrolment: a machine that we launched gets its first key signed, once.
//!
//! ```text
//!   challenge used up? ─▶ request sound? ─▶ do we lead? ─▶ record there? ─▶ is the key one that we signed?
//!                                                          (no: come back)   │ yes: sign again
//!                                                                            │ no, and another is enrolled:
//!                                                                            │   ALREADY_EXISTS, unless proofs of this
//!                                                                            │   kind may be given again (audited)
//!                                                                            └ proof ─▶ commit ─▶ certificate
//! ```
//! The commit is conditional on the record as it was read and on the lease: of two keys that race, or of two
//! coordinators, one wins. A key that we signed before needs no proof but that of the key itself, which its request carries:
//! the answer to the first attempt may have been lost, or the certificate has ended while the machine or the coordinator was
//! away. What is signed is good for nobody else. A key that a renewal has replaced is not signed again.
//!
//! A machine that proves itself anew with another key is another holder of its name: no certificate of the former one counts
//! any more. While the former one's agent is in session nobody takes its place.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use smartscale_planner::model::NodeName;
use smartscale_proto::{
    identity::Segment,
    time::{SharedClock, to_wire},
    v1::{self, enrolment_server::Enrolment},
};
use tonic::{Code, Request, Response, Status};

use super::{
    attest::{Attestor, Claim, NotAttested},
    audit::Audit,
    authorise::Caller,
    authority::{Authority, Issued},
    challenges::{Challenge, Challenges, LIFE},
    connection::Peer,
    csr::RequestedKey,
    join_tokens::{Joining, TOKEN_LIFE},
    leading::Leader,
    renewal,
    sessions::Sessions,
};
use crate::{
    ids::InstanceId,
    state::{SharedStore, StoreError, records::NodeRecord},
    tell::{Event, Happening, Severity, SharedTell},
};

/// Attempts to commit when the record changes meanwhile.
const ATTEMPTS: usize = 4;

/// The service.
pub struct EnrolmentDesk {
    /// Signs.
    pub authority: Arc<Authority>,
    /// Judges proofs.
    pub attestor: Arc<dyn Attestor>,
    /// Open challenges.
    pub challenges: Challenges,
    /// Holds the node records.
    pub store: SharedStore,
    /// Time.
    pub clock: SharedClock,
    /// Who leads.
    pub leader: Leader,
    /// Told of enrolments.
    pub tell: SharedTell,
    /// Told of every attempt.
    pub audit: Arc<Audit>,
    /// Knows whose agent is there.
    pub sessions: Arc<Sessions>,
    /// What machines join with; `None`: they find that elsewhere.
    pub joining: Option<Joining>,
}

/// How an enrolment went that succeeded.
struct Enrolled {
    record: NodeRecord,
    issued: Issued,
    how: How,
    /// Token and server of K3s' join; empty where machines find them elsewhere.
    join: (String, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    First,
    /// The key was signed before.
    Known,
    /// The machine has proven itself anew with another key.
    Anew,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            Self::First => "its first key",
            Self::Known => "a key that was signed before",
            Self::Anew => "another key than before: the machine has proven itself anew",
        }
    }
}

/// A refusal with what the audit is told beyond what the caller is.
struct Refused {
    status: Status,
    why: String,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let why = status.message().to_owned();
        Self { status, why }
    }
}

#[async_trait]
impl Enrolment for EnrolmentDesk {
    async fn challenge(
        &self,
        request: Request<v1::ChallengeRequest>,
    ) -> Result<Response<v1::ChallengeResponse>, Status> {
        let address = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.address)
            .map(|at| at.ip());
        let challenge = self
            .challenges
            .issue(address)
            .map_err(|full| Status::resource_exhausted(full.to_string()))?;
        let life = SignedDuration::try_from(LIFE).unwrap_or_default();
        Ok(Response::new(v1::ChallengeResponse {
            challenge: challenge.to_vec(),
            expires_at: Some(to_wire(self.clock.now() + life)),
        }))
    }

    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let outcome = self.enrol_machine(&request).await;
        let (code, what) = match &outcome {
            Ok(enrolled) => (Code::Ok, enrolled.how.word().to_owned()),
            Err(refused) => (refused.status.code(), refused.why.clone()),
        };
        let arguments = format!(
            "instance_id={:?} agent_version={:?} {what}",
            request.instance_id, request.agent_version
        );
        self.audit.record(
            &caller.address,
            "/smartscale.v1.Enrolment/Enrol",
            arguments.trim_end(),
            code,
        );
        let Enrolled {
            record,
            issued,
            how,
            join: (join_token, join_server),
        } = outcome.map_err(|refused| refused.status)?;
        self.tell_enrolled(&record.instance, how);
        Ok(Response::new(v1::EnrolResponse {
            certificate: Some(issued.into()),
            node_name: record.instance.to_string(),
            pool: record.pool.to_string(),
            market: record.market.to_string(),
            join_token,
            join_server,
        }))
    }
}

impl EnrolmentDesk {
    async fn enrol_machine(&self, request: &v1::EnrolRequest) -> Result<Enrolled, Refused> {
        let challenge = self.challenges.take(&request.challenge).ok_or_else(|| {
            Status::permission_denied(
                "the challenge is unknown, used or older than a minute: ask for another",
            )
        })?;
        let key = RequestedKey::from_request(&request.csr_der)
            .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
        let instance = request
            .instance_id
            .parse::<InstanceId>()
            .map_err(|error| Status::invalid_argument(format!("instance_id: {error}")))?;
        let segment = request
            .instance_id
            .parse::<Segment>()
            .map_err(|error| Status::invalid_argument(format!("instance_id: {error}")))?;
        let fingerprint = key.fingerprint();
        for _ in 0..ATTEMPTS {
            let epoch = self.leader.epoch(Code::Unavailable)?;
            let (mut record, item) = renewal::record(&*self.store, &instance).await?.ok_or_else(|| {
                Status::failed_precondition("the launch of this machine is not recorded yet: come back")
            })?;
            if record.revoked_at.is_some() {
                return Err(Status::permission_denied("this machine's identity was revoked").into());
            }
            let how = match &record.enrolled_key {
                _ if record.holds(&fingerprint) => How::Known,
                Some(_) => How::Anew,
                None => How::First,
            };
            if how != How::Known {
                self.prove(how, &record, request, &challenge).await?;
                record.enrol(&fingerprint, self.clock.now());
            }
            let issued = self.authority.agent(segment.clone(), &key).map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, %instance, "a certificate cannot be signed");
                Status::unavailable("the authority cannot sign at this moment")
            })?;
            record.certify(&fingerprint, issued.signed());
            match renewal::write(&*self.store, epoch, &record, &item).await {
                Ok(()) => {
                    let join = self.join(how, &instance).await;
                    return Ok(Enrolled {
                        record,
                        issued,
                        how,
                        join,
                    });
                }
                // Somebody else changed the record, or nobody knows whether we did: look again.
                Err(StoreError::Conflict(_) | StoreError::Unknown(_)) => {}
                Err(StoreError::Fenced) => return Err(self.leader.fenced(Code::Unavailable).into()),
                Err(error) => return Err(renewal::unavailable(&error).into()),
            }
        }
        Err(Status::unavailable("the record of this machine keeps changing: come back").into())
    }

    /// Token and server for a machine that has just proven itself. Whoever only shows a key that was signed before may have
    /// found the request for it on the way, and has no use for the certificate without the key; a token it could use. Such a
    /// machine, and one for which none can be made now, asks in its session.
    async fn join(&self, how: How, instance: &InstanceId) -> (String, String) {
        let Some(joining) = self.joining.as_ref().filter(|_| how != How::Known) else {
            return Default::default();
        };
        let node = NodeName::from(instance.as_str());
        match joining.tokens.mint(&node, TOKEN_LIFE).await {
            Ok(mut minted) => (std::mem::take(&mut *minted), joining.server.clone()),
            Err(error) => {
                tracing::warn!(%instance, %error, "a machine that enrols gets no join token yet");
                Default::default()
            }
        }
    }

    /// Whether the caller is the machine of the record, and may have another key if it has one.
    async fn prove(
        &self,
        how: How,
        record: &NodeRecord,
        request: &v1::EnrolRequest,
        challenge: &Challenge,
    ) -> Result<(), Refused> {
        let instance = &record.instance;
        if how == How::Anew {
            if !self.attestor.attests_again() {
                return Err(Status::already_exists("another key of this machine was enrolled before").into());
            }
            if self.sessions.connected().contains(instance) {
                return Err(Status::aborted(
                    "the agent of this machine is in session with the key that was enrolled before",
                )
                .into());
            }
        }
        let proof = request.proof.as_ref().ok_or_else(|| match how {
            How::Anew => Status::already_exists("another key of this machine was enrolled before"),
            _ => Status::invalid_argument("proof: one is needed, for example `token`"),
        })?;
        let claim = Claim {
            record,
            challenge,
            request: &request.csr_der,
        };
        self.attestor.attest(claim, proof).await.map_err(|error| {
            tracing::warn!(%instance, why = error.why(), "an enrolment was not proven");
            let said = error.to_string();
            Refused {
                why: format!("{said}: {}", error.why()),
                status: match error {
                    NotAttested::NotProven { .. } => Status::permission_denied(said),
                    NotAttested::Unavailable { .. } => Status::unavailable(said),
                },
            }
        })
    }

    fn tell_enrolled(&self, instance: &InstanceId, how: How) {
        let (severity, message) = match how {
            How::First | How::Known => (Severity::Detail, format!("{instance} has enrolled")),
            How::Anew => (
                Severity::Warning,
                format!("{instance} has enrolled anew with another key: the former one counts no more"),
            ),
        };
        self.tell.tell(Happening {
            time: self.clock.now(),
            severity,
            message,
            event: Event::Agent {
                instance: instance.clone(),
                state: "enrolled".to_owned(),
            },
        });
    }
}
