//! Identities of people, handed out by an administrator: the service `Identities`. What is signed is a key whose private
//! half never left the person's machine, for eight hours at most.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_proto::{
    identity::{Leaf, Role, Segment},
    time::{SharedClock, duration_from_wire, to_wire},
    v1::{self, identities_server::Identities, revoke_identity_request::Subject},
};
use tonic::{Request, Response, Status};

use super::{LONGEST, People, put};
use crate::{
    serve::{
        audit::{Audit, audited},
        authorise::Caller,
        authority::Authority,
        csr::RequestedKey,
        leading::Leader,
    },
    state::{
        Condition, SharedStore, StoreError, Write,
        records::{IdentityRecord, Record as _, Revoked, RevokedPerson},
    },
    tell::{Event, Happening, Severity, SharedTell},
};

/// The shortest life: time to bring the certificate back.
const SHORTEST: Duration = Duration::from_secs(60);
/// Characters of a reason.
const REASON: usize = 500;

/// The service.
pub struct IdentityDesk {
    /// Signs.
    pub authority: Arc<Authority>,
    /// Who is trusted.
    pub people: Arc<People>,
    /// Holds the records.
    pub store: SharedStore,
    /// Time.
    pub clock: SharedClock,
    /// Where coordinators are.
    pub leader: Leader,
    /// Told of what was handed out and revoked.
    pub tell: SharedTell,
    /// Told of every call.
    pub audit: Arc<Audit>,
}

#[async_trait]
impl Identities for IdentityDesk {
    async fn issue_identity(
        &self,
        request: Request<v1::IssueIdentityRequest>,
    ) -> Result<Response<v1::IssueIdentityResponse>, Status> {
        let arguments = |request: &v1::IssueIdentityRequest| {
            let key = RequestedKey::from_request(&request.csr_der)
                .map_or_else(|error| error.to_string(), |key| key.fingerprint());
            let life = request
                .life
                .map_or(LONGEST.as_secs().cast_signed(), |life| life.seconds);
            format!(
                "role={:?} name={:?} life={life}s key={key}",
                request.role, request.name
            )
        };
        audited(
            &self.audit,
            "/smartscale.v1.Identities/IssueIdentity",
            request,
            arguments,
            |caller, request| self.issue(caller, request),
        )
        .await
    }

    async fn list_identities(
        &self,
        request: Request<v1::ListIdentitiesRequest>,
    ) -> Result<Response<v1::ListIdentitiesResponse>, Status> {
        audited(
            &self.audit,
            "/smartscale.v1.Identities/ListIdentities",
            request,
            |request| format!("{request:?}"),
            |_, request| self.list(request),
        )
        .await
    }

    async fn revoke_identity(
        &self,
        request: Request<v1::RevokeIdentityRequest>,
    ) -> Result<Response<v1::RevokeIdentityResponse>, Status> {
        audited(
            &self.audit,
            "/smartscale.v1.Identities/RevokeIdentity",
            request,
            |request| format!("{request:?}"),
            |caller, request| self.revoke(caller, request),
        )
        .await
    }
}

impl IdentityDesk {
    async fn issue(
        &self,
        caller: Caller,
        request: v1::IssueIdentityRequest,
    ) -> Result<v1::IssueIdentityResponse, Status> {
        let role: Role = field("role", &request.role)?;
        let name: Segment = field("name", &request.name)?;
        let life = match request.life {
            None => LONGEST,
            Some(life) => duration_from_wire(&life)
                .ok()
                .filter(|life| (SHORTEST..=LONGEST).contains(life))
                .ok_or_else(|| Status::invalid_argument("life: from 1 minute to 8 hours is possible"))?,
        };
        let key = RequestedKey::from_request(&request.csr_der)
            .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
        let cannot = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(error, "a person's certificate cannot be signed");
            Status::unavailable("the authority cannot sign at this moment")
        };
        let issued = self
            .authority
            .person(role, name.clone(), &key, life)
            .map_err(|error| cannot(&error))?;
        let leaf = issued.chain.first().map(|leaf| Leaf::from_certificate(leaf));
        let leaf = match leaf {
            Some(Ok(leaf)) => leaf,
            Some(Err(error)) => return Err(cannot(&error)),
            None => return Err(Status::internal("the authority has signed nothing")),
        };
        let record = IdentityRecord {
            serial: leaf.serial.clone(),
            name,
            role,
            issued_at: self.clock.now(),
            not_after: leaf.not_after,
            issued_by: caller.who(),
            revoked: None,
        };
        // First the record, then the certificate: none is out that nobody can see.
        let write = put(&record, Condition::Absent).map_err(|error| unavailable(&error))?;
        self.store
            .append(&write)
            .await
            .map_err(|error| unavailable(&error))?;
        self.say(
            &caller,
            "IssueIdentity",
            &format!(
                "handed out `{role}` to {} until {:.0}",
                record.name, record.not_after
            ),
        );
        Ok(v1::IssueIdentityResponse {
            certificate: Some(issued.into()),
            serial: leaf.serial,
            endpoints: self.leader.endpoints().leader_first(&self.leader.now()),
        })
    }

    async fn list(&self, request: v1::ListIdentitiesRequest) -> Result<v1::ListIdentitiesResponse, Status> {
        let mut records = self.all().await.map_err(|error| unavailable(&error))?;
        let now = Timestamp::now();
        if !request.include_ended {
            records.retain(|record| record.revoked.is_none() && record.not_after > now);
        }
        records.sort_by(|a, b| b.issued_at.cmp(&a.issued_at).then(a.serial.cmp(&b.serial)));
        Ok(v1::ListIdentitiesResponse {
            identities: records.into_iter().map(view).collect(),
        })
    }

    /// Every record, with revocations of the whole person in it.
    async fn all(&self) -> Result<Vec<IdentityRecord>, StoreError> {
        let people: BTreeMap<String, Revoked> = self
            .people
            .revoked_people()
            .await?
            .into_iter()
            .map(|person| (person.name.to_string(), person.revoked))
            .collect();
        let mut records = self.people.identities().await?;
        for record in &mut records {
            let person = people.get(record.name.as_str());
            if record.revoked.is_none() {
                record.revoked = person.filter(|revoked| record.issued_at <= revoked.at).cloned();
            }
        }
        Ok(records)
    }

    async fn revoke(
        &self,
        caller: Caller,
        request: v1::RevokeIdentityRequest,
    ) -> Result<v1::RevokeIdentityResponse, Status> {
        if request.reason.chars().count() > REASON || request.reason.chars().any(char::is_control) {
            return Err(Status::invalid_argument(format!(
                "reason: one line of at most {REASON} characters is possible"
            )));
        }
        let revoked = Revoked {
            // By the clock that certificates are made by.
            at: Timestamp::now(),
            by: caller.who(),
            reason: request.reason,
        };
        let before = self.all().await.map_err(|error| unavailable(&error))?;
        let good = |record: &&IdentityRecord| record.revoked.is_none() && record.not_after > revoked.at;
        let ended = match request.subject {
            Some(Subject::Serial(serial)) => {
                let serial = serial.to_lowercase().replace(':', "");
                let record = before.iter().find(|record| record.serial == serial);
                let record = record.ok_or_else(|| {
                    Status::not_found(format!(
                        "no certificate with serial `{serial}` was handed out or used: `smartscale identity list --all` \
                         shows those that were"
                    ))
                })?;
                let ended = usize::from(good(&record));
                self.revoke_one(record.serial.clone(), &revoked).await?;
                self.say(
                    &caller,
                    "RevokeIdentity",
                    &format!("revoked {} ({serial})", record.name),
                );
                ended
            }
            Some(Subject::Name(name)) => {
                let name: Segment = field("name", &name)?;
                let ended = before
                    .iter()
                    .filter(|record| record.name == name)
                    .filter(good)
                    .count();
                let record = RevokedPerson {
                    name: name.clone(),
                    revoked,
                };
                let write = Write::Put {
                    key: record.key(),
                    body: record.body().map_err(|error| unavailable(&error))?,
                    expires_at: None,
                    condition: Condition::Always,
                };
                self.store
                    .append(&write)
                    .await
                    .map_err(|error| unavailable(&error))?;
                self.say(&caller, "RevokeIdentity", &format!("revoked {name}"));
                ended
            }
            None => {
                return Err(Status::invalid_argument(
                    "subject: a serial number or a name is needed",
                ));
            }
        };
        // Streams to this coordinator end at once, those to another within a second.
        if let Err(error) = self.people.refresh().await {
            tracing::warn!(%error, "what was revoked is read again in a moment");
        }
        Ok(v1::RevokeIdentityResponse {
            ended: u32::try_from(ended).unwrap_or(u32::MAX),
        })
    }

    async fn revoke_one(&self, serial: String, revoked: &Revoked) -> Result<(), Status> {
        let key = format!("{}{serial}", IdentityRecord::PREFIX);
        let item = self.store.get(&key).await.map_err(|error| unavailable(&error))?;
        let item = item.ok_or_else(|| Status::not_found("that certificate's record is gone"))?;
        let mut record = IdentityRecord::from_item(&item).map_err(|error| unavailable(&error))?;
        record.revoked.get_or_insert_with(|| revoked.clone());
        let write = put(&record, Condition::Version(item.version)).map_err(|error| unavailable(&error))?;
        self.store
            .append(&write)
            .await
            .map_err(|error| unavailable(&error))
    }

    fn say(&self, caller: &Caller, call: &str, what: &str) {
        self.tell.tell(Happening {
            time: self.clock.now(),
            severity: Severity::Info,
            message: format!("{} {what}", caller.person()),
            event: Event::Admin {
                who: caller.who(),
                call: call.to_owned(),
            },
        });
    }
}

fn field<T>(name: &str, text: &str) -> Result<T, Status>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse()
        .map_err(|error| Status::invalid_argument(format!("{name}: {error}")))
}

fn view(record: IdentityRecord) -> v1::IdentityView {
    let revoked = record.revoked;
    v1::IdentityView {
        serial: record.serial,
        name: record.name.to_string(),
        role: record.role.to_string(),
        issued_at: Some(to_wire(record.issued_at)),
        not_after: Some(to_wire(record.not_after)),
        issued_by: record.issued_by,
        revoked_at: revoked.as_ref().map(|revoked| to_wire(revoked.at)),
        revoked_by: revoked
            .as_ref()
            .map(|revoked| revoked.by.clone())
            .unwrap_or_default(),
        revoked_for: revoked.map(|revoked| revoked.reason).unwrap_or_default(),
    }
}

fn unavailable(error: &StoreError) -> Status {
    tracing::warn!(%error, "the state store failed a call about identities");
    Status::unavailable(format!("the state store is not available: {error}"))
}
