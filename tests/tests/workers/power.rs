//! A machine whose power is cut: noticed, replaced, its pods elsewhere.

use std::time::{Duration, Instant};

use smartscale_tests::rig::kubernetes::deployment;
use smartscale_tests::rig::wait;
use smartscale_tests::site::node_of;

use crate::{BOOT, STEADY, site, worker};

/// What the coordinator takes for silence (`serve::sessions`), and what a look takes. Three reports of a quiet agent would be
/// 15 s.
const NOTICED: Duration = Duration::from_secs(35);

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_power_is_noticed_by_its_silence_and_replaced() {
    let (site, nodes) = site("worker-power", 2, "sick = \"3s\"", STEADY).await;
    site.create(&deployment("web", 2, worker("web", 1)))
        .await
        .unwrap();
    site.running("web", 2).await.unwrap();
    let lost = &nodes[0];
    {
        let mut machine = site.worker(lost).await.unwrap();
        // First, or the kernel would tell the coordinator of the processes' end.
        let network = site.workers().unwrap().network();
        network.connect(machine.card(), false).unwrap();
        machine.power_off();
    }
    let began = Instant::now();
    wait::until_true("the silence to be noticed", NOTICED, || async {
        Ok(site
            .order(&["explain", "node", lost])
            .await?
            .contains("no session"))
    })
    .await
    .unwrap();
    println!("noticed after {:?}", began.elapsed());
    let replaced = wait::until("another node in its place", BOOT, || async {
        let instances = site.instances().await?;
        Ok((instances.len() == 2 && !instances.contains(lost)).then_some(instances))
    })
    .await
    .unwrap();
    println!("replaced after {:?}", began.elapsed());
    let mut ready = site.ready_nodes(2).await.unwrap();
    println!("the other is Ready after {:?}", began.elapsed());
    ready.sort();
    let mut replaced = replaced;
    replaced.sort();
    assert_eq!(ready, replaced);
    let pods = site.running("web", 2).await.unwrap();
    assert!(pods.iter().all(|pod| node_of(pod) != Some(lost)));
}
