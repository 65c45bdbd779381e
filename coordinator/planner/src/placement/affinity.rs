//! `InterPodAffinity` and `PodTopologySpread`: the filters that look at what is on other hosts.
//!
//! Everything that depends on the pod but not on the candidate host is counted once ([`Prefilter::new`]), as in
//! kube-scheduler's `PreFilter`; a candidate need not be in the world, so a node that is only thought of can be asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Host, World, filters};
use crate::{
    PendingCode,
    model::{
        Cluster, Labels, NamespaceName, Pod, PodAffinityTerm, SpreadConstraint, UnsatisfiableAction, keys,
    },
};

/// A topology key with one of its values.
type Domain = (Arc<str>, Arc<str>);

/// Counts for one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefilter {
    /// Domains with pods that satisfy all of the pod's affinity terms.
    near: BTreeSet<Domain>,
    /// The pod satisfies its own affinity: it may be the first.
    is_own_friend: bool,
    /// Domains that the pod's anti-affinity forbids.
    apart: BTreeSet<Domain>,
    /// Domains that other pods' anti-affinity forbids to it.
    repelled: BTreeSet<Domain>,
    spread: Vec<Spread>,
}

#[derive(Clone, Debug)]
struct Spread {
    key: Arc<str>,
    counts: BTreeMap<Arc<str>, i64>,
    minimum: i64,
    max_skew: i64,
    own: i64,
}

impl Prefilter {
    pub(super) fn new(world: &World<'_>, pod: &Pod) -> Self {
        let mut prefilter = Self::default();
        prefilter.count_affinity(world, pod);
        let constraints: Vec<&SpreadConstraint> = pod
            .spread
            .iter()
            .filter(|c| c.when_unsatisfiable == UnsatisfiableAction::DoNotSchedule)
            .collect();
        prefilter.spread = constraints
            .iter()
            .map(|constraint| count_spread(world, pod, constraint, &constraints))
            .collect();
        prefilter
    }

    fn count_affinity(&mut self, world: &World<'_>, pod: &Pod) {
        let asks = !pod.pod_affinity.is_empty() || !pod.pod_anti_affinity.is_empty();
        for host in world
            .hosts
            .iter()
            .filter(|host| !host.gone && (asks || host.repelling > 0))
        {
            for other in &host.pods {
                if asks {
                    if !pod.pod_affinity.is_empty() && all_match(&pod.pod_affinity, other, world.cluster) {
                        self.near.extend(domains(&pod.pod_affinity, &host.labels));
                    }
                    for term in &pod.pod_anti_affinity {
                        if matches(term, other, world.cluster) {
                            self.apart.extend(domain(term, &host.labels));
                        }
                    }
                }
                for term in &other.pod_anti_affinity {
                    if matches(term, pod, world.cluster) {
                        self.repelled.extend(domain(term, &host.labels));
                    }
                }
            }
        }
        self.is_own_friend = !pod.pod_affinity.is_empty() && all_match(&pod.pod_affinity, pod, world.cluster);
    }

    /// Asks the three filters for one host.
    pub(super) fn check(&self, pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
        if !pod.pod_affinity.is_empty() {
            let here: Vec<Domain> = domains(&pod.pod_affinity, &host.labels).collect();
            let labelled = here.len() == pod.pod_affinity.len();
            let met = labelled && here.iter().all(|domain| self.near.contains(domain));
            let first = labelled && self.near.is_empty() && self.is_own_friend;
            if !met && !first {
                return Err(PendingCode::PodAffinity);
            }
        }
        if pod
            .pod_anti_affinity
            .iter()
            .filter_map(|t| domain(t, &host.labels))
            .any(|d| self.apart.contains(&d))
            || self
                .repelled
                .iter()
                .any(|(key, value)| host.labels.get(key) == Some(value))
        {
            return Err(PendingCode::PodAntiAffinity);
        }
        for spread in &self.spread {
            let Some(value) = host.labels.get(&spread.key) else {
                return Err(PendingCode::TopologySpread);
            };
            let here = spread.counts.get(value).copied().unwrap_or(0);
            if here + spread.own - spread.minimum > spread.max_skew {
                return Err(PendingCode::TopologySpread);
            }
        }
        Ok(())
    }
}

fn domain(term: &PodAffinityTerm, labels: &Labels) -> Option<Domain> {
    labels
        .get(&term.topology_key)
        .map(|value| (term.topology_key.clone(), value.clone()))
}

fn domains<'t>(terms: &'t [PodAffinityTerm], labels: &'t Labels) -> impl Iterator<Item = Domain> + 't {
    terms.iter().filter_map(|term| domain(term, labels))
}

fn all_match(terms: &[PodAffinityTerm], pod: &Pod, cluster: &Cluster) -> bool {
    terms.iter().all(|term| matches(term, pod, cluster))
}

fn matches(term: &PodAffinityTerm, pod: &Pod, cluster: &Cluster) -> bool {
    term.selector
        .as_ref()
        .is_some_and(|selector| selector.matches(&pod.labels))
        && includes_namespace(term, &pod.key.namespace, cluster)
}

fn includes_namespace(term: &PodAffinityTerm, namespace: &NamespaceName, cluster: &Cluster) -> bool {
    if term.namespaces.contains(namespace) {
        return true;
    }
    let Some(selector) = &term.namespace_selector else {
        return false;
    };
    if selector.is_empty() {
        return true;
    }
    match cluster.namespaces.iter().find(|known| known.name == *namespace) {
        Some(known) => selector.matches(&known.labels),
        // The API server labels every namespace with its name.
        None => selector.matches(&[("kubernetes.io/metadata.name".into(), namespace.as_str().into())].into()),
    }
}

fn count_spread(
    world: &World<'_>,
    pod: &Pod,
    constraint: &SpreadConstraint,
    all: &[&SpreadConstraint],
) -> Spread {
    let key = &constraint.topology_key;
    let mut counts: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    let eligible = |name: &str, labels: &Labels, taints: &[crate::model::Taint]| {
        all.iter().all(|c| labels.contains_key(&c.topology_key))
            && (!constraint.honor_node_affinity || filters::selects(pod, name, labels))
            && (!constraint.honor_taints || filters::bears(pod, taints))
    };
    for host in world.hosts.iter().filter(|host| !host.gone) {
        if !eligible(&host.name, &host.labels, &host.taints) {
            continue;
        }
        let Some(value) = host.labels.get(key) else {
            continue;
        };
        let alike = host.pods.iter().filter(|other| {
            !other.is_terminating()
                && other.key.namespace == pod.key.namespace
                && constraint
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.matches(&other.labels))
        });
        let alike = i64::try_from(alike.count()).unwrap_or(i64::MAX);
        *counts.entry(value.clone()).or_default() += alike;
    }
    let is_hostname = &**key == keys::HOSTNAME;
    if !is_hostname {
        for group in &world.domains {
            if let Some(value) = group.common.get(key).filter(|value| !counts.contains_key(*value))
                && group
                    .nodes
                    .iter()
                    .any(|(labels, taints)| eligible("", labels, taints))
            {
                counts.insert(value.clone(), 0);
            }
        }
    }
    let too_few = constraint
        .min_domains
        .is_some_and(|min| i64::from(min) > i64::try_from(counts.len()).unwrap_or(i64::MAX));
    let minimum = if is_hostname || too_few {
        0
    } else {
        counts.values().copied().min().unwrap_or(0)
    };
    let own = i64::from(
        constraint
            .selector
            .as_ref()
            .is_some_and(|selector| selector.matches(&pod.labels)),
    );
    Spread {
        key: key.clone(),
        counts,
        minimum,
        max_skew: i64::from(constraint.max_skew),
        own,
    }
}
