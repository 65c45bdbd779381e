//! Nodes and pods as people see them.

use std::collections::{BTreeMap, BTreeSet};

use smartscale_planner::{
    NodeVerdict,
    model::{Node, NodeName, Pod, PodKey, Resources},
};
use smartscale_proto::{
    time::{age, duration_to_wire, to_wire},
    v1::{self, DrainPhase, NodeView, PodView},
};

use super::AdminDesk;
use crate::{
    act::agents::Agents as _,
    ids::InstanceId,
    serve::{sessions, view::Latest},
};

impl AdminDesk {
    /// Every node, and machines that are on their way and already speak to us.
    pub(super) fn node_views(&self, latest: &Latest) -> Vec<NodeView> {
        let cluster = &latest.snapshot.cluster;
        let verdicts: BTreeMap<_, _> = latest.plan.nodes.iter().map(|one| (&one.node, one)).collect();
        let mut pods: BTreeMap<&NodeName, Vec<&Pod>> = BTreeMap::new();
        for pod in cluster.pods.iter().filter(|pod| !pod.is_finished()) {
            if let Some(node) = &pod.node {
                pods.entry(node).or_default().push(pod);
            }
        }
        let mut views: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| {
                let on_it = pods.get(&node.name).map(Vec::as_slice).unwrap_or_default();
                self.node_view(latest, node, verdicts.get(&node.name).copied(), on_it)
            })
            .collect();
        let registered: BTreeSet<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        let joining = self.beside.sessions.connected();
        views.extend(
            joining
                .iter()
                .filter(|id| !registered.contains(id.as_str()))
                .map(|id| self.joining_view(id)),
        );
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn node_view(
        &self,
        latest: &Latest,
        node: &Node,
        verdict: Option<&NodeVerdict>,
        pods: &[&Pod],
    ) -> NodeView {
        let sessions = &self.beside.sessions;
        let instance = node.name.as_str().parse::<InstanceId>().ok();
        let drain = instance.as_ref().and_then(|id| sessions.drains(id).pop());
        let reading = latest.snapshot.metrics.nodes.get(&node.name);
        let mut requests = Resources::default();
        pods.iter().for_each(|pod| requests.add(&pod.requests));
        NodeView {
            name: node.name.to_string(),
            pool: latest
                .policy
                .pool_of(node)
                .map(|pool| pool.name.to_string())
                .unwrap_or_default(),
            instance_id: instance_id(node),
            instance_type: node.instance_type().map(|it| it.to_string()).unwrap_or_default(),
            zone: node.zone().map(|it| it.to_string()).unwrap_or_default(),
            market: node.market().map(|it| it.to_string()).unwrap_or_default(),
            state: state(node, drain.as_ref()).to_owned(),
            cordoned: node.unschedulable,
            created_at: node.created.map(to_wire),
            pods: u32::try_from(pods.len()).unwrap_or(u32::MAX),
            cpu_percent: reading.and_then(|reading| reading.cpu_percent),
            memory_percent: reading.and_then(|reading| reading.memory_percent),
            metrics_source: reading
                .map(|reading| reading.source.to_string())
                .unwrap_or_default(),
            metrics_age: reading.map(|reading| duration_to_wire(age(reading.time, self.now()))),
            candidate: verdict.is_some_and(|verdict| verdict.candidate),
            blockers: verdict
                .map(|verdict| self.beside.ages.of_node(&node.name, &verdict.blockers))
                .unwrap_or_default(),
            price_per_hour: latest.policy.price_of(node),
            agent_connected: instance.as_ref().is_some_and(|id| sessions.is_connected(id)),
            boot: instance.as_ref().map(|id| sessions.boot(id)).unwrap_or_default(),
            cpu_requested_percent: share(requests.cpu.0, node.allocatable.cpu.0),
            memory_requested_percent: share(requests.memory.0, node.allocatable.memory.0),
            drain,
            drift: latest.drift_of(&node.name).unwrap_or_default().to_owned(),
            notices: instance
                .as_ref()
                .map(|id| self.notice_views(id))
                .unwrap_or_default(),
        }
    }

    fn notice_views(&self, instance: &InstanceId) -> Vec<v1::NoticeView> {
        let standing = self.beside.sessions.board().of(instance);
        standing
            .iter()
            .map(|notice| v1::NoticeView {
                kind: notice.kind.as_str().to_owned(),
                at: notice.at.map(to_wire),
                detail: notice.detail.clone(),
                sightings: notice
                    .sightings
                    .iter()
                    .map(|sighting| v1::NoticeSighting {
                        source: sighting.source.as_str().to_owned(),
                        at: Some(to_wire(sighting.at)),
                    })
                    .collect(),
            })
            .collect()
    }

    /// A machine whose agent speaks to us and that is no node yet.
    fn joining_view(&self, instance: &InstanceId) -> NodeView {
        let sessions = &self.beside.sessions;
        let machine = sessions
            .hello(instance)
            .and_then(|hello| hello.machine)
            .unwrap_or_default();
        NodeView {
            name: instance.to_string(),
            instance_id: instance.to_string(),
            instance_type: machine.instance_type,
            zone: machine.zone,
            market: machine.market,
            state: "joining".to_owned(),
            agent_connected: true,
            boot: sessions.boot(instance),
            drain: sessions.drains(instance).pop(),
            notices: self.notice_views(instance),
            ..NodeView::default()
        }
    }
}

fn instance_id(node: &Node) -> String {
    let from_provider = node.provider_id.as_deref().and_then(|id| id.rsplit('/').next());
    from_provider.unwrap_or(node.name.as_str()).to_owned()
}

fn state(node: &Node, drain: Option<&v1::DrainReport>) -> &'static str {
    if node.being_deleted {
        "terminating"
    } else if drain
        .is_some_and(|drain| !sessions::is_over(drain.phase()) && drain.phase() != DrainPhase::Unspecified)
    {
        "draining"
    } else if node.ready {
        "ready"
    } else {
        "not-ready"
    }
}

#[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
fn share(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// Pods by namespace and name.
pub(super) fn pod_views(latest: &Latest, pending_only: bool) -> Vec<PodView> {
    let pending: BTreeMap<&PodKey, _> = latest
        .plan
        .pods
        .pending
        .iter()
        .map(|one| (&one.pod, one))
        .collect();
    let planned = planned(latest);
    let mut pods: Vec<_> = latest.snapshot.cluster.pods.iter().collect();
    pods.sort_by(|a, b| a.key.cmp(&b.key));
    pods.into_iter()
        .filter(|pod| {
            !pending_only
                || pod.node.is_none()
                    && !pod.is_finished()
                    && !pod.is_terminating()
                    && !pod.is_owned_by("DaemonSet")
        })
        .map(|pod| {
            let why = pending.get(&pod.key);
            let place = planned.get(&pod.key);
            PodView {
                namespace: pod.key.namespace.to_string(),
                name: pod.key.name.to_string(),
                node: pod
                    .node
                    .as_ref()
                    .map(ToString::to_string)
                    .or_else(|| place.cloned())
                    .unwrap_or_default(),
                state: pod_state(pod, place.is_some()).to_owned(),
                code: why.map(|why| why.code.to_string()).unwrap_or_default(),
                reason: why.map(|why| why.reason.clone()).unwrap_or_default(),
                created_at: pod.created.map(to_wire),
                cpu_millis: u64::try_from(pod.requests.cpu.0).unwrap_or(0),
                memory_bytes: u64::try_from(pod.requests.memory.0).unwrap_or(0),
            }
        })
        .collect()
}

/// Where the last plan puts pods that wait: the launch in words.
pub(super) fn planned(latest: &Latest) -> BTreeMap<PodKey, String> {
    let mut places = BTreeMap::new();
    for launch in &latest.plan.launch {
        let first = launch
            .instance_types
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        for pod in &launch.pods {
            places.insert(
                pod.clone(),
                format!("new {first} ({}, {})", launch.zone, launch.market),
            );
        }
    }
    places
}

pub(super) fn pod_state(pod: &Pod, planned: bool) -> &'static str {
    if pod.is_finished() {
        "finished"
    } else if pod.is_terminating() {
        "terminating"
    } else if pod.node.is_some() {
        "running"
    } else if planned {
        "planned"
    } else {
        "pending"
    }
}
