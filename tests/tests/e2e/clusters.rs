//! Two clusters in one account and one table: each sees its own machines, records and lease.

use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::site::{Site, policy};

/// What nobody knows is terminated at once.
const STRICT: [&str; 2] = ["[timing]", "[timing]\norphan_grace = \"1s\""];

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_in_one_account_and_one_table_have_nothing_of_each_other() {
    let tables = policy("[limits]\nmin_nodes = 1\n");
    let mut one = Site::new("cluster-one", &tables).await.unwrap();
    let other = tables.replace("id = \"rig\"", "id = \"other\"");
    let mut other = one.beside("cluster-other", "other", &other).await.unwrap();
    for site in [&mut one, &mut other] {
        site.configure(0, STRICT[0], STRICT[1]).unwrap();
        site.configure(1, STRICT[0], STRICT[1]).unwrap();
        site.start_coordinator(0).unwrap();
    }
    // Both have a leader of the same name, each in its own lease.
    assert_eq!(one.leader().await.unwrap(), 0);
    assert_eq!(other.leader().await.unwrap(), 0);
    let first = one.books(1).await.unwrap();
    let others = other.books(1).await.unwrap();
    assert_ne!(first, others);

    // One grows, and its leader dies; the other does not notice.
    one.start_coordinator(1).unwrap();
    let big = pod("web").requests("1500m", "64Mi");
    one.create(&deployment("web", 2, big)).await.unwrap();
    one.running("web", 2).await.unwrap();
    let epoch = epoch(&other).await;
    one.fail_over(0).await.unwrap();
    one.decisions(3).await.unwrap();
    other.decisions(3).await.unwrap();
    let grown = one.books(2).await.unwrap();
    assert!(grown.contains(&first[0]));
    assert_eq!(other.books(1).await.unwrap(), others);
    assert_eq!(self::epoch(&other).await, epoch);
    let launched = one.launched().await.unwrap();
    assert_eq!(launched.len(), 3, "in the whole account");
}

async fn epoch(site: &Site) -> serde_json::Value {
    let status = site.ask(&["status"]).await.unwrap();
    assert_eq!(status["leading"], true, "{status:#}");
    status["epoch"].clone()
}
