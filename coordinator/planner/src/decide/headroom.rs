//! Room kept free in a pool (`[[pool]] headroom`), as virtual pods of the lowest priority.
//!
//! They are placed after every real pod, launch nodes where they find no room, and must find another place when their
//! node goes; but nothing that is printed names them, and they hold nothing.

use crate::{
    Policy,
    model::{
        Bytes, DEFAULT_SCHEDULER, MilliCpu, NodeAffinity, Owner, Phase, Pod, PodKey, Resources, Toleration,
        TolerationOperator, keys,
    },
};

/// The kind of controller that marks them.
const KIND: &str = "smartscale.io/headroom";

/// Whether the pod is only room kept free.
pub(crate) fn is_headroom(pod: &Pod) -> bool {
    pod.is_owned_by(KIND)
}

/// The virtual pods of every pool: as many as it keeps slots (at least one), which share CPU and memory evenly.
pub(super) fn pods(policy: &Policy) -> Vec<Pod> {
    let mut all = Vec::new();
    for pool in &policy.pools {
        let headroom = &pool.headroom;
        if headroom.cpu == MilliCpu::ZERO && headroom.memory == Bytes::ZERO && headroom.pods == 0 {
            continue;
        }
        let parts = i64::from(headroom.pods.max(1));
        let requests = Resources {
            cpu: MilliCpu((headroom.cpu.0 + parts - 1) / parts),
            memory: Bytes((headroom.memory.0 + parts - 1) / parts),
            pods: i64::from(headroom.pods > 0),
            ..Resources::default()
        };
        all.extend((0..parts).map(|index| pod(pool.name.as_str(), index, requests.clone())));
    }
    all
}

fn pod(pool: &str, index: i64, requests: Resources) -> Pod {
    Pod {
        key: PodKey::new(KIND, format!("{pool}-{index}")),
        uid: "".into(),
        labels: [].into(),
        annotations: [].into(),
        node: None,
        phase: Phase::Pending,
        ready: false,
        created: None,
        started: None,
        deletion: None,
        controller: Some(Owner {
            kind: KIND.into(),
            name: pool.into(),
        }),
        requests,
        priority: i32::MIN,
        scheduler: DEFAULT_SCHEDULER.into(),
        node_selector: [(keys::POOL.into(), pool.into())].into(),
        node_affinity: NodeAffinity::default(),
        pod_affinity: Vec::new(),
        pod_anti_affinity: Vec::new(),
        preferred_pod_affinity: Vec::new(),
        tolerations: vec![Toleration {
            key: None,
            operator: TolerationOperator::Exists,
            value: "".into(),
            effect: None,
        }],
        spread: Vec::new(),
        host_ports: Vec::new(),
        gated: false,
        volumes: Vec::new(),
        resource_claims: false,
    }
}
