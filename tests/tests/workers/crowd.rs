//! Three machines with 30 pods each, drained at once.

use std::time::{Duration, Instant};

use kube::api::ListParams;
use smartscale_tests::rig::kubernetes::deployment;
use smartscale_tests::rig::wait;
use smartscale_tests::site::{Ends, node_of};

use crate::{BOOT, STEADY, site, worker};

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_with_30_pods_each_are_drained_at_once_and_no_pod_is_cut_short() {
    let (site, nodes) = site("worker-crowd", 3, "", STEADY).await;
    site.create(&deployment("crowd", 90, worker("crowd", 1)))
        .await
        .unwrap();
    wait::until_true("90 running pods", 2 * BOOT, || async {
        let pods = site.pods().list(&ListParams::default()).await?;
        let running = pods
            .items
            .iter()
            .filter(|pod| smartscale_tests::site::phase(pod) == "Running");
        Ok(running.count() == 90)
    })
    .await
    .unwrap();
    let pods = site.pods().list(&ListParams::default()).await.unwrap();
    let on = |node: &String| pods.items.iter().filter(|pod| node_of(pod) == Some(node)).count();
    println!("pods: {:?}", nodes.iter().map(on).collect::<Vec<_>>());
    let ends = Ends::watch(site.pods());
    let began = Instant::now();
    let mut drains = Vec::new();
    for node in &nodes {
        let machine = site.worker(node).await.unwrap();
        drains.push(
            machine
                .start(&["smartscale-agent", "drain", "--timeout", "150s"])
                .unwrap(),
        );
    }
    for drain in drains {
        let output = drain.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let took = began.elapsed();
    let ends = ends.all();
    println!("drained in {took:?}; {} ends seen", ends.len());
    assert!(took < Duration::from_secs(150));
    assert!(ends.len() >= 90, "{}", ends.len());
    assert!(ends.iter().all(|end| end.exit_code == 0), "{ends:?}");
    let evictions = site.stack.cluster.evictions().unwrap();
    let accepted: Vec<_> = evictions.iter().filter(|eviction| eviction.code == 201).collect();
    assert_eq!(accepted.len(), 90);
    let all = accepted.iter().map(|eviction| eviction.at);
    println!(
        "evictions accepted within {:?}",
        all.clone()
            .max()
            .zip(all.min())
            .map(|(last, first)| last.duration_since(first))
    );
}
