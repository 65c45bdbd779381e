//! The load test: k6 puts people in front of a shop whose pods' CPU follows their requests, and what the cluster does is
//! recorded.
//!
//! ```text
//!  k6 ──HTTP──▶ shop ──CPU of each pod──▶ scaler ──replicas──▶ Kubernetes ──pods without a node──▶ coordinator ─▶ EC2
//!   │            └──CPU of each node──▶ agents, Prometheus ───────────────────────────────────────────▲
//!   └─latencies──▶ report ◀──nodes, pods, cost── recorder
//! ```
//! Everything but the shop's work is real: 20 pods that compute would want ten processors. A pod is a queue instead, which
//! serves as fast as its CPU limit lets it; a request that would wait too long is turned away.

mod record;
mod report;
mod scaler;
mod shop;

pub use report::Report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use self::record::Record;
use crate::rig::process::{Process, Program};
use crate::rig::{Folder, cache};
use crate::site::{Site, policy};

/// Name of the Deployment, and of its pods' label `app`.
const APP: &str = "shop";
/// Pods that the shop has at least.
const FEWEST: u32 = 2;
/// k6's measurements, one a line.
const LATENCIES: &str = "k6.csv";

/// What is put on.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `daily` or `spike`.
    pub profile: String,
    /// How long it takes.
    pub length: Duration,
    /// Requests a second at the highest.
    pub peak: u32,
}

/// Periods are as short as the day. Scale-ins are not steered: what they are waited for with (20 minutes a pod) is longer than
/// the day.
const POLICY: &str = r#"
[limits]
min_nodes = 1
max_nodes = 10
[scale_up]
cooldown = "3s"
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "10s"
cooldown = "2s"
min_age = "10s"
"#;

/// Starts a site with a shop, puts the load on, and reports.
///
/// # Errors
/// Something is not installed or not built, does not come up, or k6 fails.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let site = Site::start("load", &policy(POLICY)).await?;
    site.ready_nodes(1).await?;
    site.create(&shop::deployment(APP, FEWEST)).await?;
    site.running(APP, FEWEST as usize).await?;
    let shop = shop::Shop::open().await?;
    let folder = site.stack.folder().clone();
    let mut record = Record::new(&site, &shop, APP, FEWEST);
    record.look().await?;
    let mut k6 = start_k6(&folder, plan, &shop.url())?;
    let most = plan.length + Duration::from_secs(60);
    let status = loop {
        record.look().await?;
        if let Some(status) = k6.exited()? {
            break status;
        }
        if record.length() > most {
            bail!("k6 has not ended after {most:?}\n{}", k6.tail(20));
        }
    };
    if !status.success() {
        bail!("k6: {status}\n{}", k6.tail(20));
    }
    let launches = site.launched().await?.len();
    Report::new(
        plan,
        &folder.path().join(LATENCIES),
        record.into_sights(),
        launches,
    )
}

/// k6 with the project's script against `url`.
fn start_k6(folder: &Folder, plan: &Plan, url: &str) -> anyhow::Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("load/load.js");
    let output = format!("csv={}", folder.path().join(LATENCIES).display());
    let program = Program::new("k6", cache::installed("bin/k6").context("tests/rig/install k6")?)
        .arg("run")
        .arg("--quiet")
        .arg("--no-usage-report")
        .flag("out", output)
        .arg(script)
        // Its own address is of no use, and a fixed port would be taken.
        .env("K6_ADDRESS", "")
        .env("TARGET", url)
        .env("PROFILE", &plan.profile)
        .env("SECONDS", plan.length.as_secs().to_string())
        .env("PEAK", plan.peak.to_string());
    Process::spawn(program, folder)
}
