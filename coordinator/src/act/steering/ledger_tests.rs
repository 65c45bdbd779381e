#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use proptest::prelude::*;
use smartscale_planner::fixtures;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A running pod of ReplicaSet `set` on a node.
fn of_set(name: &str, set: &str, node: &str, standing: Standing) -> Seen {
    let pod = fixtures::pod(&format!("default/{name}"))
        .owned_by("ReplicaSet", set)
        .on(node)
        .build();
    Seen {
        pod: Arc::new(pod),
        standing,
    }
}

/// One of `web`.
fn web(name: &str, node: &str, standing: Standing) -> Seen {
    of_set(name, "web", node, standing)
}

fn names(nodes: &[&str]) -> Vec<NodeName> {
    nodes.iter().map(|node| NodeName::new(*node)).collect()
}

/// What is patched, as `pod change`.
fn words(patches: &[Patch]) -> Vec<String> {
    let words = patches
        .iter()
        .map(|patch| format!("{} {:?}", patch.pod.name, patch.change));
    words.collect()
}

fn round(ledger: &mut Ledger, pods: &[Seen], order: &[&str], now: Duration) -> Vec<String> {
    words(&ledger.round(pods, &names(order), &BTreeSet::new(), now))
}

/// A round by a ledger that has seen the same for a minute.
fn settled(pods: &[Seen], order: &[&str]) -> Vec<String> {
    let mut ledger = Ledger::default();
    assert_eq!(round(&mut ledger, pods, order, MINUTE), Vec::<String>::new());
    round(&mut ledger, pods, order, 2 * MINUTE)
}

#[test]
fn pods_of_the_candidates_are_given_costs_and_the_first_nodes_pods_the_lowest() {
    let pods = [
        web("w1", "a", Standing::Free),
        web("w2", "b", Standing::Free),
        web("w3", "c", Standing::Free),
    ];
    assert_eq!(settled(&pods, &["b", "a"]), ["w2 Say(-90)", "w1 Say(-85)"]);
}

#[test]
fn only_pods_of_replica_sets_that_could_choose_another_one_are_given_a_cost() {
    let of = |kind: &str| Seen {
        pod: Arc::new(
            fixtures::pod(&format!("default/{kind}"))
                .owned_by(kind, "x")
                .on("a")
                .build(),
        ),
        standing: Standing::Free,
    };
    let pods = [
        of("StatefulSet"),
        of("DaemonSet"),
        of_set("all-1", "all-here", "a", Standing::Free),
        of_set("all-2", "all-here", "a", Standing::Free),
        web("w1", "a", Standing::Free),
        web("w2", "b", Standing::Free),
    ];
    assert_eq!(settled(&pods, &["a"]), ["w1 Say(-90)"]);
}

#[test]
fn pods_that_end_and_pods_of_nodes_that_go_are_left_alone() {
    let mut ends = web("w1", "a", Standing::Free);
    Arc::make_mut(&mut ends.pod).deletion = fixtures::pod("default/x")
        .terminating("2026-01-02T03:04:05Z")
        .build()
        .deletion;
    let pods = [
        ends,
        web("w2", "b", Standing::Ours(-90)),
        web("w3", "c", Standing::Free),
    ];
    let mut ledger = Ledger::default();
    let leaving = BTreeSet::from([NodeName::new("b")]);
    for now in [MINUTE, 2 * MINUTE] {
        assert_eq!(ledger.round(&pods, &names(&["a"]), &leaving, now), []);
    }
}

#[test]
fn a_node_that_is_no_candidate_any_more_is_unmarked_after_a_minute_and_before_others_are_marked() {
    let pods = [
        web("w1", "a", Standing::Ours(-90)),
        web("w2", "b", Standing::Free),
        web("w3", "c", Standing::Theirs { is_marked: true }),
    ];
    assert_eq!(
        settled(&pods, &["b"]),
        ["w1 TakeBack", "w3 Forget", "w2 Say(-90)"]
    );
    assert_eq!(settled(&pods, &[]), ["w1 TakeBack", "w3 Forget"]);
}

#[test]
fn a_candidate_that_comes_and_goes_changes_nothing() {
    let pods = [
        web("w1", "a", Standing::Ours(-90)),
        web("w2", "b", Standing::Free),
    ];
    let mut ledger = Ledger::default();
    for turn in 0..100u64 {
        let order: &[&str] = if turn % 5 == 4 { &["b"] } else { &["a"] };
        let patches = round(&mut ledger, &pods, order, seconds(10 * turn));
        assert_eq!(patches, Vec::<String>::new(), "turn {turn}");
    }
}

#[test]
fn a_pod_that_comes_to_a_candidate_later_is_marked_at_the_next_decision() {
    let mut pods = vec![
        web("w1", "a", Standing::Ours(-90)),
        web("w2", "b", Standing::Free),
    ];
    let mut ledger = Ledger::default();
    round(&mut ledger, &pods, &["a"], MINUTE);
    pods.push(web("w3", "a", Standing::Free));
    assert_eq!(round(&mut ledger, &pods, &["a"], 2 * MINUTE), ["w3 Say(-90)"]);
}

#[test]
fn a_pod_is_patched_once_a_minute_whatever_becomes_of_it() {
    let pods = [web("w1", "a", Standing::Free), web("w2", "b", Standing::Free)];
    let mut ledger = Ledger::default();
    round(&mut ledger, &pods, &["a"], MINUTE);
    assert_eq!(round(&mut ledger, &pods, &["a"], seconds(120)), ["w1 Say(-90)"]);
    ledger.note(&pods[0].pod.key, seconds(120));
    for second in [120, 130, 179] {
        let patches = round(&mut ledger, &pods, &["a"], seconds(second));
        assert_eq!(patches, Vec::<String>::new(), "{second} s");
    }
    assert_eq!(round(&mut ledger, &pods, &["a"], seconds(180)), ["w1 Say(-90)"]);
}

#[test]
fn a_large_node_is_marked_in_rounds_and_a_cluster_has_a_bound_a_minute() {
    let mut pods: Vec<Seen> = (0..400)
        .map(|n| web(&format!("w{n:03}"), "a", Standing::Free))
        .collect();
    pods.push(web("elsewhere", "b", Standing::Free));
    let mut ledger = Ledger::default();
    let (order, leaving) = (names(&["a"]), BTreeSet::new());
    ledger.round(&pods, &order, &leaving, MINUTE);
    let mut sizes = Vec::new();
    for second in [120, 125, 130, 135, 140, 145, 150, 155, 181] {
        let patches = ledger.round(&pods, &order, &leaving, seconds(second));
        sizes.push(patches.len());
        for patch in patches {
            ledger.note(&patch.pod, seconds(second));
        }
    }
    assert_eq!(sizes, [50, 50, 50, 50, 50, 50, 0, 0, 50]);
}

/// What a cluster and a leader do, one after another.
#[derive(Debug, Clone)]
enum Step {
    /// A decision names these nodes.
    Decide(Vec<u8>),
    /// Somebody writes or takes away a pod's cost.
    Meddle(usize, Option<i32>),
    /// A node is on its way out, or not.
    Leave(u8),
    /// Another leader: nothing is remembered.
    Lead,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::sample::subsequence((0..8u8).collect::<Vec<_>>(), 0..8)
            .prop_shuffle()
            .prop_map(Step::Decide),
        1 => (0..24usize, proptest::option::of(-100..100)).prop_map(|(pod, cost)| Step::Meddle(pod, cost)),
        1 => (0..8u8).prop_map(Step::Leave),
        1 => Just(Step::Lead),
    ]
}

/// A pod's two annotations.
type Written = (Option<i32>, Option<i32>);

fn standing(written: Written) -> Standing {
    let text = |cost: Option<i32>| cost.map(|cost| cost.to_string());
    Standing::of(text(written.0).as_deref(), text(written.1).as_deref())
}

proptest! {
    #[test]
    fn at_most_five_nodes_are_marked_no_foreign_cost_is_touched_and_no_pod_is_patched_twice_a_minute(
        steps in proptest::collection::vec((1..40u64, step()), 1..120),
    ) {
        let mut written: Vec<Written> = vec![(None, None); 24];
        // Costs that somebody else has written, or taken away, and that are theirs since.
        let mut foreign: BTreeMap<usize, Option<i32>> = BTreeMap::new();
        let mut patched: BTreeMap<usize, u64> = BTreeMap::new();
        let (mut ledger, mut leaving) = (Ledger::default(), BTreeSet::new());
        let mut now = 0;
        for (passed, step) in steps {
            now += passed;
            match step {
                Step::Lead => ledger = Ledger::default(),
                Step::Leave(node) => {
                    let node = NodeName::new(format!("n{node}"));
                    if !leaving.remove(&node) {
                        leaving.insert(node);
                    }
                }
                Step::Meddle(pod, cost) => {
                    written[pod].0 = cost;
                    match standing(written[pod]) {
                        Standing::Theirs { .. } => drop(foreign.insert(pod, cost)),
                        Standing::Free | Standing::Ours(_) => drop(foreign.remove(&pod)),
                    }
                }
                Step::Decide(order) => {
                    let pods: Vec<Seen> = written
                        .iter()
                        .enumerate()
                        .map(|(pod, written)| web(&pod.to_string(), &format!("n{}", pod % 8), standing(*written)))
                        .collect();
                    let order: Vec<NodeName> = order.iter().map(|n| NodeName::new(format!("n{n}"))).collect();
                    let mut marked = BTreeSet::new();
                    for patch in ledger.round(&pods, &order, &leaving, seconds(now)) {
                        let pod: usize = patch.pod.name.parse().unwrap();
                        let node = NodeName::new(format!("n{}", pod % 8));
                        prop_assert!(!leaving.contains(&node), "a pod of a node that goes");
                        let before = patched.insert(pod, now);
                        prop_assert!(before.is_none_or(|before| now - before >= 60), "twice a minute");
                        ledger.note(&patch.pod, seconds(now));
                        match patch.change {
                            Change::Say(cost) => {
                                prop_assert!(order.iter().take(5).any(|named| *named == node));
                                marked.insert(node);
                                written[pod] = (Some(cost), Some(cost));
                            }
                            Change::TakeBack => written[pod] = (None, None),
                            Change::Forget => written[pod].1 = None,
                        }
                    }
                    prop_assert!(marked.len() <= 5, "{marked:?}");
                    for (pod, cost) in &foreign {
                        prop_assert_eq!(written[*pod].0, *cost, "a foreign cost");
                    }
                    // What has no cost and no mark is nobody's again.
                    foreign.retain(|pod, _| matches!(standing(written[*pod]), Standing::Theirs { .. }));
                }
            }
        }
    }

    #[test]
    fn what_is_wished_without_a_break_is_what_is_written_in_the_end_and_then_nothing_is_patched(
        costs in proptest::collection::vec(proptest::option::of(-99..0), 24),
        order in proptest::sample::subsequence((0..8u8).collect::<Vec<_>>(), 0..8).prop_shuffle(),
    ) {
        let mut written: Vec<Written> = costs.into_iter().map(|cost| (cost, cost)).collect();
        let order: Vec<NodeName> = order.iter().map(|n| NodeName::new(format!("n{n}"))).collect();
        let mut ledger = Ledger::default();
        let mut last = 0;
        for turn in 0..60 {
            let pods: Vec<Seen> = written
                .iter()
                .enumerate()
                .map(|(pod, written)| web(&format!("{pod:02}"), &format!("n{}", pod % 8), standing(*written)))
                .collect();
            for patch in ledger.round(&pods, &order, &BTreeSet::new(), seconds(10 * turn)) {
                last = turn;
                ledger.note(&patch.pod, seconds(10 * turn));
                let pod: usize = patch.pod.name.parse().unwrap();
                written[pod] = match patch.change {
                    Change::Say(cost) => (Some(cost), Some(cost)),
                    Change::TakeBack | Change::Forget => (None, None),
                };
            }
        }
        prop_assert!(last < 30, "patched until turn {}", last);
        let first = order.iter().take(5);
        let costs: Vec<BTreeSet<Option<i32>>> = first
            .map(|node| {
                let of = written.iter().enumerate().filter(|(pod, _)| format!("n{}", pod % 8) == node.as_str());
                of.map(|(_, written)| written.0).collect()
            })
            .collect();
        for of_node in &costs {
            prop_assert!(of_node.len() == 1 && of_node.iter().all(Option::is_some), "{:?}", costs);
        }
        prop_assert!(costs.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", costs);
        let marked = written.iter().filter(|written| written.0.is_some()).count();
        prop_assert_eq!(marked, 3 * order.len().min(5));
    }
}
