//! The agent as a service: systemd's notifications, signals, local orders beside the agent itself.

use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use smartscale_agent::{Agent, Config, boot::Progress};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{compose, local, scrape};

/// Runs the agent until a signal. A plain stop does not drain.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let socket = config.run_dir.join(local::SOCKET);
    let metrics = config.metrics;
    let agent = Agent::new(compose::parts(config)?);
    let listener = local::listen(&socket)
        .inspect_err(|error| tracing::warn!(%error, "no local orders are taken"))
        .ok();
    let desk = local::Desk {
        drainer: agent.drainer(),
        retirer: agent.retirer(),
        node: agent.node(),
    };
    let orders = local::serve(listener, desk);
    let metrics = scrape::serve(metrics, agent.health());
    let status = tell(agent.progress());
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let signals = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("the agent stops; the node stays as it is");
        notify(&[NotifyState::Stopping]);
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tracing::info!(version = smartscale_agent::VERSION, "the agent starts");
    // Ready means that it runs. Joining may take as long as it takes: systemd must not kill it for that.
    notify(&[NotifyState::Ready]);
    tokio::select! {
        done = agent.run(shutdown) => done?,
        () = orders => anyhow::bail!("the local orders ended unexpectedly"),
        () = metrics => anyhow::bail!("the metrics ended unexpectedly"),
        () = status => anyhow::bail!("the notifications ended unexpectedly"),
        () = signals => {}
        () = watchdog() => {}
    }
    Ok(())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

/// Says in `systemctl status` how the boot stands.
async fn tell(mut progress: watch::Receiver<Option<Progress>>) {
    loop {
        let text = progress
            .borrow_and_update()
            .as_ref()
            .map_or_else(|| "the node is Ready".to_owned(), ToString::to_string);
        notify(&[NotifyState::Status(&text)]);
        if progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells systemd that the loop turns, if it wants to know.
async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep((period / 2).max(Duration::from_millis(100))).await;
    }
}
