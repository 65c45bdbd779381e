//! Worker machines end to end: the agent's program beside a real kubelet, containerd and pods, under systemd, each machine
//! in namespaces of its own. See `rig::worker`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot arrange its site has failed"
)]

mod coordinator;
mod crowd;
mod drains;
mod join;
mod power;

use std::time::Duration;

use smartscale_tests::rig::kubernetes::{PodBuilder, pod};
use smartscale_tests::rig::worker::IMAGE;
use smartscale_tests::site::{Site, policy};

/// The longest that a machine may take from its launch to a Ready node, on two cores that do other things too.
const BOOT: Duration = Duration::from_secs(180);

/// No node goes or comes but by order: none is unneeded for so long.
const STEADY: &str = "1h";

/// A node that is not needed goes at once.
const HASTY: &str = "1s";

fn rules(sustained: &str) -> String {
    policy(&format!(
        r#"
[limits]
min_nodes = 1
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "{sustained}"
cooldown = "1s"
min_age = "1s"
[drain]
timeout = "90s"
"#
    ))
}

/// A pod that works until it is told to end and then finishes within `seconds`.
fn worker(name: &str, seconds: u32) -> PodBuilder {
    pod(name)
        .requests("20m", "16Mi")
        .runs(IMAGE, &["for", &seconds.to_string()])
        .grace(60)
}

/// A site with so many Ready and idle worker machines, whose nodes are removed when they were not needed for `sustained`, and
/// their names.
async fn site(name: &str, machines: usize, timing: &str, sustained: &str) -> (Site, Vec<String>) {
    let timings = smartscale_tests::rig::kubernetes::Timings {
        node_monitor_grace: Duration::from_secs(20),
    };
    let site = Site::start_with_workers(name, &rules(sustained), &timings, timing)
        .await
        .unwrap();
    if machines > 1 {
        site.ask(&["scale", "--to", &machines.to_string()]).await.unwrap();
    }
    let nodes = site.ready_nodes(machines).await.unwrap();
    for node in &nodes {
        site.stack.prometheus.figures().node(node, 0.10, 0.20);
    }
    (site, nodes)
}
