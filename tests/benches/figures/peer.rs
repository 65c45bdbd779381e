//! node_exporter, the agent's peer: what it takes while it is scraped as Prometheus would.

use std::time::Duration;

use anyhow::Context as _;
use smartscale_tests::rig::process::{self, Process, Program};
use smartscale_tests::rig::{Folder, cache, http, port};
use tokio::time::interval;

use crate::process::Usage;

/// Prometheus' own default is a minute; what people set for nodes is usually this.
pub(crate) const SCRAPED_EVERY: Duration = Duration::from_secs(15);

/// A running node_exporter.
pub(crate) struct Peer {
    process: Process,
    url: String,
    size: u64,
}

impl Peer {
    /// Starts it as it comes, on a free port of loopback.
    pub(crate) async fn start(folder: &Folder) -> anyhow::Result<Self> {
        let path = cache::installed("bin/node_exporter").context("tests/rig/install node_exporter")?;
        let attempt = || {
            let address = port::free()?;
            let program = Program::new("node_exporter", &path).arg(format!("--web.listen-address={address}"));
            Ok((program, address))
        };
        let ready = async |address| {
            let answer = http::get(&format!("http://{address}/metrics")).await?;
            Ok(answer.status.is_success())
        };
        let (process, address) = process::start(folder, Duration::from_secs(60), attempt, ready).await?;
        Ok(Self {
            process,
            url: format!("http://{address}/metrics"),
            size: std::fs::metadata(&path).context("its size")?.len(),
        })
    }

    /// The program's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What it takes.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.process.id().context("node_exporter does not run")?)
    }

    /// Scrapes it for ever, and adds what it answers to `bytes`.
    pub(crate) async fn scrape(&self, bytes: &mut u64) -> anyhow::Result<()> {
        let mut turn = interval(SCRAPED_EVERY);
        loop {
            turn.tick().await;
            *bytes += http::get(&self.url).await?.body.len() as u64;
        }
    }
}
