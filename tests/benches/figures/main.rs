//! The figures of a release build, in a table with the machine's description: what `make bench` prints last. Nothing is
//! asserted; a figure that cannot be taken is told, and the others are taken all the same.
//!
//! ```text
//!  figures ──▶ agent_size            the file
//!          ──▶ agent_streaming       two real agents on the rig, one of them changing every second
//!          ──▶ coordinator_memory    the real coordinator; its agents are sessions of this process
//!          ──▶ loop_times            the rig: pod to launch call, notice to eviction
//! ```
//!
//! | variable | is | default |
//! | --- | --- | --- |
//! | `SMARTSCALE_AGENT` | the agent's program | the one of this build's profile |
//! | `SMARTSCALE_BENCH_SECONDS` | how long the agents stream; the coordinator a fifth of it | 600 |
//! | `SMARTSCALE_BENCH_AGENTS` | sessions of the coordinator | 100 |
//! | `SMARTSCALE_BENCH_ROUNDS` | repetitions of the loop | 7 |
//!
//! Words on the command line choose figures: those whose name contains one of them.

mod agent_size;
mod agent_streaming;
mod coordinator_memory;
mod loop_times;
mod machine;
mod process;
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

    println!("machine: {}", machine::description());
    let mut taken: Vec<(&str, anyhow::Result<Vec<Row>>)> = Vec::new();
    if wanted("agent_size") {
        taken.push(("agent_size", agent_size::take()));
    }
    if wanted("loop_times") {
        eprintln!("figures: {rounds} launches and {rounds} notices …");
        taken.push(("loop_times", loop_times::take(rounds).await));
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
