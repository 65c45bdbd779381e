//! What pods would like beside what they must have: preferred affinity to nodes and pods, spread that is not required, and
//! no taint that discourages them.
//!
//! A place is worth the sum of the weights that it satisfies, as kube-scheduler's scores add up. What has no weight of its
//! own counts as its default plugin weights say (affinity 2, `PodTopologySpread` 2, `TaintToleration` 3) against a full
//! preferred affinity of 100. Among places that satisfy as much, the one with fewer pods to be kept from, and more to be
//! near to, is liked better. Two things that the scheduler also scores are left out: what other pods' preferences say of
//! this one, and nearness to pods that *must* be near it (`hardPodAffinityWeight`).

use std::{
    collections::HashMap,
    ops::{AddAssign, Sub},
    sync::Arc,
};

use super::offerings::Offering;
use crate::{
    model::{Labels, NodeTerm, Pod, PodAffinityTerm, SpreadConstraint, Taint, TaintEffect, Weighted, keys},
    placement::{Host, QuickMap, ShapeId, World, matches},
};

/// What an even spread is worth.
const EVEN: i64 = 100;
/// What a taint that only discourages takes away.
const DISCOURAGED: i64 = 150;

/// How much pods like their places; the greater, the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Liking {
    /// Weights of what is satisfied, less those of what should be avoided and is not.
    weight: i64,
    /// By how much more than that: pods near, less pods to be kept from, each by its weight.
    company: i64,
}

impl Liking {
    /// As often.
    pub(super) fn times(self, number: i64) -> Self {
        Self {
            weight: self.weight * number,
            company: self.company * number,
        }
    }
}

impl AddAssign for Liking {
    fn add_assign(&mut self, other: Self) {
        self.weight += other.weight;
        self.company += other.company;
    }
}

impl Sub for Liking {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            weight: self.weight - other.weight,
            company: self.company - other.company,
        }
    }
}

/// Number of a value of a topology key; `None` where a node lacks the key.
type Domain = Option<usize>;

/// Pods by domain that a term or a constraint speaks of.
struct Tally<'a> {
    key: usize,
    of: Of<'a>,
    counts: Vec<i64>,
}

#[derive(Clone, Copy)]
enum Of<'a> {
    Term(&'a PodAffinityTerm),
    /// Of pods of the same namespace as this one.
    Spread(&'a Pod, &'a SpreadConstraint),
}

impl<'a> Tally<'a> {
    fn at(&self, domain: usize) -> i64 {
        self.counts.get(domain).copied().unwrap_or(0)
    }

    fn label(&self) -> Option<(&'a Arc<str>, &'a Arc<str>)> {
        let selector = match self.of {
            Of::Term(term) => term.selector.as_ref(),
            Of::Spread(_, constraint) => constraint.selector.as_ref(),
        };
        selector?.match_labels.iter().next()
    }
}

/// What pods of one kind wish.
struct Wish<'a> {
    shape: ShapeId,
    pod: &'a Pod,
    /// Terms by weight, negative where they speak of pods to be kept from.
    near: Vec<(i64, usize)>,
    even: Vec<Even>,
    /// What the nodes alone are worth, by host, as far as known.
    of_hosts: Vec<Option<i64>>,
}

/// A spread that should hold.
struct Even {
    tally: usize,
    max_skew: i64,
    counts_itself: bool,
    /// Domains that the pod may use; for hostnames none, since a new node can always be had.
    open: Vec<usize>,
}

/// All that tells the wishes of two pods apart.
type Same<'a> = (
    ShapeId,
    &'a [Weighted<NodeTerm>],
    &'a [Weighted<PodAffinityTerm>],
    Vec<(&'a SpreadConstraint, bool)>,
);

/// The wishes of the pods of a decision, and what of the cluster they speak of.
pub(super) struct Wishes<'a> {
    of_pod: QuickMap<*const Pod, usize>,
    all: Vec<Wish<'a>>,
    tallies: Vec<Tally<'a>>,
    by_label: QuickMap<(&'a Arc<str>, &'a Arc<str>), Vec<usize>>,
    /// Tallies by selectors that ask for no value of a label.
    others: Vec<usize>,
    keys: Vec<Arc<str>>,
    values: Vec<QuickMap<Arc<str>, usize>>,
    /// Domains of each host, by key.
    hosts: Vec<Vec<Domain>>,
}

impl<'a> Wishes<'a> {
    /// The wishes of these pods, with what is on the world's hosts counted; `None` if they have none.
    pub(super) fn new(
        world: &World<'a>,
        offerings: &[Offering<'a>],
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Option<Self> {
        let all_hosts = || world.hosts.iter().chain(offerings.iter().map(|o| &o.host));
        let mut discouraging: Vec<&Taint> = Vec::new();
        for taint in all_hosts().flat_map(|host| host.taints.iter()) {
            if taint.effect == TaintEffect::PreferNoSchedule && !discouraging.contains(&taint) {
                discouraging.push(taint);
            }
        }
        let mut wishes = Self {
            of_pod: QuickMap::default(),
            all: Vec::new(),
            tallies: Vec::new(),
            by_label: QuickMap::default(),
            others: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            hosts: Vec::new(),
        };
        let mut known: HashMap<Same<'a>, usize> = HashMap::new();
        for pod in pods {
            let soft = || pod.spread.iter().filter(|constraint| !constraint.is_hard());
            if pod.node_affinity.preferred.is_empty()
                && pod.preferred_pod_affinity.is_empty()
                && soft().next().is_none()
                && !discouraging.iter().any(|taint| !tolerates(pod, taint))
            {
                continue;
            }
            let shape = world.classes.shape(pod);
            let same = (
                shape,
                pod.node_affinity.preferred.as_slice(),
                pod.preferred_pod_affinity.as_slice(),
                soft().map(|c| (c, c.selects(&pod.labels))).collect(),
            );
            let index = *known.entry(same).or_insert(wishes.all.len());
            if index == wishes.all.len() {
                let wish = wishes.wish(pod, shape);
                wishes.all.push(wish);
            }
            wishes.of_pod.insert(std::ptr::from_ref(pod), index);
        }
        if wishes.all.is_empty() {
            return None;
        }
        wishes.count(world);
        for host in all_hosts().filter(|host| host.accepts && !host.gone) {
            let domains = wishes.domains(&host.labels);
            for wish in &mut wishes.all {
                for even in &mut wish.even {
                    let key = wishes.tallies[even.tally].key;
                    let Some(domain) = domains[key] else { continue };
                    if &*wishes.keys[key] != keys::HOSTNAME
                        && !even.open.contains(&domain)
                        && world.check_kind(wish.shape, host).is_ok()
                    {
                        even.open.push(domain);
                    }
                }
            }
        }
        Some(wishes)
    }

    fn wish(&mut self, pod: &'a Pod, shape: ShapeId) -> Wish<'a> {
        let near = pod
            .preferred_pod_affinity
            .iter()
            .map(|term| {
                let same = |of: Of<'a>| matches!(of, Of::Term(other) if *other == term.item);
                let tally = self.tally(&term.item.topology_key, Of::Term(&term.item), same);
                (i64::from(term.weight), tally)
            })
            .collect();
        let soft = pod.spread.iter().filter(|constraint| !constraint.is_hard());
        let even = soft
            .map(|constraint| {
                let same = |of: Of<'a>| match of {
                    Of::Spread(other, with) => other.key.namespace == pod.key.namespace && with == constraint,
                    Of::Term(_) => false,
                };
                Even {
                    tally: self.tally(&constraint.topology_key, Of::Spread(pod, constraint), same),
                    max_skew: i64::from(constraint.max_skew),
                    counts_itself: constraint.selects(&pod.labels),
                    open: Vec::new(),
                }
            })
            .collect();
        Wish {
            shape,
            pod,
            near,
            even,
            of_hosts: Vec::new(),
        }
    }

    fn tally(&mut self, key: &Arc<str>, of: Of<'a>, same: impl Fn(Of<'a>) -> bool) -> usize {
        if let Some(known) = self.tallies.iter().position(|tally| same(tally.of)) {
            return known;
        }
        let key = self
            .keys
            .iter()
            .position(|known| known == key)
            .unwrap_or_else(|| {
                self.keys.push(key.clone());
                self.values.push(QuickMap::default());
                self.keys.len() - 1
            });
        let tally = Tally {
            key,
            of,
            counts: Vec::new(),
        };
        let index = self.tallies.len();
        match tally.label() {
            Some(label) => self.by_label.entry(label).or_default().push(index),
            None => self.others.push(index),
        }
        self.tallies.push(tally);
        index
    }

    /// Counts what is on the hosts.
    fn count(&mut self, world: &World<'a>) {
        for (index, host) in world.hosts.iter().enumerate() {
            let domains = self.domains(&host.labels);
            self.hosts.push(domains);
            if !host.gone && !self.tallies.is_empty() {
                for pod in &host.pods {
                    self.change(world, pod, index, 1);
                }
            }
        }
        for wish in &mut self.all {
            wish.of_hosts = vec![None; world.hosts.len()];
        }
    }

    /// The domains of a node of these labels.
    pub(super) fn domains(&mut self, labels: &Labels) -> Vec<Domain> {
        let keys = self.keys.iter().zip(&mut self.values);
        keys.map(|(key, values)| {
            let value = labels.get(key)?;
            let next = values.len();
            Some(*values.entry(value.clone()).or_insert(next))
        })
        .collect()
    }

    /// Another node stands in this host's place.
    pub(super) fn replace(&mut self, index: usize, host: &Host<'a>) {
        self.hosts[index] = self.domains(&host.labels);
        for wish in &mut self.all {
            wish.of_hosts[index] = None;
        }
    }

    /// Counts a pod on a host (1), or no longer (-1).
    pub(super) fn change(&mut self, world: &World<'a>, pod: &Pod, host: usize, by: i64) {
        let domains = &self.hosts[host];
        let labelled = pod.labels.iter().filter_map(|label| self.by_label.get(&label));
        for index in labelled.flatten().chain(&self.others) {
            let tally = &mut self.tallies[*index];
            let Some(domain) = domains[tally.key] else {
                continue;
            };
            let counts = match tally.of {
                Of::Term(term) => matches(term, pod, world.cluster),
                Of::Spread(of, constraint) => {
                    !pod.is_terminating()
                        && pod.key.namespace == of.key.namespace
                        && constraint.selects(&pod.labels)
                }
            };
            if counts {
                if tally.counts.len() <= domain {
                    tally.counts.resize(domain + 1, 0);
                }
                tally.counts[domain] += by;
            }
        }
    }

    /// The wish of a pod, by number.
    pub(super) fn of(&self, pod: &Pod) -> Option<usize> {
        self.of_pod.get(&std::ptr::from_ref(pod)).copied()
    }

    /// How much a pod of the wish would like the host, were it not yet there.
    pub(super) fn liking(&mut self, wish: usize, world: &World<'a>, host: usize) -> Liking {
        let of_host = match self.all[wish].of_hosts[host] {
            Some(known) => known,
            None => {
                let worth = self.worth(wish, &world.hosts[host]);
                self.all[wish].of_hosts[host] = Some(worth);
                worth
            }
        };
        self.add_up(&self.all[wish], of_host, &self.hosts[host])
    }

    /// The same for a host that is only thought of, in these domains.
    pub(super) fn liking_of(&self, wish: usize, host: &Host<'a>, domains: &[Domain]) -> Liking {
        self.add_up(&self.all[wish], self.worth(wish, host), domains)
    }

    /// What the node alone is worth.
    fn worth(&self, wish: usize, host: &Host<'a>) -> i64 {
        let pod = self.all[wish].pod;
        let preferred = pod.node_affinity.preferred.iter();
        let liked: i64 = preferred
            .filter(|term| term.item.matches(&host.name, &host.labels))
            .map(|term| i64::from(term.weight))
            .sum();
        let discourages =
            |taint: &&Taint| taint.effect == TaintEffect::PreferNoSchedule && !tolerates(pod, taint);
        let taints = host.taints.iter().filter(discourages);
        taints.fold(liked, |worth, _| worth - DISCOURAGED)
    }

    fn add_up(&self, wish: &Wish<'a>, of_host: i64, domains: &[Domain]) -> Liking {
        let mut liking = Liking {
            weight: of_host,
            company: 0,
        };
        for (weight, tally) in &wish.near {
            let tally = &self.tallies[*tally];
            let count = domains[tally.key].map_or(0, |domain| tally.at(domain));
            if count > 0 {
                liking.weight += weight;
                liking.company += weight * count;
            }
        }
        for even in &wish.even {
            let tally = &self.tallies[even.tally];
            let Some(domain) = domains[tally.key] else {
                continue;
            };
            let count = tally.at(domain);
            let least = even.open.iter().map(|domain| tally.at(*domain)).min();
            if count + i64::from(even.counts_itself) - least.unwrap_or(0) <= even.max_skew {
                liking.weight += EVEN;
            }
            liking.company -= EVEN * count;
        }
        liking
    }
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.tolerations
        .iter()
        .any(|toleration| toleration.tolerates(taint))
}
