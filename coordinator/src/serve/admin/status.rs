//! The status: the cluster, its limits and sources, and who leads.

use jiff::Timestamp;
use smartscale_planner::Policy;
use smartscale_proto::{
    time::{duration_to_wire, to_wire},
    v1::{self, ScheduleView, StatusResponse},
};
use tonic::Status;

use super::{AdminDesk, unavailable};
use crate::{
    serve::view::Latest,
    state::{
        StoreError,
        records::{Floor, Pause, Record},
    },
};

impl AdminDesk {
    pub(super) async fn status_of_cluster(&self) -> Result<StatusResponse, Status> {
        let now = self.now();
        let beside = &self.beside;
        let leading = beside.leader.now();
        let sources = (self.parts.sources)(now);
        let mut status = StatusResponse {
            mode: self.parts.mode.clone(),
            version: self.parts.version.clone(),
            coordinator: beside.name.to_string(),
            leader: leading
                .leader
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            epoch: leading.epoch.0,
            leading: leading.ours,
            cluster_id: beside.cluster.clone(),
            sources: sources
                .iter()
                .map(|source| v1::SourceState {
                    source: source.source.clone(),
                    age: source.age.map(duration_to_wire),
                    fresh: source.fresh,
                    error: source.error.clone().unwrap_or_default(),
                })
                .collect(),
            ..StatusResponse::default()
        };
        for source in sources.iter().filter(|source| !source.fresh) {
            status.warnings.push(match &source.error {
                Some(error) => format!("{} does not answer: {error}", source.source),
                None => format!("{} has nothing fresh to say", source.source),
            });
        }
        status.warnings.extend(beside.audit.trouble());
        if leading.leader.is_none() {
            status
                .warnings
                .push("no coordinator holds the lease at this moment: nothing is decided".to_owned());
        }
        if let Err(error) = self.settings_of_people(&mut status, now).await {
            status
                .warnings
                .push(format!("the state store does not answer: {error}"));
        }
        match self.parts.latest.borrow().clone() {
            Some(latest) => fill(&mut status, &latest, now),
            None => status.warnings.push("no decision has been made yet".to_owned()),
        }
        status.min_nodes = status
            .min_nodes
            .max(status.floor_nodes)
            .min(status.max_nodes.max(status.min_nodes));
        Ok(status)
    }

    async fn settings_of_people(
        &self,
        status: &mut StatusResponse,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if let Some(pause) = self.setting::<Pause>().await?
            && pause.until.is_none_or(|until| until > now)
        {
            status.paused = true;
            status.paused_until = pause.until.map(to_wire);
        }
        if let Some(floor) = self.setting::<Floor>().await?
            && floor.until > now
        {
            status.floor_nodes = floor.nodes;
            status.floor_until = Some(to_wire(floor.until));
        }
        if status.epoch == 0
            && let Some(row) = self.beside.store.lease().await?
        {
            status.epoch = row.epoch.0;
        }
        Ok(())
    }

    /// What a person set under the one key of its kind.
    pub(super) async fn setting<R: Record>(&self) -> Result<Option<R>, StoreError> {
        match self.beside.store.get(R::PREFIX).await? {
            Some(item) => R::from_item(&item).map(Some),
            None => Ok(None),
        }
    }

    /// The newest decision record, where there is one.
    pub(super) async fn newest_decision(
        &self,
    ) -> Result<Option<crate::state::records::DecisionRecord>, Status> {
        use crate::state::records::DecisionRecord;
        let items = self.beside.store.list(DecisionRecord::PREFIX, true, 1).await;
        let items = items.map_err(|error| unavailable(&error))?;
        items
            .first()
            .map(DecisionRecord::from_item)
            .transpose()
            .map_err(|error| unavailable(&error))
    }
}

fn fill(status: &mut StatusResponse, latest: &Latest, now: Timestamp) {
    let policy = &latest.policy;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    status.cluster_id = policy.cluster_id.to_string();
    status.nodes_total = count(latest.our_nodes().count());
    status.nodes_ready = count(latest.our_nodes().filter(|node| node.ready).count());
    status.nodes_launching = count(latest.snapshot.state.launching.len());
    status.max_nodes = policy.limits.max_nodes;
    status.schedules = schedules(policy, now);
    let scheduled = status.schedules.iter().filter(|one| one.pool.is_empty());
    let scheduled = scheduled.map(|one| one.min_nodes).max().unwrap_or(0);
    status.min_nodes = policy
        .limits
        .min_nodes
        .max(scheduled.min(policy.limits.max_nodes));
    status.pods_pending = count(latest.pending());
    status.cost_per_hour = latest.cost_per_hour();
    if let Some(reading) = latest.reading(now) {
        status.cpu_percent = reading.cpu_percent;
        status.memory_percent = reading.memory_percent;
    }
    status.held_by = latest.plan.held_by.iter().map(ToString::to_string).collect();
    status.warnings.extend(latest.warnings.iter().cloned());
    status.last_decision.clone_from(&latest.plan.summary);
    status.last_decision_at = Some(to_wire(latest.at));
    status.last_scale_at = latest.snapshot.state.last_scale_time.map(to_wire);
}

/// Those that hold, in the policy's order.
fn schedules(policy: &Policy, now: Timestamp) -> Vec<ScheduleView> {
    let views = policy.schedules.iter().filter_map(|schedule| {
        let until = schedule.window.until(now)?;
        Some(ScheduleView {
            name: schedule.name.clone(),
            pool: schedule
                .pool
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            min_nodes: schedule.min_nodes,
            until: Some(to_wire(until)),
        })
    });
    views.collect()
}
