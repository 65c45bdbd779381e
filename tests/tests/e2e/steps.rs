//! The leader is killed between any two steps of a launch and of a removal: a list of points, each a call of its that is
//! kept from taking effect or whose answer it does not live to get. The other coordinator ends what it finds.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::Value;
use smartscale_tests::rig::gate::{Gate, When};
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::site::{DEADLINE, Site, policy};
use tokio::time::timeout;

/// Short leases, since every point costs one.
const LEASE: [&str; 2] = ["length = \"4s\"", "length = \"3s\""];

/// Where a leader is killed.
#[derive(Debug, Clone, Copy)]
enum Call {
    /// The write that journals this phase.
    Journal(&'static str),
    /// A call of EC2.
    Ec2(&'static str),
}

/// Before a call takes effect, and after.
const BOTH: [When; 2] = [When::Before, When::After];

const OF_A_LAUNCH: [Call; 5] = [
    Call::Journal("planned"),
    Call::Journal("requesting"),
    Call::Ec2("CreateFleet"),
    Call::Journal("joining"),
    Call::Journal("done"),
];

const OF_A_REMOVAL: [Call; 7] = [
    Call::Journal("planned"),
    Call::Journal("draining"),
    Call::Journal("stopping"),
    Call::Journal("terminating"),
    Call::Ec2("TerminateInstances"),
    Call::Journal("forgetting"),
    Call::Journal("done"),
];

/// Two coordinators that reach table and cloud through gates; one of them leads.
struct Stage {
    site: Site,
    table: Gate,
    cloud: Gate,
    leader: usize,
}

impl Stage {
    async fn start(name: &str, tables: &str) -> Self {
        let mut site = Site::new(name, &policy(tables)).await.unwrap();
        let table = Gate::start(&site.stack.dynamodb.url()).await.unwrap();
        let cloud = Gate::start(&site.stack.ec2.url()).await.unwrap();
        for index in [0, 1] {
            site.configure(index, LEASE[0], LEASE[1]).unwrap();
            let program = site.coordinator_program(index).unwrap();
            let program = program
                .env("AWS_ENDPOINT_URL_DYNAMODB", table.url())
                .env("AWS_ENDPOINT_URL_EC2", cloud.url());
            site.run_coordinator(index, program).unwrap();
            assert_eq!(site.leader().await.unwrap(), 0);
        }
        Self {
            site,
            table,
            cloud,
            leader: 0,
        }
    }

    /// Begins something, and kills the leader when it comes to this call. Another leads when this returns.
    async fn kill_at(&mut self, call: Call, when: When, begin: impl AsyncFnOnce(&Site)) {
        let reached = match call {
            Call::Journal(phase) => self.table.hold(&format!(r#""phase":{{"S":"{phase}"}}"#), when),
            Call::Ec2(action) => self.cloud.hold(&format!("Action={action}&"), when),
        };
        begin(&self.site).await;
        let reached = timeout(DEADLINE, reached).await;
        reached
            .unwrap_or_else(|_| panic!("{call:?} {when:?} did not come"))
            .unwrap();
        let killed = self.leader;
        self.leader = self.site.fail_over(killed).await.unwrap();
        self.site.start_coordinator(killed).unwrap();
    }

    /// That the latest operation of a kind ended well, by the successor where the killed leader had begun it.
    async fn ended(&self, kind: &str, (call, when): (Call, When), before: usize) {
        let of_kind = |operation: &Value| operation["kind"] == kind;
        let operations = self.site.operations().await.unwrap();
        let ours: Vec<&Value> = operations.iter().filter(|operation| of_kind(operation)).collect();
        assert_eq!(ours.len(), before + 1, "{call:?} {when:?}: {ours:#?}");
        let latest = ours[0];
        assert_eq!(latest["phase"], "done", "{call:?} {when:?}: {latest:#}");
        // The first word was not written, or the last one was: nothing was left to take over.
        let whole = matches!(
            (call, when),
            (Call::Journal("planned"), When::Before) | (Call::Journal("done"), When::After)
        );
        let taken_over = latest["takeovers"].as_u64().unwrap();
        assert_eq!(taken_over == 0, whole, "{call:?} {when:?}: {latest:#}");
    }
}

fn points(calls: &[Call]) -> impl Iterator<Item = (Call, When)> {
    calls.iter().flat_map(|call| BOTH.map(|when| (*call, when)))
}

/// A workload that needs a node of its own.
async fn workload(site: &Site, name: &str) {
    let big = pod(name).requests("1500m", "64Mi");
    site.create(&deployment(name, 1, big)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_between_any_two_steps_of_a_launch_is_followed_by_one_that_ends_it_once() {
    let mut stage = Stage::start("launch-steps", "[limits]\nmin_nodes = 0\nmax_nodes = 20\n").await;
    for (number, (call, when)) in points(&OF_A_LAUNCH).enumerate() {
        let name = format!("web-{number}");
        stage
            .kill_at(call, when, async |site| workload(site, &name).await)
            .await;
        stage.site.running(&name, 1).await.unwrap();
        stage.site.books(number + 1).await.unwrap();
        stage.ended("launch", (call, when), number).await;
        let launched = stage.site.launched().await.unwrap();
        assert_eq!(launched.len(), number + 1, "{call:?} {when:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_between_any_two_steps_of_a_removal_is_followed_by_one_that_ends_it() {
    let quick = r#"
[limits]
min_nodes = 0
max_nodes = 20
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "1s"
cooldown = "1s"
min_age = "1s"
[drain]
timeout = "60s"
"#;
    let mut stage = Stage::start("removal-steps", quick).await;
    let all = points(&OF_A_REMOVAL).count();
    for number in 0..all {
        workload(&stage.site, &format!("web-{number}")).await;
    }
    for node in stage.site.books(all).await.unwrap() {
        stage.site.stack.prometheus.figures().node(&node, 0.10, 0.20);
    }
    let workloads: Api<Deployment> = Api::default_namespaced(stage.site.stack.cluster.client());
    for (number, (call, when)) in points(&OF_A_REMOVAL).enumerate() {
        let name = format!("web-{number}");
        stage.site.running(&name, 1).await.unwrap();
        let delete = async |_: &Site| {
            let now = DeleteParams::background();
            workloads.delete(&name, &now).await.unwrap();
        };
        stage.kill_at(call, when, delete).await;
        stage.site.books(all - number - 1).await.unwrap();
        stage.ended("remove", (call, when), number).await;
    }
    // Nothing was launched beside them.
    assert_eq!(stage.site.launched().await.unwrap().len(), all);
}
