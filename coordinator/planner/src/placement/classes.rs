//! Pods that are alike for every filter, and nodes that are alike for every pod.
//!
//! ```text
//! pod ─▶ shape  all that filters ask for but requests     node ─▶ kind  labels that anybody asks for, taints
//!     ─▶ class  shape and requests
//! ```
//!
//! A question about a shape and a kind is answered once. Labels that no selector mentions (a StatefulSet's ordinal, a
//! hostname) make no difference, hence no class of their own; nor do preferences, which no filter reads. Numbers depend
//! on the order of the input: no decision may hang on them.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::Arc,
};

use super::known::{Fact, Known, Token};
use crate::model::{Cluster, LabelSelector, Labels, NodeTerm, Pod, SpreadConstraint, Taint, VolumeSource};

/// A fast hash for keys that nobody outside chooses with ill intent: multiply and rotate, as rustc's own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        // The upper bits are the well mixed ones, and tables take the lower.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(word) ^ bytes.len() as u64);
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
}

/// A map by the fast hash.
pub(crate) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// A set by the fast hash.
pub(crate) type QuickSet<K> = HashSet<K, BuildHasherDefault<Quick>>;

/// Number of a class.
pub(crate) type ClassId = usize;
/// Number of a shape.
pub(crate) type ShapeId = usize;
/// Number of a kind.
pub(crate) type KindId = usize;

/// All classes of a cluster's pods, of its DaemonSets' and of those that are only thought of.
#[derive(Clone, Debug)]
pub(crate) struct Classes<'a> {
    /// Of the cluster's pods, by their index.
    pub(crate) of_cluster: Vec<ClassId>,
    pub(crate) facts: Arc<Vec<Fact>>,
    pub(super) node_names: Arc<QuickMap<Arc<str>, u32>>,
    /// A pod is known by its address: those of the cluster have tokens, and each token is of a class.
    tokens: Arc<QuickMap<usize, Token>>,
    of_token: Vec<ClassId>,
    others: QuickMap<usize, ClassId>,
    /// One pod of each class.
    pub(super) samples: Vec<&'a Pod>,
    /// Shape of each class.
    shape_of: Vec<ShapeId>,
    /// One pod of each shape.
    pub(crate) shapes: Vec<&'a Pod>,
    /// Whether pods of the shape have volumes that tie them to something.
    pub(super) ties: Vec<bool>,
    /// Labels of nodes that anybody asks for.
    node_keys: QuickSet<Arc<str>>,
    names_nodes: bool,
    kinds: QuickMap<KindKey, KindId>,
}

/// Labels that are asked for, taints, and the name if somebody asks for names.
type KindKey = (Vec<(Arc<str>, Arc<str>)>, Arc<[Taint]>, Option<Arc<str>>);

/// A pod seen as its shape: equal if no filter can tell the two apart but by their requests.
struct ByShape<'a, 'k> {
    pod: &'a Pod,
    pod_keys: &'k QuickSet<&'a str>,
}

impl<'a> ByShape<'a, '_> {
    fn labels(&self) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)> {
        self.pod
            .labels
            .iter()
            .filter(|(key, _)| self.pod_keys.contains(&***key))
    }
}

impl Hash for ByShape<'_, '_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pod = self.pod;
        pod.key.namespace.hash(state);
        self.labels().for_each(|label| label.hash(state));
        pod.node_selector.hash(state);
        pod.node_affinity.required.hash(state);
        pod.tolerations.hash(state);
        pod.pod_affinity.hash(state);
        pod.pod_anti_affinity.hash(state);
        hard_spread(pod).for_each(|constraint| constraint.hash(state));
        pod.host_ports.hash(state);
        volumes(pod).for_each(|volume| volume.hash(state));
    }
}

impl PartialEq for ByShape<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.pod, other.pod);
        a.key.namespace == b.key.namespace
            && self.labels().eq(other.labels())
            && a.node_selector == b.node_selector
            && a.node_affinity.required == b.node_affinity.required
            && a.tolerations == b.tolerations
            && a.pod_affinity == b.pod_affinity
            && a.pod_anti_affinity == b.pod_anti_affinity
            && hard_spread(a).eq(hard_spread(b))
            && a.host_ports == b.host_ports
            && a.is_terminating() == b.is_terminating()
            && a.resource_claims == b.resource_claims
            && volumes(a).eq(volumes(b))
    }
}

impl Eq for ByShape<'_, '_> {}

impl<'a> Classes<'a> {
    /// Classes of the cluster's pods, its DaemonSets' and `others`; `known` is what earlier plans found out.
    pub(crate) fn new(cluster: &'a Cluster, others: &'a [Pod], known: &mut Known) -> Self {
        let further = || {
            others
                .iter()
                .chain(cluster.daemon_sets.iter().map(|set| &set.template))
        };
        known.update(&cluster.pods);
        // Of pods that were alike one speaks for all.
        let mut heard = vec![false; known.tokens()];
        let mut speaks = |(pod, fact): (&'a Arc<Pod>, &Fact)| {
            let is_first = fact
                .token
                .is_none_or(|token| !std::mem::replace(&mut heard[token as usize], true));
            is_first.then_some(&**pod)
        };
        let mut pod_keys: QuickSet<&'a str> = HashSet::default();
        let mut node_keys: QuickSet<Arc<str>> = QuickSet::default();
        let mut names_nodes = false;
        let asking = cluster.pods.iter().zip(&*known.facts).filter_map(&mut speaks);
        for pod in asking.chain(further()) {
            let terms = pod.pod_affinity.iter().chain(&pod.pod_anti_affinity);
            for selector in terms.filter_map(|term| term.selector.as_ref()) {
                pod_keys.extend(keys(selector));
            }
            for selector in hard_spread(pod).filter_map(|spread| spread.selector.as_ref()) {
                pod_keys.extend(keys(selector));
            }
            node_keys.extend(pod.node_selector.keys().cloned());
            for term in pod.node_affinity.required.iter().flatten() {
                names_nodes |= mention(term, &mut node_keys);
            }
        }
        for budget in &cluster.disruption_budgets {
            pod_keys.extend(budget.selector.iter().flat_map(keys));
        }
        let reachable = cluster.volumes.iter().flat_map(|v| v.node_terms.iter().flatten());
        let allowed = cluster.storage_classes.iter().flat_map(|c| &c.allowed_topologies);
        for term in reachable.chain(allowed) {
            names_nodes |= mention(term, &mut node_keys);
        }

        let mut shapes: Vec<&'a Pod> = Vec::new();
        let mut shape_of = Vec::new();
        let mut samples = Vec::new();
        let mut by_shape: QuickMap<ByShape<'a, '_>, ShapeId> = QuickMap::default();
        let mut by_class = QuickMap::default();
        let mut class = |pod: &'a Pod| {
            let key = ByShape {
                pod,
                pod_keys: &pod_keys,
            };
            let shape = *by_shape.entry(key).or_insert_with(|| {
                shapes.push(pod);
                shapes.len() - 1
            });
            *by_class.entry((shape, &pod.requests)).or_insert_with(|| {
                shape_of.push(shape);
                samples.push(pod);
                shape_of.len() - 1
            })
        };
        known.hold_for(&pod_keys);
        let mut of_token: Vec<Option<ClassId>> = vec![None; known.tokens()];
        let of_cluster: Vec<ClassId> = cluster
            .pods
            .iter()
            .zip(&*known.facts)
            .map(|(pod, fact)| match fact.token {
                Some(token) => *of_token[token as usize].get_or_insert_with(|| class(pod)),
                None => class(pod),
            })
            .collect();
        let others = further().map(|pod| (address(pod), class(pod))).collect();
        known.learn(&cluster.pods, &of_cluster, samples.len());
        let mut of_token = vec![0; known.tokens()];
        for (fact, class) in known.facts.iter().zip(&of_cluster) {
            fact.token
                .into_iter()
                .for_each(|token| of_token[token as usize] = *class);
        }
        let ties = shapes.iter().map(|pod| volumes(pod).next().is_some()).collect();
        Self {
            ties,
            of_cluster,
            facts: Arc::clone(&known.facts),
            node_names: Arc::clone(&known.names),
            tokens: Arc::clone(&known.tokens),
            of_token,
            others,
            samples,
            shape_of,
            shapes,
            node_keys,
            names_nodes,
            kinds: QuickMap::default(),
        }
    }

    /// The class of a pod of the cluster, of a DaemonSet or of those given beside them.
    pub(crate) fn class(&self, pod: &Pod) -> ClassId {
        let address = address(pod);
        let of_cluster = self
            .tokens
            .get(&address)
            .map(|token| &self.of_token[*token as usize]);
        let known = of_cluster.or_else(|| self.others.get(&address));
        *known.unwrap_or_else(|| unreachable!("a pod of another cluster"))
    }

    /// How many classes there are.
    pub(super) fn number(&self) -> usize {
        self.samples.len()
    }

    /// The lowest priority of a pod that has a node.
    pub(crate) fn lowest_priority(&self) -> Option<i32> {
        let bound = self.facts.iter().filter(|fact| fact.node.is_some());
        bound.map(|fact| fact.priority).min()
    }

    /// The shape of a class.
    pub(crate) fn shape_of(&self, class: ClassId) -> ShapeId {
        self.shape_of[class]
    }

    /// The shape of a pod.
    pub(crate) fn shape(&self, pod: &Pod) -> ShapeId {
        self.shape_of[self.class(pod)]
    }

    /// Whether any pod or volume tells nodes apart by name or hostname.
    pub(super) fn names_nodes(&self) -> bool {
        self.names_nodes || self.node_keys.contains(crate::model::keys::HOSTNAME)
    }

    /// How many kinds of nodes there are so far.
    pub(super) fn kinds(&self) -> usize {
        self.kinds.len()
    }

    /// The kind of a node.
    pub(super) fn kind(&mut self, name: &Arc<str>, labels: &Labels, taints: &Arc<[Taint]>) -> KindId {
        let asked = labels
            .iter()
            .filter(|(key, _)| self.node_keys.contains(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let key = (asked, Arc::clone(taints), self.names_nodes.then(|| name.clone()));
        let next = self.kinds.len();
        *self.kinds.entry(key).or_insert(next)
    }
}

/// Volumes that may tie a pod to a place.
fn volumes(pod: &Pod) -> impl Iterator<Item = &VolumeSource> {
    let ties =
        |source: &&VolumeSource| matches!(source, VolumeSource::Claim(_) | VolumeSource::OwnClaim { .. });
    pod.volumes.iter().map(|volume| &volume.source).filter(ties)
}

/// Spread constraints that must hold.
fn hard_spread(pod: &Pod) -> impl Iterator<Item = &SpreadConstraint> {
    pod.spread.iter().filter(|constraint| constraint.is_hard())
}

pub(super) fn address(pod: &Pod) -> usize {
    std::ptr::from_ref(pod).addr()
}

/// Labels that a selector asks for.
fn keys(selector: &LabelSelector) -> impl Iterator<Item = &str> {
    let expressions = selector.match_expressions.iter().map(|r| &*r.key);
    selector.match_labels.keys().map(|key| &**key).chain(expressions)
}

/// Takes up the labels that a term asks for. Returns whether it asks for names.
fn mention(term: &NodeTerm, keys: &mut QuickSet<Arc<str>>) -> bool {
    keys.extend(term.expressions.iter().map(|r| r.key.clone()));
    !term.fields.is_empty()
}
