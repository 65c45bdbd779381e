//! What may be evicted: the rule that planner and agent share.

use smartscale_planner::{
    BlockerCode,
    drainability::{
        self, DO_NOT_DISRUPT, Evictability, MIRROR, SAFE_LOCAL_VOLUMES, SAFE_TO_EVICT, SkipReason,
        Strictness, Tier,
    },
    fixtures::{PodFixture, budget, now, pod},
    model::{Phase, Pod, VolumeSource},
};

fn judge(pod: PodFixture) -> Evictability {
    drainability::classify(&pod.build(), Strictness::default(), Some(false), now())
}

fn blockers(pod: PodFixture) -> Vec<BlockerCode> {
    match judge(pod) {
        Evictability::Block(codes, _) => codes,
        _ => Vec::new(),
    }
}

fn running(key: &str) -> PodFixture {
    pod(key).on("a")
}

#[test]
fn what_ends_with_its_node_is_left_alone() {
    assert_eq!(
        judge(running("agent-1").owned_by("DaemonSet", "agent")),
        Evictability::Skip(SkipReason::DaemonSet)
    );
    assert_eq!(
        judge(running("etcd-1").bare().annotation(MIRROR, "x")),
        Evictability::Skip(SkipReason::Mirror)
    );
    assert_eq!(
        judge(running("job-1").phase(Phase::Succeeded)),
        Evictability::Skip(SkipReason::Finished)
    );
    assert_eq!(
        judge(running("job-1").bare().phase(Phase::Failed)),
        Evictability::Skip(SkipReason::Finished)
    );
    assert_eq!(
        judge(running("web-1").terminating("2026-01-02T03:03:34Z")),
        Evictability::Skip(SkipReason::Gone)
    );
}

#[test]
fn a_terminating_pod_needs_a_place_only_if_a_stateful_set_owns_it() {
    let leaving = |needs_place| Evictability::Leaving { needs_place };
    assert_eq!(
        judge(running("web-1").terminating("2026-01-02T03:03:35Z")),
        leaving(false)
    );
    assert_eq!(
        judge(running("web-1").bare().terminating("2026-01-02T03:05:00Z")),
        leaving(false)
    );
    let stateful = running("db-1")
        .owned_by("StatefulSet", "db")
        .terminating("2026-01-02T03:05:00Z");
    assert_eq!(judge(stateful), leaving(true));
}

#[test]
fn each_blocker_is_found_and_all_of_them_together() {
    assert_eq!(judge(running("web-1")), Evictability::Evict(Tier::Ordinary));
    assert_eq!(blockers(running("web-1").bare()), [BlockerCode::NotReplicated]);
    assert_eq!(
        blockers(running("kube-system/dns-1")),
        [BlockerCode::KubeSystemWithoutPdb]
    );
    assert_eq!(
        blockers(running("web-1").volume("tmp", VolumeSource::EmptyDir)),
        [BlockerCode::LocalStorage]
    );
    assert_eq!(
        blockers(running("web-1").volume("tmp", VolumeSource::EmptyDirInMemory)),
        []
    );
    assert_eq!(
        blockers(running("web-1").annotation(SAFE_TO_EVICT, "on-completion")),
        [BlockerCode::NotSafeToEvict]
    );
    assert_eq!(
        blockers(running("web-1").annotation(DO_NOT_DISRUPT, "true")),
        [BlockerCode::DoNotDisrupt]
    );
    let all = running("kube-system/x-1")
        .bare()
        .volume("data", VolumeSource::HostPath)
        .annotation(SAFE_TO_EVICT, "false")
        .annotation(DO_NOT_DISRUPT, "true");
    assert_eq!(
        blockers(all),
        [
            BlockerCode::NotReplicated,
            BlockerCode::KubeSystemWithoutPdb,
            BlockerCode::LocalStorage,
            BlockerCode::NotSafeToEvict,
            BlockerCode::DoNotDisrupt
        ]
    );
}

#[test]
fn safe_to_evict_lifts_three_blockers_and_no_other() {
    let bare = || {
        running("kube-system/x-1")
            .bare()
            .volume("d", VolumeSource::EmptyDir)
            .annotation(SAFE_TO_EVICT, "true")
    };
    assert_eq!(blockers(bare()), []);
    assert_eq!(
        blockers(bare().annotation(DO_NOT_DISRUPT, "true")),
        [BlockerCode::DoNotDisrupt]
    );
}

#[test]
fn named_local_volumes_are_exempt() {
    let pod = || {
        running("web-1")
            .volume("tmp", VolumeSource::EmptyDir)
            .volume("log", VolumeSource::HostPath)
    };
    assert_eq!(blockers(pod().annotation(SAFE_LOCAL_VOLUMES, "tmp,log")), []);
    assert_eq!(
        blockers(pod().annotation(SAFE_LOCAL_VOLUMES, "tmp")),
        [BlockerCode::LocalStorage]
    );
}

#[test]
fn do_not_disrupt_may_be_for_a_time() {
    // The fixture started one minute ago.
    assert_eq!(
        blockers(running("web-1").annotation(DO_NOT_DISRUPT, "2m")),
        [BlockerCode::DoNotDisrupt]
    );
    for value in ["30s", "1m", "false", "soon"] {
        assert_eq!(
            blockers(running("web-1").annotation(DO_NOT_DISRUPT, value)),
            [],
            "{value}"
        );
    }
}

#[test]
fn an_agent_that_sees_no_budgets_does_not_hold_kube_system_back() {
    let judged = drainability::classify(
        &running("kube-system/dns-1").build(),
        Strictness::default(),
        None,
        now(),
    );
    assert_eq!(judged, Evictability::Evict(Tier::Ordinary));
}

#[test]
fn pods_leave_in_the_order_of_their_priority() {
    let mut tiers: Vec<Tier> = [2_000_001_000, 0, -5, 2_000_000_000, 100].map(Tier::of).into();
    tiers.sort();
    assert_eq!(
        tiers,
        [
            Tier::Low,
            Tier::Ordinary,
            Tier::High,
            Tier::ClusterCritical,
            Tier::NodeCritical
        ]
    );
}

#[test]
fn a_budget_with_nothing_left_blocks_and_two_budgets_always_do() {
    let pod: Pod = running("web-1").build();
    let asked = |budgets: &[_]| drainability::pdb_blocker(&pod, budgets, |budget| budget.disruptions_allowed);
    assert_eq!(asked(&[budget("web", 1), budget("other", 0)]), None);
    assert_eq!(asked(&[budget("web", 0)]), Some(BlockerCode::NotEnoughPdb));
    assert_eq!(
        asked(&[budget("web", 5), budget("web", 5)]),
        Some(BlockerCode::MultiplePdbs)
    );
    let mut lenient = budget("web", 0);
    lenient.always_evict_unhealthy = true;
    let sick = Pod {
        ready: false,
        ..pod.clone()
    };
    assert_eq!(
        drainability::pdb_blocker(&sick, [&lenient], |b| b.disruptions_allowed),
        None
    );
}
