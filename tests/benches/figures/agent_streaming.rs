//! What an agent takes while it streams: the real program on two machines of the rig, mutual TLS on loopback, one machine quiet
//! (a report every 5 s) and one whose CPU moves every second (a report every second), ten pods on each.

use std::time::Duration;

use anyhow::Context as _;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::site::{Site, policy};
use tokio::time::{Instant, interval, sleep_until};

use crate::{Row, process::Usage, site};

pub(crate) async fn take(window: Duration) -> anyhow::Result<Vec<Row>> {
    let site = site::start(
        "figures-agent",
        &policy("[limits]\nmin_nodes = 2\nmax_nodes = 2\n"),
    )
    .await?;
    site.ready_nodes(2).await?;
    let web = deployment("web", 20, pod("web").requests("50m", "64Mi"));
    site.create(&web).await?;
    site.running("web", 20).await?;
    let ids = site.stack.machines.ids();
    let [quiet, changing] = ids.as_slice() else {
        anyhow::bail!("two machines were expected: {ids:?}");
    };
    let before = (usage(&site, quiet)?, usage(&site, changing)?);
    let end = Instant::now() + window;
    tokio::select! {
        () = sleep_until(end) => {}
        never = change(&site, changing) => never?,
    }
    let after = (usage(&site, quiet)?, usage(&site, changing)?);
    let how = format!(
        "the program after {} s of streaming, mutual TLS on loopback",
        window.as_secs()
    );
    Ok(vec![
        Row::new("agent: resident memory, quiet", after.0.memory(), &how),
        Row::new(
            "agent: resident memory, changing every second",
            after.1.memory(),
            &how,
        ),
        Row::new(
            "agent: CPU per hour, quiet",
            after.0.cpu_per_hour(&before.0, window),
            "utime + stime of these seconds, extrapolated; without `systemctl`, which is asked every 10 s",
        ),
        Row::new(
            "agent: CPU per hour, changing every second",
            after.1.cpu_per_hour(&before.1, window),
            "the same",
        ),
    ])
}

fn usage(site: &Site, machine: &str) -> anyhow::Result<Usage> {
    let id = site
        .stack
        .machines
        .with(machine, |machine| machine.agent().and_then(|agent| agent.id()))?;
    Usage::of(id.context("the agent does not run")?)
}

/// Moves the machine's CPU every second, for ever.
async fn change(site: &Site, machine: &str) -> anyhow::Result<()> {
    let mut second = interval(Duration::from_secs(1));
    for turn in 0_u64.. {
        second.tick().await;
        let cpu = if turn.is_multiple_of(2) { 0.5 } else { 0.1 };
        site.stack
            .machines
            .with(machine, |machine| machine.busy(cpu, 0.2))?;
    }
    Ok(())
}
