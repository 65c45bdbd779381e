//! What keeps a node, each blocker of the plan with its figures.

use jiff::SignedDuration;
use serde::Serialize;

use super::{
    Seen,
    node::PodOnNode,
    words::{self, and, count, dollars, length, moment, span},
};
use crate::{
    Blocker, BlockerCode, RemovalReason,
    decide::{Floor, Verdict},
    drainability,
    model::{Market, Node, Pod, PodKey, VolumeSource, keys},
    placement::World,
};

/// A blocker with its figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockerAnswer {
    /// The code of [`crate::Blocker`].
    pub code: BlockerCode,
    /// The pod that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodKey>,
    /// What it means here.
    pub detail: String,
}

impl<'a> Seen<'_, 'a> {
    /// The plan's blockers of the node, each explained. `pods` are those of the node and where they would go.
    pub(super) fn blockers(
        &self,
        world: &World<'a>,
        verdict: &Verdict<'a>,
        pods: &[PodOnNode],
    ) -> Vec<BlockerAnswer> {
        let of_plan = self
            .plan
            .nodes
            .iter()
            .find(|other| other.node == verdict.node.name);
        let of_plan = of_plan
            .map(|verdict| verdict.blockers.as_slice())
            .unwrap_or_default();
        of_plan
            .iter()
            .map(|blocker| BlockerAnswer {
                code: blocker.code,
                pod: blocker.pod.clone(),
                detail: match &blocker.pod {
                    Some(key) => self.of_pod(world, verdict, blocker, key, pods),
                    None => self.of_node(world, verdict, blocker.code),
                },
            })
            .collect()
    }

    fn of_pod(
        &self,
        world: &World<'a>,
        verdict: &Verdict<'a>,
        blocker: &Blocker,
        key: &PodKey,
        pods: &[PodOnNode],
    ) -> String {
        let known = world.hosts[verdict.host].pods.iter().find(|pod| pod.key == *key);
        let Some(pod) = known else { return String::new() };
        match blocker.code {
            BlockerCode::NotReplicated => "no controller would create it anew".to_owned(),
            BlockerCode::KubeSystemWithoutPdb => {
                "no disruption budget covers it (scale_down.kube_system = \"block\")".to_owned()
            }
            BlockerCode::LocalStorage => local_storage(pod),
            BlockerCode::NotSafeToEvict => annotation(pod, drainability::SAFE_TO_EVICT),
            BlockerCode::DoNotDisrupt => self.do_not_disrupt(pod),
            BlockerCode::NotEnoughPdb | BlockerCode::MultiplePdbs => self.budgets(world, pod, blocker.code),
            BlockerCode::NoPlaceToMove => pods.iter().find(|other| other.pod == *key).map_or_else(
                || "no other node takes it".to_owned(),
                |other| other.detail.clone(),
            ),
            _ => String::new(),
        }
    }

    fn do_not_disrupt(&self, pod: &Pod) -> String {
        let text = annotation(pod, drainability::DO_NOT_DISRUPT);
        let value = pod.annotations.get(drainability::DO_NOT_DISRUPT);
        let limit = value.and_then(|value| crate::duration::parse(value).ok());
        let limit = limit.and_then(|limit| SignedDuration::try_from(limit).ok());
        match (pod.started, limit) {
            (Some(started), Some(limit)) => format!("{text}: until {}", moment(started + limit)),
            (None, Some(_)) => format!("{text}: it has not started yet"),
            _ => text,
        }
    }

    fn budgets(&self, world: &World<'a>, pod: &Pod, code: BlockerCode) -> String {
        let covering: Vec<_> = self
            .context
            .covering(world, pod)
            .map(|(_, budget)| budget)
            .collect();
        let names: Vec<String> = covering.iter().map(|budget| budget.name.to_string()).collect();
        if code == BlockerCode::MultiplePdbs {
            return format!(
                "disruption budgets {} cover it: the API server refuses every eviction",
                and(&names)
            );
        }
        let each = covering.iter().map(|budget| match budget.disruptions_allowed {
            ..1 => format!("disruption budget {} allows none now", budget.name),
            left => format!(
                "disruption budget {} allows {}, which other removals of this plan spend",
                budget.name,
                count(usize::try_from(left).unwrap_or_default(), "eviction")
            ),
        });
        and(&each.collect::<Vec<_>>())
    }

    fn of_node(&self, world: &World<'a>, verdict: &Verdict<'a>, code: BlockerCode) -> String {
        let (context, node) = (self.context, verdict.node);
        let (down, now) = (&context.policy.scale_down, context.now);
        match code {
            BlockerCode::NotOurs => not_ours(node),
            BlockerCode::ScaleDownDisabled => {
                let keys = [drainability::SCALE_DOWN_DISABLED, drainability::DO_NOT_DISRUPT];
                let set = keys
                    .into_iter()
                    .filter(|key| node.annotations.get(*key).is_some_and(|v| &**v == "true"));
                let set: Vec<String> = set.map(|key| format!("annotation {key}=true")).collect();
                and(&set)
            }
            BlockerCode::BeingDeleted => "it is on its way out already".to_owned(),
            BlockerCode::NotUnneededLongEnough => {
                let since = self.plan.unneeded_since.get(&node.name).copied().unwrap_or(now);
                format!(
                    "unneeded for {} of {} (scale_down.sustained)",
                    span(now.duration_since(since)),
                    length(down.sustained)
                )
            }
            BlockerCode::Utilised => self.utilised(world, verdict),
            BlockerCode::UnknownUsage => self.unknown_usage(node),
            BlockerCode::AtMinNodes => self.at_min(verdict),
            BlockerCode::Budget => self.budget(verdict),
            BlockerCode::TooYoung => format!(
                "{} old, of {} (scale_down.min_age)",
                node.created
                    .map_or_else(|| "?".to_owned(), |created| span(now.duration_since(created))),
                length(down.min_age)
            ),
            BlockerCode::NoPlaceToMove => "the room kept free in its pool fits nowhere else".to_owned(),
            _ => String::new(),
        }
    }

    fn unknown_usage(&self, node: &Node) -> String {
        let Some(reading) = self.context.snapshot.metrics.nodes.get(&node.name) else {
            return "nobody has measured it".to_owned();
        };
        let age = self.context.now.duration_since(reading.time);
        match (reading.cpu_percent, reading.memory_percent) {
            _ if age < SignedDuration::ZERO => "its reading lies in the future".to_owned(),
            (Some(_), Some(_)) => format!("its reading is {} old, and counts for 1m", span(age)),
            (None, _) => "its CPU is unknown".to_owned(),
            (_, None) => "its memory is unknown".to_owned(),
        }
    }

    fn at_min(&self, verdict: &Verdict<'a>) -> String {
        let policy = self.context.policy;
        let Some(pool) = policy.pool_of(verdict.node) else {
            return String::new();
        };
        let goes = |node: &Node| {
            let removal = self.plan.remove.iter().find(|removal| removal.node == node.name);
            removal.is_some_and(|removal| removal.reason != RemovalReason::Replaced)
        };
        let staying = |node: &&Node| policy.pool_of(node).is_some() && !node.being_deleted && !goes(node);
        let nodes = || self.context.snapshot.cluster.nodes.iter().filter(staying);
        let of_pool = || nodes().filter(|node| policy.pool_of(node).is_some_and(|p| p.name == pool.name));
        let mut parts = Vec::new();
        let floors = &self.context.floors;
        let (all, least) = (nodes().count(), floors.all);
        if all <= least.nodes {
            let least = asked(least, "limits.min_nodes");
            parts.push(format!("{} left, {least}", count(all, "node")));
        }
        let (members, least) = (
            of_pool().count(),
            verdict.pool.and_then(|pool| floors.pools.get(pool)),
        );
        if let Some(least) = least.filter(|least| members <= least.nodes) {
            let least = asked(*least, "its min_nodes");
            parts.push(format!(
                "{} left in pool {}, {least}",
                count(members, "node"),
                pool.name
            ));
        }
        if parts.is_empty() {
            let on_demand = of_pool()
                .filter(|node| node.market() != Some(Market::Spot))
                .count();
            parts.push(format!(
                "{on_demand} on demand left in pool {}, its on_demand_base = {}",
                pool.name, pool.on_demand_base
            ));
        }
        and(&parts)
    }

    /// What its evictions cost against what it saves.
    fn too_dear(&self, verdict: &Verdict<'a>) -> String {
        let policy = self.context.policy;
        let evictions = count(verdict.evicted.len(), "eviction");
        let cost = policy.cost;
        let each = cost.eviction_usd;
        match policy.price_of(verdict.node) {
            None => {
                format!("{evictions} at ${each} each (cost.eviction_usd), and nobody knows what it saves")
            }
            Some(saves) => format!(
                "{evictions} at ${each} each (cost.eviction_usd) cost more than it saves in {} (cost.payback), at {}",
                length(cost.payback),
                dollars(saves)
            ),
        }
    }

    fn budget(&self, verdict: &Verdict<'a>) -> String {
        let policy = self.context.policy;
        let down = &policy.scale_down;
        let plan = self.plan;
        let is_destination = plan.remove.iter().flat_map(|removal| &removal.moves).any(
            |planned| matches!(&planned.to, crate::Destination::Node(name) if *name == verdict.node.name),
        );
        if is_destination {
            return "pods of another node that goes move here".to_owned();
        }
        if verdict.replacement.is_some() && !plan.remove.is_empty() {
            return "a node is replaced only when no other goes, one at a time".to_owned();
        }
        if verdict.unneeded && !self.context.pays_back(verdict) {
            return self.too_dear(verdict);
        }
        let empty = plan
            .remove
            .iter()
            .filter(|removal| removal.reason == RemovalReason::Empty)
            .count();
        let drained = plan.remove.len() - empty;
        let mut parts = Vec::new();
        let (key, gone, most) = if verdict.movers.is_empty() {
            ("max_parallel_empty", empty, down.max_parallel_empty)
        } else {
            ("max_parallel_drains", drained, down.max_parallel_drains)
        };
        if gone >= most as usize {
            parts.push(format!("{gone} of {most} at once (scale_down.{key})"));
        }
        if let Some(pool) = policy.pool_of(verdict.node) {
            let members: Vec<&Node> = self
                .context
                .snapshot
                .cluster
                .nodes
                .iter()
                .filter(|node| policy.pool_of(node).is_some_and(|p| p.name == pool.name))
                .collect();
            let most = down.budget.of(members.len());
            let going = members
                .iter()
                .filter(|node| node.being_deleted || plan.remove.iter().any(|r| r.node == node.name))
                .count();
            if going >= most {
                parts.push(format!(
                    "{going} of {most} of pool {} in disruption (scale_down.budget)",
                    pool.name
                ));
            }
        }
        let mut nodes = self.context.snapshot.cluster.nodes.iter();
        if parts.is_empty() && nodes.any(|node| node.being_deleted) {
            "it has room that the pods of a node that goes already need".to_owned()
        } else if parts.is_empty() {
            "a limit on disruption at once is used up".to_owned()
        } else {
            and(&parts)
        }
    }
}

/// A minimum, and who asks for it.
fn asked(floor: Floor<'_>, key: &str) -> String {
    match floor.raised {
        None => format!("{key} = {}", floor.nodes),
        Some((schedule, until)) => format!(
            "{} until {} by schedule {}",
            floor.nodes,
            moment(until),
            schedule.name
        ),
    }
}

fn not_ours(node: &Node) -> String {
    use crate::model::ControlPlaneLabels as _;
    if node.is_control_plane() {
        return "it is of the control plane".to_owned();
    }
    match node.label(keys::POOL) {
        Some(pool) => format!("the policy has no pool {pool}"),
        None => format!("it has no label {}", keys::POOL),
    }
}

fn local_storage(pod: &Pod) -> String {
    let kind = |source: &VolumeSource| match source {
        VolumeSource::HostPath => "hostPath",
        _ => "emptyDir",
    };
    let volumes = drainability::local_volumes(pod);
    let volumes: Vec<String> = volumes
        .map(|volume| format!("{} ({})", volume.name, kind(&volume.source)))
        .collect();
    let what = if volumes.len() == 1 { "volume" } else { "volumes" };
    format!("{what} {} on the node would be lost", and(&volumes))
}

fn annotation(pod: &Pod, key: &str) -> String {
    let value = pod.annotations.get(key).map(AsRef::as_ref).unwrap_or_default();
    format!("annotation {}={value}", words::short_annotation(key))
}
