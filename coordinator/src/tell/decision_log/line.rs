//! A decision record as a line of a log: one JSON object, the same as in the state store, with whose it is in front.

use jiff::Timestamp;
use serde::Serialize;
use smartscale_planner::Plan;

use super::batch::{LONGEST_LINE, OVERHEAD};
use crate::{ids::CoordinatorName, state::records::DecisionRecord};

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    time: Timestamp,
    text: String,
}

/// What the line says. A log shows the first fields of an object only, so that lists come last: the record's own order.
#[derive(Serialize)]
struct Said<'a> {
    cluster: &'a str,
    coordinator: &'a CoordinatorName,
    /// What is missing, since the line would have been longer than a log takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<&'a [&'static str]>,
    #[serde(flatten)]
    record: &'a DecisionRecord,
}

/// What is left out of a plan, and how.
type Cut = (&'static str, fn(&mut Plan));

/// What is left out of a record that is too long, one after another: what is least missed first.
const CUTS: [Cut; 5] = [
    ("plan.nodes", |plan| plan.nodes.clear()),
    ("plan.pods.pending", |plan| plan.pods.pending.clear()),
    ("plan.remove.moves", |plan| {
        plan.remove.iter_mut().for_each(|removal| removal.moves.clear());
    }),
    ("plan.launch.pods", |plan| {
        plan.launch.iter_mut().for_each(|launch| launch.pods.clear());
    }),
    // All but what was done.
    ("plan", |plan| {
        *plan = Plan {
            action: plan.action,
            summary: plan.summary.chars().take(1000).collect(),
            ..Plan::default()
        };
    }),
];

impl Line {
    /// A line. Its text is at most [`LONGEST_LINE`] bytes long.
    #[must_use]
    pub fn new(time: Timestamp, text: String) -> Self {
        Self { time, text }
    }

    /// The line of a record.
    #[must_use]
    pub fn of(cluster: &str, coordinator: &CoordinatorName, record: &DecisionRecord) -> Self {
        let said = |record: &DecisionRecord, cut: &[&'static str]| {
            let said = Said {
                cluster,
                coordinator,
                cut: Some(cut).filter(|cut| !cut.is_empty()),
                record,
            };
            // Every record of ours has a JSON form.
            serde_json::to_string(&said).unwrap_or_else(|error| error.to_string())
        };
        let mut text = said(record, &[]);
        if text.len() > LONGEST_LINE {
            let (mut shorter, mut cut) = (record.clone(), Vec::new());
            for (what, leave_out) in CUTS {
                leave_out(&mut shorter.plan);
                cut.push(what);
                text = said(&shorter, &cut);
                if text.len() <= LONGEST_LINE {
                    break;
                }
            }
        }
        Self::new(record.time, text)
    }

    /// When it was.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// What it says.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it takes of a batch.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use serde_json::{Value, json};
    use smartscale_planner::{Action, Launch, NodeVerdict, model::Market};

    use super::*;
    use crate::ids::Epoch;

    fn record(plan: Plan) -> DecisionRecord {
        DecisionRecord {
            id: "d-1".parse().unwrap(),
            time: Timestamp::UNIX_EPOCH,
            last_time: Timestamp::UNIX_EPOCH,
            repeats: 1,
            mode: "act".to_owned(),
            epoch: Epoch(1),
            cost_change_per_hour: 0.0,
            operations: vec!["op-1".parse().unwrap()],
            sources: vec![("agents".to_owned(), None)],
            plan,
        }
    }

    fn text(plan: Plan) -> String {
        let line = Line::of("demo", &"coordinator-a".parse().unwrap(), &record(plan));
        assert!(line.text.len() <= LONGEST_LINE, "{}", line.text.len());
        line.text
    }

    fn verdicts(count: usize) -> Vec<NodeVerdict> {
        let verdict = |n: usize| NodeVerdict {
            node: format!("node-{n:0>100}").as_str().into(),
            candidate: false,
            blockers: Vec::new(),
        };
        (0..count).map(verdict).collect()
    }

    fn launch(pods: usize) -> Launch {
        Launch {
            pool: "workers".into(),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            instance_types: vec!["t3.small".into()],
            price_per_hour: 0.0062,
            price_source: None,
            price_age_seconds: None,
            pods: (0..pods)
                .map(|n| format!("default/{n:0>100}").parse().unwrap())
                .collect(),
        }
    }

    #[test]
    fn a_line_is_the_stored_record_with_whose_it_is_and_lists_come_last() {
        let plan = Plan {
            action: Action::ScaleUp,
            summary: "launch 1 node".to_owned(),
            nodes: verdicts(1),
            ..Plan::default()
        };
        let text = text(plan.clone());
        let mut said: Value = serde_json::from_str(&text).unwrap();
        let whose = said.as_object_mut().unwrap();
        assert_eq!(whose.remove("cluster"), Some(json!("demo")));
        assert_eq!(whose.remove("coordinator"), Some(json!("coordinator-a")));
        assert_eq!(said, serde_json::to_value(record(plan)).unwrap());
        let at = |key: &str| text.find(&format!("\"{key}\":")).unwrap();
        assert!(
            at("operations") < at("plan") && at("summary") < at("nodes"),
            "{text}"
        );
    }

    #[test]
    fn of_a_record_that_is_too_long_only_what_is_least_missed_is_left_out_and_the_line_says_so() {
        let plan = Plan {
            action: Action::ScaleUp,
            launch: vec![launch(10)],
            nodes: verdicts(10_000),
            ..Plan::default()
        };
        let said: Value = serde_json::from_str(&text(plan)).unwrap();
        assert_eq!(said["cut"], json!(["plan.nodes"]));
        assert_eq!(said["plan"]["nodes"], json!([]));
        assert_eq!(said["plan"]["launch"][0]["pods"].as_array().unwrap().len(), 10);
    }

    #[test]
    fn what_was_done_is_said_of_the_longest_record() {
        let plan = Plan {
            action: Action::ScaleUp,
            summary: "ö".repeat(LONGEST_LINE),
            launch: vec![launch(1); 10_000],
            nodes: verdicts(10_000),
            ..Plan::default()
        };
        let said: Value = serde_json::from_str(&text(plan)).unwrap();
        let cut: Vec<&str> = CUTS.iter().map(|(what, _)| *what).collect();
        assert_eq!(said["cut"], json!(cut));
        assert_eq!(said["plan"]["action"], "scale_up");
        assert_eq!(said["operations"], json!(["op-1"]));
    }
}
