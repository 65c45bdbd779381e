//! Where pods can go: kube-scheduler's filters over existing, launching and planned nodes.
//!
//! ```text
//! World (hosts with their pods, counts per domain) ── check(pod, host) ─▶ Ok | PendingCode
//! ```
//!
//! The filters are asked in the order of [`PendingCode`], so that the first one that says no names how far a pod got.
//! Placing changes the world; every change can be taken back, which is how moves and packings are tried.

mod affinity;
mod classes;
mod filters;
mod known;
mod reasons;
mod refuges;
mod volumes;

use std::{cell::Cell, cmp::Ordering, sync::Arc};

use jiff::Timestamp;

use affinity::{Counts, DomainId};
pub(crate) use affinity::{Profile, matches};
pub(crate) use classes::{ClassId, Classes, KindId, QuickMap, QuickSet, ShapeId};
pub(crate) use known::Known;
pub(crate) use refuges::{Refuge, Refuges};
use volumes::Volumes;

use crate::{
    PendingCode, Policy,
    model::{Cluster, Labels, Node, Pod, Resources, SETTLING, Taint, keys},
};

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `cluster.nodes[i]`.
    Existing(usize),
    /// The n-th launching entry that has not lapsed.
    Launching(usize),
    /// To be launched by this plan.
    Planned,
}

/// A node with what is on it.
#[derive(Clone, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) place: Place,
    /// The pool that an existing node belongs to, by its index in the policy.
    pub(crate) pool: Option<usize>,
    pub(crate) name: Arc<str>,
    pub(crate) labels: Arc<Labels>,
    /// Taints that count; those that go away by themselves are left out.
    pub(crate) taints: Arc<[Taint]>,
    pub(crate) allocatable: Resources,
    pub(crate) used: Resources,
    pub(crate) pods: Vec<&'a Pod>,
    /// The first of them were bound to it before the plan: these, by their index in the cluster. They stay on it.
    pub(crate) bound: Vec<usize>,
    /// How full it is: the larger share of CPU and memory.
    pub(crate) fullness: f64,
    /// Its kind and its domains, as the world numbers them ([`World::enroll`]).
    pub(crate) kind: KindId,
    pub(crate) domains: Vec<DomainId>,
    /// It takes pods that wait.
    pub(crate) accepts: bool,
    /// It takes pods that are moved.
    pub(crate) is_destination: bool,
    /// It is thought away, with everything on it.
    pub(crate) gone: bool,
}

impl<'a> Host<'a> {
    pub(crate) fn add(&mut self, pod: &'a Pod) {
        self.used.add(&pod.requests);
        self.pods.push(pod);
        self.measure();
    }

    /// Pods that were put onto it since.
    pub(crate) fn later(&self) -> &[&'a Pod] {
        self.pods.get(self.bound.len()..).unwrap_or_default()
    }

    fn take(&mut self, pod: &Pod) -> bool {
        let index = self.pods.iter().rposition(|other| std::ptr::eq(*other, pod));
        if let Some(index) = index {
            self.pods.remove(index);
            self.used.subtract(&pod.requests);
            self.measure();
        }
        index.is_some()
    }

    /// Tells anew how full it is.
    fn measure(&mut self) {
        let share = |used: f64, have: f64| if have > 0.0 { used / have } else { 1.0 };
        self.fullness = share(self.used.cpu.as_f64(), self.allocatable.cpu.as_f64())
            .max(share(self.used.memory.as_f64(), self.allocatable.memory.as_f64()));
    }
}

/// All hosts, and what of the cluster the filters ask for.
#[derive(Clone, Debug)]
pub(crate) struct World<'a> {
    pub(crate) cluster: &'a Cluster,
    /// Changed only by this module: counts and order go with them.
    pub(crate) hosts: Vec<Host<'a>>,
    /// The cluster's pods without a node, by their index.
    pub(crate) unbound: Vec<usize>,
    pub(crate) classes: Classes<'a>,
    counts: Counts<'a>,
    volumes: Volumes<'a>,
    /// Hosts in the order in which they are tried: those on their way last, then the fullest first, then by index.
    order: Vec<usize>,
    /// What selector and taints said, by kind and shape: 0 is not known yet, 1 is yes.
    answers: Vec<Cell<u8>>,
}

/// What a pool could launch in a zone, as far as spread domains care.
#[derive(Clone, Debug)]
pub(crate) struct DomainGroup {
    /// Labels that all of its nodes have alike; only these open domains.
    pub(crate) common: Labels,
    /// Labels and taints of each kind of node.
    pub(crate) nodes: Vec<(Arc<Labels>, Arc<[Taint]>)>,
}

/// The refusals of the filters that ask for a kind of host, as numbers.
const REFUSALS: [(u8, PendingCode); 2] = [(2, PendingCode::NodeSelector), (3, PendingCode::Taints)];

impl<'a> World<'a> {
    /// The existing nodes with their bound pods. `others` are pods beside those of the cluster that will be asked for.
    pub(crate) fn new(
        cluster: &'a Cluster,
        others: &'a [Pod],
        policy: &Policy,
        now: Timestamp,
        known: &mut Known,
    ) -> Self {
        let classes = Classes::new(cluster, others, known);
        let counts = Counts::new(cluster, &classes);
        let mut order: Vec<usize> = (0..cluster.nodes.len()).collect();
        order.sort_by(|a, b| cluster.nodes[*a].name.cmp(&cluster.nodes[*b].name));
        let untainted: Arc<[Taint]> = Arc::default();
        let hosts: Vec<Host<'a>> = order
            .into_iter()
            .map(|index| existing(&cluster.nodes[index], index, policy, now, &untainted))
            .collect();
        let mut world = Self {
            cluster,
            volumes: Volumes::new(cluster, &classes.shapes),
            answers: Vec::new(),
            classes,
            counts,
            hosts: Vec::with_capacity(hosts.len()),
            order: Vec::with_capacity(hosts.len()),
            unbound: Vec::new(),
        };
        for mut host in hosts {
            world.enroll(&mut host);
            world.add(host);
        }
        world.bind(now);
        world.hosts.iter_mut().for_each(Host::measure);
        world.order = (0..world.hosts.len()).collect();
        let hosts = &world.hosts;
        world.order.sort_by(|a, b| in_order(hosts, *a, *b));
        world
    }

    /// Puts the cluster's bound pods onto their hosts. Of most nothing is read but what is known of their like.
    fn bind(&mut self, now: Timestamp) {
        let classes = &self.classes;
        let mut host_of: Vec<Option<usize>> = vec![None; classes.node_names.len()];
        for (index, host) in self.hosts.iter().enumerate() {
            if let Some(number) = classes.node_names.get(&host.name) {
                host_of[*number as usize] = Some(index);
            }
        }
        let hosts = classes
            .facts
            .iter()
            .filter_map(|fact| host_of[fact.node? as usize]);
        let mut bound = vec![0; self.hosts.len()];
        hosts.for_each(|host| bound[host] += 1);
        for (host, bound) in self.hosts.iter_mut().zip(bound) {
            host.pods.reserve(bound);
            host.bound.reserve(bound);
        }
        let facts = classes.facts.iter().zip(&classes.of_cluster);
        for (index, ((fact, class), pod)) in facts.zip(&self.cluster.pods).enumerate() {
            let Some(number) = fact.node else {
                self.unbound.push(index);
                continue;
            };
            let Some(host) = host_of[number as usize].and_then(|host| self.hosts.get_mut(host)) else {
                continue;
            };
            if !fact.stays && (pod.is_finished() || pod.is_gone(now)) {
                continue;
            }
            host.used.add(&classes.samples[*class].requests);
            host.pods.push(pod);
            host.bound.push(index);
            let shape = classes.shape_of(*class);
            self.counts.change(shape, host, 1);
            self.volumes.change(shape, pod, host, 1);
        }
    }

    /// Numbers a host's kind and domains, so that it can be asked for.
    pub(crate) fn enroll(&mut self, host: &mut Host<'_>) {
        host.kind = self.classes.kind(&host.name, &host.labels, &host.taints);
        host.domains = self.counts.domains(&host.labels);
        self.answers
            .resize(self.classes.kinds() * self.classes.shapes.len(), Cell::new(0));
    }

    /// Opens the spread domains of nodes that each pool could launch, a group for every pool × zone.
    pub(crate) fn open_domains(&mut self, groups: &[DomainGroup]) {
        for group in groups {
            self.counts.open(&group.common, &group.nodes);
        }
    }

    /// Takes up a host with what is on it. Returns its index.
    pub(crate) fn push(&mut self, mut host: Host<'a>) -> usize {
        // One like it was enrolled before, and nobody asks for its name.
        if host.domains.is_empty() || self.classes.names_nodes() {
            self.enroll(&mut host);
        } else {
            self.counts.rename(&mut host.domains, &host.labels);
        }
        let index = self.hosts.len();
        self.add(host);
        let place = self.place_in_order(index);
        self.order.insert(place, index);
        index
    }

    fn add(&mut self, host: Host<'a>) {
        if !host.gone {
            count(&mut self.counts, &mut self.volumes, &self.classes, &host, 1);
        }
        self.hosts.push(host);
    }

    /// Drops the hosts from the index on. Returns them.
    pub(crate) fn truncate(&mut self, hosts: usize) -> Vec<Host<'a>> {
        self.order.retain(|index| *index < hosts);
        let dropped = self.hosts.split_off(hosts.min(self.hosts.len()));
        for host in dropped.iter().filter(|host| !host.gone) {
            count(&mut self.counts, &mut self.volumes, &self.classes, host, -1);
        }
        dropped
    }

    /// No pod is moved to this host.
    pub(crate) fn close(&mut self, host: usize) {
        self.hosts[host].is_destination = false;
    }

    /// Thinks a host away with everything on it, or back.
    pub(crate) fn set_gone(&mut self, host: usize, gone: bool) {
        let host = &mut self.hosts[host];
        if host.gone != gone {
            host.gone = gone;
            let by = if gone { -1 } else { 1 };
            count(&mut self.counts, &mut self.volumes, &self.classes, host, by);
        }
    }

    /// Whether the pod may go onto the host; otherwise the first filter that refuses.
    pub(crate) fn check(&self, pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
        let shape = self.classes.shape(pod);
        self.check_alone_as(shape, pod, host)?;
        self.counts.check(shape, host)
    }

    /// As [`World::check`], for a host that is not in the world: what it would bring along counts too.
    pub(crate) fn check_thought_of(&mut self, pod: &Pod, host: &Host<'a>) -> Result<(), PendingCode> {
        let matters = |daemon: &&Pod| self.counts.concerns(self.classes.shape(daemon));
        if !host.pods.iter().any(matters) {
            return self.check(pod, host);
        }
        let index = self.push(host.clone());
        let answer = self.check(pod, &self.hosts[index]);
        self.truncate(index);
        answer
    }

    /// The first five filters alone, which do not look beyond the host.
    pub(crate) fn check_alone(&self, pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
        self.check_alone_as(self.classes.shape(pod), pod, host)
    }

    fn check_alone_as(&self, shape: ShapeId, pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
        self.check_kind(shape, host)?;
        if self.classes.ties[shape] {
            self.volumes.check(shape, host, |pod| self.classes.shape(pod))?;
        }
        filters::resources(pod, host)?;
        filters::host_ports(pod, host)
    }

    /// As [`World::check_alone`] for any pod of the shape, but for what it requests.
    pub(crate) fn admits(&self, shape: ShapeId, host: &Host<'_>) -> bool {
        let of_shape = |pod: &Pod| self.classes.shape(pod);
        self.check_kind(shape, host).is_ok()
            && (!self.classes.ties[shape] || self.volumes.check(shape, host, of_shape).is_ok())
            && filters::host_ports(self.classes.shapes[shape], host).is_ok()
    }

    /// Those labels that a node's type decides whose values are domains of anybody.
    pub(crate) fn domains_of_types(&self) -> Vec<&'static str> {
        let mut keys = vec![keys::INSTANCE_TYPE, keys::ARCH];
        keys.retain(|key| self.counts.is_topology(key));
        keys
    }

    /// Whether the host can have the volumes of pods of all these shapes attached.
    pub(crate) fn attaches(&self, shapes: &[ShapeId], host: &Host<'_>) -> bool {
        let of_shape = |pod: &Pod| self.classes.shape(pod);
        !shapes.iter().any(|shape| self.classes.ties[*shape])
            || self.volumes.attaches(shapes, host, of_shape).is_ok()
    }

    /// Node selector and taints, which all hosts of a kind have alike.
    pub(crate) fn check_kind(&self, shape: ShapeId, host: &Host<'_>) -> Result<(), PendingCode> {
        let known = &self.answers[host.kind * self.classes.shapes.len() + shape];
        match known.get() {
            0 => {
                let pod = self.classes.shapes[shape];
                let answer = filters::node_selector(pod, host).and_then(|()| filters::taints(pod, host));
                // A code that has no number is asked for each time.
                known.set(match answer {
                    Ok(()) => 1,
                    Err(code) => REFUSALS
                        .iter()
                        .find(|(_, c)| *c == code)
                        .map_or(0, |(number, _)| *number),
                });
                answer
            }
            1 => Ok(()),
            number => Err(REFUSALS
                .iter()
                .find(|(known, _)| *known == number)
                .map_or(PendingCode::NodeSelector, |(_, code)| *code)),
        }
    }

    /// Whether a DaemonSet puts its pod onto such a node: selectors and taints, nothing else.
    pub(crate) fn is_daemon_for(&self, pod: &Pod, host: &Host<'_>) -> bool {
        self.check_kind(self.classes.shape(pod), host).is_ok()
    }

    /// Whether no host takes two pods of the shape because they keep apart.
    pub(crate) fn keeps_apart(&self, shape: ShapeId) -> bool {
        self.counts.keeps_apart(shape)
    }

    /// Which constraints of each shape a cell decides, and which a node. `cells` are the nodes that each could launch.
    pub(crate) fn profiles(&self, cells: &[Vec<&Host<'_>>]) -> Vec<Profile> {
        // Without any cell nothing speaks against it.
        let mut decided = self.counts.alike(&[]);
        for hosts in cells {
            let alike = self.counts.alike(hosts);
            decided.iter_mut().zip(alike).for_each(|(all, here)| *all &= here);
        }
        let shapes = 0..self.classes.shapes.len();
        shapes.map(|shape| self.counts.profile(shape, &decided)).collect()
    }

    /// How many anti-affinity terms and spread constraints a [`Profile`] may speak of.
    pub(crate) fn terms(&self) -> (usize, usize) {
        self.counts.terms()
    }

    /// Whether a cell may take a pod of the shape, by a host of it: hostnames are not looked at.
    pub(crate) fn cell_takes(&self, shape: ShapeId, host: &Host<'_>) -> bool {
        self.counts.check_cell(shape, host).is_ok()
    }

    /// How many pods stand where one of the shape would count.
    pub(crate) fn crowd(&self, shape: ShapeId, host: &Host<'_>) -> i64 {
        self.counts.crowd(shape, host)
    }

    /// Counts a pod of the shape as if it were in the host's cell (1), or no longer (-1).
    pub(crate) fn count_in_cell(&mut self, shape: ShapeId, host: &Host<'_>, by: i64) {
        self.counts.change(shape, host, by);
    }

    /// Whether placing it depends on what is on other hosts.
    pub(crate) fn looks_around(&self, pod: &Pod) -> bool {
        self.counts.looks_around(self.classes.shape(pod))
    }

    /// The fullest host of those that pass `wanted` and every filter; the first by name among equals. Preferences are
    /// asked afterwards, of the plan as a whole: so they cost nothing.
    pub(crate) fn find(&self, pod: &Pod, wanted: impl Fn(&Host<'_>) -> bool) -> Option<usize> {
        let shape = self.classes.shape(pod);
        let does = |host: &Host<'_>| {
            // What is cheap to ask for and often says no comes first.
            !host.gone
                && wanted(host)
                && host.allocatable.fits(&host.used, &pod.requests).is_ok()
                && self.check_alone_as(shape, pod, host).is_ok()
                && self.counts.check(shape, host).is_ok()
        };
        self.order.iter().copied().find(|index| does(&self.hosts[*index]))
    }

    /// Hosts in the order in which they are tried.
    pub(crate) fn in_order(&self) -> &[usize] {
        &self.order
    }

    /// Whether the order in which such a pod and others come may matter to anybody.
    pub(crate) fn depends_on_order(&self, pod: &Pod) -> bool {
        self.counts.depends_on_order(self.classes.shape(pod))
    }

    /// Puts another host in the place of one, with what is on it. Returns the former.
    pub(crate) fn replace(&mut self, index: usize, mut host: Host<'a>) -> Host<'a> {
        self.enroll(&mut host);
        let place = self.place_in_order(index);
        let former = std::mem::replace(&mut self.hosts[index], host);
        for (host, by) in [(&former, -1), (&self.hosts[index], 1)] {
            if !host.gone {
                count(&mut self.counts, &mut self.volumes, &self.classes, host, by);
            }
        }
        self.move_in_order(place, index);
        former
    }

    /// Puts the pod there.
    pub(crate) fn put(&mut self, pod: &'a Pod, index: usize) {
        let place = self.place_in_order(index);
        let Some(host) = self.hosts.get_mut(index) else {
            return;
        };
        host.add(pod);
        if !host.gone {
            let shape = self.classes.shape(pod);
            self.counts.change(shape, host, 1);
            self.volumes.change(shape, pod, host, 1);
        }
        self.move_in_order(place, index);
    }

    /// Takes it back.
    pub(crate) fn take(&mut self, pod: &Pod, index: usize) {
        let place = self.place_in_order(index);
        let Some(host) = self.hosts.get_mut(index) else {
            return;
        };
        if host.take(pod) && !host.gone {
            let shape = self.classes.shape(pod);
            self.counts.change(shape, host, -1);
            self.volumes.change(shape, pod, host, -1);
        }
        self.move_in_order(place, index);
    }

    /// Where a host stands, or would stand, in the order.
    fn place_in_order(&self, index: usize) -> usize {
        let hosts = &self.hosts;
        self.order
            .partition_point(|other| in_order(hosts, *other, index) == Ordering::Less)
    }

    /// Moves a host from its former place to where its fullness now belongs.
    fn move_in_order(&mut self, from: usize, index: usize) {
        let hosts = &self.hosts;
        let is_before = |other: &usize| in_order(hosts, *other, index) == Ordering::Less;
        let forward = self.order[..from].partition_point(is_before);
        if forward < from {
            self.order[forward..=from].rotate_right(1);
        } else {
            let back = from + 1 + self.order[from + 1..].partition_point(is_before);
            self.order[from..back].rotate_left(1);
        }
    }
}

/// The order in which hosts are tried.
fn in_order(hosts: &[Host<'_>], a: usize, b: usize) -> Ordering {
    let coming = |index: usize| matches!(hosts[index].place, Place::Launching(_));
    coming(a)
        .cmp(&coming(b))
        .then_with(|| hosts[b].fullness.total_cmp(&hosts[a].fullness))
        .then(a.cmp(&b))
}

/// Counts a host and what is on it in (1) or out (-1).
fn count(
    counts: &mut Counts<'_>,
    volumes: &mut Volumes<'_>,
    classes: &Classes<'_>,
    host: &Host<'_>,
    by: i64,
) {
    counts.change_host(host, by);
    for pod in &host.pods {
        let shape = classes.shape(pod);
        counts.change(shape, host, by);
        volumes.change(shape, pod, host, by);
    }
}

/// A node of the cluster, without its pods. Those without taints share one empty list.
fn existing<'a>(
    node: &Node,
    index: usize,
    policy: &Policy,
    now: Timestamp,
    untainted: &Arc<[Taint]>,
) -> Host<'a> {
    let young = node.is_younger_than(SETTLING, now);
    let pool = policy.pool_index_of(node);
    let startup: &[Arc<str>] = match pool {
        Some(pool) if young => &policy.pools[pool].startup_taints,
        _ => &[],
    };
    let settling = young && !node.ready;
    let goes_away = |taint: &Taint| (settling && taint.marks_a_start()) || startup.contains(&taint.key);
    let taints = if node.taints.is_empty() {
        Arc::clone(untainted)
    } else {
        let stay = node.taints.iter().filter(|taint| !goes_away(taint));
        stay.cloned().collect()
    };
    let usable = !node.unschedulable && !node.being_deleted;
    Host {
        place: Place::Existing(index),
        pool,
        name: node.name.shared(),
        labels: Arc::clone(&node.labels),
        taints,
        allocatable: node.allocatable.clone(),
        used: Resources::default(),
        pods: Vec::new(),
        bound: Vec::new(),
        fullness: 0.0,
        kind: 0,
        domains: Vec::new(),
        accepts: usable && (node.ready || young),
        is_destination: usable && node.ready,
        gone: false,
    }
}
