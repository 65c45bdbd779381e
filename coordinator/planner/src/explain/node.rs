//! The answer about a node: what it is and costs, what keeps it, and what would become of its pods.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Seen, Tried,
    blockers::BlockerAnswer,
    words::{self, count, dollars, moment, span},
};
use crate::{
    Destination, Due, Hold, RemovalReason,
    decide::{Verdict, is_headroom, move_all, node_usage},
    model::{InstanceType, Market, NodeName, Pod, PodKey, PoolName, Zone},
    placement::{Place, World},
};

/// The answer about a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeAnswer {
    /// The node.
    pub node: NodeName,
    /// Its pool, if it is ours.
    pub pool: Option<PoolName>,
    /// Its type.
    pub instance_type: Option<InstanceType>,
    /// Its zone.
    pub zone: Option<Zone>,
    /// How it was bought.
    pub market: Option<Market>,
    /// USD per hour, if known.
    pub price_per_hour: Option<f64>,
    /// How old it is, in seconds.
    pub age_seconds: Option<i64>,
    /// Its condition `Ready`.
    pub ready: bool,
    /// Cordoned.
    pub cordoned: bool,
    /// What its pods request.
    pub requested: Figures,
    /// What was measured, in percent, if it still counts.
    pub measured: Option<Share>,
    /// The answer in a sentence.
    pub answer: String,
    /// What the plan does with it.
    pub fate: Fate,
    /// Why it is to go, needed or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Due>,
    /// How it would go, were nothing in the way; `None` where some pod has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_be: Option<RemovalReason>,
    /// What its removal would save, in USD per hour, less what a replacement costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_save_per_hour: Option<f64>,
    /// All that keeps it, with words and figures; the codes of the plan.
    pub blockers: Vec<BlockerAnswer>,
    /// What holds every removal in this plan, a sentence each.
    pub held: Vec<String>,
    /// Since when it has been unneeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unneeded_since: Option<Timestamp>,
    /// Its pods, and where each would go.
    pub pods: Vec<PodOnNode>,
}

/// What is requested of a node, against what it has for pods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// CPU.
    pub cpu: String,
    /// CPU for pods.
    pub cpu_allocatable: String,
    /// Memory.
    pub memory: String,
    /// Memory for pods.
    pub memory_allocatable: String,
    /// Pods.
    pub pods: i64,
    /// Slots for pods.
    pub pods_allocatable: i64,
    /// CPU and memory in percent.
    #[serde(flatten)]
    pub share: Share,
}

/// CPU and memory in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// CPU.
    pub cpu_percent: f64,
    /// Memory.
    pub memory_percent: f64,
}

/// What a plan does with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is removed.
    Goes,
    /// Nothing of its own keeps it, but something holds all removals.
    CouldGo,
    /// It stays.
    Stays,
    /// It is none of ours.
    NotOurs,
}

/// A pod of the node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodOnNode {
    /// The pod.
    pub pod: PodKey,
    /// Where it would go; `None` if it ends with the node, or has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Destination>,
    /// In words.
    pub detail: String,
    /// How it fares on the other nodes, where it has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<Tried<String>>,
}

impl<'a> Seen<'_, 'a> {
    pub(super) fn node(&self, world: &World<'a>, name: &NodeName) -> Option<NodeAnswer> {
        let (context, policy, now) = (self.context, self.context.policy, self.context.now);
        let mut world = world.clone();
        let host = world.hosts.iter().position(|host| *host.name == *name.as_str())?;
        let Place::Existing(index) = world.hosts[host].place else {
            return None;
        };
        // The plan's pods come only later: the node is described as it is now.
        let requested = requested(&world, host, name);
        let verdict = context.verdict(&mut world, host, index);
        let node = verdict.node;
        let pods = self.pods_on(&mut world, &verdict);
        let blockers = self.blockers(&world, &verdict, &pods);
        let removal = self.plan.remove.iter().find(|removal| removal.node == *name);
        let price = policy.price_of(node);
        let stuck = pods.iter().any(|pod| pod.others.is_some());
        let replaced = verdict
            .replacement
            .as_ref()
            .map(|replacement| context.replaced(&verdict, replacement).0.price_per_hour);
        let would_be = match removal.map(|removal| removal.reason) {
            Some(reason) => Some(reason),
            None if verdict.pool.is_none() || node.being_deleted => None,
            None if verdict.movers.is_empty() => Some(RemovalReason::Empty),
            None if replaced.is_some() => Some(RemovalReason::Replaced),
            None => (!stuck).then_some(RemovalReason::Underutilised),
        };
        let fate = match () {
            () if verdict.pool.is_none() => Fate::NotOurs,
            () if removal.is_some() => Fate::Goes,
            () if blockers.is_empty() => Fate::CouldGo,
            () => Fate::Stays,
        };
        let would_save_per_hour = would_be.and(price).map(|price| {
            price
                - replaced
                    .filter(|_| would_be == Some(RemovalReason::Replaced))
                    .unwrap_or(0.0)
        });
        // Where it is due the saving is not what it is about, and there may be none.
        let would_save_per_hour = would_save_per_hour.filter(|saves| verdict.due.is_none() || *saves > 0.0);
        let held = if fate == Fate::NotOurs || fate == Fate::Goes {
            Vec::new()
        } else {
            self.held()
        };
        let mut answer = NodeAnswer {
            node: name.clone(),
            pool: policy.pool_of(node).map(|pool| pool.name.clone()),
            instance_type: node.instance_type(),
            zone: node.zone(),
            market: node.market(),
            price_per_hour: price,
            age_seconds: node.created.map(|created| now.duration_since(created).as_secs()),
            ready: node.ready,
            cordoned: node.unschedulable,
            requested,
            measured: node_usage(&context.snapshot.metrics, name.as_str(), now).map(|usage| Share {
                cpu_percent: usage.cpu,
                memory_percent: usage.memory,
            }),
            answer: String::new(),
            fate,
            due: verdict.due,
            would_be,
            would_save_per_hour,
            blockers,
            held,
            unneeded_since: self.plan.unneeded_since.get(name).copied(),
            pods,
        };
        answer.answer = sentence(&answer);
        Some(answer)
    }

    /// Where each pod of the node would go when all of them must.
    fn pods_on(&self, world: &mut World<'a>, verdict: &Verdict<'a>) -> Vec<PodOnNode> {
        let bound: Vec<&'a Pod> = world.hosts[verdict.host]
            .pods
            .iter()
            .copied()
            .filter(|pod| pod.node.as_ref() == Some(&verdict.node.name))
            .collect();
        let removal = self
            .plan
            .remove
            .iter()
            .find(|removal| removal.node == verdict.node.name);
        let planned = match (removal, &verdict.replacement) {
            (Some(removal), _) => Some(removal.moves.clone()),
            (None, Some(replacement)) => Some(self.context.replaced(verdict, replacement).1.moves),
            (None, None) => None,
        };
        let (moves, _) = move_all(world, &[verdict.host], &verdict.movers);
        let to = |pod: &Pod| match &planned {
            Some(planned) => planned
                .iter()
                .find(|planned| planned.pod == pod.key)
                .map(|m| m.to.clone()),
            None => moves
                .iter()
                .find(|(other, _)| std::ptr::eq(*other, pod))
                .map(|(_, to)| Destination::Node(world.hosts[*to].name.as_ref().into())),
        };
        let mut all: Vec<PodOnNode> = Vec::new();
        for pod in bound {
            let moves = verdict.movers.iter().any(|other| std::ptr::eq(*other, pod));
            let mut entry = PodOnNode {
                pod: pod.key.clone(),
                to: None,
                detail: String::new(),
                others: None,
            };
            match (moves, to(pod)) {
                (false, _) => {
                    entry.detail = match () {
                        () if pod.is_owned_by("DaemonSet") => "ends with the node: a DaemonSet's",
                        () if pod.is_mirror() => "ends with the node: a static pod",
                        () => "is leaving already",
                    }
                    .to_owned();
                }
                (true, Some(to)) => {
                    let new = matches!(to, Destination::Launch(_));
                    entry.detail = match removal {
                        Some(_) => format!("moves to {to}"),
                        None if new && verdict.due.is_some() => "would move to a new node".to_owned(),
                        None if new => "would move to a new, cheaper node".to_owned(),
                        None => format!("would move to {to}"),
                    };
                    entry.to = Some(to);
                }
                (true, None) => {
                    let others = self.hosts(world, pod, true, |place| matches!(place, Place::Existing(_)));
                    entry.detail = match others.nearest() {
                        _ if pod.resource_claims => {
                            "has no place: of its resource claims nothing can be said".to_owned()
                        }
                        Some((code, nearest)) => {
                            format!(
                                "has no place: {}",
                                words::attempt(&nearest.by, code, &nearest.detail)
                            )
                        }
                        None => "has no place: there is no other node".to_owned(),
                    };
                    entry.others = Some(others);
                }
            }
            all.push(entry);
        }
        all.sort_by(|a, b| a.pod.cmp(&b.pod));
        all
    }

    /// What a freeze keeps from being done to nodes.
    fn frozen(&self) -> Option<String> {
        let brakes = &self.context.brakes;
        let until = moment(brakes.frozen_until?);
        match (brakes.removals, brakes.replacements) {
            (true, true) => Some(format!("a freeze holds until {until}")),
            (true, false) => Some(format!(
                "a freeze holds until {until}: nothing goes without a replacement"
            )),
            (false, true) => Some(format!("a freeze holds until {until}: nothing is replaced")),
            (false, false) => None,
        }
    }

    /// What holds every removal in this plan.
    pub(super) fn held(&self) -> Vec<String> {
        let (context, plan) = (self.context, self.plan);
        let (policy, state) = (&context.policy.scale_down, &context.snapshot.state);
        let mut held = Vec::new();
        if !plan.launch.is_empty() && plan.remove.is_empty() {
            held.push(format!(
                "{} launched in the same plan",
                match plan.launch.len() {
                    1 => "a node is".to_owned(),
                    many => format!("{many} nodes are"),
                }
            ));
        }
        for hold in &plan.held_by {
            let text = match hold {
                Hold::CooldownDown => {
                    let at = state.last_scale_time;
                    let ago = at.map_or_else(String::new, |at| {
                        let until = moment(at + policy.cooldown);
                        format!(
                            "the last action was {} ago, until {until} nothing is removed ",
                            span(context.now.duration_since(at))
                        )
                    });
                    format!("{ago}(scale_down.cooldown = {})", words::length(policy.cooldown))
                }
                Hold::MetricsUnknown => "there are no fresh cluster metrics".to_owned(),
                Hold::OperationInProgress => "an operation is in progress".to_owned(),
                Hold::Paused => "scaling is paused".to_owned(),
                Hold::PendingPods => format!(
                    "pods wait that some node can take ({} placed, {} pending)",
                    plan.pods.placed,
                    plan.pods.pending.len()
                ),
                Hold::Freeze => match self.frozen() {
                    Some(freeze) => freeze,
                    None => continue,
                },
                // Said with the averages below, or of single nodes, or only about launches.
                Hold::NotSustained
                | Hold::CooldownUp
                | Hold::AtMax
                | Hold::AtMin
                | Hold::LaunchRate
                | Hold::Spending => continue,
            };
            held.push(text);
        }
        if context.asks_averages_below() && !context.averages.down() {
            for rule in [&context.averages.cpu_below, &context.averages.memory_below] {
                let Some(value) = rule.value.filter(|_| !rule.fired) else {
                    continue;
                };
                let what = if rule.rule == crate::RuleName::CpuBelow {
                    "CPU"
                } else {
                    "memory"
                };
                held.push(if value < rule.threshold {
                    format!(
                        "the average {what} of {value:.0} % has not been below {:.0} % for {}",
                        rule.threshold,
                        words::length(policy.sustained)
                    )
                } else {
                    format!(
                        "the average {what} of {value:.0} % is not below {:.0} %",
                        rule.threshold
                    )
                });
            }
        }
        held
    }
}

/// What the pods on the node now request.
fn requested(world: &World<'_>, host: usize, name: &NodeName) -> Figures {
    let host = &world.hosts[host];
    let mut used = crate::model::Resources::default();
    let bound = host
        .pods
        .iter()
        .filter(|pod| pod.node.as_ref() == Some(name) && !is_headroom(pod));
    bound.for_each(|pod| used.add(&pod.requests));
    let have = &host.allocatable;
    let percent = |used: f64, have: f64| if have > 0.0 { used / have * 100.0 } else { 0.0 };
    Figures {
        cpu: used.cpu.to_string(),
        cpu_allocatable: have.cpu.to_string(),
        memory: used.memory.to_string(),
        memory_allocatable: have.memory.to_string(),
        pods: used.pods,
        pods_allocatable: have.pods,
        share: Share {
            cpu_percent: percent(used.cpu.as_f64(), have.cpu.as_f64()),
            memory_percent: percent(used.memory.as_f64(), have.memory.as_f64()),
        },
    }
}

fn sentence(answer: &NodeAnswer) -> String {
    let saves = answer
        .would_save_per_hour
        .map_or_else(String::new, |saves| format!(", which saves {}", dollars(saves)));
    let how = match answer.would_be {
        Some(RemovalReason::Empty) => "empty",
        Some(RemovalReason::Underutilised) => "drained",
        Some(RemovalReason::Replaced) if answer.due.is_some() => "replaced by another",
        Some(RemovalReason::Replaced) => "replaced by a cheaper one",
        None => "removed",
    };
    let how = match answer.due {
        Some(due) => format!("{how}: {}", due.clause()),
        None => how.to_owned(),
    };
    match answer.fate {
        Fate::NotOurs => "it is not ours: it takes pods and is never removed".to_owned(),
        Fate::Goes => format!("it goes ({how}){saves}"),
        Fate::CouldGo => format!("it could go ({how}){saves}, but something holds all removals"),
        Fate::Stays => {
            let mut codes: Vec<String> = answer
                .blockers
                .iter()
                .map(|blocker| blocker.code.to_string())
                .collect();
            codes.dedup();
            let more = codes.len().saturating_sub(3);
            codes.truncate(3);
            if more > 0 {
                codes.push(count(more, "more reason"));
            }
            format!("it stays: {}", words::and(&codes))
        }
    }
}
