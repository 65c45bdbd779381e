//! What lives in the demo's cluster: a K3s server, the usual system pods, and two services with disruption budgets.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use smartscale_planner::model::{
    Bytes, DaemonSet, Labels, MilliCpu, Node, Owner, PodKey, Resources, Taint, TaintEffect, Toleration,
    TolerationOperator, keys,
};

use crate::{
    cluster::{Bound, Budget, Cluster, Deployment, Template},
    load::{Demand, Service},
};

/// The services whose pods follow demand.
pub(super) fn services() -> Vec<Service> {
    vec![
        Service {
            name: "web",
            min: 4,
            max: 16,
            target: 0.6,
        },
        Service {
            name: "api",
            min: 2,
            max: 4,
            target: 0.6,
        },
    ]
}

/// The demand at the beginning.
pub(super) const QUIET: [Demand; 2] = [
    Demand {
        service: "web",
        full_pods: 2.4,
        max: None,
    },
    Demand {
        service: "api",
        full_pods: 1.2,
        max: None,
    },
];

fn requests(cpu: i64, memory_mib: i64) -> Resources {
    Resources {
        cpu: MilliCpu(cpu),
        memory: Bytes(memory_mib << 20),
        ..Resources::default()
    }
}

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Puts everything into an empty cluster.
pub(super) fn settle(cluster: &Cluster, now: Timestamp) {
    cluster.register(server(now), Duration::ZERO);
    let mut coredns = Template::new(requests(100, 70));
    coredns.node_selector.insert(CONTROL_PLANE.into(), "true".into());
    coredns.tolerations.push(Toleration {
        key: Some(CONTROL_PLANE.into()),
        operator: TolerationOperator::Exists,
        value: "".into(),
        effect: None,
    });
    coredns.priority = 2_000_000_000;
    cluster.apply_deployment(Deployment::new("kube-system", "coredns", 1, coredns));
    cluster.apply_daemon_set(exporter(now));
    cluster.apply_deployment(Deployment::new(
        "shop",
        "web",
        4,
        Template::new(requests(250, 256)),
    ));
    cluster.apply_deployment(Deployment::new(
        "shop",
        "api",
        2,
        Template::new(requests(400, 512)),
    ));
    cluster.apply_budget(Budget::new("shop", "web", "web", Bound::MaxUnavailable(1)));
    cluster.apply_budget(Budget::new("shop", "api", "api", Bound::MaxUnavailable(1)));
}

fn server(now: Timestamp) -> Node {
    let mut labels = Labels::new();
    for (key, value) in [
        (CONTROL_PLANE, "true"),
        (keys::HOSTNAME, "server-1"),
        (keys::OS, "linux"),
        (keys::ARCH, "amd64"),
        (keys::ZONE, "us-east-1a"),
        (keys::INSTANCE_TYPE, "t3.small"),
    ] {
        labels.insert(key.into(), value.into());
    }
    let room = Resources {
        cpu: MilliCpu(2000),
        memory: Bytes(1894 << 20),
        ephemeral_storage: Bytes(20 << 30),
        pods: 110,
        ..Resources::default()
    };
    Node {
        name: "server-1".into(),
        labels: labels.into(),
        annotations: Labels::new(),
        taints: vec![Taint {
            key: CONTROL_PLANE.into(),
            value: "true".into(),
            effect: TaintEffect::NoSchedule,
        }],
        unschedulable: false,
        ready: true,
        created: Some(now),
        being_deleted: false,
        allocatable: room.clone(),
        capacity: room,
        provider_id: None,
    }
}

fn exporter(now: Timestamp) -> DaemonSet {
    let name: Arc<str> = "node-exporter".into();
    let owner = Owner {
        kind: "DaemonSet".into(),
        name: Arc::clone(&name),
    };
    let mut template = Template::new(requests(50, 64));
    // Whatever the taint: every node is measured.
    template.tolerations.push(Toleration {
        key: None,
        operator: TolerationOperator::Exists,
        value: "".into(),
        effect: None,
    });
    let template = template.pod(PodKey::new("monitoring", Arc::clone(&name)), &name, owner, now);
    DaemonSet {
        namespace: "monitoring".into(),
        name,
        template,
    }
}
