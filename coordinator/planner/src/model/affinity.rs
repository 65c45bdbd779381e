//! Affinity of pods to nodes and to one another, and topology spread.

use std::sync::Arc;

use super::{LabelSelector, Labels, NamespaceName, NodeTerm};

/// Something preferred, with its weight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Weighted<T> {
    /// 1–100; negative where the thing is to be avoided.
    pub weight: i32,
    /// The thing.
    pub item: T,
}

/// Affinity to nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeAffinity {
    /// One of the terms must match; `None` asks nothing, an empty list matches no node.
    pub required: Option<Vec<NodeTerm>>,
    /// Terms that would be nice.
    pub preferred: Vec<Weighted<NodeTerm>>,
}

impl NodeAffinity {
    /// Whether the required part is content with such a node.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.required
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }
}

/// A term of pod affinity or anti-affinity, with `matchLabelKeys` and the pod's own namespace already worked in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodAffinityTerm {
    /// Which pods; `None` matches none.
    pub selector: Option<LabelSelector>,
    /// Namespaces by name. The converter puts the pod's own here if neither names nor a selector were given.
    pub namespaces: Vec<NamespaceName>,
    /// Namespaces by label; the empty selector is all, `None` is none.
    pub namespace_selector: Option<LabelSelector>,
    /// The node label whose value is the domain.
    pub topology_key: Arc<str>,
}

/// A topology spread constraint, with `matchLabelKeys` already worked in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpreadConstraint {
    /// How far a domain may be above the emptiest one.
    pub max_skew: i32,
    /// The node label whose value is the domain.
    pub topology_key: Arc<str>,
    /// Whether it must hold or should.
    pub when_unsatisfiable: UnsatisfiableAction,
    /// Which pods of the same namespace count; `None` matches none.
    pub selector: Option<LabelSelector>,
    /// With fewer domains than this the minimum is 0.
    pub min_domains: Option<i32>,
    /// Only domains of nodes that the pod's node selector and affinity accept count (`Honor`, the default).
    pub honor_node_affinity: bool,
    /// Only domains of nodes whose taints the pod bears count (`Honor`; the default is `Ignore`).
    pub honor_taints: bool,
}

impl SpreadConstraint {
    /// Whether it must hold; otherwise it should.
    pub fn is_hard(&self) -> bool {
        self.when_unsatisfiable == UnsatisfiableAction::DoNotSchedule
    }

    /// Whether a pod of the same namespace counts.
    pub fn selects(&self, labels: &Labels) -> bool {
        let selector = self.selector.as_ref();
        selector.is_some_and(|selector| selector.matches(labels))
    }
}

/// What happens where a spread constraint cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnsatisfiableAction {
    /// The pod stays pending.
    DoNotSchedule,
    /// It is placed all the same.
    ScheduleAnyway,
}
