//! A history that the coordinators recorded: what all of the cluster's pods asked for, minute by minute.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use smartscale_backtest::{Trace, Workload};
use smartscale_proto::{time::from_wire, v1::ListDemandResponse};

use crate::{cli::Connection, input::BadInput, live};

/// What errors and warnings call it.
const NAME: &str = "--recorded";
/// No more is kept.
const MOST_DAYS: u16 = 56;
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// Use of requests that is so far from what the workload says is worth a word.
const FAR: f64 = 0.1;

/// Asks for it; with what there is to warn of.
///
/// # Errors
/// No coordinator answers, or nothing was recorded.
pub(super) fn read(
    connection: &Connection,
    days: u16,
    workload: &Workload,
) -> Result<(Trace, Vec<String>), BadInput> {
    let at = |message: &dyn std::fmt::Display| BadInput::new(NAME, message);
    if days > MOST_DAYS {
        let message = format!("{days} days are asked for: expected {MOST_DAYS} at most, which are kept");
        return Err(BadInput::new("--days", message));
    }
    let answer = live::demand(connection, days).map_err(|failure| at(&failure.message()))?;
    let rows = rows(&answer, workload).map_err(|error| at(&error))?;
    if rows.is_empty() {
        return Err(at(&format_args!(
            "nothing was recorded for --days {days}: the leader writes down what pods ask for every ten minutes"
        )));
    }
    let trace = Trace::from_rows(rows, Duration::from_secs(60)).map_err(|error| at(&error))?;
    let notes = answer.notes.iter().cloned().chain(doubt(&answer, workload));
    Ok((trace, notes.map(|note| format!("{NAME}: {note}")).collect()))
}

/// The demand is of pods: requests are what so many of this workload's serve, each as full as its autoscaler keeps it. They then
/// want as many pods as were wanted.
fn rows(answer: &ListDemandResponse, workload: &Workload) -> Result<Vec<(Timestamp, f64)>, String> {
    #[allow(clippy::cast_precision_loss, reason = "a pod's CPU")]
    let pod = workload.cpu.0 as f64;
    let served = workload.requests_per_pod * workload.target_utilization;
    let mut rows = Vec::new();
    for stretch in &answer.stretches {
        let begins = stretch.begins.as_ref().map(from_wire);
        let Some(Ok(mut at)) = begins else {
            return Err("the coordinator's answer makes no sense: its time is missing".to_owned());
        };
        for cpu_millis in &stretch.cpu_millis {
            rows.push((at, f64::from(*cpu_millis) / pod * served));
            at = at.checked_add(MINUTE).map_err(|error| error.to_string())?;
        }
    }
    Ok(rows)
}

/// Pods that are used otherwise than the workload says make a run warmer or colder than the cluster was.
fn doubt(answer: &ListDemandResponse, workload: &Workload) -> Option<String> {
    let share = answer.stretches.last()?.used_share?;
    let said = workload.target_utilization;
    ((share - said).abs() > FAR).then(|| {
        format!(
            "pods use {:.0} % of their requests when more of them are made; workload.target_utilization says {:.0} %",
            share * 100.0,
            said * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use smartscale_proto::{time::to_wire, v1::DemandStretch};

    use super::*;

    fn workload() -> Workload {
        let text =
            "[workload]\nrequests_per_pod = 60\ntarget_utilization = 0.5\ncpu = \"250m\"\nmemory = \"1Gi\"\n";
        Workload::from_toml(text).unwrap()
    }

    fn recorded(used_share: Option<f64>) -> ListDemandResponse {
        let stretch = |begins: &str, cpu_millis: &[u32]| DemandStretch {
            begins: Some(to_wire(begins.parse().unwrap())),
            cpu_millis: cpu_millis.to_vec(),
            used_share,
        };
        ListDemandResponse {
            stretches: vec![
                stretch("2026-03-01T10:00:00Z", &[1000, 1250]),
                stretch("2026-03-01T10:30:00Z", &[0]),
            ],
            notes: vec![],
        }
    }

    #[test]
    fn recorded_pods_become_the_requests_for_which_they_were_wanted() {
        let rows = rows(&recorded(None), &workload()).unwrap();
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        // Four and five pods, each half full.
        assert_eq!(
            rows,
            [
                (at("2026-03-01T10:00:00Z"), 120.0),
                (at("2026-03-01T10:01:00Z"), 150.0),
                (at("2026-03-01T10:30:00Z"), 0.0)
            ]
        );
    }

    #[test]
    fn pods_that_are_used_otherwise_than_the_workload_says_are_worth_a_word() {
        assert_eq!(doubt(&recorded(None), &workload()), None);
        assert_eq!(doubt(&recorded(Some(0.45)), &workload()), None);
        let said = doubt(&recorded(Some(0.8)), &workload()).unwrap();
        assert!(said.contains("use 80 %") && said.contains("says 50 %"), "{said}");
    }
}
