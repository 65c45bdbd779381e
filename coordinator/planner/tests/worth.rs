//! What a removal must be worth: pods that serve meanwhile, and evictions that cost something.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use proptest::prelude::*;
use smartscale_planner::{
    BlockerCode, Due, Plan, Policy, RemovalReason, Snapshot,
    explain::{Questions, explain},
    fixtures::{NOW, NodeFixture, node, now, pod, policy_of, reading, snapshot},
    model::{Market, Node, Pod},
    plan,
};

/// Nodes at 0.1 USD an hour, half as large ones at 0.05 and twice as large ones at 0.15; further keys of `[scale_down]`, and further tables.
fn policy(scale_down: &str, more: &str) -> Policy {
    policy_of(&format!(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 0
max_nodes = 20
[scale_up]
cpu_percent = 100.0
memory_percent = 100.0
[scale_down]
when = "fits"
sustained = "0s"
{scale_down}
[[pool]]
name = "workers"
instance_types = ["t3.medium", "half", "double"]
zones = ["us-east-1a"]
[[instance_type]]
name = "t3.medium"
cpu = "2"
memory = "4Gi"
on_demand_price = 0.1
[[instance_type]]
name = "half"
cpu = "1"
memory = "4Gi"
on_demand_price = 0.05
[[instance_type]]
name = "double"
cpu = "4"
memory = "8Gi"
on_demand_price = 0.15
{more}"#
    ))
}

fn guarded() -> Policy {
    policy("guard_percent = 110", "")
}

/// Measured at so much CPU on average, each node like all.
fn measured(nodes: impl IntoIterator<Item = NodeFixture>, pods: Vec<Pod>, cpu: f64) -> Snapshot {
    let nodes: Vec<Node> = nodes.into_iter().map(NodeFixture::build).collect();
    let readings = nodes
        .iter()
        .map(|node| (node.name.clone(), reading(NOW, cpu, 5.0)))
        .collect();
    let mut snapshot = snapshot(nodes, pods);
    snapshot.metrics.cluster = vec![reading(NOW, cpu, 5.0)];
    snapshot.metrics.nodes = readings;
    snapshot
}

/// Three nodes of 2 CPUs, with so many pods of 250m each.
fn three(a: usize, b: usize, c: usize, cpu: f64) -> Snapshot {
    measured(
        ["a", "b", "c"].map(node),
        on(&[("a", a), ("b", b), ("c", c)]),
        cpu,
    )
}

fn on(nodes: &[(&str, usize)]) -> Vec<Pod> {
    let of_node = |(name, pods): &(&str, usize)| {
        let name = (*name).to_owned();
        (0..*pods).map(move |index| {
            pod(&format!("default/{name}-{index}"))
                .cpu("250m")
                .on(&name)
                .build()
        })
    };
    nodes.iter().flat_map(of_node).collect()
}

fn removed(plan: &Plan) -> Vec<&str> {
    plan.remove.iter().map(|removal| removal.node.as_str()).collect()
}

fn codes(plan: &Plan, node: &str) -> Vec<BlockerCode> {
    let verdict = plan.nodes.iter().find(|verdict| verdict.node.as_str() == node);
    verdict
        .unwrap()
        .blockers
        .iter()
        .map(|blocker| blocker.code)
        .collect()
}

fn detail(snapshot: &Snapshot, policy: &Policy, node: &str) -> String {
    let asked = Questions {
        nodes: vec![node.into()],
        ..Questions::default()
    };
    let (_, answers) = explain(snapshot, policy, now(), &asked).unwrap();
    answers.nodes[0].blockers[0].detail.clone()
}

#[test]
fn a_node_is_drained_only_if_the_pods_elsewhere_carry_the_demand_and_a_tenth_more() {
    // Ten pods may use 2.5 CPUs; without those of c eight are left, 2 CPUs, which carry 1818m with a tenth to spare.
    let enough = three(4, 4, 2, 1810.0 / 60.0);
    assert_eq!(removed(&plan(&enough, &guarded(), now())), ["c"]);
    let too_much = three(4, 4, 2, 1830.0 / 60.0);
    let kept = plan(&too_much, &guarded(), now());
    assert!(kept.remove.is_empty());
    for node in ["a", "b", "c"] {
        assert_eq!(codes(&kept, node), [BlockerCode::Utilised], "{node}");
    }
    assert_eq!(
        detail(&too_much, &guarded(), "c"),
        "the pods that serve elsewhere request 2 of CPU, less than 110 % of the 1830m that are used now \
         (scale_down.guard_percent)"
    );
}

#[test]
fn without_a_guard_nobody_asks_who_serves_meanwhile() {
    let plan = plan(&three(4, 4, 2, 1830.0 / 60.0), &policy("", ""), now());
    assert_eq!(removed(&plan), ["c"]);
}

#[test]
fn an_empty_node_needs_no_pods_elsewhere() {
    let plan = plan(&three(4, 4, 0, 60.0), &guarded(), now());
    assert_eq!(removed(&plan), ["c"]);
    assert_eq!(plan.remove[0].reason, RemovalReason::Empty);
}

#[test]
fn pods_that_do_not_serve_are_nobodys_loss_and_carry_nothing() {
    // Those of c wait for their readiness probes.
    let mut waiting = three(4, 4, 2, 60.0);
    for pod in &mut waiting.cluster.pods {
        if pod.node.as_ref().unwrap().as_str() == "c" {
            let mut changed = Pod::clone(pod);
            changed.ready = false;
            *pod = changed.into();
        }
    }
    assert_eq!(removed(&plan(&waiting, &guarded(), now())), ["c"]);
    // Of the eight that would carry the demand some are about to go.
    let mut going = three(4, 4, 2, 1810.0 / 60.0);
    let mut last = Pod::clone(&going.cluster.pods[7]);
    last.deletion = pod("x").terminating("2026-01-02T03:04:30Z").build().deletion;
    going.cluster.pods[7] = last.into();
    assert!(plan(&going, &guarded(), now()).remove.is_empty());
}

#[test]
fn a_node_that_is_not_ready_serves_nobody_and_may_go() {
    let nodes = [node("a"), node("b"), node("c").not_ready()];
    let lost = measured(nodes, on(&[("a", 4), ("b", 4), ("c", 2)]), 60.0);
    assert_eq!(removed(&plan(&lost, &guarded(), now())), ["c"]);
}

#[test]
fn where_pods_ask_for_no_cpu_nobody_knows_what_they_serve() {
    let mut pods = on(&[("a", 4), ("b", 4), ("c", 2)]);
    pods.push(pod("default/any").cpu("0").on("a").build());
    let unknown = measured(["a", "b", "c"].map(node), pods, 60.0);
    assert_eq!(removed(&plan(&unknown, &guarded(), now())), ["c"]);
    // Those of the system itself never do.
    let mut pods = on(&[("a", 4), ("b", 4), ("c", 2)]);
    pods.push(
        pod("kube-system/traefik")
            .cpu("0")
            .on("a")
            .annotation("cluster-autoscaler.kubernetes.io/safe-to-evict", "true")
            .build(),
    );
    let known = measured(["a", "b", "c"].map(node), pods, 60.0);
    assert!(plan(&known, &guarded(), now()).remove.is_empty());
}

#[test]
fn of_two_nodes_that_could_go_the_second_is_kept_by_what_the_first_takes_along() {
    let two_at_once = policy("guard_percent = 110\nmax_parallel_drains = 2", "");
    // 12 pods, 3 CPUs: without c and d two are left, which carry 1818m.
    let four = |cpu| {
        let pods = on(&[("a", 4), ("b", 4), ("c", 2), ("d", 2)]);
        measured(["a", "b", "c", "d"].map(node), pods, cpu / 80.0)
    };
    assert_eq!(removed(&plan(&four(1810.0), &two_at_once, now())), ["c", "d"]);
    let one = plan(&four(1830.0), &two_at_once, now());
    assert_eq!(removed(&one), ["c"]);
    assert_eq!(codes(&one, "d"), [BlockerCode::Utilised]);
    assert!(detail(&four(1830.0), &two_at_once, "d").contains("request 2 of CPU"));
}

#[test]
fn a_node_is_replaced_by_a_smaller_one_off_peak_if_enough_serve_meanwhile() {
    // Eight pods fill a node, a and b; that of c fits on half a one.
    let pods = |cpu| {
        let mut pods = on(&[("a", 8), ("b", 8)]);
        pods.push(pod("default/c").cpu("700m").on("c").build());
        measured(["a", "b", "c"].map(node), pods, cpu)
    };
    let smaller = plan(&pods(40.0), &guarded(), now());
    assert_eq!(removed(&smaller), ["c"]);
    assert_eq!(smaller.remove[0].reason, RemovalReason::Replaced);
    assert_eq!(smaller.launch[0].instance_types[0].as_str(), "half");
    // 4000m serve elsewhere.
    let busy = plan(&pods(61.0), &guarded(), now());
    assert!(busy.remove.is_empty());
    assert_eq!(codes(&busy, "c"), [BlockerCode::Utilised]);
}

#[test]
fn nodes_are_replaced_together_if_enough_serve_without_all_of_them() {
    let policy = policy("guard_percent = 110\nmax_parallel_drains = 3", "");
    // What is on a, b and c fits on one node twice as large; d and e are full, and serve 4 CPUs meanwhile.
    let five = |cpu: f64| {
        let big = |name: &&str| pod(&format!("default/{name}")).cpu("1200m").on(name).build();
        let full = |name: &&str| pod(&format!("default/{name}")).cpu("2").on(name).build();
        let mut pods: Vec<Pod> = ["a", "b", "c"].iter().map(big).collect();
        pods.extend(["d", "e"].iter().map(full));
        measured(["a", "b", "c", "d", "e"].map(node), pods, cpu / 100.0)
    };
    let together = plan(&five(3630.0), &policy, now());
    assert_eq!(removed(&together), ["a", "b", "c"]);
    assert_eq!(together.launch.len(), 1);
    let kept = plan(&five(3640.0), &policy, now());
    assert!(kept.remove.is_empty());
    assert_eq!(codes(&kept, "b"), [BlockerCode::Utilised]);
    assert!(detail(&five(3640.0), &policy, "b").contains("those that would go with it"));
}

#[test]
fn a_node_that_has_to_go_goes_whoever_serves_and_whatever_it_costs() {
    let mut policy = policy("guard_percent = 110", "[cost]\neviction_usd = 100");
    policy.pools[0].max_age = Some(std::time::Duration::from_secs(3600));
    let plan = plan(&three(4, 4, 2, 60.0), &policy, now());
    assert_eq!(plan.remove.len(), 1);
    assert_eq!(plan.remove[0].due, Some(Due::Age));
}

#[test]
fn a_drain_must_earn_back_what_its_evictions_cost() {
    // c saves 0.1 USD an hour and costs two evictions.
    let cluster = three(4, 4, 2, 10.0);
    let plan_at = |cost: &str| plan(&cluster, &policy("", &format!("[cost]\n{cost}")), now());
    assert_eq!(removed(&plan_at("eviction_usd = 0.05")), ["c"]);
    let dear = plan_at("eviction_usd = 0.051");
    assert!(dear.remove.is_empty());
    assert_eq!(codes(&dear, "c"), [BlockerCode::Budget]);
    assert_eq!(removed(&plan_at("eviction_usd = 0.051\npayback = \"2h\"")), ["c"]);
    assert_eq!(
        detail(&cluster, &policy("", "[cost]\neviction_usd = 0.051"), "c"),
        "2 evictions at $0.051 each (cost.eviction_usd) cost more than it saves in 1h (cost.payback), at $0.1000 an hour"
    );
}

#[test]
fn an_empty_node_goes_whatever_an_eviction_costs() {
    let plan = plan(
        &three(4, 4, 0, 10.0),
        &policy("", "[cost]\neviction_usd = 100"),
        now(),
    );
    assert_eq!(removed(&plan), ["c"]);
}

#[test]
fn a_node_of_unknown_price_is_not_drained_at_a_cost() {
    let nodes = || [node("a"), node("b"), node("c").instance_type("x9.huge")];
    let cluster = measured(nodes(), on(&[("a", 4), ("b", 4), ("c", 2)]), 10.0);
    let costly = policy("", "[cost]\neviction_usd = 0.03");
    let plan = plan(&cluster, &costly, now());
    assert_eq!(codes(&plan, "c"), [BlockerCode::Budget]);
    assert!(detail(&cluster, &costly, "c").contains("nobody knows what it saves"));
}

#[test]
fn a_replacement_must_earn_back_its_evictions_beside_its_share() {
    let mut pods = on(&[("a", 8), ("b", 8)]);
    pods.push(pod("default/c").cpu("700m").on("c").build());
    let cluster = measured(["a", "b", "c"].map(node), pods, 10.0);
    // Half the price is saved, 0.05 USD an hour, for one eviction.
    let plan_at = |cost| {
        let cost = policy("", &format!("[cost]\neviction_usd = {cost}"));
        plan(&cluster, &cost, now())
    };
    assert_eq!(removed(&plan_at("0.05")), ["c"]);
    let dear = plan_at("0.051");
    assert!(dear.remove.is_empty() && dear.launch.is_empty());
    assert_eq!(codes(&dear, "c"), [BlockerCode::NoPlaceToMove]);
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_key() {
    let error = |scale_down: &str, more: &str| {
        let text = format!(
            "[cluster]\nid = \"a\"\n[scale_down]\n{scale_down}\n[[pool]]\nname = \"w\"\nzones = [\"us-east-1a\"]\n\
             instance_types = [\"t3.small\"]\n{more}"
        );
        Policy::from_toml(&text).unwrap_err().path
    };
    assert_eq!(error("guard_percent = -1", ""), "scale_down.guard_percent");
    assert_eq!(error("guard_percent = nan", ""), "scale_down.guard_percent");
    assert_eq!(error("", "[cost]\neviction_usd = -0.1"), "cost.eviction_usd");
    assert_eq!(error("", "[cost]\neviction_usd = inf"), "cost.eviction_usd");
    assert_eq!(error("", "[cost]\npayback = \"0s\""), "cost.payback");
    assert_eq!(error("", "[cost]\neviction = 1"), "cost.eviction");
}

proptest! {
    /// Whatever is removed at once, what is left carries the demand; and each drain is worth its evictions.
    #[test]
    fn what_stays_carries_the_demand(
        pods in prop::collection::vec(0_usize..9, 1..8),
        used in 0_u32..101,
        drains in 1_u32..5,
        eviction in 0_u32..60,
    ) {
        let more = format!("[cost]\neviction_usd = {}", f64::from(eviction) / 1000.0);
        let policy = policy(&format!("guard_percent = 110\nmax_parallel_drains = {drains}"), &more);
        let names: Vec<String> = (0..pods.len()).map(|index| format!("n{index}")).collect();
        let placed: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(pods.iter().copied()).collect();
        // Pods use at most what they ask for.
        let requested = pods.iter().sum::<usize>() * 250;
        let used = f64::from(used) / 100.0 * requested as f64;
        let cluster = measured(names.iter().map(|name| node(name)), on(&placed), used / (20.0 * pods.len() as f64));
        let plan = plan(&cluster, &policy, now());
        let gone = removed(&plan);
        let stays: usize = placed.iter().filter(|(name, _)| !gone.contains(name)).map(|(_, pods)| pods * 250).sum();
        let drained = plan.remove.iter().any(|removal| removal.reason != RemovalReason::Empty);
        prop_assert!(!drained || used * 1.1 <= stays as f64 + 1e-6, "{used} used, {stays} stay");
        let saves: f64 = plan.remove.iter().map(|removal| removal.saves_per_hour).sum();
        let costs: f64 = plan.launch.iter().map(|launch| launch.price_per_hour).sum();
        let evicted: usize = placed.iter().filter(|(name, _)| gone.contains(name)).map(|(_, pods)| pods).sum();
        prop_assert!(saves - costs >= f64::from(eviction) / 1000.0 * evicted as f64 - 1e-9);
    }
}

/// Nodes of 4 pods on demand at 0.1 USD an hour and on spot at 0.04, and of 8 pods at 0.19 and 0.07; an eviction costs a cent.
fn on_both_markets(markets: &str, interruptions: f64) -> Policy {
    policy_of(&format!(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 0
[cost]
eviction_usd = 0.01
spot_interruptions_per_node_day = {interruptions:?}
[[pool]]
name = "workers"
instance_types = ["four", "eight"]
zones = ["us-east-1a"]
markets = [{markets}]
spot_share_percent = 100
[[instance_type]]
name = "four"
cpu = "2"
memory = "4Gi"
on_demand_price = 0.1
spot_price = 0.04
[[instance_type]]
name = "eight"
cpu = "4"
memory = "8Gi"
on_demand_price = 0.19
spot_price = 0.07
"#
    ))
}

/// The market of what is launched for a pod of half a CPU that waits.
fn market_of(policy: &Policy) -> Market {
    let snapshot = snapshot(Vec::<Node>::new(), vec![pod("default/web").cpu("500m").build()]);
    let plan = plan(&snapshot, policy, now());
    assert_eq!(plan.launch.len(), 1, "{plan:#?}");
    plan.launch[0].market
}

#[test]
fn spot_is_bought_until_its_interruptions_cost_more_than_it_saves_and_where_there_is_nothing_else() {
    // Four pods at a cent each: an interruption costs 0.04 USD, and spot of the smaller saves 0.06 an hour, 36 interruptions
    // a day. The larger one saves 0.12 and loses twice as much: as many.
    assert_eq!(
        market_of(&on_both_markets(r#""spot", "on-demand""#, 0.0)),
        Market::Spot
    );
    assert_eq!(
        market_of(&on_both_markets(r#""spot", "on-demand""#, 35.9)),
        Market::Spot
    );
    assert_eq!(
        market_of(&on_both_markets(r#""spot", "on-demand""#, 36.1)),
        Market::OnDemand
    );
    assert_eq!(market_of(&on_both_markets(r#""spot""#, 1000.0)), Market::Spot);
}

#[test]
fn a_negative_or_endless_rate_of_interruptions_is_refused() {
    for (rate, said) in [("-0.1", "-0.1"), ("inf", "inf"), ("nan", "NaN")] {
        let text = format!(
            "[cluster]\nid = \"a\"\n[cost]\nspot_interruptions_per_node_day = {rate}\n\
             [[pool]]\nname = \"a\"\nzones = [\"us-east-1a\"]\ninstance_types = [\"t3.small\"]\n"
        );
        let error = Policy::from_toml(&text).unwrap_err();
        assert_eq!(error.path, "cost.spot_interruptions_per_node_day");
        assert!(error.message.starts_with(said), "{error}");
    }
}

const POOL: &str = "[[pool]]\nname = \"w\"\nzones = [\"us-east-1a\"]\ninstance_types = [\"t3.small\"]";

#[test]
fn the_currency_is_usd_or_another_one_with_its_rate() {
    let currency = |cost: &str| {
        let currency = policy("", cost).currency;
        (currency.code.to_string(), currency.per_usd)
    };
    assert_eq!(currency(""), ("USD".to_owned(), 1.0));
    let taka = "[cost]\ncurrency = \"BDT\"\nper_usd = 121.5";
    assert_eq!(currency(taka), ("BDT".to_owned(), 121.5));
    for (wrong, key) in [
        ("currency = \"taka\"\nper_usd = 1.5", "cost.currency"),
        ("currency = \"bdt\"\nper_usd = 1.5", "cost.currency"),
        ("currency = \"BDT\"", "cost.per_usd"),
        ("currency = \"BDT\"\nper_usd = 0", "cost.per_usd"),
        ("currency = \"BDT\"\nper_usd = nan", "cost.per_usd"),
        ("per_usd = 2", "cost.per_usd"),
    ] {
        let text = format!("[cluster]\nid = \"a\"\n[cost]\n{wrong}\n{POOL}");
        assert_eq!(Policy::from_toml(&text).unwrap_err().path, key, "{wrong}");
    }
}
