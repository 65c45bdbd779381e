//! Why something is, or is not: the chain of reasons as sentences, drawn from records and the last decision.

use jiff::Timestamp;
use smartscale_planner::{
    Action, BlockerCode, Hold, Plan, Rule, RuleName,
    model::{Node, Pod, PodKey},
};
use smartscale_proto::{
    time::{age, duration_from_wire, from_wire},
    v1::{
        BootReport, DrainReport, ExplainRequest, ExplainResponse, OperationView, PodState,
        explain_request::Subject,
    },
};
use tonic::Status;

use super::{AdminDesk, blockers::remedy, decisions, names, nodes, unavailable};
use crate::{
    act::agents::Agents as _,
    ids::{DecisionId, InstanceId, OperationId},
    serve::{sessions::words, view::Latest},
    state::records::{DecisionRecord, Record as _},
};

/// Records and operations whose names are offered when a name is wrong.
const OFFERED: usize = 200;

impl AdminDesk {
    pub(super) async fn explain_subject(&self, request: ExplainRequest) -> Result<ExplainResponse, Status> {
        match request.subject {
            None => self.explain_latest().await,
            Some(Subject::Id(id)) if id.is_empty() => self.explain_latest().await,
            Some(Subject::Id(id)) => self.explain_id(&id).await,
            Some(Subject::Node(name)) => self.explain_node(&name),
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

    fn explain_node(&self, name: &str) -> Result<ExplainResponse, Status> {
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
        let mut lines = self.node_lines(&latest, node);
        lines.extend(boot.iter().map(boot_line));
        if let Some(id) = &instance {
            if sessions.is_connected(id) {
                lines.push("Its agent has a session.".to_owned());
            } else if let Some(silent) = sessions.silent_for(id) {
                lines.push(format!("Its agent has had no session for {}.", span(silent)));
            }
            for notice in sessions.notices(id) {
                let kind = words(notice.kind().as_str_name(), "NOTICE_KIND_").replace('_', " ");
                lines.push(format!("EC2 announced: {kind} ({}).", notice.detail));
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

    fn node_lines(&self, latest: &Latest, node: &Node) -> Vec<String> {
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
        if let Some(since) = latest.plan.unneeded_since.get(&node.name) {
            lines.push(format!("It has been unneeded for {}.", span(age(*since, now))));
        }
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
                    remedy(blocker.code)
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

fn pod_lines(latest: &Latest, pod: &Pod, now: Timestamp) -> (String, Vec<String>) {
    let mut lines = vec![format!(
        "It requests {} CPU and {} memory{}.",
        pod.requests.cpu,
        pod.requests.memory,
        pod.created
            .map_or_else(String::new, |at| format!(" and was created {}", ago(at, now)))
    )];
    let plan = &latest.plan;
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

/// The reasons of a plan: rules with their figures, holds, and what was decided.
fn plan_lines(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan.rules.iter().map(rule_line).collect();
    lines.extend(
        plan.held_by
            .iter()
            .map(|hold| format!("Held: {}.", hold_words(*hold))),
    );
    for launch in &plan.launch {
        let types: Vec<_> = launch
            .instance_types
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect();
        let more = launch.instance_types.len().saturating_sub(types.len());
        lines.push(format!(
            "Launch one node of pool {} in {} ({}): {}{} at {:.4} USD/h{}.",
            launch.pool,
            launch.zone,
            launch.market,
            types.join(" or "),
            if more > 0 {
                format!(" or {more} more types")
            } else {
                String::new()
            },
            launch.price_per_hour,
            match launch.pods.len() {
                0 => String::new(),
                1 => format!(" for {}", launch.pods[0]),
                many => format!(" for {many} pods, {} among them", launch.pods[0]),
            }
        ));
    }
    for removal in &plan.remove {
        lines.push(format!(
            "Remove {} ({}): {} of its pods move, {:.4} USD/h saved.",
            removal.node,
            removal.reason,
            removal.moves.len(),
            removal.saves_per_hour
        ));
    }
    if plan.pods.placed > 0 {
        lines.push(format!("{} pending pods found a place.", plan.pods.placed));
    }
    for waiting in plan.pods.pending.iter().take(20) {
        lines.push(format!(
            "{} found none: {} ({}).",
            waiting.pod, waiting.reason, waiting.code
        ));
    }
    if plan.pods.pending.len() > 20 {
        lines.push(format!("{} more pods found none.", plan.pods.pending.len() - 20));
    }
    if plan.remove.is_empty() && plan.action == Action::None {
        let kept = plan.nodes.iter().filter(|verdict| !verdict.candidate);
        let ours = kept.filter(|verdict| {
            verdict
                .blockers
                .iter()
                .all(|one| one.code != BlockerCode::NotOurs)
        });
        for verdict in ours.take(20) {
            lines.push(format!("{} stays: {}.", verdict.node, codes(verdict)));
        }
    }
    lines.extend(plan.assumptions.iter().map(|one| format!("Assumed: {one}.")));
    lines
}

fn codes(verdict: &smartscale_planner::NodeVerdict) -> String {
    let mut codes: Vec<String> = verdict
        .blockers
        .iter()
        .map(|one| {
            one.pod
                .as_ref()
                .map_or_else(|| one.code.to_string(), |pod| format!("{} ({pod})", one.code))
        })
        .collect();
    let more = codes.len().saturating_sub(4);
    codes.truncate(4);
    if more > 0 {
        codes.push(format!("{more} more"));
    }
    codes.join(", ")
}

fn rule_line(rule: &Rule) -> String {
    let what = match rule.rule {
        RuleName::CpuAbove => "average CPU above",
        RuleName::MemoryAbove => "average memory above",
        RuleName::CpuBelow => "average CPU below",
        RuleName::MemoryBelow => "average memory below",
        RuleName::PendingPods => "pending pods above",
    };
    let unit = if rule.rule == RuleName::PendingPods {
        ""
    } else {
        " %"
    };
    let value = rule.value.map_or_else(
        || "unknown".to_owned(),
        |value| format!("{}{unit}", figure(value)),
    );
    let age = rule
        .age_seconds
        .map_or_else(String::new, |age| format!(", {age} s old"));
    let fired = if rule.fired { "fired" } else { "did not fire" };
    format!(
        "Rule {} {fired}: {what} {}{unit}; it is {value} ({}{age}).",
        rule.rule,
        figure(rule.threshold),
        rule.source
    )
}

fn figure(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1} %"))
}

fn hold_words(hold: Hold) -> &'static str {
    match hold {
        Hold::CooldownUp => "the last scale-up is too recent (scale_up.cooldown)",
        Hold::CooldownDown => "the last action is too recent for a removal (scale_down.cooldown)",
        Hold::AtMax => "the maximum of nodes is reached",
        Hold::AtMin => "the minimum of nodes is reached",
        Hold::NotSustained => "a threshold is passed, but not for long enough yet",
        Hold::MetricsUnknown => "there are no fresh cluster metrics, so nothing is removed",
        Hold::OperationInProgress => "an operation is under way",
        Hold::Paused => "somebody paused scaling (`smartscale resume` ends it)",
        Hold::PendingPods => "pods that some node could take are waiting, so nothing is removed",
    }
}

fn boot_line(boot: &BootReport) -> String {
    let step = words(boot.step().as_str_name(), "BOOT_STEP_");
    let outcome = words(boot.outcome().as_str_name(), "OUTCOME_");
    let took = boot.took.as_ref().and_then(|took| duration_from_wire(took).ok());
    let took = took.map_or_else(String::new, |took| format!(" after {:.1} s", took.as_secs_f64()));
    let attempts = if boot.attempts > 1 {
        format!(", {} attempts", boot.attempts)
    } else {
        String::new()
    };
    let error = if boot.error.is_empty() {
        String::new()
    } else {
        format!(": {}", boot.error)
    };
    format!("Boot step {step}: {outcome}{took}{attempts}{error}.")
}

fn drain_lines(drain: &DrainReport) -> Vec<String> {
    let phase = words(drain.phase().as_str_name(), "DRAIN_PHASE_");
    let gone = drain
        .pods
        .iter()
        .filter(|pod| pod.state() == PodState::Gone)
        .count();
    let mut lines = vec![format!(
        "Drain {}: {phase}, {gone} of {} pods are gone.",
        drain.operation_id,
        drain.pods.len()
    )];
    for pod in drain
        .pods
        .iter()
        .filter(|pod| pod.state() != PodState::Gone)
        .take(20)
    {
        let state = words(pod.state().as_str_name(), "POD_STATE_");
        let reason = if pod.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", pod.reason)
        };
        lines.push(format!("Pod {}/{} is {state}{reason}.", pod.namespace, pod.name));
    }
    if !drain.error.is_empty() {
        lines.push(format!("The drain's last error: {}.", drain.error));
    }
    lines
}

fn operation_explained(operation: &OperationView, now: Timestamp) -> ExplainResponse {
    let outcome = match (operation.ended, operation.succeeded) {
        (false, _) => format!("is in phase {}", operation.phase),
        (true, true) => "ended well".to_owned(),
        (true, false) => "failed".to_owned(),
    };
    let summary = format!("{} of {} {outcome}", operation.kind, operation.nodes.join(", "));
    let mut lines = vec![format!("Begun because: {}.", operation.reason)];
    if !operation.decision.is_empty() {
        lines.push(format!(
            "It came of decision {0}: `smartscale explain {0}`.",
            operation.decision
        ));
    }
    for step in &operation.steps {
        let at = step.time.as_ref().and_then(|time| from_wire(time).ok());
        let at = at.map_or_else(String::new, |at| format!("{}: ", ago(at, now)));
        lines.push(format!("{at}{} {}", step.phase, step.note).trim_end().to_owned());
    }
    if operation.takeovers > 0 {
        lines.push(format!(
            "Another leader took it over {} times.",
            operation.takeovers
        ));
    }
    if !operation.error.is_empty() {
        lines.push(format!("Its last error: {}.", operation.error));
    }
    ExplainResponse {
        summary,
        lines,
        record_json: String::new(),
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(age(time, now)))
}

/// A span of time for people, in its two greatest units.
fn span(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
