//! The figures of a release build, in a table with the machine's description: what `make bench` prints last. Nothing is
//! asserted; a figure that cannot be taken is told, and the others are taken all the same.
//!
//! ```text
//!  figures ──▶ agent_size            the file
//!          ──▶ agent_streaming       two real agents on the rig, one of them changing every second; node_exporter beside them
//!          ──▶ day                   a real agent on the rig, a day's worth of reports a hundred times as fast
//!          ──▶ coordinator_memory    the real coordinator; its agents are sessions of this process
//!          ──▶ loop_times            the rig: pod to launch call, notice to cordon and eviction
//!          ──▶ drain                 the rig: a full node drained by order
//!          ──▶ leases                both stores: acquisitions; the rig: a leader killed
//!          ──▶ burst                 the rig: from no node to very many
//!          ──▶ interruption          the rig: very many spot notices at once
//! ```
//!
//! | variable | is | default |
//! | --- | --- | --- |
//! | `SMARTSCALE_AGENT` | the agent's program | the one of this build's profile |
//! | `SMARTSCALE_BENCH_SECONDS` | how long the agents stream; the coordinator a fifth of it | 600 |
//! | `SMARTSCALE_BENCH_REPORTS` | reports of a day | 86,400 |
//! | `SMARTSCALE_BENCH_AGENTS` | sessions of the coordinator | 100 |
//! | `SMARTSCALE_BENCH_ROUNDS` | repetitions of the loop, and kills of a leader | 7 |
//! | `SMARTSCALE_BENCH_BURST` | nodes that are wanted at once | 200 |
//! | `SMARTSCALE_BENCH_INTERRUPTED` | nodes that are taken back at once | 50 |
//!
//! Words on the command line choose figures: those whose name contains one of them.

mod agent_size;
mod agent_streaming;
mod burst;
mod calls;
mod coordinator_memory;
mod day;
mod drain;
mod interruption;
mod leases;
mod loop_times;
mod machine;
mod peer;
mod process;
mod relay;
mod sessions;
mod site;
mod spread;

use std::time::Duration;

use anyhow::Context as _;

/// One line of the table.
struct Row {
    figure: String,
    value: String,
    how: String,
}

impl Row {
    fn new(figure: impl Into<String>, value: impl Into<String>, how: impl Into<String>) -> Self {
        Self {
            figure: figure.into(),
            value: value.into(),
            how: how.into(),
        }
    }
}

/// A variable with a number.
fn number(name: &str, default: u32) -> anyhow::Result<u32> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name}: `{text}` is no number")),
        Err(_) => Ok(default),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    smartscale_proto::tls::install_provider();
    // Cargo itself gives `--bench`.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| name.contains(word.as_str()));
    let window = Duration::from_secs(number("SMARTSCALE_BENCH_SECONDS", 600)?.into());
    let agents = number("SMARTSCALE_BENCH_AGENTS", 100)?;
    let rounds = number("SMARTSCALE_BENCH_ROUNDS", 7)?;
    let burst = number("SMARTSCALE_BENCH_BURST", 200)?;
    let interrupted = number("SMARTSCALE_BENCH_INTERRUPTED", 50)?;

    println!("machine: {}", machine::description());
    let mut taken: Vec<(&str, anyhow::Result<Vec<Row>>)> = Vec::new();
    if wanted("agent_size") {
        taken.push(("agent_size", agent_size::take()));
    }
    if wanted("loop_times") {
        eprintln!("figures: {rounds} launches and {rounds} notices …");
        taken.push(("loop_times", loop_times::take(rounds).await));
    }
    if wanted("drain") {
        eprintln!("figures: a full node drained …");
        taken.push(("drain", drain::take().await));
    }
    if wanted("leases") {
        eprintln!("figures: leases, {rounds} kills …");
        taken.push(("leases", leases::take(rounds).await));
    }
    if wanted("burst") {
        eprintln!("figures: {burst} nodes at once …");
        taken.push(("burst", burst::take(burst).await));
    }
    if wanted("interruption") {
        eprintln!("figures: {interrupted} interruptions …");
        taken.push(("interruption", interruption::take(interrupted).await));
    }
    if wanted("coordinator_memory") {
        eprintln!("figures: {agents} agents for {} s …", (window / 5).as_secs());
        taken.push((
            "coordinator_memory",
            coordinator_memory::take(agents, window / 5).await,
        ));
    }
    if wanted("agent_streaming") {
        eprintln!("figures: two agents for {} s …", window.as_secs());
        taken.push(("agent_streaming", agent_streaming::take(window).await));
    }
    if wanted("day") {
        let reports = number("SMARTSCALE_BENCH_REPORTS", 86_400)?;
        eprintln!("figures: {reports} reports of an agent …");
        taken.push(("day", day::take(reports).await));
    }
    println!();
    println!("| figure | value | how |");
    println!("| --- | --- | --- |");
    for (name, rows) in taken {
        match rows {
            Ok(rows) => {
                for Row { figure, value, how } in rows {
                    println!("| {figure} | {value} | {how} |");
                }
            }
            Err(error) => println!("| {name} | not taken | {error:#} |"),
        }
    }
    Ok(())
}
