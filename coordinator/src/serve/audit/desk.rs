//! Who reads the audit: the service `Audit`. Nothing is judged here: whoever checks a chain does so with records in hand
//! (`smartscale audit verify`), so that a coordinator is not asked whether it was honest.

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use async_trait::async_trait;
use smartscale_proto::{
    audit::{Entry, Head},
    time::{SharedClock, duration_to_wire, to_wire},
    v1::{self, audit_server, export_audit_response::Part},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Audit, KEPT, audited};
use crate::{
    serve::{authorise::Caller, leading::Leader, people::People},
    state::{Item, SharedStore, StoreError, records::Record as _},
};

/// Chains that are read: more coordinators than ever shared a store.
const CHAINS: usize = 1_000;
/// Records whose keys have all but the last three digits in common.
const PAGE: u64 = 1_000;
/// Records that may come after the head of a chain that is in order, and more.
const BEYOND: u64 = 100_000;
/// Parts that may wait for the wire.
const PARTS: usize = 64;

/// The service.
pub struct AuditDesk {
    /// Holds the chains.
    pub store: SharedStore,
    /// Time.
    pub clock: SharedClock,
    /// Who the coordinators are.
    pub leader: Leader,
    /// Who is still trusted.
    pub people: Arc<People>,
    /// Told of every call.
    pub audit: Arc<Audit>,
}

type Parts = Pin<Box<dyn Stream<Item = Result<v1::ExportAuditResponse, Status>> + Send>>;

#[async_trait]
impl audit_server::Audit for AuditDesk {
    type ExportAuditStream = Parts;

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        audited(
            &self.audit,
            "/smartscale.v1.Audit/ListAudit",
            request,
            |request| format!("{request:?}"),
            |_, request| self.newest(request),
        )
        .await
    }

    async fn export_audit(
        &self,
        request: Request<v1::ExportAuditRequest>,
    ) -> Result<Response<Parts>, Status> {
        audited(
            &self.audit,
            "/smartscale.v1.Audit/ExportAudit",
            request,
            |_| String::new(),
            |caller, _| self.export(caller),
        )
        .await
    }
}

impl AuditDesk {
    async fn newest(&self, request: v1::ListAuditRequest) -> Result<v1::ListAuditResponse, Status> {
        let limit = crate::serve::admin::limit(request.limit)?;
        let chains = match request.coordinator.as_str() {
            "" => chains(&self.store, &self.leader)
                .await
                .map_err(|error| unavailable(&error))?,
            name => [name.to_owned()].into(),
        };
        let mut entries = Vec::new();
        for name in chains {
            let items = self.store.list(&prefix(&name), true, limit).await;
            let items = items.map_err(|error| unavailable(&error))?;
            entries.extend(items.iter().filter_map(|item| Entry::from_item(item).ok()));
        }
        entries.sort_by(|a, b| b.time.cmp(&a.time).then(b.sequence.cmp(&a.sequence)));
        entries.truncate(limit);
        Ok(v1::ListAuditResponse {
            entries: entries.iter().map(Into::into).collect(),
        })
    }

    async fn export(&self, caller: Caller) -> Result<Parts, Status> {
        let chains = chains(&self.store, &self.leader)
            .await
            .map_err(|error| unavailable(&error))?;
        let (sender, parts) = mpsc::channel(PARTS);
        let exporting = Exporting {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            parts: sender,
        };
        let ended = Arc::clone(&self.people).ended(caller.certificate);
        tokio::spawn(async move {
            let last = tokio::select! {
                exported = exporting.all(chains) => exported.map_err(|error| unavailable(&error)),
                status = ended => Err(status),
            };
            if let Err(status) = last {
                let _ = exporting.parts.send(Err(status)).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(parts)))
    }
}

/// The coordinators whose chains there may be: those of which there is a head, and those that are known to be.
async fn chains(store: &SharedStore, leader: &Leader) -> Result<BTreeSet<String>, StoreError> {
    let heads = store.list(Head::PREFIX, false, CHAINS).await?;
    let heads = heads
        .iter()
        .filter_map(|item| item.key.strip_prefix(Head::PREFIX).map(ToOwned::to_owned));
    let endpoints = leader.endpoints();
    let own = endpoints.own.iter().map(|(name, _)| name);
    let known = own.chain(endpoints.peers.keys()).map(ToString::to_string);
    let mut names: BTreeSet<String> = heads.chain(known).collect();
    // A chain whose head was taken away and that no coordinator of today continues.
    for newest in [false, true] {
        let edge = store.list(Entry::PREFIX, newest, 1).await?;
        let name = edge
            .first()
            .and_then(|item| item.key.strip_prefix(Entry::PREFIX)?.split_once('#'));
        names.extend(name.map(|(name, _)| name.to_owned()));
    }
    Ok(names)
}

fn prefix(coordinator: &str) -> String {
    format!("{}{coordinator}#", Entry::PREFIX)
}

/// The place that a key names.
fn position(prefix: &str, key: &str) -> Option<u64> {
    let digits = key.strip_prefix(prefix)?;
    let sound = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| digits.parse().ok()).flatten()
}

struct Exporting {
    store: SharedStore,
    clock: SharedClock,
    parts: mpsc::Sender<Result<v1::ExportAuditResponse, Status>>,
}

impl Exporting {
    async fn all(&self, chains: BTreeSet<String>) -> Result<(), StoreError> {
        for name in chains {
            self.chain(&name).await?;
        }
        Ok(())
    }

    async fn chain(&self, name: &str) -> Result<(), StoreError> {
        let prefix = prefix(name);
        let head = self.store.get(&Head::empty(name).key()).await?;
        let head = head.and_then(|item| Head::from_item(&item).ok());
        let first = self.store.list(&prefix, false, 1).await?.pop();
        let last = self.store.list(&prefix, true, 1).await?.pop();
        let place = |item: &Option<Item>| item.as_ref().and_then(|item| position(&prefix, &item.key));
        if first.is_none() && head.is_none() {
            return Ok(());
        }
        self.send(match &head {
            Some(head) => Part::Head(head.into()),
            None => Part::Headless(name.to_owned()),
        })
        .await;
        // Keys before and after all those that name a place.
        for odd in [&first, &last] {
            if let Some(item) = odd
                && place(odd).is_none()
            {
                self.unreadable(item).await;
            }
        }
        let known = head.as_ref().map_or(0, |head| head.sequence);
        let from = place(&first).unwrap_or(1);
        let end = place(&last).unwrap_or(known);
        // A record far beyond the head is no record of the chain, and must not have us look at every place before it.
        let to = end.min(known.max(from).saturating_add(BEYOND));
        for page in from / PAGE..=to / PAGE {
            let page = format!("{prefix}{page:017}");
            for item in self
                .store
                .list(&page, false, 2 * usize::try_from(PAGE).unwrap_or(1))
                .await?
            {
                self.place(&prefix, &item).await;
            }
        }
        if let Some(item) = last.filter(|_| end > to) {
            self.place(&prefix, &item).await;
        }
        Ok(())
    }

    async fn place(&self, prefix: &str, item: &Item) {
        match (position(prefix, &item.key), Entry::from_item(item)) {
            (Some(position), Ok(entry)) => {
                let place = v1::AuditPlace {
                    position,
                    entry: Some((&entry).into()),
                    key: String::new(),
                };
                self.send(Part::Place(place)).await;
            }
            _ => self.unreadable(item).await,
        }
    }

    async fn unreadable(&self, item: &Item) {
        let place = v1::AuditPlace {
            position: 0,
            entry: None,
            key: item.key.clone(),
        };
        self.send(Part::Place(place)).await;
    }

    async fn send(&self, part: Part) {
        let response = v1::ExportAuditResponse {
            part: Some(part),
            now: Some(to_wire(self.clock.now())),
            kept: Some(duration_to_wire(KEPT.unsigned_abs())),
        };
        // Whoever has left is noticed by nobody.
        let _ = self.parts.send(Ok(response)).await;
    }
}

fn unavailable(error: &StoreError) -> Status {
    tracing::warn!(%error, "the state store failed a call about the audit");
    Status::unavailable(format!("the state store is not available: {error}"))
}
