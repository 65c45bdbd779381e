//! Answers for people.

use jiff::{Timestamp, tz::TimeZone};
use smartscale_proto::{
    time::{age, duration_from_wire, from_wire},
    v1::{
        Blocker, DrainResponse, ExplainResponse, ListBlockersResponse, ListDecisionsResponse,
        ListNodesResponse, ListOperationsResponse, ListPodsResponse, NodeView, PauseResponse,
        RecycleResponse, ScaleResponse, StatusResponse, WatchResponse,
    },
};

use super::{
    render::Answer,
    table::{WIDTH, table, wrapped, wrapped_within},
};

pub(super) type Time = Option<prost_types::Timestamp>;

pub(super) fn read(time: &Time) -> Option<Timestamp> {
    time.as_ref().and_then(|time| from_wire(time).ok())
}

/// How long ago, in one unit.
fn ago(time: &Time) -> String {
    read(time).map_or_else(|| "-".to_owned(), |time| span(age(time, Timestamp::now())))
}

/// How long until then, in one unit.
pub(super) fn left(time: Timestamp) -> String {
    span(age(Timestamp::now(), time))
}

fn span(duration: std::time::Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}%"))
}

pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

impl Answer for StatusResponse {
    const NAME: &'static str = "StatusResponse";

    fn table(&self) -> String {
        let mut lines = vec![format!("cluster      {} ({})", self.cluster_id, self.mode)];
        let leader = if self.leader.is_empty() {
            "nobody".to_owned()
        } else {
            self.leader.clone()
        };
        let answering = if self.leading {
            String::new()
        } else {
            format!("; {} answers", self.coordinator)
        };
        lines.push(format!(
            "leader       {leader}, term {}{answering}, version {}",
            self.epoch, self.version
        ));
        let mut nodes = format!("nodes        {} of {} Ready", self.nodes_ready, self.nodes_total);
        if self.nodes_launching > 0 {
            nodes.push_str(&format!(", {} launching", self.nodes_launching));
        }
        lines.push(format!(
            "{nodes}; {} to {} allowed, {:.4} USD/h",
            self.min_nodes, self.max_nodes, self.cost_per_hour
        ));
        lines.push(format!("pods         {} pending", self.pods_pending));
        let figure =
            |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1} %"));
        lines.push(format!(
            "usage        CPU {}, memory {}",
            figure(self.cpu_percent),
            figure(self.memory_percent)
        ));
        if self.paused {
            let end = read(&self.paused_until).map_or_else(
                || "until `smartscale resume`".to_owned(),
                |until| format!("for {} more", left(until)),
            );
            lines.push(format!("paused       {end}"));
        }
        if self.floor_nodes > 0 {
            let end = read(&self.floor_until)
                .map_or_else(String::new, |until| format!(" for {} more", left(until)));
            lines.push(format!("floor        {} nodes{end}", self.floor_nodes));
        }
        for schedule in &self.schedules {
            let of_pool = match schedule.pool.as_str() {
                "" => String::new(),
                pool => format!(" of pool {pool}"),
            };
            let end =
                read(&schedule.until).map_or_else(String::new, |until| format!(" for {} more", left(until)));
            lines.push(format!(
                "schedule     {}: at least {} nodes{of_pool}{end}",
                schedule.name, schedule.min_nodes
            ));
        }
        if !self.held_by.is_empty() {
            lines.push(format!("held by      {}", self.held_by.join(", ")));
        }
        if self.last_decision_at.is_some() {
            let decision = format!(
                "decision     {} ({} ago)",
                self.last_decision,
                ago(&self.last_decision_at)
            );
            lines.push(hanging(&decision, 13));
        }
        if self.last_scale_at.is_some() {
            lines.push(format!("last change  {} ago", ago(&self.last_scale_at)));
        }
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|source| {
                let age = source.age.as_ref().and_then(|age| duration_from_wire(age).ok());
                let age = age.map_or_else(|| "never".to_owned(), |age| format!("{} ago", span(age)));
                let state = if source.fresh { "fresh" } else { "stale" };
                vec![source.source.clone(), state.to_owned(), age, source.error.clone()]
            })
            .collect();
        if !sources.is_empty() {
            lines.push(String::new());
            lines.push(
                table(&["SOURCE", "STATE", "ANSWERED", "ERROR"], &sources)
                    .trim_end()
                    .to_owned(),
            );
        }
        if !self.warnings.is_empty() {
            lines.push(String::new());
            lines.extend(
                self.warnings
                    .iter()
                    .map(|warning| wrapped(&format!("warning: {warning}"), "  ")),
            );
        }
        lines.join("\n")
    }
}

/// A line whose first `indent` columns stand alone and whose text is wrapped beside them.
pub(super) fn hanging(line: &str, indent: usize) -> String {
    let (name, text) = line.split_at_checked(indent).unwrap_or((line, ""));
    let mut whole = String::new();
    for (index, part) in wrapped_within(text, WIDTH - indent).into_iter().enumerate() {
        if index > 0 {
            whole.push('\n');
        }
        let margin = if index == 0 { name } else { "" };
        whole.push_str(&format!("{margin:indent$}{part}"));
    }
    whole
}

fn keeps(blockers: &[Blocker]) -> String {
    let mut codes: Vec<&str> = Vec::new();
    for blocker in blockers {
        if !codes.contains(&blocker.code.as_str()) {
            codes.push(&blocker.code);
        }
    }
    codes.join(",")
}

impl Answer for ListNodesResponse {
    const NAME: &'static str = "ListNodesResponse";

    fn table(&self) -> String {
        let rows: Vec<_> = self.nodes.iter().map(node_row).collect();
        let mut whole = table(
            &[
                "NODE", "POOL", "TYPE", "STATE", "AGE", "PODS", "CPU", "MEM", "KEPT BY",
            ],
            &rows,
        );
        let drifted = self.nodes.iter().filter(|node| !node.drift.is_empty());
        let drifted = drifted.map(|node| format!("{} has drifted: {}", node.name, node.drift));
        let notes: Vec<String> = drifted.chain(self.notes.iter().cloned()).collect();
        if !notes.is_empty() {
            whole.push('\n');
        }
        for note in notes {
            whole.push('\n');
            whole.push_str(&hanging(&note, 0));
        }
        whole
    }
}

fn node_row(node: &NodeView) -> Vec<String> {
    let mut state = node.state.clone();
    if node.cordoned && state == "ready" {
        state = "cordoned".to_owned();
    }
    // While it is at work, what EC2 announced of it is the news.
    if let Some(notice) = node.notices.first().filter(|_| state == "ready") {
        state = match notice.kind.as_str() {
            "spot_interruption" => "interrupted".to_owned(),
            other => other.to_owned(),
        };
    }
    let spot = if node.market == "spot" { "*" } else { "" };
    vec![
        node.name.clone(),
        or_dash(&node.pool),
        format!("{}{spot}", or_dash(&node.instance_type)),
        state,
        ago(&node.created_at),
        node.pods.to_string(),
        percent(node.cpu_percent),
        percent(node.memory_percent),
        if node.candidate {
            "nothing".to_owned()
        } else {
            or_dash(&keeps(&node.blockers))
        },
    ]
}

impl Answer for ListPodsResponse {
    const NAME: &'static str = "ListPodsResponse";

    fn table(&self) -> String {
        let rows: Vec<_> = self
            .pods
            .iter()
            .map(|pod| {
                let why = if pod.code.is_empty() {
                    pod.node.clone()
                } else {
                    format!("{}: {}", pod.code, pod.reason)
                };
                vec![
                    format!("{}/{}", pod.namespace, pod.name),
                    pod.state.clone(),
                    ago(&pod.created_at),
                    or_dash(&why),
                ]
            })
            .collect();
        table(&["POD", "STATE", "AGE", "WHERE, OR WHY NOT"], &rows)
    }
}

impl Answer for ListDecisionsResponse {
    const NAME: &'static str = "ListDecisionsResponse";
    const EMBEDDED: &'static [&'static str] = &["plan_json"];

    fn table(&self) -> String {
        let rows: Vec<_> = self
            .decisions
            .iter()
            .map(|one| {
                let times = if one.repeats > 1 {
                    format!(" (×{})", one.repeats)
                } else {
                    String::new()
                };
                vec![
                    one.id.clone(),
                    ago(&one.time),
                    one.action.clone(),
                    format!("{}{times}", one.summary),
                ]
            })
            .collect();
        table(&["DECISION", "AGO", "ACTION", "SUMMARY"], &rows)
    }
}

impl Answer for ExplainResponse {
    const NAME: &'static str = "ExplainResponse";
    const EMBEDDED: &'static [&'static str] = &["record_json"];

    fn table(&self) -> String {
        let mut lines = vec![wrapped(&self.summary, "")];
        lines.extend(self.lines.iter().map(|line| wrapped(&format!("- {line}"), "  ")));
        lines.join("\n")
    }
}

impl Answer for ListOperationsResponse {
    const NAME: &'static str = "ListOperationsResponse";

    fn table(&self) -> String {
        let rows: Vec<_> = self
            .operations
            .iter()
            .map(|one| {
                let state = match (one.ended, one.succeeded) {
                    (false, _) => one.phase.clone(),
                    (true, true) => "done".to_owned(),
                    (true, false) => "failed".to_owned(),
                };
                let error = if one.error.is_empty() {
                    String::new()
                } else {
                    format!(": {}", one.error)
                };
                let what = format!("{} ({}{error})", one.nodes.join(","), one.reason);
                vec![
                    one.id.clone(),
                    one.kind.clone(),
                    state,
                    ago(&one.started_at),
                    what,
                ]
            })
            .collect();
        table(&["OPERATION", "KIND", "STATE", "AGO", "NODES AND REASON"], &rows)
    }
}

impl Answer for ListBlockersResponse {
    const NAME: &'static str = "ListBlockersResponse";

    fn table(&self) -> String {
        let mut text = String::new();
        let mut last_node = "";
        for one in &self.blockers {
            if one.node != last_node {
                text.push_str(&format!("{}\n", one.node));
                last_node = &one.node;
            }
            let age = one
                .age
                .as_ref()
                .and_then(|age| duration_from_wire(age).ok())
                .map_or_else(|| "-".to_owned(), span);
            let pod = if one.pod.is_empty() {
                String::new()
            } else {
                format!(" {}", one.pod)
            };
            let budget = if one.budget.is_empty() {
                String::new()
            } else {
                format!(" (budget {})", one.budget)
            };
            let line = format!("{age:>5}  {}{pod}{budget}: {}", one.code, one.remedy);
            text.push_str(&hanging(&line, 7));
            text.push('\n');
        }
        if text.is_empty() {
            "nothing keeps any node".to_owned()
        } else {
            text
        }
    }
}

impl Answer for DrainResponse {
    const NAME: &'static str = "DrainResponse";

    fn table(&self) -> String {
        format!(
            "accepted as operation {0}; `smartscale explain {0}` follows it",
            self.operation_id
        )
    }
}

impl Answer for RecycleResponse {
    const NAME: &'static str = "RecycleResponse";

    fn table(&self) -> String {
        format!(
            "accepted as operation {0}; `smartscale explain {0}` follows it",
            self.operation_id
        )
    }
}

impl Answer for PauseResponse {
    const NAME: &'static str = "PauseResponse";

    fn table(&self) -> String {
        read(&self.until).map_or_else(
            || "scaling is paused until `smartscale resume`".to_owned(),
            |until| format!("scaling is paused until {until:.0}; `smartscale resume` ends it before"),
        )
    }
}

impl Answer for ScaleResponse {
    const NAME: &'static str = "ScaleResponse";

    fn table(&self) -> String {
        read(&self.until).map_or_else(
            || "the floor is taken away".to_owned(),
            |until| format!("the floor holds until {until:.0}; `smartscale scale --to 0` ends it before"),
        )
    }
}

impl Answer for WatchResponse {
    const NAME: &'static str = "WatchResponse";

    fn table(&self) -> String {
        event(self)
    }
}

/// One line for an event, at the person's own time of day.
pub(super) fn event(event: &WatchResponse) -> String {
    let time = read(&event.time).map_or_else(
        || "        ".to_owned(),
        |time| time.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string(),
    );
    format!("{time}  {:<9}  {}", event.kind, event.message)
}

#[cfg(test)]
mod tests {
    use smartscale_proto::v1::{BlockerView, NoticeView, SourceState};

    use super::*;

    #[test]
    fn unknown_figures_are_said_to_be_unknown() {
        let status = StatusResponse {
            sources: vec![SourceState {
                source: "prometheus".to_owned(),
                ..SourceState::default()
            }],
            warnings: vec!["prometheus does not answer".to_owned()],
            ..StatusResponse::default()
        };
        let text = status.table();
        assert!(text.contains("CPU unknown, memory unknown"), "{text}");
        assert!(text.contains("prometheus  stale  never"), "{text}");
        assert!(text.contains("warning: prometheus does not answer"), "{text}");
    }

    #[test]
    fn everything_for_people_fits_eighty_columns() {
        let blockers = ListBlockersResponse {
            blockers: vec![BlockerView {
                node: "i-0123456789abcdef0".to_owned(),
                code: "NotEnoughPdb".to_owned(),
                pod: "default/a-deployment-with-a-long-name-7d9f8b6c5-x2x4z".to_owned(),
                budget: "default/a-budget".to_owned(),
                age: Some(prost_types::Duration {
                    seconds: 4000,
                    nanos: 0,
                }),
                remedy: "let the budget allow a disruption: more ready replicas, or a lower minAvailable"
                    .to_owned(),
            }],
        };
        let node = NodeView {
            name: "i-0123456789abcdef0".to_owned(),
            pool: "workers".to_owned(),
            instance_type: "t3.medium".to_owned(),
            market: "spot".to_owned(),
            state: "terminating".to_owned(),
            blockers: vec![Blocker {
                code: "NotUnneededLongEnough".to_owned(),
                ..Blocker::default()
            }],
            drift: "it was launched from version 3 of template lt-0123456789abcdef0, and launches use \
                    version 4"
                .to_owned(),
            ..NodeView::default()
        };
        let announced = |kind: &str| NodeView {
            state: "ready".to_owned(),
            notices: vec![NoticeView {
                kind: kind.to_owned(),
                ..NoticeView::default()
            }],
            ..node.clone()
        };
        let announced = ["spot_interruption", "rebalance", "maintenance"].map(announced);
        let unused = "launch template old-workers (lt-0fedcba9876543210): no pool and no node uses it";
        let nodes = ListNodesResponse {
            nodes: [vec![node], announced.to_vec()].concat(),
            notes: vec![unused.to_owned()],
        };
        for word in ["terminating", "interrupted", "rebalance", "maintenance"] {
            assert!(nodes.table().contains(word), "{}", nodes.table());
        }
        for text in [blockers.table(), nodes.table()] {
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = words(&nodes.table());
        assert!(
            shown.contains("i-0123456789abcdef0 has drifted: it was"),
            "{shown}"
        );
        assert!(shown.contains(&words(unused)), "{shown}");
    }
}
