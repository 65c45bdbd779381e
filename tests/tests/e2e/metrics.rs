//! Utilisation in Prometheus adds a node, or keeps what there is; without it nothing is taken away.

use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, policy};

/// A reading a second; everything that would hold a removal is short.
const QUICK: &str = r#"
[limits]
min_nodes = 1
[scale_up]
cooldown = "15s"
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "1s"
cooldown = "1s"
min_age = "1s"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn cpu_above_the_threshold_for_two_readings_adds_one_node_and_exactly_the_threshold_none() {
    // A node whose figures are not set yet is idle: it must be too young to go again.
    let young = QUICK.replace("min_age = \"1s\"", "min_age = \"10m\"");
    let mut site = Site::start("cpu", &policy(&young)).await.unwrap();
    let first = site.ready_nodes(1).await.unwrap();

    // Exactly the threshold, for many readings.
    let figures = site.stack.prometheus.figures().clone();
    figures.node(&first[0], 0.70, 0.20);
    wait::until_true("70 % to be seen", DEADLINE, || async {
        Ok(site.ask(&["status"]).await?["cpu_percent"] == 70.0)
    })
    .await
    .unwrap();
    site.decisions(5).await.unwrap();
    let latest = site.ask(&["decisions", "--limit", "1", "--all"]).await.unwrap();
    let rules = &latest["decisions"][0]["plan"]["rules"];
    let above = rules
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| rule["rule"] == "cpu_above")
        .unwrap();
    assert_eq!(
        (
            &above["value"],
            &above["threshold"],
            &above["fired"],
            &above["source"]
        ),
        (&70.0.into(), &70.0.into(), &false.into(), &"prometheus".into())
    );
    assert_eq!(site.launched().await.unwrap(), first);

    // Just above.
    figures.node(&first[0], 0.71, 0.20);
    let launch = site
        .operation("a launch for the CPU's sake", |operation| {
            operation["kind"] == "launch"
                && operation["reason"]
                    .as_str()
                    .is_some_and(|why| why.contains("CPU of 71 %"))
        })
        .await
        .unwrap();
    let explained = site
        .ask(&["explain", launch["id"].as_str().unwrap()])
        .await
        .unwrap();
    assert!(explained.to_string().contains("71"), "{explained:#}");
    let nodes = site.ready_nodes(2).await.unwrap();
    // It stays hot: the cooldown holds whatever else the rule would add.
    for node in &nodes {
        figures.node(node, 0.71, 0.20);
    }
    site.decisions(5).await.unwrap();
    assert_eq!(site.launched().await.unwrap(), nodes, "one node, not more");
    let held = site.ask(&["status"]).await.unwrap()["held_by"].clone();
    assert!(held.to_string().contains("cooldown_up"), "{held}");

    // Without Prometheus, pods that wait are still served.
    site.stack.prometheus.process().kill();
    site.create(&deployment("web", 1, pod("web").requests("1900m", "64Mi")))
        .await
        .unwrap();
    site.create(&deployment("more", 2, pod("more").requests("1900m", "64Mi")))
        .await
        .unwrap();
    site.running("web", 1).await.unwrap();
    site.running("more", 2).await.unwrap();
    assert_eq!(site.ready_nodes(3).await.unwrap().len(), 3);
    wait::until_true("the status to say so", DEADLINE, || async {
        let status = site.ask(&["status"]).await?;
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        let prometheus = sources.iter().find(|source| source["source"] == "prometheus");
        anyhow::ensure!(
            prometheus.is_some_and(|source| source["error"].as_str().is_some_and(|error| !error.is_empty())),
            "{status:#}"
        );
        Ok(true)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_away_while_prometheus_never_answered_and_the_status_says_why() {
    let mut site = Site::new("blind", &policy(QUICK)).await.unwrap();
    site.stack.prometheus.process().kill();
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    let web = deployment("web", 3, pod("web").requests("1500m", "64Mi"));
    site.create(&web).await.unwrap();
    let nodes = site.ready_nodes(3).await.unwrap();
    site.running("web", 3).await.unwrap();

    // Three empty nodes, of which one is the minimum.
    let workloads: kube::Api<k8s_openapi::api::apps::v1::Deployment> =
        kube::Api::default_namespaced(site.stack.cluster.client());
    workloads
        .delete("web", &kube::api::DeleteParams::background())
        .await
        .unwrap();
    site.running("web", 0).await.unwrap();
    site.decisions(8).await.unwrap();
    assert_eq!(site.ready_nodes(3).await.unwrap(), nodes);
    let status = site.ask(&["status"]).await.unwrap();
    assert!(status["held_by"].to_string().contains("metrics"), "{status:#}");
    let prometheus = status["sources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|source| source["source"] == "prometheus")
        .unwrap();
    assert_eq!(prometheus["fresh"], false);

    // It answers: what is too much goes.
    for node in &nodes {
        site.stack.prometheus.figures().node(node, 0.05, 0.20);
    }
    site.stack.prometheus.process().start().unwrap();
    site.ready_nodes(1).await.unwrap();
    wait::until_true("their machines' end", DEADLINE, || async {
        Ok(site.instances().await?.len() == 1)
    })
    .await
    .unwrap();
}
