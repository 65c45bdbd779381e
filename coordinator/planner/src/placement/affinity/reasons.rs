//! What affinity and spread have against a host: which pod, which domain, which counts.

use super::{
    Counts, NOWHERE,
    relate::{loosely, matches},
    spread::Spread,
};
use crate::{
    explain::cause::{self, Cause},
    model::{Cluster, Pod, PodAffinityTerm},
    placement::{DomainId, Host, ShapeId, reasons::domain},
};

/// Who is where.
pub(in crate::placement) struct Near<'w, 'a> {
    pub(in crate::placement) cluster: &'a Cluster,
    pub(in crate::placement) hosts: &'w [Host<'a>],
}

impl<'a> Near<'_, 'a> {
    /// A pod that `wanted` accepts in the host's domain of this key, the first by the hosts' order.
    fn pod(&self, host: &Host<'_>, key: &str, wanted: impl Fn(&Pod) -> bool) -> Option<&'a Pod> {
        let value = host.labels.get(key)?;
        self.hosts
            .iter()
            .filter(|other| !other.gone && other.labels.get(key) == Some(value))
            .flat_map(|other| other.pods.iter().copied())
            .find(|pod| wanted(pod))
    }
}

impl Counts<'_> {
    /// Causes of the first of the three filters that refuses; none if all accept.
    pub(in crate::placement) fn causes(
        &self,
        shape: ShapeId,
        pod: &Pod,
        host: &Host<'_>,
        near: &Near<'_, '_>,
    ) -> Vec<Cause> {
        let mut causes = self.not_near(shape, pod, host, near);
        if causes.is_empty() {
            causes = self.too_near(shape, pod, host, near);
        }
        if causes.is_empty() {
            causes = self.uneven(shape, host);
        }
        causes
    }

    fn not_near(&self, shape: ShapeId, pod: &Pod, host: &Host<'_>, near: &Near<'_, '_>) -> Vec<Cause> {
        let concern = &self.concerns[shape];
        let Some(counts) = concern.near.map(|index| &self.near[index]) else {
            return Vec::new();
        };
        let here = |key: usize| host.domains[key];
        let labelled = counts.tallies.iter().all(|tally| here(tally.key) != NOWHERE);
        if labelled && counts.total == 0 && concern.is_own_friend {
            return Vec::new();
        }
        let mut causes = Vec::new();
        for (term, tally) in pod.pod_affinity.iter().zip(&counts.tallies) {
            let key = &term.topology_key;
            if here(tally.key) == NOWHERE {
                causes.push(Cause::Unlabelled {
                    topology_key: key.to_string(),
                });
            } else if tally.at(here(tally.key)) <= 0 {
                // A pod that satisfies this term alone does not count: it must satisfy all of them.
                let alone = near.pod(host, key, |other| loosely(term, other, near.cluster));
                causes.push(Cause::PodAffinity {
                    pods: if alone.is_some() && pod.pod_affinity.len() > 1 {
                        format!("{} and all other terms", of_term(term))
                    } else {
                        of_term(term)
                    },
                    topology_key: key.to_string(),
                    domain: domain(host, key),
                });
            }
        }
        causes
    }

    fn too_near(&self, shape: ShapeId, pod: &Pod, host: &Host<'_>, near: &Near<'_, '_>) -> Vec<Cause> {
        let concern = &self.concerns[shape];
        let mut causes = Vec::new();
        for (term, index) in pod.pod_anti_affinity.iter().zip(&concern.apart) {
            let matching = &self.apart[*index].matching;
            if matching.at(host.domains[matching.key]) > 0 {
                let other = near.pod(host, &term.topology_key, |other| {
                    loosely(term, other, near.cluster)
                });
                causes.push(apart(term, other, false, host));
            }
        }
        for index in &concern.repelled {
            let holding = &self.apart[*index].holding;
            if holding.at(host.domains[holding.key]) <= 0 {
                continue;
            }
            let repels = |term: &&PodAffinityTerm| {
                self.keys.get(&term.topology_key) == Some(&holding.key) && matches(term, pod, near.cluster)
            };
            let key = self.keys.iter().find(|(_, key)| **key == holding.key);
            let Some((key, _)) = key else { continue };
            let other = near.pod(host, key, |other| {
                other.pod_anti_affinity.iter().any(|t| repels(&t))
            });
            let term = other.and_then(|other| other.pod_anti_affinity.iter().find(repels));
            let Some(term) = term else { continue };
            let cause = apart(term, other, true, host);
            // Two of a kind keep each other away: said once.
            let said = |own: &Cause| matches!((own, other), (Cause::PodAntiAffinity { pod: Some(pod), .. }, Some(other)) if *pod == other.key);
            if !causes.iter().any(said) {
                causes.push(cause);
            }
        }
        causes
    }

    fn uneven(&self, shape: ShapeId, host: &Host<'_>) -> Vec<Cause> {
        let mut causes = Vec::new();
        for (index, counts_itself) in &self.concerns[shape].spread {
            let spread = &self.spread[*index];
            let constraint = spread.constraint;
            let key = &constraint.topology_key;
            let here = host.domains[spread.pods.key];
            if here == NOWHERE {
                causes.push(Cause::Unlabelled {
                    topology_key: key.to_string(),
                });
                continue;
            }
            let (least, would_have) = (spread.minimum(), spread.pods.at(here) + i64::from(*counts_itself));
            if would_have - least > i64::from(constraint.max_skew) {
                causes.push(Cause::TopologySpread {
                    pods: cause::selector(constraint.selector.as_ref()),
                    topology_key: key.to_string(),
                    domain: domain(host, key),
                    would_have,
                    emptiest: self.emptiest(spread, least),
                    least,
                    max_skew: constraint.max_skew,
                });
            }
        }
        causes
    }

    /// The name of the first domain, by name, that has no more than the least.
    fn emptiest(&self, spread: &Spread<'_>, least: i64) -> Option<String> {
        if spread.is_hostname {
            return None;
        }
        let counts = |domain: DomainId| spread.hosts.at(domain) > 0 || spread.open.contains(&domain);
        self.values[spread.pods.key]
            .iter()
            .filter(|(_, domain)| counts(**domain) && spread.pods.at(**domain) == least)
            .map(|(name, _)| name.to_string())
            .min()
    }
}

fn apart(term: &PodAffinityTerm, other: Option<&Pod>, theirs: bool, host: &Host<'_>) -> Cause {
    Cause::PodAntiAffinity {
        pod: other.map(|other| other.key.clone()),
        theirs,
        pods: of_term(term),
        topology_key: term.topology_key.to_string(),
        domain: domain(host, &term.topology_key),
    }
}

fn of_term(term: &PodAffinityTerm) -> String {
    cause::selector(term.selector.as_ref())
}
