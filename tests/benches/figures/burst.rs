//! From no node to very many at once: how long it takes and how often EC2 is asked, all programs as processes among the
//! rig's servers. Every machine is a real agent that enrols and a kubelet's stand-in.

use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::{is_ready, wait};
use smartscale_tests::site::{Site, policy};

use crate::{Row, calls, site};

/// Machines of a test are booted one after the other, on the processors that everything else needs.
const DEADLINE: Duration = Duration::from_secs(900);

pub(crate) async fn take(nodes: u32) -> anyhow::Result<Vec<Row>> {
    let limits = format!("[limits]\nmin_nodes = 0\nmax_nodes = {nodes}\n");
    let site = site::start("figures-burst", &policy(&limits)).await?;
    let begun = Timestamp::now();
    let big = pod("web").requests("1500m", "64Mi");
    site.create(&deployment("web", i32::try_from(nodes)?, big))
        .await?;
    ready(&site, usize::try_from(nodes)?).await?;
    let over = Timestamp::now();
    let launches = site.stack.ec2.calls().await?;
    let last = launches.iter().rfind(|call| call.action == "CreateFleet");
    let last = last.context("no launch call came")?.at;
    let seconds = |time: SignedDuration| format!("{:.1} s", time.as_secs_f64());
    Ok(vec![
        Row::new(
            format!("burst: 0 to {nodes} nodes, last launch call"),
            seconds(last.duration_since(begun)),
            "from the pods' creation to the call's arrival at EC2's stand-in",
        ),
        Row::new(
            format!("burst: 0 to {nodes} nodes, all Ready"),
            seconds(over.duration_since(begun)),
            "most of it is the rig, which boots so many machines on one",
        ),
        Row::new(
            format!("burst: calls of EC2 for {nodes} nodes"),
            calls::told(&site.stack.ec2.programs_calls(begun).await?),
            "the coordinator's, until all are Ready",
        ),
    ])
}

/// Waits until so many nodes are Ready, and every launch has ended.
async fn ready(site: &Site, count: usize) -> anyhow::Result<()> {
    wait::until_true("the nodes", DEADLINE, || async {
        let nodes = site.nodes().list(&ListParams::default()).await?;
        let ready = nodes.items.iter().filter(|node| is_ready(node)).count();
        anyhow::ensure!(ready == count, "{ready} of {count} are Ready");
        let open = site.ask(&["operations", "--open"]).await?;
        Ok(open["operations"].as_array().is_none_or(Vec::is_empty))
    })
    .await
}
