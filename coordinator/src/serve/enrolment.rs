//! Enrolment: a machine that we launched gets its first key signed, once.
//!
//! ```text
//!   challenge used up? ─▶ request sound? ─▶ do we lead? ─▶ record there? ─▶ key enrolled?
//!                                                          (no: come back)    │ the same: sign again
//!                                                                             │ another: ALREADY_EXISTS
//!                                                                             └ none: proof ─▶ commit ─▶ sign
//! ```
//! The commit is conditional on the record as it was read and on the lease: of two keys that race, or of two
//! coordinators, one wins. A repetition with the enrolled key needs no proof but that of the key itself, which its
//! request carries: the answer to the first attempt may have been lost, and what is signed is good for nobody else.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use smartscale_proto::{
    identity::Segment,
    time::{SharedClock, to_wire},
    v1::{self, enrolment_server::Enrolment},
};
use tonic::{Code, Request, Response, Status};

use super::{
    attest::{Attestor, Claim},
    audit::Audit,
    authorise::Caller,
    authority::Authority,
    challenges::{Challenge, Challenges, LIFE},
    connection::Peer,
    csr::RequestedKey,
    leading::Leader,
};
use crate::{
    ids::InstanceId,
    state::{
        Attributes, Condition, SharedStore, StoreError, Write,
        records::{NodeRecord, Record as _},
    },
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
        let code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
        let reason = outcome.as_ref().err().map_or("", Status::message);
        let arguments = format!(
            "instance_id={:?} agent_version={:?} {reason}",
            request.instance_id, request.agent_version
        );
        self.audit.record(
            &caller.address,
            "/smartscale.v1.Enrolment/Enrol",
            arguments.trim_end(),
            code,
        );
        outcome.map(Response::new)
    }
}

impl EnrolmentDesk {
    async fn enrol_machine(&self, request: &v1::EnrolRequest) -> Result<v1::EnrolResponse, Status> {
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
        let record = self.enrolled(&instance, request, &challenge, &key).await?;
        let issued = self.authority.agent(segment, &key).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, %instance, "a certificate cannot be signed");
            Status::unavailable("the authority cannot sign at this moment")
        })?;
        Ok(v1::EnrolResponse {
            certificate: Some(issued.into()),
            node_name: instance.to_string(),
            pool: record.pool.to_string(),
            market: record.market.to_string(),
        })
    }

    /// The record of the machine, with this very key enrolled.
    async fn enrolled(
        &self,
        instance: &InstanceId,
        request: &v1::EnrolRequest,
        challenge: &Challenge,
        key: &RequestedKey,
    ) -> Result<NodeRecord, Status> {
        let fingerprint = key.fingerprint();
        for _ in 0..ATTEMPTS {
            let epoch = self.leader.epoch(Code::Unavailable)?;
            let item = self
                .store
                .get(&format!("{}{instance}", NodeRecord::PREFIX))
                .await
                .map_err(|error| unavailable(&error))?;
            let Some(item) = item else {
                return Err(Status::failed_precondition(
                    "the launch of this machine is not recorded yet: come back",
                ));
            };
            let mut record = NodeRecord::from_item(&item).map_err(|error| unavailable(&error))?;
            if record.revoked_at.is_some() {
                return Err(Status::permission_denied("this machine's identity was revoked"));
            }
            match &record.enrolled_key {
                Some(enrolled) if *enrolled == fingerprint => return Ok(record),
                Some(_) => {
                    return Err(Status::already_exists(
                        "another key of this machine was enrolled before",
                    ));
                }
                None => {}
            }
            let proof = request
                .proof
                .as_ref()
                .ok_or_else(|| Status::invalid_argument("proof: one is needed, for example `token`"))?;
            let claim = Claim {
                record: &record,
                challenge,
                request: &request.csr_der,
            };
            self.attestor.attest(claim, proof).await.map_err(|error| {
                tracing::warn!(%instance, why = error.why, "an enrolment was not proven");
                Status::permission_denied(error.to_string())
            })?;
            record.enrolled_key = Some(fingerprint.clone());
            record.enrolled_at = Some(self.clock.now());
            record.secret_hash = None;
            record.secret_expires_at = None;
            let write = Write::Put {
                key: record.key(),
                body: record.body().map_err(|error| unavailable(&error))?,
                expires_at: item.expires_at,
                condition: Condition::Version(item.version),
            };
            match self.store.commit(epoch, &[write], &Attributes::new()).await {
                Ok(()) => {
                    self.tell_enrolled(instance);
                    return Ok(record);
                }
                // Somebody else changed the record, or nobody knows whether we did: look again.
                Err(StoreError::Conflict(_) | StoreError::Unknown(_)) => {}
                Err(StoreError::Fenced) => return Err(self.leader.fenced(Code::Unavailable)),
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Err(Status::unavailable(
            "the record of this machine keeps changing: come back",
        ))
    }

    fn tell_enrolled(&self, instance: &InstanceId) {
        self.tell.tell(Happening {
            time: self.clock.now(),
            severity: Severity::Detail,
            message: format!("{instance} has enrolled"),
            event: Event::Agent {
                instance: instance.clone(),
                state: "enrolled".to_owned(),
            },
        });
    }
}

fn unavailable(error: &StoreError) -> Status {
    tracing::warn!(%error, "the state store failed an enrolment");
    Status::unavailable("the state store is not available: come back")
}
