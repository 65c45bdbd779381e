//! Why something is, or is not: the chain of reasons as sentences, drawn from records and the last decision.

mod sentences;

use std::sync::Arc;

use jiff::Timestamp;
use smartscale_planner::{
    Action,
    model::{Node, Pod, PodKey},
};
use smartscale_proto::{
    time::age,
    v1::{ExplainRequest, ExplainResponse, explain_request::Subject},
};
use tonic::Status;

use self::sentences::{
    ago, boot_line, booted_line, codes, drain_lines, hold_words, json, notice_lines, operation_explained,
    percent, plan_lines, span,
};
use super::{
    AdminDesk,
    blockers::{Causes, remedy},
    decisions, names, nodes, unavailable,
};
use crate::{
    act::agents::Agents as _,
    config::Mode,
    ids::{DecisionId, InstanceId, OperationId},
    serve::view::Latest,
    state::records::{BootTime, DecisionRecord, NodeRecord, Record as _},
};

/// Records and operations whose names are offered when a name is wrong.
const OFFERED: usize = 200;

impl AdminDesk {
    pub(super) async fn explain_subject(&self, request: ExplainRequest) -> Result<ExplainResponse, Status> {
        match request.subject {
            None => self.explain_latest().await,
            Some(Subject::Id(id)) if id.is_empty() => self.explain_latest().await,
            Some(Subject::Id(id)) => self.explain_id(&id).await,
            Some(Subject::Node(name)) => self.explain_node(&name).await,
            Some(Subject::Pod(name)) => self.explain_pod(&name),
        }
    }

    async fn explain_latest(&self) -> Result<ExplainResponse, Status> {
        if let Ok(latest) = self.latest() {
            let lines = plan_lines(&latest.plan);
            let summary = format!("{} ({})", latest.plan.summary, ago(latest.at, self.now()));
            return Ok(ExplainResponse {
                summary,
                lines,
                record_json: json(&*latest.plan),
            });
        }
        match self.newest_decision().await? {
            Some(record) => self.explain_record(&record),
            None => Err(Status::not_found("no decision has been recorded yet")),
        }
    }

    async fn explain_id(&self, id: &str) -> Result<ExplainResponse, Status> {
        let bad = |error: crate::ids::BadId| Status::invalid_argument(format!("id: {error}"));
        let decision: DecisionId = id.parse().map_err(bad)?;
        let operation: OperationId = id.parse().map_err(bad)?;
        let item = self
            .beside
            .store
            .get(&format!("{}{decision}", DecisionRecord::PREFIX))
            .await;
        if let Some(item) = item.map_err(|error| unavailable(&error))? {
            return self
                .explain_record(&DecisionRecord::from_item(&item).map_err(|error| unavailable(&error))?);
        }
        let found = self
            .parts
            .orders
            .operation(&operation)
            .await
            .map_err(|error| unavailable(&error))?;
        if let Some(operation) = found {
            return Ok(operation_explained(&operation, self.now()));
        }
        let decisions = self
            .beside
            .store
            .list(DecisionRecord::PREFIX, true, OFFERED)
            .await;
        let operations = self.parts.orders.operations(OFFERED, false).await;
        let mut known: Vec<String> = decisions
            .unwrap_or_default()
            .iter()
            .map(|item| item.key.trim_start_matches(DecisionRecord::PREFIX).to_owned())
            .collect();
        known.extend(
            operations
                .unwrap_or_default()
                .into_iter()
                .map(|operation| operation.id),
        );
        Err(names::not_found(
            "decision or operation",
            id,
            known.iter().map(String::as_str),
        ))
    }

    fn explain_record(&self, record: &DecisionRecord) -> Result<ExplainResponse, Status> {
        let view = decisions::view(record)?;
        let mut lines = vec![format!(
            "Decided {} in mode {}, term {}{}.",
            ago(record.last_time, self.now()),
            record.mode,
            record.epoch,
            if record.repeats > 1 {
                format!(", {} times in a row since {:.0}", record.repeats, record.time)
            } else {
                String::new()
            }
        )];
        if record.mode == Mode::Observe.as_str() && record.plan.action != Action::None {
            let change = record.cost_change_per_hour;
            let verb = if change < 0.0 { "save" } else { "cost" };
            lines.push(format!(
                "Only observed: nothing of it was done. It would {verb} {:.4} USD an hour.",
                change.abs()
            ));
        }
        lines.extend(plan_lines(&record.plan));
        for (source, age) in &record.sources {
            lines.push(match age {
                Some(age) => format!("Source {source} had answered {age:.0} s before."),
                None => format!("Source {source} had not answered yet."),
            });
        }
        for operation in &record.operations {
            lines.push(format!(
                "It became operation {operation}: `smartscale explain {operation}`."
            ));
        }
        Ok(ExplainResponse {
            summary: view.summary,
            lines,
            record_json: json(record),
        })
    }

    async fn explain_node(&self, name: &str) -> Result<ExplainResponse, Status> {
        let latest = self.latest()?;
        let cluster = &latest.snapshot.cluster;
        let sessions = &self.beside.sessions;
        let instance = name.parse::<InstanceId>().ok();
        let boot = instance.as_ref().map(|id| sessions.boot(id)).unwrap_or_default();
        let Some(node) = cluster.node(name) else {
            if boot.is_empty() {
                let known = cluster.nodes.iter().map(|node| node.name.as_str());
                return Err(names::not_found("node", name, known));
            }
            let lines = boot.iter().map(boot_line).collect();
            let summary = format!("{name} was launched and has not registered as a node yet");
            return Ok(ExplainResponse {
                summary,
                lines,
                record_json: String::new(),
            });
        };
        let causes = Causes::of(&latest, Some(&node.name)).await;
        let mut lines = self.node_lines(&latest, node, &causes);
        if let Some(id) = &instance {
            if boot.is_empty() {
                lines.extend(self.first_boot(id).await?.iter().map(booted_line));
            }
            lines.extend(boot.iter().map(boot_line));
            if sessions.is_connected(id) {
                lines.push("Its agent has a session.".to_owned());
            } else if let Some(silent) = sessions.silent_for(id) {
                lines.push(format!("Its agent has had no session for {}.", span(silent)));
            }
            for condition in sessions.conditions(id) {
                let since = condition
                    .since
                    .map_or_else(String::new, |since| format!(", since {since:.0}"));
                lines.push(format!(
                    "Its agent says {}: {}{since}.",
                    condition.word(),
                    condition.detail
                ));
            }
            for notice in sessions.board().of(id) {
                lines.extend(notice_lines(&notice, latest.policy.pool_of(node), self.now()));
            }
            if let Some(drain) = sessions.drains(id).last() {
                lines.extend(drain_lines(drain));
            }
        }
        let verdict = latest.plan.nodes.iter().find(|verdict| verdict.node == node.name);
        let removal = latest
            .plan
            .remove
            .iter()
            .find(|removal| removal.node == node.name);
        let summary = match (removal, verdict) {
            (Some(removal), _) => format!(
                "{name} is being removed ({}), which saves {:.4} USD/h",
                removal.reason, removal.saves_per_hour
            ),
            (None, Some(verdict)) if verdict.candidate => {
                format!("{name} may be removed; nothing of its own keeps it")
            }
            (None, Some(verdict)) => format!("{name} stays: {}", codes(verdict)),
            (None, None) => format!("{name} was not considered in the last decision"),
        };
        Ok(ExplainResponse {
            summary,
            lines,
            record_json: verdict.map(json).unwrap_or_default(),
        })
    }

    /// The steps of a machine's first boot as its record keeps them: another coordinator may have heard of them.
    async fn first_boot(&self, instance: &InstanceId) -> Result<Vec<BootTime>, Status> {
        let key = format!("{}{instance}", NodeRecord::PREFIX);
        let item = self
            .beside
            .store
            .get(&key)
            .await
            .map_err(|error| unavailable(&error))?;
        let record = item.and_then(|item| NodeRecord::from_item(&item).ok());
        Ok(record.map(|record| record.boot).unwrap_or_default())
    }

    fn node_lines(&self, latest: &Latest, node: &Node, causes: &Causes) -> Vec<String> {
        let now = self.now();
        let mut lines = Vec::new();
        let pool = latest.policy.pool_of(node).map(|pool| pool.name.to_string());
        lines.push(format!(
            "It is {}{}{}, {}.",
            if node.ready { "Ready" } else { "not Ready" },
            if node.unschedulable { ", cordoned" } else { "" },
            node.created
                .map_or_else(String::new, |at| format!(", created {}", ago(at, now))),
            pool.map_or_else(
                || "in no pool of the policy".to_owned(),
                |pool| format!("in pool {pool}")
            ),
        ));
        match latest.snapshot.metrics.nodes.get(&node.name) {
            Some(reading) => lines.push(format!(
                "It uses {} CPU and {} memory, said {} {}.",
                percent(reading.cpu_percent),
                percent(reading.memory_percent),
                reading.source,
                ago(reading.time, now)
            )),
            None => lines.push("Its usage is not known, so it is not removed.".to_owned()),
        }
        if let Some(how) = latest.drift_of(&node.name) {
            lines.push(format!("It has drifted: {how}."));
        }
        if let Some(since) = latest.plan.unneeded_since.get(&node.name) {
            lines.push(format!("It has been unneeded for {}.", span(age(*since, now))));
        }
        lines.extend(steered_line(latest, node));
        if let Some(verdict) = latest.plan.nodes.iter().find(|verdict| verdict.node == node.name) {
            for blocker in &verdict.blockers {
                let pod = blocker
                    .pod
                    .as_ref()
                    .map_or_else(String::new, |pod| format!(" by pod {pod}"));
                let since = self.beside.ages.since(&node.name, blocker);
                let since = since.map_or_else(String::new, |at| format!(" for {}", span(age(at, now))));
                lines.push(format!(
                    "Kept{since}{pod}: {} – {}.",
                    blocker.code,
                    causes.remedy(&node.name, blocker)
                ));
            }
        }
        for hold in &latest.plan.held_by {
            lines.push(format!("The last decision was held: {}.", hold_words(*hold)));
        }
        lines
    }

    fn explain_pod(&self, name: &str) -> Result<ExplainResponse, Status> {
        let key: PodKey = name
            .parse()
            .map_err(|error| Status::invalid_argument(format!("pod: {error}, for example default/web-1")))?;
        let latest = self.latest()?;
        let pods = &latest.snapshot.cluster.pods;
        let Some(pod) = pods.iter().find(|pod| pod.key == key) else {
            let known: Vec<String> = pods.iter().map(|pod| pod.key.to_string()).collect();
            return Err(names::not_found("pod", name, known.iter().map(String::as_str)));
        };
        let (summary, lines) = pod_lines(&latest, pod, self.now());
        Ok(ExplainResponse {
            summary,
            lines,
            record_json: String::new(),
        })
    }
}

/// Whether scale-ins are led to it.
fn steered_line(latest: &Latest, node: &Node) -> Option<String> {
    let on_it = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(&node.name);
    let pods = latest.snapshot.cluster.pods.iter().filter(on_it);
    let marked = pods.filter(|pod| latest.steered.contains_key(&pod.key)).count();
    let place = latest.plan.steer.iter().position(|name| *name == node.name);
    let bear = format!("{marked} of its pods bear a low deletion cost");
    match place {
        Some(place) => Some(format!(
            "Scale-ins are led to it, as number {} of {}: {bear} (scale_down.steer).",
            place + 1,
            latest.plan.steer.len()
        )),
        None if marked > 0 => Some(format!(
            "Scale-ins were led to it: {bear} still (scale_down.steer)."
        )),
        None => None,
    }
}

fn pod_lines(latest: &Latest, pod: &Pod, now: Timestamp) -> (String, Vec<String>) {
    let mut lines = vec![format!(
        "It requests {} CPU and {} memory{}.",
        pod.requests.cpu,
        pod.requests.memory,
        pod.created
            .map_or_else(String::new, |at| format!(" and was created {}", ago(at, now)))
    )];
    let plan = &latest.plan;
    if let Some(cost) = latest.steered.get(&pod.key) {
        lines.push(format!(
            "A scale-in of its workload ends it before others: its deletion cost is {cost}, for its node to empty \
             (scale_down.steer)."
        ));
    }
    if let Some(node) = &pod.node {
        let codes = plan
            .nodes
            .iter()
            .flat_map(|verdict| &verdict.blockers)
            .filter(|blocker| blocker.pod.as_ref() == Some(&pod.key));
        for blocker in codes {
            lines.push(format!(
                "It keeps its node: {} – {}.",
                blocker.code,
                remedy(blocker.code)
            ));
        }
        for moved in plan
            .remove
            .iter()
            .flat_map(|removal| &removal.moves)
            .filter(|moved| moved.pod == pod.key)
        {
            lines.push(format!(
                "Its node is being removed; there is room for it on {}.",
                moved.to
            ));
        }
        return (
            format!("{} is {} on {node}", pod.key, nodes::pod_state(pod, false)),
            lines,
        );
    }
    if let Some(waiting) = plan.pods.pending.iter().find(|waiting| waiting.pod == pod.key) {
        lines.push(format!("The filter that stopped it: {}.", waiting.code));
        lines.push(format!("{}.", waiting.reason.trim_end_matches('.')));
        lines.extend(
            plan.held_by
                .iter()
                .map(|hold| format!("The last decision was held: {}.", hold_words(*hold))),
        );
        return (format!("{} waits: {}", pod.key, waiting.reason), lines);
    }
    if let Some(place) = nodes::planned(latest).get(&pod.key) {
        lines.push(format!(
            "The last decision ({}) launches a node for it.",
            ago(latest.at, now)
        ));
        return (format!("{} is planned onto a {place}", pod.key), lines);
    }
    if pod.wants_place() {
        lines.push("The last decision found a place for it on a node that is there or on its way; the scheduler binds it.".to_owned());
        return (
            format!("{} has a place and waits for the scheduler", pod.key),
            lines,
        );
    }
    (format!("{} is {}", pod.key, nodes::pod_state(pod, false)), lines)
}
