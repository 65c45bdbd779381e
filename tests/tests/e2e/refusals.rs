//! EC2 refuses, takes away and loses: the same operation tries what is left, and the books are right in the end.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::Value;
use smartscale_tests::rig::ec2::{Fault, Offering, When};
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, policy};

/// Both markets in two zones: four offerings.
fn four_offerings() -> String {
    let markets = "markets = [\"spot\", \"on-demand\"]\nspot_share_percent = 100\n";
    format!("{}{markets}", policy("[limits]\nmin_nodes = 0\n"))
}

fn none_left(zone: &str, market: &str, code: Option<&str>) -> Offering {
    Offering {
        zone: Some(zone.to_owned()),
        market: Some(market.to_owned()),
        available: 0,
        code: code.map(str::to_owned),
        ..Offering::default()
    }
}

/// The launch that ended well; there is no other.
async fn the_launch(site: &Site) -> Value {
    let is_done = |operation: &Value| operation["kind"] == "launch" && operation["phase"] == "done";
    let launch = site.operation("the launch's end", is_done).await.unwrap();
    let operations = site.operations().await.unwrap();
    assert_eq!(operations.len(), 1, "{operations:#?}");
    launch
}

/// Client tokens of the calls, in their order.
async fn tokens(site: &Site) -> Vec<String> {
    let calls = site.stack.ec2.calls().await.unwrap();
    let launches = calls.into_iter().filter(|call| call.action == "CreateFleet");
    launches.filter_map(|call| call.client_token).collect()
}

async fn one_pod(site: &Site) {
    let big = pod("web").requests("1500m", "64Mi");
    site.create(&deployment("web", 1, big)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fourth_offering_is_reached_by_the_operation_that_three_refused() {
    let site = Site::start("three-refuse", &four_offerings()).await.unwrap();
    let quota = "MaxSpotInstanceCountExceeded";
    site.stack
        .ec2
        .set_offerings(&[
            none_left("us-east-1a", "spot", Some(quota)),
            none_left("us-east-1b", "spot", Some(quota)),
            none_left("us-east-1a", "on-demand", None),
        ])
        .await
        .unwrap();
    one_pod(&site).await;
    site.ready_nodes(1).await.unwrap();
    site.running("web", 1).await.unwrap();
    let launch = the_launch(&site).await;
    let tokens = tokens(&site).await;
    let id = launch["id"].as_str().unwrap();
    let expected: Vec<String> = (1..=tokens.len())
        .map(|attempt| format!("{id}-{attempt}"))
        .collect();
    assert_eq!(tokens, expected);
    assert!((2..=4).contains(&tokens.len()), "{tokens:?}");
    assert!(launch["steps"].to_string().contains(quota), "{launch:#}");
    let launched = site.launched().await.unwrap();
    assert_eq!(launched.len(), 1, "{launched:?}");
    wait::until_true("the quota's name among the notifications", DEADLINE, || async {
        let messages = site.stack.account.take_messages(&site.stack.topic).await?;
        Ok(messages.iter().any(|text| text.contains(quota)))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_template_is_wrong_stops_until_a_person_resumes() {
    let site = Site::start("wrong-template", &policy("[limits]\nmin_nodes = 0\n"))
        .await
        .unwrap();
    let wrong = Fault {
        action: "CreateFleet".into(),
        code: Some("InvalidLaunchTemplateId.NotFound".into()),
        when: When::Before,
        ..Fault::default()
    };
    site.stack.ec2.set_faults(&[wrong]).await.unwrap();
    one_pod(&site).await;
    wait::until_true("the stop", DEADLINE, || async {
        let status = site.ask(&["status"]).await?;
        anyhow::ensure!(
            status.to_string().contains("pool workers is stopped"),
            "{status:#}"
        );
        Ok(true)
    })
    .await
    .unwrap();
    let asked = tokens(&site).await.len();
    site.decisions(3).await.unwrap();
    assert_eq!(tokens(&site).await.len(), asked, "it is not asked for again");
    site.stack.ec2.set_faults(&[]).await.unwrap();
    site.order(&["resume"]).await.unwrap();
    site.ready_nodes(1).await.unwrap();
    site.running("web", 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_and_nodes_that_people_take_away_are_replaced_and_the_books_are_right() {
    let mut site = Site::new("taken-away", &policy("[limits]\nmin_nodes = 0\n"))
        .await
        .unwrap();
    site.configure(0, "[timing]", "[timing]\nsick = \"3s\"").unwrap();
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    one_pod(&site).await;
    let first = site.ready_nodes(1).await.unwrap();
    site.running("web", 1).await.unwrap();

    // Its machine is terminated by hand.
    let ec2 = site.stack.ec2.client().await;
    ec2.terminate_instances()
        .instance_ids(&first[0])
        .send()
        .await
        .unwrap();
    let second = replaced(&site, &first[0]).await;

    // Its Node is deleted by hand: its kubelet, which runs on, registers no other.
    let nodes: Api<Node> = Api::all(site.stack.cluster.client());
    nodes.delete(&second, &DeleteParams::default()).await.unwrap();
    let third = replaced(&site, &second).await;
    assert_eq!(site.instances().await.unwrap(), [third]);
    assert_eq!(site.launched().await.unwrap().len(), 3);
}

/// Waits until another node has taken the place of this one, with the pod on it. The new node's name.
async fn replaced(site: &Site, old: &str) -> String {
    let ended = |operation: &Value| {
        operation["kind"] == "remove" && operation["phase"] == "done" && operation["nodes"][0] == old
    };
    site.operation("the removal's end", ended).await.unwrap();
    let new = wait::until("another node", DEADLINE, || async {
        let nodes = site.ready_nodes(1).await?;
        Ok(nodes.into_iter().find(|node| node != old))
    })
    .await
    .unwrap();
    site.running("web", 1).await.unwrap();
    new
}
