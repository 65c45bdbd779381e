//! Very many spot interruptions in the same moment: how long until every pod was asked to go for the first time, until
//! all of it is over, and how often EC2 is asked.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{Site, node_of, policy};

use crate::{Row, calls, site};

/// Pods on each node.
const PODS: u32 = 2;
const DEADLINE: Duration = Duration::from_secs(600);

pub(crate) async fn take(nodes: u32) -> anyhow::Result<Vec<Row>> {
    let tables = format!("[limits]\nmin_nodes = 0\nmax_nodes = {}\n", 3 * nodes);
    let spot = "markets = [\"spot\"]\n";
    let site = site::start("figures-interruption", &format!("{}{spot}", policy(&tables))).await?;
    let web = pod("web").requests("900m", "64Mi");
    site.create(&deployment("web", i32::try_from(PODS * nodes)?, web))
        .await?;
    let pods = running(&site, PODS * nodes).await?;
    settled(&site).await?;
    let taken: Vec<String> = site.stack.machines.ids();
    anyhow::ensure!(taken.len() == usize::try_from(nodes)?, "{} machines", taken.len());

    let begun = Timestamp::now();
    let end = begun + SignedDuration::from_secs(120);
    for machine in &taken {
        site.stack.machines.with(machine, |machine| {
            machine.imds()?.interrupt("terminate", end);
            anyhow::Ok(())
        })??;
    }
    let firsts = wait::until("every pod's first eviction", DEADLINE, || async {
        let mut firsts = BTreeMap::new();
        for eviction in site.stack.cluster.evictions()? {
            firsts.entry(eviction.pod).or_insert(eviction.at);
        }
        let asked = pods.iter().filter(|pod| firsts.contains_key(*pod)).count();
        anyhow::ensure!(asked == pods.len(), "{asked} of {} pods", pods.len());
        Ok(Some(firsts))
    })
    .await?;
    let mut times: Vec<SignedDuration> = firsts
        .iter()
        .filter(|(pod, _)| pods.contains(pod))
        .map(|(_, at)| at.duration_since(begun))
        .collect();
    times.sort();
    let (half, last) = (times.get(times.len() / 2), times.last());
    let (half, last) = half.zip(last).context("no pod")?;

    wait::until_true("the machines' end", DEADLINE, || async {
        let there = site.instances().await?;
        let left = taken.iter().filter(|machine| there.contains(machine)).count();
        anyhow::ensure!(left == 0, "{left} machines are left");
        Ok(true)
    })
    .await?;
    running(&site, PODS * nodes).await?;
    settled(&site).await?;
    let over = Timestamp::now().duration_since(begun);
    Ok(vec![
        Row::new(
            format!("interruption of {nodes} nodes: every pod's first eviction"),
            format!(
                "{:.2} s (half of them {:.2} s)",
                last.as_secs_f64(),
                half.as_secs_f64()
            ),
            format!("{PODS} pods a node; IMDS is asked every second, arrival by the API server's audit log"),
        ),
        Row::new(
            format!("interruption of {nodes} nodes: all replaced"),
            format!("{:.1} s", over.as_secs_f64()),
            "machines terminated, Nodes gone, all pods run on others; most of it is the rig, which boots these",
        ),
        Row::new(
            format!("interruption of {nodes} nodes: calls of EC2"),
            calls::told(&site.stack.ec2.programs_calls(begun).await?),
            "the coordinator's, from the notices until then",
        ),
    ])
}

/// Waits until so many pods run, and gives their names.
async fn running(site: &Site, count: u32) -> anyhow::Result<Vec<String>> {
    let count = usize::try_from(count)?;
    wait::until("the pods to run", DEADLINE, || async {
        let pods = site.running("web", count).await?;
        let bound = pods.iter().filter(|pod| node_of(pod).is_some());
        Ok(Some(bound.filter_map(|pod| pod.metadata.name.clone()).collect()))
    })
    .await
}

/// Waits until no operation is open.
async fn settled(site: &Site) -> anyhow::Result<()> {
    wait::until_true("the operations' end", DEADLINE, || async {
        let open = site.ask(&["operations", "--open"]).await?;
        Ok(open["operations"].as_array().is_none_or(Vec::is_empty))
    })
    .await
}
