//! What an agent takes while it streams: the real program on two machines of the rig, mutual TLS on loopback, one machine quiet
//! (a report every 5 s) and one whose CPU moves every second (a report every second), 110 pods on each; beside them
//! node_exporter.

use std::time::Duration;

use anyhow::Context as _;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, policy};
use tokio::time::{Instant, interval, sleep_until};

use crate::{
    Row,
    peer::{Peer, SCRAPED_EVERY},
    process::{Usage, megabytes},
    relay::Relay,
    site,
};

/// On each machine: all that a kubelet takes by default.
const PODS: i32 = 110;

/// What an agent has taken so far.
struct Taken {
    usage: Usage,
    bytes: u64,
}

/// A machine whose agent reaches the coordinator by a relay.
struct Observed<'a> {
    site: &'a Site,
    machine: &'a str,
    relay: Relay,
}

pub(crate) async fn take(window: Duration) -> anyhow::Result<Vec<Row>> {
    let site = site::start(
        "figures-agent",
        &policy("[limits]\nmin_nodes = 2\nmax_nodes = 2\n"),
    )
    .await?;
    site.ready_nodes(2).await?;
    let ids = site.stack.machines.ids();
    let [quiet, changing] = ids.as_slice() else {
        anyhow::bail!("two machines were expected: {ids:?}");
    };
    let quiet = observe(&site, quiet).await?;
    let changing = observe(&site, changing).await?;
    let peer = Peer::start(site.stack.folder()).await?;
    let at_start = quiet.taken()?.usage;
    site.create(&deployment("web", 2 * PODS, pod("web").requests("5m", "4Mi")))
        .await?;
    site.running("web", usize::try_from(2 * PODS)?).await?;

    let before = (quiet.taken()?, changing.taken()?, peer.usage()?);
    let end = Instant::now() + window;
    let mut scraped = 0;
    tokio::select! {
        () = sleep_until(end) => {}
        never = changing.change() => never?,
        never = peer.scrape(&mut scraped) => never?,
    }
    let after = (quiet.taken()?, changing.taken()?, peer.usage()?);
    let how = format!(
        "the program after {} s of streaming, mutual TLS on loopback, {PODS} pods on its node",
        window.as_secs()
    );
    let cpu = "utime + stime of these seconds, extrapolated; without `systemctl`, which is asked every 10 s";
    let scrapes = format!(
        "Debian's build as it comes, scraped every {} s",
        SCRAPED_EVERY.as_secs()
    );
    Ok(vec![
        Row::new(
            "agent: resident memory after its start",
            at_start.memory(),
            "in session, no pods",
        ),
        Row::new("agent: resident memory, quiet", after.0.usage.memory(), &how),
        Row::new(
            "agent: resident memory, changing every second",
            after.1.usage.memory(),
            &how,
        ),
        Row::new(
            "agent: CPU per hour, quiet",
            after.0.usage.cpu_per_hour(&before.0.usage, window),
            cpu,
        ),
        Row::new(
            "agent: CPU per hour, changing every second",
            after.1.usage.cpu_per_hour(&before.1.usage, window),
            cpu,
        ),
        Row::new(
            "agent: bytes per hour, quiet",
            per_hour(after.0.bytes - before.0.bytes, window),
            "both ways, TLS records included, TCP's and IP's headers not",
        ),
        Row::new(
            "agent: bytes per hour, changing every second",
            per_hour(after.1.bytes - before.1.bytes, window),
            "the same",
        ),
        Row::new("node_exporter: binary", megabytes(peer.size()), &scrapes),
        Row::new("node_exporter: resident memory", after.2.memory(), &scrapes),
        Row::new(
            "node_exporter: CPU per hour",
            after.2.cpu_per_hour(&before.2, window),
            &scrapes,
        ),
        Row::new(
            "node_exporter: bytes per hour",
            per_hour(scraped, window),
            "bodies of its answers alone, without TLS",
        ),
    ])
}

fn per_hour(bytes: u64, window: Duration) -> String {
    let seconds = window.as_secs().max(1);
    megabytes(bytes * 3600 / seconds)
}

/// Has a machine's agent reach the coordinator by a relay from its next start on, which is now.
async fn observe<'a>(site: &'a Site, machine: &'a str) -> anyhow::Result<Observed<'a>> {
    let [door, other] = site.stack.doors;
    let relay = Relay::start(door).await?;
    let config = site
        .stack
        .machines
        .with(machine, |machine| machine.home().join("agent.toml"))?;
    let text = std::fs::read_to_string(&config).context("the agent's configuration")?;
    let text = text.replace(&door.to_string(), &relay.address().to_string());
    // The other coordinator does not run.
    let text = text.replace(&other.to_string(), &relay.address().to_string());
    std::fs::write(&config, text).context("the agent's configuration")?;
    site.stack
        .machines
        .with(machine, |machine| machine.kill_agent(false))?;
    let observed = Observed { site, machine, relay };
    // A session is more than its handshake.
    wait::until_true("the agent to come by the relay", DEADLINE, || async {
        Ok(observed.relay.passed() > 8 * 1024 && observed.taken().is_ok())
    })
    .await?;
    Ok(observed)
}

impl Observed<'_> {
    fn taken(&self) -> anyhow::Result<Taken> {
        let agent = self.site.stack.machines.with(self.machine, |machine| {
            machine.agent().and_then(|agent| agent.id())
        })?;
        Ok(Taken {
            usage: Usage::of(agent.context("the agent does not run")?)?,
            bytes: self.relay.passed(),
        })
    }

    /// Moves the machine's CPU every second, for ever.
    async fn change(&self) -> anyhow::Result<()> {
        let mut second = interval(Duration::from_secs(1));
        for turn in 0_u64.. {
            second.tick().await;
            let cpu = if turn.is_multiple_of(2) { 0.5 } else { 0.1 };
            self.site
                .stack
                .machines
                .with(self.machine, |machine| machine.busy(cpu, 0.2))?;
        }
        Ok(())
    }
}
