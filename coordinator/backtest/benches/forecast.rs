//! What the forecast costs and saves, on the history of the repository and on those made up: the table of `docs/forecast.md`.
//! `cargo bench -p smartscale-backtest --bench forecast`

use std::{collections::BTreeSet, fs::File};

use smartscale_backtest::{Backtest, Outcome, Rival, Shape, Trace, Workload};
use smartscale_planner::Policy;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
const DAYS: u32 = 28;

fn main() {
    let read =
        |name: &str| std::fs::read_to_string(format!("{DATA}/{name}")).expect("the repository carries it");
    let fits = read("policy-fits.toml");
    let off = fits.replace("enabled = true", "enabled = false");
    // What most people have: nodes for pods that wait, gone ten minutes after they are not needed.
    let hold = off
        .replace("sustained = \"2m\"", "sustained = \"10m\"")
        .replace("steer = true", "steer = false");
    let workload = Workload::from_toml(&read("workload-nasa.toml")).expect("a workload");
    let nasa = File::open(format!("{DATA}/nasa-http-1995-07.csv")).expect("the repository carries it");
    let mut traces = vec![("NASA", Trace::from_csv(nasa).expect("a trace"))];
    traces.extend(Shape::ALL.map(|shape| (shape.as_str(), shape.trace(DAYS, 1))));
    println!(
        "{:12} {:10} {:>8} {:>8} {:>10} {:>9}",
        "trace", "policy", "over %", "minutes", "evictions", "pending %"
    );
    for (name, trace) in &traces {
        for (policy, text) in [("hold", &hold), ("reactive", &off), ("forecast", &fits)] {
            let (policy_of, _) = Policy::from_toml(text).expect("a policy");
            let backtest = Backtest {
                trace,
                policy: &policy_of,
                workload: &workload,
                seed: 1,
            };
            let rivals: BTreeSet<Rival> = [Rival::Fixed, Rival::Oracle].into();
            let outcome = backtest.run(&rivals).expect("a run");
            print(name, policy, &outcome);
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "minutes and evictions of a month")]
fn print(trace: &str, policy: &str, outcome: &Outcome) {
    let fixed = outcome
        .rival(Rival::Fixed)
        .map_or(0, |totals| totals.shortfall_minutes);
    let minutes = &outcome.series.minutes;
    let wanted: f64 = minutes
        .iter()
        .map(|minute| f64::from(minute.pods_wanted) * 60.0)
        .sum();
    println!(
        "{trace:12} {policy:10} {:8.2} {:8} {:10.2} {:9.3}",
        outcome.over_oracle_percent().unwrap_or(f64::NAN),
        outcome.policy.shortfall_minutes as i64 - fixed as i64,
        outcome.policy.evictions as f64 / (minutes.len() as f64 / 1440.0),
        outcome.policy.pending_pod_seconds / wanted * 100.0,
    );
}
