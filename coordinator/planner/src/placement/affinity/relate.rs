//! Which counts there are, and which pods change them.

use std::sync::Arc;

use super::{Apart, Concern, Counts, Near, Tally, spread::Spread};
use crate::{
    model::{Cluster, LabelSelector, Labels, NamespaceName, Pod, PodAffinityTerm, SpreadConstraint, keys},
    placement::classes::{Classes, QuickMap},
};

/// Constraints that count the same pods on the same hosts.
type SameSpread<'a> = (
    &'a NamespaceName,
    &'a SpreadConstraint,
    Vec<usize>,
    Option<(&'a Labels, &'a Option<Vec<crate::model::NodeTerm>>)>,
    Option<&'a Vec<crate::model::Toleration>>,
);

impl<'a> Counts<'a> {
    pub(in crate::placement) fn new(cluster: &'a Cluster, classes: &Classes<'a>) -> Self {
        let mut counts = Self::default();
        let mut nears: QuickMap<&'a [PodAffinityTerm], usize> = QuickMap::default();
        let mut aparts: QuickMap<&'a PodAffinityTerm, usize> = QuickMap::default();
        let mut spreads: QuickMap<SameSpread<'a>, usize> = QuickMap::default();
        let mut concerns = vec![Concern::default(); classes.shapes.len()];
        for (pod, concern) in classes.shapes.iter().copied().zip(&mut concerns) {
            if !pod.pod_affinity.is_empty() {
                let index = *nears.entry(&pod.pod_affinity).or_insert_with(|| {
                    let tallies = pod
                        .pod_affinity
                        .iter()
                        .map(|term| counts.tally(&term.topology_key));
                    let tallies = tallies.collect();
                    counts.near.push(Near { tallies, total: 0 });
                    counts.near.len() - 1
                });
                concern.near = Some(index);
                concern.is_own_friend = all_match(&pod.pod_affinity, pod, cluster);
            }
            for term in &pod.pod_anti_affinity {
                let index = *aparts.entry(term).or_insert_with(|| {
                    let matching = counts.tally(&term.topology_key);
                    counts.apart.push(Apart {
                        holding: matching.clone(),
                        matching,
                        holders: 0,
                    });
                    counts.apart.len() - 1
                });
                concern.apart.push(index);
            }
            let constraints: Vec<&'a SpreadConstraint> = pod.spread.iter().filter(|s| s.is_hard()).collect();
            let keys: Vec<usize> = constraints.iter().map(|c| counts.key(&c.topology_key)).collect();
            for constraint in constraints {
                let same = (
                    &pod.key.namespace,
                    constraint,
                    keys.clone(),
                    constraint
                        .honor_node_affinity
                        .then_some((&pod.node_selector, &pod.node_affinity.required)),
                    constraint.honor_taints.then_some(&pod.tolerations),
                );
                let index = *spreads.entry(same).or_insert_with(|| {
                    let pods = counts.tally(&constraint.topology_key);
                    counts.spread.push(Spread {
                        pod,
                        constraint,
                        keys: keys.clone(),
                        is_hostname: &*constraint.topology_key == keys::HOSTNAME,
                        hosts: pods.clone(),
                        pods,
                        open: Vec::new(),
                        counts: Vec::new(),
                    });
                    counts.spread.len() - 1
                });
                concern.spread.push((index, constraint.selects(&pod.labels)));
            }
        }
        counts.relate(cluster, classes, &mut concerns, nears, aparts);
        counts.concerns = concerns;
        counts
    }

    /// Notes for every shape which counts its pods change.
    fn relate(
        &self,
        cluster: &'a Cluster,
        classes: &Classes<'a>,
        concerns: &mut [Concern],
        nears: QuickMap<&'a [PodAffinityTerm], usize>,
        aparts: QuickMap<&'a PodAffinityTerm, usize>,
    ) {
        let mut index = ByLabel::default();
        for (terms, near) in nears {
            let first = terms.first().and_then(|term| term.selector.as_ref());
            index.add(first, Counted::Near(terms, near));
        }
        for (term, apart) in aparts {
            index.add(term.selector.as_ref(), Counted::Apart(term, apart));
        }
        for (spread, of) in self.spread.iter().enumerate() {
            // kube-scheduler counts nobody by a selector without requirements (`countPodsMatchSelector`), though by the
            // same selector the pod itself would count.
            let selector = of.constraint.selector.as_ref();
            let selector = selector.filter(|selector| !selector.is_empty());
            index.add(selector, Counted::Spread(of, spread));
        }
        for (pod, concern) in classes.shapes.iter().copied().zip(concerns) {
            for counted in index.candidates(&pod.labels) {
                match counted {
                    Counted::Near(terms, near) if all_match(terms, pod, cluster) => {
                        concern.counted_near.push(*near);
                    }
                    Counted::Apart(term, apart) if loosely(term, pod, cluster) => {
                        concern.counted_apart.push(*apart);
                        if matches(term, pod, cluster) {
                            concern.repelled.push(*apart);
                        }
                    }
                    Counted::Spread(of, spread)
                        if !pod.is_terminating()
                            && of.pod.key.namespace == pod.key.namespace
                            && of.constraint.selects(&pod.labels) =>
                    {
                        concern.counted_spread.push(*spread);
                    }
                    _ => {}
                }
            }
        }
    }

    fn key(&mut self, name: &Arc<str>) -> usize {
        let next = self.values.len();
        let key = *self.keys.entry(name.clone()).or_insert(next);
        if key == next {
            self.values.push(QuickMap::default());
        }
        key
    }

    fn tally(&mut self, key: &Arc<str>) -> Tally {
        Tally::of(self.key(key))
    }
}

/// What a pod may be counted in.
#[derive(Clone, Copy)]
enum Counted<'t, 'a> {
    Near(&'a [PodAffinityTerm], usize),
    Apart(&'a PodAffinityTerm, usize),
    Spread(&'t Spread<'a>, usize),
}

/// Selectors by a label that they ask for, so that not every pod is held against every selector.
#[derive(Default)]
struct ByLabel<'t, 'a> {
    labelled: QuickMap<(&'a Arc<str>, &'a Arc<str>), Vec<Counted<'t, 'a>>>,
    /// Those that ask for no value of a label.
    others: Vec<Counted<'t, 'a>>,
}

impl<'t, 'a> ByLabel<'t, 'a> {
    fn add(&mut self, selector: Option<&'a LabelSelector>, counted: Counted<'t, 'a>) {
        // Without a selector it speaks of nobody.
        let Some(selector) = selector else { return };
        match selector.match_labels.iter().next() {
            Some(label) => self.labelled.entry(label).or_default().push(counted),
            None => self.others.push(counted),
        }
    }

    fn candidates<'s>(&'s self, labels: &'s Labels) -> impl Iterator<Item = &'s Counted<'t, 'a>> {
        let labelled = labels.iter().filter_map(|label| self.labelled.get(&label));
        labelled.flatten().chain(&self.others)
    }
}

fn all_match(terms: &[PodAffinityTerm], pod: &Pod, cluster: &Cluster) -> bool {
    terms.iter().all(|term| loosely(term, pod, cluster))
}

/// Whether the scheduler counts the pod for one that has the term and looks for a place. There it also holds the
/// namespace selector against no labels at all (`mergeAffinityTermNamespacesIfNotEmpty` clears it in a copy only), so a
/// selector that merely excludes means every namespace.
pub(super) fn loosely(term: &PodAffinityTerm, pod: &Pod, cluster: &Cluster) -> bool {
    let excludes = |selector: &LabelSelector| selector.matches(&Labels::new());
    matches(term, pod, cluster)
        || (term.namespace_selector.as_ref().is_some_and(excludes)
            && term.selector.as_ref().is_some_and(|s| s.matches(&pod.labels)))
}

/// Whether the term speaks of the pod.
pub(crate) fn matches(term: &PodAffinityTerm, pod: &Pod, cluster: &Cluster) -> bool {
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
