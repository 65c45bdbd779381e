//! Which domains count for a spread constraint, and what the emptiest of them has.

use super::{DomainId, NOWHERE, Tally};
use crate::{
    model::{Labels, Pod, SpreadConstraint, Taint},
    placement::{Host, filters},
};

/// One spread constraint of pods that count the same hosts.
#[derive(Clone, Debug)]
pub(super) struct Spread<'a> {
    pub(super) pod: &'a Pod,
    pub(super) constraint: &'a SpreadConstraint,
    /// Topology keys of all constraints of the pod: a host without one of them does not count.
    pub(super) keys: Vec<usize>,
    pub(super) is_hostname: bool,
    pub(super) pods: Tally,
    /// Hosts that count.
    pub(super) hosts: Tally,
    /// Domains that a pool could open.
    pub(super) open: Vec<DomainId>,
    /// By kind of host: 0 not known yet, 1 counts, 2 does not.
    pub(super) counts: Vec<u8>,
}

impl Spread<'_> {
    /// Whether pods on such a node count.
    pub(super) fn is_eligible(&self, name: &str, labels: &Labels, taints: &[Taint]) -> bool {
        (!self.constraint.honor_node_affinity || filters::selects(self.pod, name, labels))
            && (!self.constraint.honor_taints || filters::bears(self.pod, taints))
    }

    pub(super) fn counts(&mut self, host: &Host<'_>) -> bool {
        if self.keys.iter().any(|key| host.domains[*key] == NOWHERE) {
            return false;
        }
        if self.counts.len() <= host.kind {
            self.counts.resize(host.kind + 1, 0);
        }
        if self.counts[host.kind] == 0 {
            let eligible = self.is_eligible(&host.name, &host.labels, &host.taints);
            self.counts[host.kind] = if eligible { 1 } else { 2 };
        }
        self.counts[host.kind] == 1
    }

    /// The domains that count.
    pub(super) fn domains(&self) -> impl Iterator<Item = DomainId> {
        let with_hosts = (0..self.hosts.counts.len())
            .filter_map(|domain| DomainId::try_from(domain).ok())
            .filter(|domain| self.hosts.at(*domain) > 0 && !self.open.contains(domain));
        with_hosts.chain(self.open.iter().copied())
    }

    /// What the emptiest domain has. On hostnames it is nothing: a new node can always be had.
    pub(super) fn minimum(&self) -> i64 {
        if self.is_hostname {
            return 0;
        }
        let mut minimum = i64::MAX;
        let mut domains = 0;
        for domain in self.domains() {
            minimum = minimum.min(self.pods.at(domain));
            domains += 1;
        }
        let too_few = self.constraint.min_domains.is_some_and(|min| min > domains);
        if too_few || domains == 0 { 0 } else { minimum }
    }
}
