//! A full node drained by order: how long until the API server has accepted every eviction.

use anyhow::Context as _;
use jiff::Timestamp;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, policy};

use crate::{Row, site};

/// All that a kubelet takes by default.
const PODS: usize = 110;

pub(crate) async fn take() -> anyhow::Result<Vec<Row>> {
    // Nothing is launched beside it.
    let limits = "[limits]\nmin_nodes = 1\nmax_nodes = 1\n";
    let site = site::start("figures-drain", &policy(limits)).await?;
    let nodes = site.ready_nodes(1).await?;
    let node = nodes.first().context("no node")?;
    let crowd = pod("crowd").requests("5m", "4Mi");
    site.create(&deployment("crowd", i32::try_from(PODS)?, crowd))
        .await?;
    site.running("crowd", PODS).await?;
    // People may order what the last decision has seen.
    site.decisions(2).await?;

    let begun = Timestamp::now();
    site.order(&["drain", node]).await?;
    let accepted = wait::until("every eviction", DEADLINE, || async {
        let all = site.stack.cluster.evictions()?;
        let accepted: Vec<_> = all.into_iter().filter(|eviction| eviction.code == 201).collect();
        anyhow::ensure!(accepted.len() >= PODS, "{} of {PODS}", accepted.len());
        Ok(Some(accepted))
    })
    .await?;
    let times = || accepted.iter().map(|eviction| eviction.at.duration_since(begun));
    let (first, last) = times().min().zip(times().max()).context("no eviction")?;
    Ok(vec![Row::new(
        format!("drain of {PODS} pods without budgets: every eviction accepted"),
        format!(
            "{:.2} s (the first {:.2} s)",
            last.as_secs_f64(),
            first.as_secs_f64()
        ),
        "from just before `smartscale drain` is started to the arrival of the last eviction at the API server",
    )])
}
