//! `InterPodAffinity` and `PodTopologySpread`: the filters that look at what is on other hosts.
//!
//! As in kube-scheduler's `PreFilter` everything that depends on the pod but not on the candidate host is a count per
//! domain; but the counts are kept, not made anew for each pod: whatever is put somewhere or taken away changes the few
//! that its shape is counted in. A candidate need not be in the world, so a node that is only thought of can be asked for.

pub(super) mod reasons;

use std::{collections::HashMap, sync::Arc};

use super::{
    Host,
    classes::{Classes, QuickMap, ShapeId},
    filters,
};
use crate::{
    PendingCode,
    model::{
        Cluster, LabelSelector, Labels, NamespaceName, Pod, PodAffinityTerm, SpreadConstraint, Taint, keys,
    },
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

/// One spread constraint of pods that count the same hosts.
#[derive(Clone, Debug)]
struct Spread<'a> {
    pod: &'a Pod,
    constraint: &'a SpreadConstraint,
    /// Topology keys of all constraints of the pod: a host without one of them does not count.
    keys: Vec<usize>,
    is_hostname: bool,
    pods: Tally,
    /// Hosts that count.
    hosts: Tally,
    /// Domains that a pool could open.
    open: Vec<DomainId>,
    /// By kind of host: 0 not known yet, 1 counts, 2 does not.
    counts: Vec<u8>,
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

/// All counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts<'a> {
    keys: HashMap<Arc<str>, usize>,
    values: Vec<QuickMap<Arc<str>, DomainId>>,
    near: Vec<Near>,
    apart: Vec<Apart>,
    spread: Vec<Spread<'a>>,
    concerns: Vec<Concern>,
}

/// Constraints that count the same pods on the same hosts.
type SameSpread<'a> = (
    &'a NamespaceName,
    &'a SpreadConstraint,
    Vec<usize>,
    Option<(&'a Labels, &'a Option<Vec<crate::model::NodeTerm>>)>,
    Option<&'a Vec<crate::model::Toleration>>,
);

impl<'a> Counts<'a> {
    pub(super) fn new(cluster: &'a Cluster, classes: &Classes<'a>) -> Self {
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

    /// Whether two pods of the shape cannot be on one host.
    pub(super) fn keeps_apart(&self, shape: ShapeId) -> bool {
        let concern = &self.concerns[shape];
        let hostname = self.keys.get(keys::HOSTNAME);
        concern
            .repelled
            .iter()
            .any(|index| concern.apart.contains(index) && Some(&self.apart[*index].holding.key) == hostname)
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

    /// The topology keys whose domain is the same on all of these hosts.
    pub(super) fn alike(&self, hosts: &[&Host<'_>]) -> Vec<bool> {
        let alike = |key: usize| {
            hosts
                .windows(2)
                .all(|pair| pair[0].domains[key] == pair[1].domains[key])
        };
        (0..self.values.len()).map(alike).collect()
    }

    /// How many anti-affinity terms and spread constraints there are.
    pub(super) fn terms(&self) -> (usize, usize) {
        (self.apart.len(), self.spread.len())
    }

    /// See [`Profile`]. `decided` are the topology keys that all nodes of a cell have alike.
    pub(super) fn profile(&self, shape: ShapeId, decided: &[bool]) -> Profile {
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
    pub(super) fn crowd(&self, shape: ShapeId, host: &Host<'_>) -> i64 {
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
    pub(super) fn asks_one_host(&self, shape: ShapeId) -> Option<Option<usize>> {
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
    pub(super) fn domains_of(&self, spread: usize) -> impl Iterator<Item = DomainId> {
        self.spread[spread].domains()
    }

    /// The domain of a spread constraint in which the host lies.
    pub(super) fn domain_of(&self, spread: usize, host: &Host<'_>) -> DomainId {
        host.domains[self.spread[spread].pods.key]
    }

    /// Asks the three filters for what concerns the host alone, if [`asks_one_host`](Self::asks_one_host).
    pub(super) fn check_host(&self, shape: ShapeId, host: &Host<'_>) -> bool {
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

impl Spread<'_> {
    /// Whether pods on such a node count.
    fn is_eligible(&self, name: &str, labels: &Labels, taints: &[Taint]) -> bool {
        (!self.constraint.honor_node_affinity || filters::selects(self.pod, name, labels))
            && (!self.constraint.honor_taints || filters::bears(self.pod, taints))
    }

    fn counts(&mut self, host: &Host<'_>) -> bool {
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
    fn domains(&self) -> impl Iterator<Item = DomainId> {
        let with_hosts = (0..self.hosts.counts.len())
            .filter_map(|domain| DomainId::try_from(domain).ok())
            .filter(|domain| self.hosts.at(*domain) > 0 && !self.open.contains(domain));
        with_hosts.chain(self.open.iter().copied())
    }

    /// What the emptiest domain has. On hostnames it is nothing: a new node can always be had.
    fn minimum(&self) -> i64 {
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
fn loosely(term: &PodAffinityTerm, pod: &Pod, cluster: &Cluster) -> bool {
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
