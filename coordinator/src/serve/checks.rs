//! What `smartscale check` asks: the service `Checks`. Each coordinator answers for itself, leader or not; the leader asks the
//! agents, which have their sessions with it.
//!
//! ```text
//!   Check        ─▶ Checks: what this coordinator depends on
//!   CheckAgents  ─▶ node records ─▶ eight at a time: Sessions ─session─▶ agent ─▶ its report, bounded
//! ```

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use smartscale_proto::{
    check::{Finding, Report},
    time::SharedClock,
    v1::{self, checks_server},
};
use tokio::sync::Mutex;
use tonic::{Code, Request, Response, Status};

use super::{
    admin::{names::not_found, unavailable},
    audit::{Audit, audited},
    leading::Leader,
    sessions::{Sessions, checking::Unanswered},
};
use crate::{
    check::Checks,
    state::{
        SharedStore,
        records::{NodeRecord, Record as _},
    },
};

/// Agents that are asked at once: each reads its secrets at AWS and knocks at the coordinators.
const AT_ONCE: usize = 8;
/// After this no further agent is asked; a call then waits for those that are.
const LIMIT: Duration = Duration::from_secs(300);
/// More machines than one coordinator has.
const MOST: usize = 20_000;

/// The service.
pub(super) struct ChecksDesk {
    /// One check at a time: it makes calls that are limited, and somebody who asks twice learns nothing more.
    pub(super) checks: Mutex<Checks>,
    /// One round of the agents at a time.
    pub(super) agents: Mutex<Arc<Sessions>>,
    pub(super) store: SharedStore,
    pub(super) leader: Leader,
    pub(super) clock: SharedClock,
    pub(super) audit: Arc<Audit>,
}

#[async_trait]
impl checks_server::Checks for ChecksDesk {
    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        audited(
            &self.audit,
            "/smartscale.v1.Checks/Check",
            request,
            |_| String::new(),
            |_, _| async {
                let report = self.checks.lock().await.report().await;
                Ok(v1::CheckResponse {
                    reports: vec![report.into()],
                })
            },
        )
        .await
    }

    async fn check_agents(
        &self,
        request: Request<v1::CheckAgentsRequest>,
    ) -> Result<Response<v1::CheckAgentsResponse>, Status> {
        audited(
            &self.audit,
            "/smartscale.v1.Checks/CheckAgents",
            request,
            |request| format!("{request:?}"),
            |_, request| self.round(request.node),
        )
        .await
    }
}

impl ChecksDesk {
    /// Asks the agent of `node`, or all.
    async fn round(&self, node: String) -> Result<v1::CheckAgentsResponse, Status> {
        self.leader.epoch(Code::FailedPrecondition)?;
        let sessions = self.agents.lock().await;
        let machines = self.machines(&node).await?;
        let end = self.clock.elapsed() + LIMIT;
        let mut reports: Vec<Report> = stream::iter(machines)
            .map(|machine| self.ask(&sessions, machine, end))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        reports.sort_by(|a, b| a.program.cmp(&b.program));
        Ok(v1::CheckAgentsResponse {
            reports: reports.into_iter().map(Into::into).collect(),
        })
    }

    /// The machines whose agents there should be, of which `node` may name one.
    async fn machines(&self, node: &str) -> Result<Vec<NodeRecord>, Status> {
        let items = self.store.list(NodeRecord::PREFIX, false, MOST).await;
        let items = items.map_err(|error| unavailable(&error))?;
        let mut machines: Vec<NodeRecord> = items
            .iter()
            .filter_map(|item| match NodeRecord::from_item(item) {
                Ok(record) => Some(record),
                Err(error) => {
                    tracing::error!(%error, "a node record cannot be read");
                    None
                }
            })
            .filter(|machine| machine.revoked_at.is_none())
            .collect();
        if !node.is_empty() {
            let one = machines
                .iter()
                .position(|machine| machine.instance.as_str() == node);
            let one = one.map(|index| machines.swap_remove(index));
            let known = machines.iter().map(|machine| machine.instance.as_str());
            machines = vec![one.ok_or_else(|| not_found("node with an agent", node, known))?];
        }
        Ok(machines)
    }

    async fn ask(&self, sessions: &Sessions, machine: NodeRecord, end: Duration) -> Report {
        let instance = &machine.instance;
        let said = if machine.enrolled_key.is_none() {
            let since = machine.launched_at;
            let found = format!("it was launched at {since:.0} and has not enrolled yet");
            Err(Finding::skipped(AREA, ASKED, found))
        } else if self.clock.elapsed() >= end {
            Err(late(instance.as_str()))
        } else {
            sessions.check(instance).await.map_err(finding)
        };
        let (version, findings) = match said {
            Ok(report) => (report.version, report.findings),
            Err(finding) => {
                let hello = sessions.hello(instance).unwrap_or_default();
                (hello.agent_version, vec![finding])
            }
        };
        // Whose report it is, the certificate of its session says. The rest is a stranger's word: the machine may be anybody's.
        let report = Report {
            program: format!("agent {instance}"),
            version,
            findings,
        };
        report.bounded()
    }
}

const AREA: &str = "agent";
const ASKED: &str = "asked the agent for a check";

fn late(instance: &str) -> Finding {
    Finding::warning(
        AREA,
        ASKED,
        format!("it was not, since others had taken {} s", LIMIT.as_secs()),
        format!("smartscale check --node {instance}"),
    )
}

fn finding(unanswered: Unanswered) -> Finding {
    let found = unanswered.to_string();
    match unanswered {
        Unanswered::Older => Finding::warning(
            AREA,
            ASKED,
            found,
            "update it (or replace the node), or run `smartscale-agent check` on the machine",
        ),
        _ => Finding::failed(
            AREA,
            ASKED,
            found,
            "on the machine, `smartscale-agent check` says what it lacks, and journalctl -u smartscale-agent what it does",
        ),
    }
}
