//! Fifty machines are taken back within one minute: each drains by itself, once, and EC2 is not asked for each of them.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, node_of, policy};

const NODES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_nodes_interrupted_within_a_minute_are_drained_replaced_and_forgotten() {
    let spot = "markets = [\"spot\"]\n";
    let tables = policy("[limits]\nmin_nodes = 0\nmax_nodes = 100\n");
    let site = Site::start("fifty", &format!("{tables}{spot}")).await.unwrap();
    site.ask(&["scale", "--to", "50"]).await.unwrap();
    let taken = site.books(NODES).await.unwrap();
    let small = pod("web").requests("100m", "64Mi");
    site.create(&deployment("web", 100, small)).await.unwrap();
    let before = site.running("web", 100).await.unwrap();
    let homes: BTreeSet<_> = before.iter().filter_map(node_of).collect();
    assert_eq!(homes.len(), NODES);
    // What replaces them is what their pods need.
    site.ask(&["scale", "--to", "0"]).await.unwrap();

    let begun = Timestamp::now();
    let end = begun + SignedDuration::from_secs(120);
    for node in &taken {
        let interrupt = site.stack.machines.with(node, |machine| {
            machine.imds().unwrap().interrupt("terminate", end);
        });
        interrupt.unwrap();
    }
    wait::until_true("the machines' end", DEADLINE, || async {
        let there = site.instances().await?;
        let left = taken.iter().filter(|node| there.contains(node)).count();
        anyhow::ensure!(left == 0, "{left} are left");
        Ok(true)
    })
    .await
    .unwrap();
    let took = Timestamp::now().duration_since(begun).as_secs();
    let calls = site.stack.ec2.programs_calls(begun).await.unwrap();
    site.running("web", 100).await.unwrap();
    let now = site.instances().await.unwrap();
    assert!((5..=15).contains(&now.len()), "{now:?}");
    site.books(now.len()).await.unwrap();

    let evictions = site.stack.cluster.evictions().unwrap();
    let accepted: Vec<_> = evictions.iter().filter(|eviction| eviction.code == 201).collect();
    let pods: BTreeSet<_> = accepted.iter().map(|eviction| eviction.pod.as_str()).collect();
    assert_eq!(pods.len(), accepted.len(), "no pod twice");
    let first: BTreeSet<_> = before
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    // An API server that is late may have done what it says it had no time for.
    let asked: BTreeSet<_> = evictions.iter().map(|eviction| eviction.pod.as_str()).collect();
    assert!(asked.is_superset(&first), "every pod was asked to go");
    // A list a second for the sources, one for the books, one for all removals together; and what a call brought.
    let described = calls.get("DescribeInstances").copied().unwrap_or_default();
    let most = 4 * usize::try_from(took + 1).unwrap();
    assert!(described <= most, "{described} in {took} s: {calls:?}");
    let terminated = calls.get("TerminateInstances").copied().unwrap_or_default();
    assert!(terminated <= 2 * NODES, "{calls:?}");
}
