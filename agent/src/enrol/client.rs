//! The conversation that makes an agent: challenge, signing request, proof, certificate; and its renewal.

use std::{sync::Arc, time::Duration};

use smartscale_proto::{
    time::{SharedClock, within},
    tls::{
        Anchors, Credential,
        client::{DialError, Dialer},
    },
    v1::{self, agent_client::AgentClient, enrolment_client::EnrolmentClient},
};
use tonic::{Code, Status, transport::Channel};

use super::{
    Attestor,
    record::{self, Enrolled, Pending},
};
use crate::{
    error::{Failure, Known},
    machine::Machine,
    secrets::offer::Offers,
    state::StateFolder,
};

/// Time for one conversation.
const CONVERSATION: Duration = Duration::from_secs(60);

/// Enrols this machine and renews its certificate.
pub struct Enroller {
    /// Dials coordinators; its credential is replaced here.
    pub dialer: Dialer,
    /// Proves which machine asks.
    pub attestor: Arc<dyn Attestor>,
    /// Where key and certificate are kept.
    pub folder: Arc<dyn StateFolder>,
    /// The clock.
    pub clock: SharedClock,
    /// Whom the configuration trusts.
    pub configured: Anchors,
    /// `host:port` of coordinators.
    pub endpoints: Vec<String>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// What a coordinator gives for the join.
    pub offers: Offers,
}

impl Enroller {
    /// The enrolment that is on disk, if its certificate is still good. From then on the dialer uses it.
    #[must_use]
    pub fn stored(&self) -> Option<Enrolled> {
        let (enrolled, credential) = record::load(&*self.folder, self.clock.now())?;
        self.dialer.material().set(credential);
        Some(enrolled)
    }

    /// One attempt at each coordinator in turn until one signs.
    ///
    /// # Errors
    /// [`Failure`] of the first one whose answer is final for now, or of the last one that was reached; of the last one, if none
    /// was. A standby that is down says nothing of why the leader refuses.
    pub async fn enrol(&self, machine: &Machine) -> Result<Enrolled, Failure> {
        let mut last = Failure::because("no coordinator is configured").known_as(Known::ServerUnreachable);
        for endpoint in &self.endpoints {
            let attempt = within(&*self.clock, CONVERSATION, self.enrol_at(endpoint, machine)).await;
            match attempt
                .unwrap_or_else(|| Err((Failure::because(format!("{endpoint} takes too long")), false)))
            {
                Ok(enrolled) => return Ok(enrolled),
                Err((failure, true)) => return Err(failure),
                Err((failure, false)) => {
                    let is_unreached = failure.known() == Some(Known::ServerUnreachable);
                    if !is_unreached || last.known() == Some(Known::ServerUnreachable) {
                        last = failure;
                    }
                }
            }
        }
        Err(last)
    }

    /// Dials without a certificate. Whom a machine believes that was away may be told by what it learnt last or by its
    /// configuration, whichever is the younger.
    async fn reach(&self, endpoint: &str) -> Result<Channel, DialError> {
        let first = self.dialer.connect(endpoint).await;
        let current = self.dialer.material().current().anchors.clone();
        let learnt = record::anchors(&*self.folder);
        let other = [Some(&self.configured), learnt.as_ref()]
            .into_iter()
            .flatten()
            .find(|anchors| **anchors != current);
        match (first, other) {
            (Err(_), Some(other)) => {
                self.dialer.material().set(Credential {
                    chain: Vec::new(),
                    key: None,
                    anchors: other.clone(),
                });
                self.dialer.connect(endpoint).await
            }
            (first, _) => first,
        }
    }

    /// Errors come with whether another coordinator would say the same.
    async fn enrol_at(&self, endpoint: &str, machine: &Machine) -> Result<Enrolled, (Failure, bool)> {
        let soft = |failure: Failure| (failure, false);
        let pending = Pending::take(&*self.folder, machine).map_err(soft)?;
        let channel = self.reach(endpoint).await.map_err(|error| soft(error.into()))?;
        let mut client = EnrolmentClient::new(channel);
        let challenge = client
            .challenge(v1::ChallengeRequest {})
            .await
            .map_err(explain)?
            .into_inner()
            .challenge;
        let proof = self.attestor.prove(machine, &challenge, pending.request()).await;
        let request = v1::EnrolRequest {
            challenge,
            csr_der: pending.request().to_vec(),
            instance_id: machine.id.to_string(),
            // A key that was signed before needs none, and there may be none any more: the secret was for the first time.
            proof: match proof {
                Ok(proof) => Some(proof),
                Err(error) if pending.was_signed() => {
                    tracing::debug!(%error, "without a proof, by a key that was signed before");
                    None
                }
                Err(error) => return Err(soft(error)),
            },
            agent_version: crate::VERSION.to_owned(),
        };
        let answer = client.enrol(request).await.map_err(explain)?.into_inner();
        self.offers.take(&answer.join_token, &answer.join_server);
        let node = if answer.node_name.is_empty() {
            machine.id.to_string()
        } else {
            answer.node_name
        };
        let keep = |certificate: v1::Certificate| {
            let enrolled = Enrolled {
                machine: machine.clone(),
                boot_id: self.boot_id.clone(),
                node,
                pool: answer.pool,
                market: answer.market,
                issued_at: self.clock.now(),
                not_after: record::not_after(&certificate)?,
            };
            let credential = record::save(&*self.folder, enrolled.clone(), &pending, &certificate)?;
            self.dialer.material().set(credential);
            Ok(enrolled)
        };
        let missing = || soft(Failure::because("the coordinator's answer holds no certificate"));
        keep(answer.certificate.ok_or_else(missing)?).map_err(soft)
    }

    /// Enrols once more after the certificate has expired, by its key: nobody accepts it in a handshake any more, so that it is
    /// not shown.
    ///
    /// # Errors
    /// As [`enrol`](Self::enrol).
    pub async fn enrol_again(&self, machine: &Machine) -> Result<Enrolled, Failure> {
        let anchors = self.dialer.material().current().anchors.clone();
        self.dialer.material().set(Credential {
            chain: Vec::new(),
            key: None,
            anchors,
        });
        self.enrol(machine).await
    }

    /// A new certificate for a fresh key over `channel`, whose streams stay open.
    ///
    /// # Errors
    /// [`Failure`]; the present certificate stays in use.
    pub async fn renew(&self, channel: Channel, present: &Enrolled) -> Result<Enrolled, Failure> {
        let pending = Pending::renewal(&*self.folder)?;
        let mut client = AgentClient::new(channel);
        let request = v1::RenewRequest {
            csr_der: pending.request().to_vec(),
        };
        let answer = within(&*self.clock, CONVERSATION, client.renew(request))
            .await
            .ok_or_else(|| Failure::because("the renewal takes too long"))??;
        let certificate = answer
            .into_inner()
            .certificate
            .ok_or_else(|| Failure::because("the coordinator's answer holds no certificate"))?;
        let enrolled = Enrolled {
            issued_at: self.clock.now(),
            not_after: record::not_after(&certificate)?,
            ..present.clone()
        };
        let credential = record::save(&*self.folder, enrolled.clone(), &pending, &certificate)?;
        self.dialer.material().set(credential);
        Ok(enrolled)
    }
}

/// What a refusal means for people, and whether another coordinator would say the same.
fn explain(status: Status) -> (Failure, bool) {
    let said = status.message();
    match status.code() {
        Code::FailedPrecondition => (
            Failure::because(format!(
                "the coordinator has not recorded this launch yet: {said}"
            )),
            false,
        ),
        Code::AlreadyExists => {
            let text = format!(
                "another key of this machine was enrolled before ({said}): if its state folder was lost, replace the node with \
                 `smartscale recycle`; if not, somebody else has its identity"
            );
            (Failure::because(text).known_as(Known::EnrolmentRefused), true)
        }
        Code::PermissionDenied => {
            let text = format!(
                "the coordinator does not accept this machine's proof ({said}): a one-time secret is wrong, used or expired; \
                 as an EC2 instance it is not what was launched, or its clock is off by minutes. The coordinator's audit says which"
            );
            (Failure::because(text).known_as(Known::EnrolmentRefused), true)
        }
        _ => (status.into(), false),
    }
}
