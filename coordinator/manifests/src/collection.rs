//! All objects of a cluster by kind and name, kept as what they mean.
//!
//! A watch applies and removes objects one by one; files apply them all once. Each is converted when it arrives, so
//! that a cluster is put together from ready parts and a bad object is known by name from its arrival to its removal.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use smartscale_planner::model;

use crate::{
    convert::{self, BadObject, Field, Kind},
    deletion_cost::DeletionCost,
    export::{self, Originals},
    meta::ObjectMeta,
    node, pod, storage, workload,
};

/// An object of any kind that is read.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is the kind of its name")]
#[allow(clippy::large_enum_variant, reason = "objects are handed over one by one")]
pub enum Object {
    Node(node::Node),
    Pod(pod::Pod),
    PodDisruptionBudget(workload::PodDisruptionBudget),
    DaemonSet(workload::DaemonSet),
    ReplicaSet(workload::ReplicaSet),
    StatefulSet(workload::StatefulSet),
    Deployment(workload::Deployment),
    Job(workload::Job),
    PersistentVolume(storage::PersistentVolume),
    PersistentVolumeClaim(storage::PersistentVolumeClaim),
    StorageClass(storage::StorageClass),
    CsiNode(storage::CsiNode),
    Namespace(workload::Namespace),
    PriorityClass(workload::PriorityClass),
}

macro_rules! each_kind {
    ($($kind:ident: $type:ty),+ $(,)?) => {
        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)+ }
            }

            /// Its metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata,)+ }
            }

            pub(crate) fn metadata_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$kind(object) => &mut object.metadata,)+ }
            }

            /// As JSON with its type.
            pub(crate) fn json(&self) -> Option<String> {
                match self { $(Self::$kind(object) => export::json(Kind::$kind, object),)+ }
            }

            /// The object of this kind in a value (or a reference to one), as a watch gets it.
            ///
            /// # Errors
            /// Names the path of the field whose type is another.
            pub fn from_value<'de, V: serde::Deserializer<'de>>(
                kind: Kind,
                value: V,
            ) -> Result<Self, serde_path_to_error::Error<V::Error>> {
                Ok(match kind { $(Kind::$kind => Self::$kind(serde_path_to_error::deserialize(value)?),)+ })
            }
        }

        $(impl From<$type> for Object {
            fn from(object: $type) -> Self {
                Self::$kind(object)
            }
        })+
    };
}
each_kind!(
    Node: node::Node,
    Pod: pod::Pod,
    PodDisruptionBudget: workload::PodDisruptionBudget,
    DaemonSet: workload::DaemonSet,
    ReplicaSet: workload::ReplicaSet,
    StatefulSet: workload::StatefulSet,
    Deployment: workload::Deployment,
    Job: workload::Job,
    PersistentVolume: storage::PersistentVolume,
    PersistentVolumeClaim: storage::PersistentVolumeClaim,
    StorageClass: storage::StorageClass,
    CsiNode: storage::CsiNode,
    Namespace: workload::Namespace,
    PriorityClass: workload::PriorityClass,
);

/// Namespace (empty for kinds without one) and name.
pub(crate) type Key = (String, String);

/// A converted pod, and what decides whether it is handed on as it is: most are, and are not read again.
#[derive(Clone, Debug)]
struct StoredPod {
    pod: Arc<model::Pod>,
    terminates: bool,
    /// The class that gives it its priority if it was never admitted.
    priority_class: Option<String>,
    has_priority: bool,
}

impl StoredPod {
    fn new(pod: model::Pod, priority_class: Option<String>, has_priority: bool) -> Self {
        Self {
            terminates: pod.is_terminating(),
            pod: pod.into(),
            priority_class,
            has_priority,
        }
    }
}

/// All objects of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    nodes: BTreeMap<Key, model::Node>,
    pods: BTreeMap<Key, StoredPod>,
    deletion_costs: BTreeMap<Key, DeletionCost>,
    budgets: BTreeMap<Key, model::DisruptionBudget>,
    daemon_sets: BTreeMap<Key, model::DaemonSet>,
    namespaces: BTreeMap<Key, model::Namespace>,
    claims: BTreeMap<Key, model::Claim>,
    volumes: BTreeMap<Key, model::PersistentVolume>,
    classes: BTreeMap<Key, model::StorageClass>,
    attach_limits: BTreeMap<Key, model::AttachLimits>,
    priorities: BTreeMap<Key, workload::PriorityClass>,
    bad: BTreeMap<(Kind, Key), BadObject>,
    originals: Option<Originals>,
}

impl Objects {
    /// None yet, of which each will also be kept as it came, for [`to_list_json`](Self::to_list_json).
    #[must_use]
    pub fn exportable() -> Self {
        Self {
            originals: Some(Originals::default()),
            ..Self::default()
        }
    }

    /// The objects that a decision reads as a `List`, with the fields that are read; `None` unless they are
    /// [`exportable`](Self::exportable). Reading it gives the same cluster.
    #[must_use]
    pub fn to_list_json(&self) -> Option<String> {
        self.originals.as_ref().map(Originals::list)
    }

    /// Takes an object up, in the place of the one of the same kind, namespace and name.
    pub fn apply(&mut self, object: impl Into<Object>) {
        let object = object.into();
        let kind = object.kind();
        let key = key(kind, object.metadata());
        self.remove(kind, &key.0, &key.1);
        if let Err(bad) = self.insert(&key, &object) {
            self.bad.insert((kind, key.clone()), bad);
        }
        if let Some(originals) = &mut self.originals
            && !matches!(
                kind,
                Kind::ReplicaSet | Kind::StatefulSet | Kind::Deployment | Kind::Job
            )
        {
            originals.keep(key, object);
        }
    }

    /// Takes note of an object that [`Object::from_value`] refused, with the field's path and what is wrong with it. What
    /// it stands for is held still, as for one that cannot be understood ([`to_cluster`](Self::to_cluster)). It is not
    /// exported: nothing could read it.
    pub fn hold(&mut self, kind: Kind, value: &serde_json::Value, path: String, message: String) {
        let Some(outline) = outline(kind, value) else {
            return;
        };
        let key = key(kind, outline.metadata());
        self.remove(kind, &key.0, &key.1);
        match &outline {
            Object::Node(node) => drop(self.nodes.insert(key.clone(), node::placeholder(node))),
            Object::Pod(pod) => {
                let held = pod::placeholder(pod).map(|pod| StoredPod::new(pod, None, true));
                self.pods.extend(held.map(|held| (key.clone(), held)));
            }
            Object::PodDisruptionBudget(budget) => {
                drop(self.budgets.insert(key.clone(), workload::placeholder(budget)));
            }
            _ => {}
        }
        let bad = BadObject {
            kind,
            namespace: kind.is_namespaced().then(|| key.0.clone()),
            name: key.1.clone(),
            path,
            message,
        };
        self.bad.insert((kind, key), bad);
    }

    /// Drops an object; the namespace of kinds without one is ignored. It is no error if it is not there.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        let namespace = if kind.is_namespaced() {
            namespace.to_owned()
        } else {
            String::new()
        };
        let key = (namespace, name.to_owned());
        match kind {
            Kind::Node => drop(self.nodes.remove(&key)),
            Kind::Pod => {
                self.pods.remove(&key);
                self.deletion_costs.remove(&key);
            }
            Kind::PodDisruptionBudget => drop(self.budgets.remove(&key)),
            Kind::DaemonSet => drop(self.daemon_sets.remove(&key)),
            Kind::PersistentVolume => drop(self.volumes.remove(&key)),
            Kind::PersistentVolumeClaim => drop(self.claims.remove(&key)),
            Kind::StorageClass => drop(self.classes.remove(&key)),
            Kind::CsiNode => drop(self.attach_limits.remove(&key)),
            Kind::Namespace => drop(self.namespaces.remove(&key)),
            Kind::PriorityClass => drop(self.priorities.remove(&key)),
            Kind::ReplicaSet | Kind::StatefulSet | Kind::Deployment | Kind::Job => {}
        }
        if let Some(originals) = &mut self.originals {
            originals.remove(kind, &key);
        }
        self.bad.remove(&(kind, key));
    }

    /// Drops all objects of a kind, before a watch lists them anew.
    pub fn clear(&mut self, kind: Kind) {
        match kind {
            Kind::Node => self.nodes.clear(),
            Kind::Pod => {
                self.pods.clear();
                self.deletion_costs.clear();
            }
            Kind::PodDisruptionBudget => self.budgets.clear(),
            Kind::DaemonSet => self.daemon_sets.clear(),
            Kind::PersistentVolume => self.volumes.clear(),
            Kind::PersistentVolumeClaim => self.claims.clear(),
            Kind::StorageClass => self.classes.clear(),
            Kind::CsiNode => self.attach_limits.clear(),
            Kind::Namespace => self.namespaces.clear(),
            Kind::PriorityClass => self.priorities.clear(),
            Kind::ReplicaSet | Kind::StatefulSet | Kind::Deployment | Kind::Job => {}
        }
        if let Some(originals) = &mut self.originals {
            originals.clear(kind);
        }
        self.bad.retain(|(bad, _), _| *bad != kind);
    }

    /// The cluster, and every object that could not be understood. What such an object stands for is held still: a bad
    /// node counts, takes no pods and is never removed; a bad pod fills and keeps its node; a bad disruption budget
    /// covers its namespace with nothing left. Pods whose grace ended long before `now` are left out.
    pub fn to_cluster(&self, now: Timestamp) -> (model::Cluster, Vec<BadObject>) {
        let pods = self
            .pods
            .values()
            .filter(|stored| !stored.terminates || !stored.pod.is_gone(now))
            .map(|stored| self.with_priority(stored))
            .collect();
        let cluster = model::Cluster {
            nodes: self.nodes.values().cloned().collect(),
            pods,
            daemon_sets: self.daemon_sets.values().cloned().collect(),
            disruption_budgets: self.budgets.values().cloned().collect(),
            namespaces: self.namespaces.values().cloned().collect(),
            claims: self.claims.values().cloned().collect(),
            volumes: self.volumes.values().cloned().collect(),
            storage_classes: self.classes.values().cloned().collect(),
            attach_limits: self.attach_limits.values().cloned().collect(),
        };
        (cluster, self.bad.values().cloned().collect())
    }

    /// The pod itself, unless its priority follows from objects that may change.
    fn with_priority(&self, stored: &StoredPod) -> Arc<model::Pod> {
        if stored.has_priority {
            return Arc::clone(&stored.pod);
        }
        let priority = self.priority(stored);
        if priority == stored.pod.priority {
            return Arc::clone(&stored.pod);
        }
        Arc::new(model::Pod {
            priority,
            ..(*stored.pod).clone()
        })
    }

    /// The priority of a pod that was not admitted: that of its class or the default.
    fn priority(&self, stored: &StoredPod) -> i32 {
        match &stored.priority_class {
            Some(name) => match name.as_str() {
                "system-node-critical" => 2_000_001_000,
                "system-cluster-critical" => 2_000_000_000,
                name => self
                    .priorities
                    .get(&(String::new(), name.to_owned()))
                    .map_or(0, |class| class.value),
            },
            None => self
                .priorities
                .values()
                .find(|class| class.global_default)
                .map_or(0, |class| class.value),
        }
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&model::Node> {
        self.nodes.get(&(String::new(), name.to_owned()))
    }

    /// What is said of the deletion of pods, by namespace and name; a pod that is not named says nothing.
    pub fn deletion_costs(&self) -> impl Iterator<Item = ((&str, &str), &DeletionCost)> {
        let said = self.deletion_costs.iter();
        said.map(|((namespace, name), said)| ((namespace.as_str(), name.as_str()), said))
    }

    /// Every object that could not be understood.
    pub fn bad(&self) -> impl Iterator<Item = &BadObject> {
        self.bad.values()
    }

    /// Every node, converted.
    pub fn nodes(&self) -> impl Iterator<Item = &model::Node> {
        self.nodes.values()
    }

    /// How many objects of a kind are known.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Node => self.nodes.len(),
            Kind::Pod => self.pods.len(),
            Kind::PodDisruptionBudget => self.budgets.len(),
            Kind::DaemonSet => self.daemon_sets.len(),
            Kind::PersistentVolume => self.volumes.len(),
            Kind::PersistentVolumeClaim => self.claims.len(),
            Kind::StorageClass => self.classes.len(),
            Kind::CsiNode => self.attach_limits.len(),
            Kind::Namespace => self.namespaces.len(),
            Kind::PriorityClass => self.priorities.len(),
            Kind::ReplicaSet | Kind::StatefulSet | Kind::Deployment | Kind::Job => 0,
        }
    }

    fn insert(&mut self, key: &Key, object: &Object) -> Result<(), BadObject> {
        let key = key.clone();
        match object {
            Object::Node(node) => {
                let converted = model::Node::try_from(node);
                let (node, result) = or_placeholder(converted, || Some(node::placeholder(node)));
                self.nodes.extend(node.map(|node| (key, node)));
                result?;
            }
            Object::Pod(pod) => {
                let said = DeletionCost::of(&pod.metadata);
                self.deletion_costs.extend(said.map(|said| (key.clone(), said)));
                let converted = model::Pod::try_from(pod);
                let (converted, result) = or_placeholder(converted, || pod::placeholder(pod));
                self.pods.extend(converted.map(|converted| {
                    let class = pod.spec.priority_class_name.clone();
                    (key, StoredPod::new(converted, class, pod.spec.priority.is_some()))
                }));
                result?;
            }
            Object::PodDisruptionBudget(budget) => {
                let converted = model::DisruptionBudget::try_from(budget);
                let (budget, result) = or_placeholder(converted, || Some(workload::placeholder(budget)));
                self.budgets.extend(budget.map(|budget| (key, budget)));
                result?;
            }
            Object::DaemonSet(set) => drop(self.daemon_sets.insert(key, set.try_into()?)),
            Object::PersistentVolume(volume) => drop(self.volumes.insert(key, volume.try_into()?)),
            Object::PersistentVolumeClaim(claim) => drop(self.claims.insert(key, claim.try_into()?)),
            Object::StorageClass(class) => drop(self.classes.insert(key, class.try_into()?)),
            Object::CsiNode(node) => drop(self.attach_limits.insert(key, node.try_into()?)),
            Object::Namespace(namespace) => drop(self.namespaces.insert(key, namespace.try_into()?)),
            Object::PriorityClass(class) => drop(self.priorities.insert(key, class.clone())),
            Object::ReplicaSet(_) | Object::StatefulSet(_) | Object::Deployment(_) | Object::Job(_) => {
                let meta = object.metadata();
                let field = |field: Field| field.of(object.kind(), meta);
                convert::name(meta).map_err(field)?;
                convert::time("metadata.creationTimestamp", meta.creation_timestamp.as_deref())
                    .map_err(field)?;
            }
        }
        Ok(())
    }
}

fn or_placeholder<T>(
    converted: Result<T, BadObject>,
    placeholder: impl FnOnce() -> Option<T>,
) -> (Option<T>, Result<(), BadObject>) {
    match converted {
        Ok(object) => (Some(object), Ok(())),
        Err(bad) => (placeholder(), Err(bad)),
    }
}

/// What an object says of who and where it is, as far as that is text.
fn outline(kind: Kind, value: &serde_json::Value) -> Option<Object> {
    let text = |path: &str| value.pointer(path).and_then(serde_json::Value::as_str);
    let mut labels = serde_json::Map::new();
    if let Some(all) = value
        .pointer("/metadata/labels")
        .and_then(serde_json::Value::as_object)
    {
        let written = all.iter().filter(|(_, value)| value.is_string());
        labels.extend(written.map(|(name, value)| (name.clone(), value.clone())));
    }
    let outline = serde_json::json!({
        "metadata": {
            "name": text("/metadata/name")?,
            "namespace": text("/metadata/namespace"),
            "uid": text("/metadata/uid"),
            "deletionTimestamp": text("/metadata/deletionTimestamp"),
            "labels": labels,
        },
        "spec": { "nodeName": text("/spec/nodeName"), "providerID": text("/spec/providerID") },
    });
    Object::from_value(kind, outline).ok()
}

fn key(kind: Kind, meta: &ObjectMeta) -> Key {
    let namespace = if kind.is_namespaced() {
        meta.namespace_or_default().to_owned()
    } else {
        String::new()
    };
    (namespace, meta.name.clone())
}
