//! Room kept free in a pool (`[[pool]] headroom`), and room for what is expected (`[forecast]`), as virtual pods of the lowest
//! priority.
//!
//! They are placed after every real pod, launch nodes where they find no room, and must find another place when their
//! node goes; but nothing that is printed names them, and they hold nothing.

use crate::{
    Policy,
    model::{
        Bytes, Cluster, MilliCpu, Node, Owner, Pod, PodKey, Resources, Toleration, TolerationOperator, keys,
    },
    policy::Kept,
    snapshot::Expected,
};

/// The kind of controller that marks them.
const KIND: &str = "smartscale.io/headroom";
/// That of those that are expected.
const EXPECTED: &str = "smartscale.io/expected";
/// The name of that of those for which no node is launched.
const KEPT: &str = "kept";

/// Whether the pod is only room kept free.
pub(crate) fn is_headroom(pod: &Pod) -> bool {
    pod.is_owned_by(KIND) || is_expected(pod)
}

/// Whether the pod is only room that is kept where it is there: no node is launched for it.
pub(crate) fn is_only_kept(pod: &Pod) -> bool {
    is_expected(pod)
        && pod
            .controller
            .as_ref()
            .is_some_and(|owner| owner.name == KEPT.into())
}

/// Whether the pod is only room for what is expected.
pub(crate) fn is_expected(pod: &Pod) -> bool {
    pod.is_owned_by(EXPECTED)
}

/// The virtual pods: those of every pool, then those that are expected.
pub(super) fn pods(policy: &Policy, cluster: &Cluster, expected: Option<&Expected>) -> Vec<Pod> {
    let mut all = of_pools(policy, cluster);
    if let Some(expected) = expected {
        let each = || Resources {
            cpu: expected.cpu_millis.max(MilliCpu::ZERO),
            memory: expected.memory_bytes.max(Bytes::ZERO),
            pods: 1,
            ..Resources::default()
        };
        let count = expected.pods.min(MOST_EXPECTED);
        let launched = count.saturating_sub(expected.only_kept);
        all.extend((0..count).map(|index| Pod {
            controller: Some(Owner {
                kind: EXPECTED.into(),
                name: if index < launched { "forecast" } else { KEPT }.into(),
            }),
            priority: i32::MIN,
            preempts: false,
            ..Pod::pending(PodKey::new(EXPECTED, format!("{index}")), each())
        }));
    }
    all
}

/// Most pods that are expected at once.
const MOST_EXPECTED: u32 = 10_000;

/// The virtual pods of every pool: as many as it keeps slots (at least one), which share CPU and memory evenly. A
/// percentage makes at least one for every node that it is of, so that none is larger than its share of an average node.
fn of_pools(policy: &Policy, cluster: &Cluster) -> Vec<Pod> {
    let mut all = Vec::new();
    for pool in &policy.pools {
        let headroom = &pool.headroom;
        let stays = |node: &&Node| node.ready && !node.unschedulable && !node.being_deleted;
        let nodes = cluster
            .nodes
            .iter()
            .filter(stays)
            .filter(|node| policy.pool_of(node).is_some_and(|other| other.name == pool.name));
        let mut parts = headroom.pods.max(1);
        let mut has = Resources::default();
        if matches!(headroom.cpu, Kept::Share(_)) || matches!(headroom.memory, Kept::Share(_)) {
            let mut count = 0;
            for node in nodes {
                has.add(&node.allocatable);
                count += 1;
            }
            parts = parts.max(count);
        }
        let (cpu, memory) = (headroom.cpu.of(has.cpu.0), headroom.memory.of(has.memory.0));
        if cpu == 0 && memory == 0 && headroom.pods == 0 {
            continue;
        }
        let part = |amount: i64| (amount + i64::from(parts) - 1) / i64::from(parts);
        all.extend((0..parts).map(|index| {
            let requests = Resources {
                cpu: MilliCpu(part(cpu)),
                memory: Bytes(part(memory)),
                pods: i64::from(index < headroom.pods),
                ..Resources::default()
            };
            pod(pool.name.as_str(), index, requests)
        }));
    }
    all
}

fn pod(pool: &str, index: u32, requests: Resources) -> Pod {
    Pod {
        controller: Some(Owner {
            kind: KIND.into(),
            name: pool.into(),
        }),
        priority: i32::MIN,
        preempts: false,
        node_selector: [(keys::POOL.into(), pool.into())].into(),
        tolerations: vec![Toleration {
            key: None,
            operator: TolerationOperator::Exists,
            value: "".into(),
            effect: None,
        }],
        ..Pod::pending(PodKey::new(KIND, format!("{pool}-{index}")), requests)
    }
}
