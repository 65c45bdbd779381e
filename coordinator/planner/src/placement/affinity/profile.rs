//! What can be told of a shape's constraints before any candidate is there.

use super::{Counts, DomainId, NOWHERE, Tally};
use crate::{
    model::keys,
    placement::{Host, ShapeId},
};

/// What of a pod's constraints can be told before any node is there: which of them its cell (pool and zone) decides, and
/// which the node itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    /// Something depends on the cell.
    pub(crate) zonal: bool,
    /// Some cells may refuse it.
    pub(crate) choosy: bool,
    /// Something depends on neither cell nor node alone.
    pub(crate) odd: bool,
    /// Anti-affinity by hostname that it has, and such that speaks of it.
    pub(crate) holds: Vec<usize>,
    pub(crate) matched: Vec<usize>,
    /// Spread by hostname that it asks for, each with its skew, and such that it counts in.
    pub(crate) spread: Vec<(usize, i64)>,
    pub(crate) counted: Vec<usize>,
}

impl Profile {
    /// Whether pods of the shape go beside any number of any others, as far as affinity and spread say.
    pub(crate) fn is_plain(&self) -> bool {
        self.holds.is_empty() && self.matched.is_empty() && self.spread.is_empty() && self.counted.is_empty()
    }
}

impl Counts<'_> {
    /// Whether two pods of the shape cannot be on one host.
    pub(in crate::placement) fn keeps_apart(&self, shape: ShapeId) -> bool {
        let concern = &self.concerns[shape];
        let hostname = self.keys.get(keys::HOSTNAME);
        concern
            .repelled
            .iter()
            .any(|index| concern.apart.contains(index) && Some(&self.apart[*index].holding.key) == hostname)
    }

    /// The topology keys whose domain is the same on all of these hosts.
    pub(in crate::placement) fn alike(&self, hosts: &[&Host<'_>]) -> Vec<bool> {
        let alike = |key: usize| {
            hosts
                .windows(2)
                .all(|pair| pair[0].domains[key] == pair[1].domains[key])
        };
        (0..self.values.len()).map(alike).collect()
    }

    /// How many anti-affinity terms and spread constraints there are.
    pub(in crate::placement) fn terms(&self) -> (usize, usize) {
        (self.apart.len(), self.spread.len())
    }

    /// See [`Profile`]. `decided` are the topology keys that all nodes of a cell have alike.
    pub(in crate::placement) fn profile(&self, shape: ShapeId, decided: &[bool]) -> Profile {
        let hostname = self.keys.get(keys::HOSTNAME).copied();
        let concern = &self.concerns[shape];
        let mut profile = Profile::default();
        let is_host = |key: usize| Some(key) == hostname;
        if let Some(near) = concern.near {
            profile.zonal = true;
            profile.choosy = true;
            profile.odd |= self.near[near]
                .tallies
                .iter()
                .any(|t| is_host(t.key) || !decided[t.key]);
        }
        for (terms, of_host) in [
            (&concern.apart, &mut profile.holds),
            (&concern.counted_apart, &mut profile.matched),
        ] {
            for term in terms {
                let key = self.apart[*term].holding.key;
                if is_host(key) {
                    of_host.push(*term);
                } else {
                    profile.zonal = true;
                    profile.choosy = true;
                    profile.odd |= !decided[key];
                }
            }
        }
        for (index, _) in &concern.spread {
            let spread = &self.spread[*index];
            if spread.is_hostname {
                profile
                    .spread
                    .push((*index, i64::from(spread.constraint.max_skew)));
            } else {
                profile.zonal = true;
                profile.choosy = true;
                profile.odd |= !decided[spread.pods.key];
            }
        }
        for index in &concern.counted_spread {
            if self.spread[*index].is_hostname {
                profile.counted.push(*index);
            } else {
                profile.zonal = true;
            }
        }
        profile.zonal |= !concern.counted_near.is_empty();
        profile
    }

    /// How many pods stand where the pod would count, in the domains that its cell decides.
    pub(in crate::placement) fn crowd(&self, shape: ShapeId, host: &Host<'_>) -> i64 {
        let concern = &self.concerns[shape];
        let own = concern.spread.iter().map(|(index, _)| index);
        own.chain(&concern.counted_spread)
            .map(|index| &self.spread[*index])
            .filter(|spread| !spread.is_hostname && host.domains[spread.pods.key] != NOWHERE)
            .map(|spread| spread.pods.at(host.domains[spread.pods.key]))
            .sum()
    }

    /// Whether a host of its own is all that a pod of the shape asks for, but for even numbers in the domains of at most one
    /// spread constraint, which is then returned in it. The emptiest domain always satisfies that one, whatever is where.
    pub(in crate::placement) fn asks_one_host(&self, shape: ShapeId) -> Option<Option<usize>> {
        let concern = &self.concerns[shape];
        let hostname = self.keys.get(keys::HOSTNAME);
        let apart = concern.apart.iter().chain(&concern.repelled);
        let mut keys = apart.map(|index| &self.apart[*index].holding.key);
        if concern.near.is_some() || keys.any(|key| Some(key) != hostname) {
            return None;
        }
        let spread = concern.spread.iter().map(|(index, _)| *index);
        let spread: Vec<usize> = spread.filter(|index| !self.spread[*index].is_hostname).collect();
        match spread.as_slice() {
            [] => Some(None),
            [index] => {
                let constraint = self.spread[*index].constraint;
                let always = constraint.max_skew >= 1 && constraint.min_domains.is_none();
                always.then_some(Some(*index))
            }
            _ => None,
        }
    }

    /// The domains that count for a spread constraint.
    pub(in crate::placement) fn domains_of(&self, spread: usize) -> impl Iterator<Item = DomainId> {
        self.spread[spread].domains()
    }

    /// The domain of a spread constraint in which the host lies.
    pub(in crate::placement) fn domain_of(&self, spread: usize, host: &Host<'_>) -> DomainId {
        host.domains[self.spread[spread].pods.key]
    }

    /// Asks the three filters for what concerns the host alone, if [`asks_one_host`](Self::asks_one_host).
    pub(in crate::placement) fn check_host(&self, shape: ShapeId, host: &Host<'_>) -> bool {
        let concern = &self.concerns[shape];
        let here = |tally: &Tally| tally.at(host.domains[tally.key]);
        let repels = |index: &usize| here(&self.apart[*index].holding) > 0;
        let is_near = |index: &usize| here(&self.apart[*index].matching) > 0;
        let skews = |(index, counts_itself): &(usize, bool)| {
            let spread = &self.spread[*index];
            spread.is_hostname
                && here(&spread.pods) + i64::from(*counts_itself) > i64::from(spread.constraint.max_skew)
        };
        !concern.apart.iter().any(is_near)
            && !concern.repelled.iter().any(repels)
            && !concern.spread.iter().any(skews)
    }
}
