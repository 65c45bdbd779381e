//! How a pod fared with nodes that are there or coming, and with everything that could be launched.

use serde::Serialize;

use super::{
    Seen,
    cause::{Cause, Refusal},
};
use crate::{
    PendingCode,
    model::{InstanceType, Market, Pod, PoolName, Zone},
    placement::{Host, Place, World},
};

/// What came of asking several nodes or offerings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried<T> {
    /// How many were asked.
    pub asked: usize,
    /// Those that take the pod.
    pub accept: Vec<T>,
    /// Those that do not, by the first filter that refuses, the one where the pod got furthest first.
    pub refused: Vec<Refused<T>>,
}

impl<T> Default for Tried<T> {
    fn default() -> Self {
        Self {
            asked: 0,
            accept: Vec::new(),
            refused: Vec::new(),
        }
    }
}

/// Those that refuse for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refused<T> {
    /// The filter, or the node's state.
    pub code: Reason,
    /// Each with its figures, the nearest miss first.
    pub attempts: Vec<Attempt<T>>,
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt<T> {
    /// Who refuses.
    pub by: T,
    /// What is missing, in words.
    pub detail: String,
    /// The same, in figures.
    pub causes: Vec<Cause>,
}

/// Why a node or an offering was not taken. Ordered by how far a pod got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Reason {
    /// The node takes no pods at all.
    Node(NodeState),
    /// A filter, or a limit on launches.
    Filter(PendingCode),
}

/// Why a node takes no pods at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum NodeState {
    /// It is on its way out.
    BeingDeleted,
    /// It is cordoned.
    Cordoned,
    /// It is not Ready (and, for pods that wait, too old to become so).
    NotReady,
}

impl Reason {
    /// How far a pod got: limits on launches come after every filter, whatever their code's place among the others.
    fn progress(self) -> (bool, Self) {
        (self == Self::Filter(PendingCode::PriorityCutoff), self)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(state) => f.pad(&format!("{state:?}")),
            Self::Filter(code) => code.fmt(f),
        }
    }
}

/// Something that could be launched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Offer {
    /// Its pool.
    pub pool: PoolName,
    /// Its type.
    pub instance_type: InstanceType,
    /// Its zone.
    pub zone: Zone,
    /// Its market.
    pub market: Market,
    /// USD per hour.
    pub price_per_hour: f64,
}

impl<T> Tried<T> {
    fn of(asked: Vec<(T, Option<(Reason, Refusal)>)>) -> Self {
        let mut tried = Self {
            asked: asked.len(),
            ..Self::default()
        };
        let mut refused: Vec<(Reason, f64, Attempt<T>)> = Vec::new();
        for (by, answer) in asked {
            match answer {
                None => tried.accept.push(by),
                Some((reason, refusal)) => refused.push((
                    reason,
                    refusal.distance(),
                    Attempt {
                        by,
                        detail: refusal.to_string(),
                        causes: refusal.causes,
                    },
                )),
            }
        }
        // Stable: among equals those that were asked first.
        refused.sort_by(|a, b| b.0.progress().cmp(&a.0.progress()).then(a.1.total_cmp(&b.1)));
        for (code, _, attempt) in refused {
            match tried.refused.last_mut() {
                Some(group) if group.code == code => group.attempts.push(attempt),
                _ => tried.refused.push(Refused {
                    code,
                    attempts: vec![attempt],
                }),
            }
        }
        tried
    }

    /// The refusal that came nearest to a yes.
    pub fn nearest(&self) -> Option<(Reason, &Attempt<T>)> {
        let group = self.refused.first()?;
        Some((group.code, group.attempts.first()?))
    }
}

impl<'a> Seen<'_, 'a> {
    /// Asks the hosts of one kind of place, in order of their names. `moving` asks as for a pod that is moved: then a node
    /// must be Ready.
    pub(super) fn hosts(
        &self,
        world: &World<'a>,
        pod: &Pod,
        moving: bool,
        wanted: impl Fn(Place) -> bool,
    ) -> Tried<String> {
        let hosts = world.hosts.iter().filter(|host| wanted(host.place) && !host.gone);
        let asked = hosts.map(|host| {
            let open = if moving { host.is_destination } else { host.accepts };
            let answer = if open {
                world
                    .refusal(pod, host)
                    .map(|refusal| (Reason::Filter(refusal.code), refusal))
            } else {
                let none = Refusal {
                    code: PendingCode::NodeSelector,
                    causes: Vec::new(),
                };
                Some((Reason::Node(self.state(host)), none))
            };
            (host.name.to_string(), answer)
        });
        Tried::of(asked.collect())
    }

    fn state(&self, host: &Host<'_>) -> NodeState {
        let node = match host.place {
            Place::Existing(index) => self.context.snapshot.cluster.nodes.get(index),
            _ => None,
        };
        match node {
            Some(node) if node.being_deleted => NodeState::BeingDeleted,
            Some(node) if node.unschedulable => NodeState::Cordoned,
            _ => NodeState::NotReady,
        }
    }

    /// Asks every offering, cheapest first. One that would take the pod but is kept from being launched refuses by that
    /// limit, unless the pod was `placed`.
    pub(super) fn offerings(&self, world: &mut World<'a>, pod: &Pod, placed: bool) -> Tried<Offer> {
        let held = self.outcome.held.iter().any(|other| std::ptr::eq(*other, pod));
        let mut asked = Vec::new();
        for offering in &self.context.offerings {
            let refusal = world.refusal_thought_of(pod, &offering.host);
            let limit = || match self.context.limit(offering, self.outcome) {
                PendingCode::BackedOff => Some(PendingCode::BackedOff),
                _ if placed || pod.gated => None,
                _ if pod.priority < self.context.policy.scale_up.priority_cutoff => {
                    Some(PendingCode::PriorityCutoff)
                }
                _ if held => Some(PendingCode::Held),
                code => Some(code),
            };
            let answer = match refusal {
                Some(refusal) => Some((Reason::Filter(refusal.code), refusal)),
                None => limit().map(|code| {
                    let causes = Vec::new();
                    (Reason::Filter(code), Refusal { code, causes })
                }),
            };
            let offer = Offer {
                pool: self.context.policy.pools[offering.pool].name.clone(),
                instance_type: offering.spec.name.clone(),
                zone: offering.zone.clone(),
                market: offering.market,
                price_per_hour: offering.quote.per_hour,
            };
            asked.push((offer, answer));
        }
        Tried::of(asked)
    }
}
