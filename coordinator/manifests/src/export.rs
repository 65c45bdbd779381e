//! Objects as they came, for whoever exports a cluster to decide offline about it: each as compact JSON, with only
//! the fields and annotations that are read. That bounds the memory (about a kilobyte a pod), and keeps what people
//! put into annotations, such as the whole applied manifest with its environment, out of exported files.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use smartscale_planner::drainability::ANNOTATIONS;

use crate::{collection::Key, collection::Object, convert::Kind, storage};

/// An object's fields with its type in front.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Typed<'o, T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    object: &'o T,
}

/// The JSON of an object of this kind.
pub(crate) fn json<T: Serialize>(kind: Kind, object: &T) -> Option<String> {
    let typed = Typed {
        api_version: kind.api_version(),
        kind: kind.as_str(),
        object,
    };
    // Text, numbers and maps with text as keys: there is nothing in them that JSON could not say.
    serde_json::to_string(&typed).ok()
}

/// The objects that a decision reads, by kind and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Originals(BTreeMap<(Kind, Key), Arc<str>>);

impl Originals {
    pub(crate) fn keep(&mut self, key: Key, mut object: Object) {
        let read = |name: &str| ANNOTATIONS.contains(&name) || storage::ANNOTATIONS.contains(&name);
        object.metadata_mut().annotations.retain(|name, _| read(name));
        let kind = object.kind();
        if let Some(json) = object.json() {
            self.0.insert((kind, key), json.into());
        }
    }

    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) {
        self.0.remove(&(kind, key.clone()));
    }

    pub(crate) fn clear(&mut self, kind: Kind) {
        self.0.retain(|(kept, _), _| *kept != kind);
    }

    /// A `List`, an object a line, in the order of kinds and names.
    pub(crate) fn list(&self) -> String {
        let mut text = String::from("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
        for (index, json) in self.0.values().enumerate() {
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            text.push_str(json);
        }
        text.push_str("\n]}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use jiff::Timestamp;

    use crate::{Kind, Objects, read};

    const CLUSTER: &str = r#"
apiVersion: v1
kind: Node
metadata:
  name: i-1
  labels: { topology.kubernetes.io/zone: eu-west-1a }
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"secret":"hunter2"}'
spec: { taints: [{ key: a, value: b, effect: NoSchedule }] }
status:
  allocatable: { cpu: "2", memory: 4Gi, pods: "110" }
  conditions: [{ type: Ready, status: "True" }]
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  annotations: { cluster-autoscaler.kubernetes.io/safe-to-evict: "false" }
  ownerReferences: [{ kind: ReplicaSet, name: web, controller: true }]
spec:
  nodeName: i-1
  priorityClassName: high
  containers:
  - name: web
    env: [{ name: PASSWORD, value: hunter2 }]
    resources: { requests: { cpu: 500m, memory: 1Gi } }
status: { phase: Running }
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: { name: web }
spec: { selector: { matchLabels: { app: web } } }
status: { disruptionsAllowed: 1 }
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: { name: high }
value: 7
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local-path
  annotations: { storageclass.kubernetes.io/is-default-class: "true" }
provisioner: rancher.io/local-path
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: Pod
metadata: { name: broken }
spec: { nodeName: i-1, containers: [{ name: a, resources: { requests: { cpu: much } } }] }
"#;

    fn objects(text: &str) -> Objects {
        let mut objects = Objects::exportable();
        for object in read::objects(text, read::Format::Unknown).unwrap() {
            objects.apply(object);
        }
        objects
    }

    #[test]
    fn an_exported_cluster_is_the_cluster_and_holds_no_more_than_is_read() {
        let cluster = objects(CLUSTER);
        let text = cluster.to_list_json().unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let again = objects(&text);
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(again.to_cluster(now), cluster.to_cluster(now));
        assert_eq!(again.count(Kind::Pod), 2);
        assert_eq!(again.bad().count(), 1);
    }

    #[test]
    fn what_is_gone_is_not_exported() {
        let mut cluster = objects(CLUSTER);
        cluster.remove(Kind::Pod, "default", "web-1");
        cluster.clear(Kind::Node);
        let again = objects(&cluster.to_list_json().unwrap());
        assert_eq!((again.count(Kind::Pod), again.count(Kind::Node)), (1, 0));
    }

    #[test]
    fn objects_are_not_kept_unless_asked_for() {
        assert_eq!(Objects::default().to_list_json(), None);
    }
}
