//! The account by hand: few machines, a few minutes, and everything that may happen to time and to leaders.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use smartscale_planner::{
    fixtures::{self, node, pod},
    model::{Market, Phase},
};
use smartscale_proto::time::Clock;

use super::*;
use crate::{
    act::fleet::InstanceState,
    state::{LeaseRow, cost::CostRow, sqlite::SqliteStore},
};

/// Prices in round figures: 0.72 and 3.6 USD an hour are 0.0002 and 0.001 USD a second.
const POLICY: &str = r#"
[cluster]
id = "k3s-demo"
[[pool]]
name = "workers"
zones = ["z-a", "z-b"]
instance_types = ["small", "large"]
markets = ["spot", "on-demand"]
[[instance_type]]
name = "small"
cpu = "2"
memory = "2Gi"
on_demand_price = 0.72
spot_price = 0.36
[[instance_type]]
name = "large"
cpu = "8"
memory = "8Gi"
on_demand_price = 3.6
"#;

/// A clock that stands: hours lapse by the store's clock.
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        time("2026-01-01T12:00:00Z")
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _: Duration) {}
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// So many seconds after twelve o'clock on New Year's Day.
fn at(second: i64) -> Timestamp {
    time("2026-01-01T12:00:00Z") + SignedDuration::from_secs(second)
}

/// A store with what looks at it.
struct World {
    store: SharedStore,
    policy: Policy,
    term: u64,
}

impl World {
    async fn new() -> Self {
        let policy = fixtures::policy_of(POLICY);
        let store = SqliteStore::in_memory(policy.cluster_id.clone(), Arc::new(Still)).unwrap();
        let mut world = Self {
            store: Arc::new(store),
            policy,
            term: 0,
        };
        world.next_leader().await;
        world
    }

    /// Another coordinator takes the lease.
    async fn next_leader(&mut self) {
        self.term += 1;
        let row = |term: u64| LeaseRow {
            holder: Some("a".parse().unwrap()),
            rvn: format!("r{term}"),
            epoch: Epoch(term),
            lease: Duration::from_secs(15),
            expires_at: at(0),
        };
        let before = format!("r{}", self.term - 1);
        let expected = (self.term > 1).then_some(before.as_str());
        assert!(self.store.replace_lease(expected, &row(self.term)).await.unwrap());
    }

    /// The leader looks at the machines.
    async fn look(
        &self,
        accounts: &mut Accounts,
        at: Timestamp,
        machines: &[Instance],
        cluster: Option<&Cluster>,
    ) {
        self.looked(accounts, at, machines, cluster).await.unwrap();
    }

    async fn looked(
        &self,
        accounts: &mut Accounts,
        at: Timestamp,
        machines: &[Instance],
        cluster: Option<&Cluster>,
    ) -> Result<(), StoreError> {
        let fleet = Observed {
            value: Some(Arc::new(machines.to_vec())),
            at: Some(at),
            error: None,
        };
        let seen = Seen {
            fleet: &fleet,
            cluster,
            policy: &self.policy,
        };
        accounts.keep(&seen, &self.store, Epoch(self.term)).await
    }

    async fn stored(&self) -> Vec<CostHour> {
        let items = self.store.list(CostHour::PREFIX, false, 100).await.unwrap();
        items
            .iter()
            .map(|item| CostHour::from_item(item).unwrap())
            .collect()
    }
}

fn machine(id: &str, kind: &str, market: Market, launched_at: Timestamp) -> Instance {
    Instance {
        id: id.parse().unwrap(),
        instance_type: kind.into(),
        zone: "z-a".into(),
        market,
        pool: Some("workers".into()),
        operation: None,
        state: InstanceState::Running,
        launched_at,
        ended_at: None,
    }
}

fn ended(machine: &Instance, at: Option<Timestamp>) -> Instance {
    Instance {
        state: InstanceState::Terminated,
        ended_at: at,
        ..machine.clone()
    }
}

fn cluster(nodes: &[fixtures::NodeFixture], pods: &[fixtures::PodFixture]) -> Cluster {
    let nodes = nodes.iter().map(|node| node.clone().build());
    let pods = pods.iter().map(|pod| pod.clone().build());
    fixtures::snapshot(nodes, pods).cluster
}

fn close(figure: f64, expected: f64) {
    assert!(
        (figure - expected).abs() < 1e-9,
        "{figure} where {expected} is right"
    );
}

fn row<'h>(hour: &'h CostHour, kind: &str) -> &'h CostRow {
    hour.rows
        .iter()
        .find(|row| row.instance_type.as_str() == kind)
        .unwrap()
}

#[tokio::test]
async fn two_machines_cost_what_they_cost_by_hand() {
    let (world, mut accounts) = (World::new().await, Accounts::default());
    let large = machine("i-1", "large", Market::OnDemand, at(-3600));
    let small = machine("i-2", "small", Market::Spot, at(10));
    let works = [pod("default/web").on("i-1")];
    let alone = cluster(&[node("i-1")], &works);
    let both = cluster(&[node("i-1"), node("i-2")], &works);
    let all = [large.clone(), small.clone()];
    let left = [large.clone(), ended(&small, Some(at(70)))];
    world.look(&mut accounts, at(0), &[large], Some(&alone)).await;
    // The small one boots, then it is empty for a look's time, then it has been told to end 60 seconds after its launch.
    world.look(&mut accounts, at(30), &all, Some(&alone)).await;
    world.look(&mut accounts, at(60), &all, Some(&both)).await;
    world.look(&mut accounts, at(90), &left, Some(&alone)).await;
    let hours = world.stored().await;
    assert_eq!(hours.len(), 1);
    let hour = &hours[0];
    assert_eq!((hour.begins, hour.until), (at(0), at(90)));
    close(hour.seconds, 90.0);
    let (large, small) = (row(hour, "large"), row(hour, "small"));
    close(large.node_seconds, 90.0);
    close(large.usd, 0.09);
    close(large.on_demand_usd, 0.09);
    close(large.empty_seconds, 0.0);
    close(small.node_seconds, 60.0);
    close(small.usd, 0.006);
    close(small.on_demand_usd, 0.012);
    close(small.empty_seconds, 30.0);
    close(small.empty_usd, 0.003);
    let peak = hour.peak.unwrap();
    assert_eq!((peak.at, peak.nodes), (at(60), 2));
    close(peak.usd_per_hour, 4.32);
}

#[tokio::test]
async fn a_machine_that_lived_for_seconds_is_billed_a_minute_and_one_of_unknown_end_up_to_the_last_look() {
    let (world, mut accounts) = (World::new().await, Accounts::default());
    let short = machine("i-1", "large", Market::OnDemand, at(5));
    let taken = machine("i-2", "small", Market::Spot, at(-600));
    world
        .look(&mut accounts, at(0), std::slice::from_ref(&taken), None)
        .await;
    world
        .look(&mut accounts, at(30), &[short.clone(), taken.clone()], None)
        .await;
    let gone = [ended(&short, Some(at(31))), ended(&taken, None)];
    for second in [60, 90, 120] {
        world.look(&mut accounts, at(second), &gone, None).await;
    }
    let hour = &world.stored().await[0];
    close(row(hour, "large").node_seconds, 60.0);
    close(row(hour, "small").node_seconds, 30.0);
    close(row(hour, "small").unseen_seconds, 30.0);
    assert_eq!(hour.peak, None);
}

#[tokio::test]
async fn a_new_leader_goes_on_where_the_last_write_of_the_old_one_ended_and_the_old_one_writes_no_more() {
    let (mut world, mut old, mut new) = (World::new().await, Accounts::default(), Accounts::default());
    let machines = [machine("i-1", "large", Market::OnDemand, at(-3600))];
    for second in [0, 30, 60, 90] {
        world.look(&mut old, at(second), &machines, None).await;
    }
    // Written at 30 and 90; what comes until 120 dies with its leader.
    let term = world.term;
    world.look(&mut old, at(120), &machines, None).await;
    world.next_leader().await;
    // A look that is older than what was written, and one after the take-over.
    world.look(&mut new, at(85), &machines, None).await;
    world.look(&mut new, at(140), &machines, None).await;
    world.look(&mut new, at(200), &machines, None).await;
    let late = World {
        store: Arc::clone(&world.store),
        policy: world.policy.clone(),
        term,
    };
    let refused = late.looked(&mut old, at(210), &machines, None).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    let hour = &world.stored().await[0];
    assert_eq!(hour.until, at(200));
    close(hour.seconds, 200.0);
    close(row(hour, "large").node_seconds, 200.0);
}

#[tokio::test]
async fn time_that_nobody_looked_at_for_long_is_not_accounted() {
    let (mut world, mut accounts) = (World::new().await, Accounts::default());
    let machines = [machine("i-1", "large", Market::OnDemand, at(-3600))];
    world.look(&mut accounts, at(0), &machines, None).await;
    world.look(&mut accounts, at(60), &machines, None).await;
    // Nobody leads for ten minutes; then one does that has never led.
    world.next_leader().await;
    let mut accounts = Accounts::default();
    for second in [660, 690, 750] {
        world.look(&mut accounts, at(second), &machines, None).await;
    }
    // The fleet does not answer for six minutes.
    for second in [1110, 1170] {
        world.look(&mut accounts, at(second), &machines, None).await;
    }
    let hour = &world.stored().await[0];
    close(hour.seconds, 60.0 + 90.0 + 60.0);
    close(row(hour, "large").node_seconds, 210.0);
}

#[tokio::test]
async fn the_last_hour_of_a_month_and_the_first_of_the_next_are_two() {
    let (world, mut accounts) = (World::new().await, Accounts::default());
    let midnight = time("2026-01-01T00:00:00Z");
    let machines = [machine("i-1", "large", Market::OnDemand, at(-86_400 * 30))];
    for second in [-90, -30, 30, 90] {
        let now = midnight + SignedDuration::from_secs(second);
        world.look(&mut accounts, now, &machines, None).await;
    }
    let hours = world.stored().await;
    let keys: Vec<String> = hours.iter().map(CostHour::key).collect();
    assert_eq!(keys, ["cost#2025-12-31T23", "cost#2026-01-01T00"]);
    for hour in &hours {
        close(hour.seconds, 90.0);
        close(row(hour, "large").usd, 0.09);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_accounts_no_second_twice_and_a_clock_far_ahead_none_that_was_not() {
    let (world, mut accounts) = (World::new().await, Accounts::default());
    let machines = [machine("i-1", "large", Market::OnDemand, at(-3600))];
    let minutes = |range: std::ops::RangeInclusive<i64>| range.map(|minute| at(minute * 60));
    for now in minutes(0..=10).chain(minutes(5..=15)) {
        world.look(&mut accounts, now, &machines, None).await;
    }
    let hour = &world.stored().await[0];
    close(hour.seconds, 900.0);
    close(row(hour, "large").node_seconds, 900.0);
    // Two hours ahead for two minutes, and right again.
    for now in minutes(135..=137).chain(minutes(16..=18)) {
        world.look(&mut accounts, now, &machines, None).await;
    }
    let hours = world.stored().await;
    assert_eq!(hours.len(), 2);
    close(hours[0].seconds, 900.0 + 120.0);
    close(hours[1].seconds, 120.0);
}

#[tokio::test]
async fn a_machine_whose_price_nobody_knows_is_said_and_costs_no_amount() {
    let (world, mut accounts) = (World::new().await, Accounts::default());
    let machines = [
        machine("i-1", "unheard.large", Market::OnDemand, at(-3600)),
        // It is not offered as spot.
        machine("i-2", "large", Market::Spot, at(-3600)),
        // Known to the built-in catalogue alone.
        machine("i-3", "t3.small", Market::Spot, at(-3600)),
    ];
    world.look(&mut accounts, at(0), &machines, None).await;
    world.look(&mut accounts, at(60), &machines, None).await;
    let hour = &world.stored().await[0];
    for kind in ["unheard.large", "large"] {
        let row = row(hour, kind);
        close(row.unpriced_seconds, 60.0);
        close(row.usd + row.on_demand_usd, 0.0);
    }
    let assumed = row(hour, "t3.small");
    close(assumed.unpriced_seconds, 0.0);
    close(assumed.assumed_seconds, 60.0);
    assert!(assumed.usd > 0.0 && assumed.usd < assumed.on_demand_usd);
}

#[tokio::test]
async fn a_ready_node_is_empty_that_has_only_pods_which_end_with_it() {
    let (world, mut accounts) = (World::new().await, Accounts::default());
    let names = ["i-0", "i-1", "i-2", "i-3", "i-4", "i-5"];
    let machines = names.map(|id| machine(id, "small", Market::Spot, at(-3600)));
    let mut nodes = names.map(node);
    nodes[4] = node("i-4").not_ready();
    nodes[5] = node("i-5").being_deleted();
    let pods = [
        pod("kube-system/proxy").on("i-0").owned_by("DaemonSet", "proxy"),
        pod("kube-system/static")
            .on("i-0")
            .annotation("kubernetes.io/config.mirror", "x"),
        pod("default/job").on("i-0").phase(Phase::Succeeded),
        pod("default/web").on("i-1"),
        pod("default/bare").on("i-2").bare(),
        pod("default/leaves").on("i-3").told_to_go("2026-01-01T12:00:50Z"),
    ];
    let seen = cluster(&nodes, &pods);
    world.look(&mut accounts, at(0), &machines, Some(&seen)).await;
    world.look(&mut accounts, at(60), &machines, Some(&seen)).await;
    let hour = &world.stored().await[0];
    let small = row(hour, "small");
    close(small.node_seconds, 360.0);
    close(small.empty_seconds, 60.0);
    close(small.empty_usd, 0.006);
    // Neither the one that is not Ready nor the one on its way out is at work.
    assert_eq!(hour.peak.unwrap().nodes, 4);
}

#[tokio::test]
async fn nodes_of_our_pools_that_somebody_else_launched_are_accounted_from_their_creation() {
    let (world, mut accounts) = (World::new().await, Accounts::default());
    let of_others = |name: &str| {
        node(name)
            .pool("workers")
            .instance_type("large")
            .market(Market::OnDemand)
            .created("2026-01-01T12:00:20Z")
    };
    let ours = machine("i-1", "small", Market::Spot, at(-3600));
    let mut known = of_others("worker-1").build();
    known.provider_id = Some("aws:///z-a/i-1".into());
    let mut seen = cluster(
        &[
            of_others("theirs"),
            of_others("gone").not_ready(),
            of_others("foreign").pool("elsewhere"),
        ],
        &[],
    );
    seen.nodes.push(known);
    for second in [0, 60] {
        let machines = std::slice::from_ref(&ours);
        world.look(&mut accounts, at(second), machines, Some(&seen)).await;
    }
    let hour = &world.stored().await[0];
    let rows: Vec<_> = hour
        .rows
        .iter()
        .map(|row| (row.instance_type.as_str(), row.node_seconds))
        .collect();
    assert_eq!(rows, [("small", 60.0), ("large", 40.0)]);
}
