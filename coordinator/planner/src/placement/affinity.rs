//! `InterPodAffinity` and `PodTopologySpread`: the filters that look at what is on other hosts.
//!
//! As in kube-scheduler's `PreFilter` everything that depends on the pod but not on the candidate host is a count per
//! domain; but the counts are kept, not made anew for each pod: whatever is put somewhere or taken away changes the few
//! that its shape is counted in. A candidate need not be in the world, so a node that is only thought of can be asked for.

mod profile;
pub(super) mod reasons;
mod relate;
mod spread;

use std::sync::Arc;

pub(crate) use profile::Profile;
pub(crate) use relate::matches;
use spread::Spread;

use super::{
    Host,
    classes::{QuickMap, ShapeId},
};
use crate::{
    PendingCode,
    model::{Labels, Taint, keys},
};

/// Number of a domain: of a value of a topology key. [`NOWHERE`] where the key is missing.
pub(super) type DomainId = u32;
pub(super) const NOWHERE: DomainId = u32::MAX;

/// Counts by domain of one topology key.
#[derive(Clone, Debug, Default)]
struct Tally {
    key: usize,
    counts: Vec<i64>,
}

impl Tally {
    fn of(key: usize) -> Self {
        Self {
            key,
            counts: Vec::new(),
        }
    }

    fn at(&self, domain: DomainId) -> i64 {
        self.counts.get(domain as usize).copied().unwrap_or(0)
    }

    fn change(&mut self, domains: &[DomainId], by: i64) {
        let domain = domains[self.key];
        if domain == NOWHERE {
            return;
        }
        if self.counts.len() <= domain as usize {
            self.counts.resize(domain as usize + 1, 0);
        }
        self.counts[domain as usize] += by;
    }
}

/// Pods that satisfy all of a list of affinity terms.
#[derive(Clone, Debug)]
struct Near {
    /// By term.
    tallies: Vec<Tally>,
    /// In all domains of all terms.
    total: i64,
}

/// One anti-affinity term.
#[derive(Clone, Debug)]
struct Apart {
    /// Pods that it speaks of.
    matching: Tally,
    /// Pods that have it.
    holding: Tally,
    /// Those of them that have a domain at all.
    holders: i64,
}

/// What of all this concerns the pods of a shape.
#[derive(Clone, Debug, Default)]
struct Concern {
    near: Option<usize>,
    is_own_friend: bool,
    apart: Vec<usize>,
    /// Terms of others that keep it away.
    repelled: Vec<usize>,
    /// Terms for whose holders it is one to keep away from; all but [`loosely`] the same.
    counted_apart: Vec<usize>,
    /// Spread constraints, and whether the pod counts in its own.
    spread: Vec<(usize, bool)>,
    counted_near: Vec<usize>,
    counted_spread: Vec<usize>,
}

/// All counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts<'a> {
    keys: QuickMap<Arc<str>, usize>,
    values: Vec<QuickMap<Arc<str>, DomainId>>,
    near: Vec<Near>,
    apart: Vec<Apart>,
    spread: Vec<Spread<'a>>,
    concerns: Vec<Concern>,
}

impl<'a> Counts<'a> {
    /// The domains of a node of these labels, by topology key.
    pub(super) fn domains(&mut self, labels: &Labels) -> Vec<DomainId> {
        let mut domains = vec![NOWHERE; self.values.len()];
        for (name, key) in &self.keys {
            let Some(value) = labels.get(name) else { continue };
            let values = &mut self.values[*key];
            domains[*key] = match values.get(value) {
                Some(domain) => *domain,
                None => {
                    let next = DomainId::try_from(values.len()).unwrap_or(NOWHERE);
                    values.insert(value.clone(), next);
                    next
                }
            };
        }
        domains
    }

    /// The same for a node that differs from one of these domains only by its hostname.
    pub(super) fn rename(&mut self, domains: &mut [DomainId], labels: &Labels) {
        let (Some(key), Some(value)) = (self.keys.get(keys::HOSTNAME), labels.get(keys::HOSTNAME)) else {
            return;
        };
        let values = &mut self.values[*key];
        let next = DomainId::try_from(values.len()).unwrap_or(NOWHERE);
        domains[*key] = *values.entry(value.clone()).or_insert(next);
    }

    /// Opens the domains of nodes that a pool could launch.
    pub(super) fn open(&mut self, common: &Labels, nodes: &[(Arc<Labels>, Arc<[Taint]>)]) {
        let domains = self.domains(common);
        let names: Vec<(Arc<str>, usize)> = self.keys.iter().map(|(n, k)| (n.clone(), *k)).collect();
        for spread in self.spread.iter_mut().filter(|spread| !spread.is_hostname) {
            let domain = domains[spread.pods.key];
            if domain == NOWHERE || spread.open.contains(&domain) {
                continue;
            }
            let labelled = |labels: &Labels| {
                let mut keys = names.iter().filter(|(_, key)| spread.keys.contains(key));
                keys.all(|(name, _)| labels.contains_key(name))
            };
            let opens = nodes
                .iter()
                .any(|(labels, taints)| labelled(labels) && spread.is_eligible("", labels, taints));
            if opens {
                spread.open.push(domain);
            }
        }
    }

    /// A pod of the shape comes (`by` 1) or goes (-1).
    pub(super) fn change(&mut self, shape: ShapeId, host: &Host<'_>, by: i64) {
        let concern = &self.concerns[shape];
        for index in &concern.counted_near {
            let near = &mut self.near[*index];
            for tally in &mut near.tallies {
                tally.change(&host.domains, by);
                near.total += by * i64::from(host.domains[tally.key] != NOWHERE);
            }
        }
        for index in &concern.counted_apart {
            self.apart[*index].matching.change(&host.domains, by);
        }
        for index in &concern.apart {
            let apart = &mut self.apart[*index];
            apart.holding.change(&host.domains, by);
            apart.holders += by * i64::from(host.domains[apart.holding.key] != NOWHERE);
        }
        for index in &concern.counted_spread {
            let spread = &mut self.spread[*index];
            if spread.counts(host) {
                spread.pods.change(&host.domains, by);
            }
        }
    }

    /// A host comes or goes, without its pods.
    pub(super) fn change_host(&mut self, host: &Host<'_>, by: i64) {
        for spread in self.spread.iter_mut().filter(|spread| !spread.is_hostname) {
            if spread.counts(host) {
                spread.hosts.change(&host.domains, by);
            }
        }
    }

    /// Whether the order in which such a pod and others come may matter to anybody: with anti-affinity alone it does not,
    /// for whoever came first keeps the other away.
    pub(super) fn depends_on_order(&self, shape: ShapeId) -> bool {
        let concern = &self.concerns[shape];
        concern.near.is_some()
            || !concern.spread.is_empty()
            || !concern.counted_near.is_empty()
            || !concern.counted_spread.is_empty()
    }

    /// Whether placing such a pod depends, now, on what is on other hosts.
    pub(super) fn looks_around(&self, shape: ShapeId) -> bool {
        let concern = &self.concerns[shape];
        concern.near.is_some()
            || !concern.apart.is_empty()
            || !concern.spread.is_empty()
            || concern
                .repelled
                .iter()
                .any(|index| self.apart[*index].holders > 0)
    }

    /// Whether the values of this label are anybody's domains.
    pub(super) fn is_topology(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Whether such a pod, wherever it is, counts for anybody.
    pub(super) fn concerns(&self, shape: ShapeId) -> bool {
        let concern = &self.concerns[shape];
        !(concern.counted_near.is_empty()
            && concern.counted_spread.is_empty()
            && concern.counted_apart.is_empty()
            && concern.apart.is_empty())
    }

    /// Asks the three filters for one host.
    pub(super) fn check(&self, shape: ShapeId, host: &Host<'_>) -> Result<(), PendingCode> {
        self.check_but(shape, host, None)
    }

    /// Asks them for a cell, by a host of it: hostnames are not looked at.
    pub(super) fn check_cell(&self, shape: ShapeId, host: &Host<'_>) -> Result<(), PendingCode> {
        self.check_but(shape, host, self.keys.get(keys::HOSTNAME).copied())
    }

    fn check_but(&self, shape: ShapeId, host: &Host<'_>, but: Option<usize>) -> Result<(), PendingCode> {
        let concern = &self.concerns[shape];
        if let Some(near) = concern.near {
            let near = &self.near[near];
            let here = |tally: &Tally| host.domains[tally.key];
            let labelled = near.tallies.iter().all(|tally| here(tally) != NOWHERE);
            let met = labelled && near.tallies.iter().all(|tally| tally.at(here(tally)) > 0);
            let first = labelled && near.total == 0 && concern.is_own_friend;
            if !met && !first {
                return Err(PendingCode::PodAffinity);
            }
        }
        let is_near = |tally: &Tally| Some(tally.key) != but && tally.at(host.domains[tally.key]) > 0;
        if concern
            .apart
            .iter()
            .any(|index| is_near(&self.apart[*index].matching))
            || concern
                .repelled
                .iter()
                .any(|index| is_near(&self.apart[*index].holding))
        {
            return Err(PendingCode::PodAntiAffinity);
        }
        for (index, counts_itself) in &concern.spread {
            let spread = &self.spread[*index];
            if Some(spread.pods.key) == but {
                continue;
            }
            let domain = host.domains[spread.pods.key];
            if domain == NOWHERE {
                return Err(PendingCode::TopologySpread);
            }
            let skew = spread.pods.at(domain) + i64::from(*counts_itself) - spread.minimum();
            if skew > i64::from(spread.constraint.max_skew) {
                return Err(PendingCode::TopologySpread);
            }
        }
        Ok(())
    }
}
