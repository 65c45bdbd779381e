//! How fast the loop is, all programs as processes among the rig's servers: from a pod's creation to the launch call that EC2
//! gets, and from the moment at which the metadata service has a spot notice to the first eviction that the API server gets.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, node_of, policy};

use crate::{Row, site, spread::spread};

pub(crate) async fn take(rounds: u32) -> anyhow::Result<Vec<Row>> {
    let limits = format!("[limits]\nmin_nodes = 0\nmax_nodes = {}\n", 2 * rounds);
    let site = site::start("figures-loop", &policy(&limits)).await?;
    let (mut launches, mut cordons, mut evictions) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        launches.push(launch(&site, &format!("round-{round}")).await?);
    }
    for round in 0..rounds {
        let (cordon, eviction) = notice(&site, &format!("round-{round}")).await?;
        cordons.push(cordon);
        evictions.push(eviction);
    }
    Ok(vec![
        Row::new(
            "loop: pod's creation to launch call",
            spread(launches)?,
            format!(
                "least / median / greatest of {rounds}; the batch waits 0.5 s for more pods, CreateFleet's arrival by EC2's stand-in"
            ),
        ),
        Row::new(
            "loop: spot notice to cordon",
            spread(cordons)?,
            format!(
                "least / median / greatest of {rounds}; IMDS is asked every second, arrival by the API server's audit log"
            ),
        ),
        Row::new(
            "loop: spot notice to first eviction",
            spread(evictions)?,
            format!(
                "least / median / greatest of {rounds}; IMDS is asked every second, arrival by the API server's audit log"
            ),
        ),
    ])
}

/// A pod that needs a node of its own: until the launch call arrives. It runs when this returns.
async fn launch(site: &Site, name: &str) -> anyhow::Result<SignedDuration> {
    let begun = Timestamp::now();
    let big = pod(name).requests("1500m", "64Mi");
    site.create(&deployment(name, 1, big)).await?;
    site.running(name, 1).await?;
    let calls = site.stack.ec2.calls().await?;
    let call = calls
        .iter()
        .find(|call| call.action == "CreateFleet" && call.at >= begun);
    Ok(call.context("no launch call came")?.at.duration_since(begun))
}

/// A spot notice for that pod's machine: until its Node is cordoned, and until the pod's eviction is asked for.
async fn notice(site: &Site, name: &str) -> anyhow::Result<(SignedDuration, SignedDuration)> {
    let pods = site.running(name, 1).await?;
    let pod = pods.first().context("no pod")?;
    let node = node_of(pod).context("a pod without node")?.to_owned();
    let pod = pod.metadata.name.clone().unwrap_or_default();
    let begun = Timestamp::now();
    let taken = begun + SignedDuration::from_secs(120);
    site.stack.machines.with(&node, |machine| {
        machine.imds()?.interrupt("terminate", taken);
        anyhow::Ok(())
    })??;
    let asked = wait::until("the eviction", DEADLINE, || async {
        let all = site.stack.cluster.evictions()?;
        Ok(all
            .into_iter()
            .find(|eviction| eviction.pod == pod && eviction.at >= begun))
    })
    .await?;
    let changes = site.stack.cluster.node_changes()?;
    let cordon = changes
        .iter()
        .find(|change| change.node == node && change.at >= begun)
        .context("evicted without a cordon")?;
    Ok((cordon.at.duration_since(begun), asked.at.duration_since(begun)))
}
