//! The cluster: what is put into it, what is read back, and when the scheduler has had its say.

use std::{
    cell::Cell,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::DaemonSet,
        core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
        node::v1::RuntimeClass,
        storage::v1::StorageClass,
    },
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use smartscale_manifests::{Objects, read};
use smartscale_planner::{Plan, Policy, Snapshot, model::PodKey};
use smartscale_tests::rig::{Kwok, kubernetes::NodeBuilder, wait};
use tokio::task::JoinSet;

use crate::{launched::new_node, names::NAMESPACES, shapes::Shape};

const DEADLINE: Duration = Duration::from_secs(60);
/// The scheduler tries a pod again after some seconds at most while nodes join.
const QUIET: Duration = Duration::from_secs(5);

/// Pods of the workload bear it; those of DaemonSets do not.
pub(crate) const WORKLOAD: &str = "let-loose";

/// What `kubectl get` would ask for.
const LISTS: [&str; 10] = [
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/namespaces",
    "/api/v1/persistentvolumes",
    "/api/v1/persistentvolumeclaims",
    "/apis/apps/v1/daemonsets",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/storage.k8s.io/v1/csinodes",
    "/apis/storage.k8s.io/v1/storageclasses",
];

pub(crate) struct World {
    client: Client,
    kwok: Kwok,
}

impl World {
    pub(crate) fn new(client: Client, kwok: Kwok) -> Self {
        Self { client, kwok }
    }

    /// What all shapes count on.
    pub(crate) async fn prepare(&self) {
        for (name, team) in NAMESPACES.iter().zip(["", "a", "b"]).skip(1) {
            let namespace = json!({ "metadata": { "name": name, "labels": { "team": team } } });
            create::<Namespace>(Api::all(self.client.clone()), namespace).await;
        }
        let class = json!({ "metadata": { "name": "by-hand" }, "provisioner": "kubernetes.io/no-provisioner",
                            "volumeBindingMode": "WaitForFirstConsumer" });
        create::<StorageClass>(Api::all(self.client.clone()), class).await;
        let class = json!({ "metadata": { "name": "vm" }, "handler": "vm",
                            "overhead": { "podFixed": { "cpu": "250m", "memory": "120Mi" } } });
        create::<RuntimeClass>(Api::all(self.client.clone()), class).await;
    }

    pub(crate) async fn create(&self, shape: &Shape) {
        self.join(shape.nodes.iter().cloned()).await;
        for set in &shape.daemon_sets {
            create::<DaemonSet>(self.namespaced(set), set.clone()).await;
        }
        for volume in &shape.volumes {
            create::<PersistentVolume>(Api::all(self.client.clone()), volume.clone()).await;
        }
        for claim in &shape.claims {
            create::<PersistentVolumeClaim>(self.namespaced(claim), claim.clone()).await;
        }
        self.until_claims_are_bound().await;
        // What runs already comes before anything that waits.
        let (bound, waiting): (Vec<_>, Vec<_>) = shape
            .pods
            .iter()
            .partition(|pod| pod["spec"].get("nodeName").is_some());
        for pods in [bound, waiting] {
            let mut all = JoinSet::new();
            for pod in pods {
                all.spawn(create::<Pod>(self.namespaced(pod), pod.clone()));
            }
            all.join_all().await;
        }
    }

    fn namespaced<K>(&self, object: &Value) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn join(&self, nodes: impl Iterator<Item = Value>) {
        let nodes = nodes.map(|node| NodeBuilder::from(serde_json::from_value::<Node>(node).unwrap()));
        self.kwok.create_nodes(nodes).await.unwrap();
    }

    async fn until_claims_are_bound(&self) {
        let claims = Api::<PersistentVolumeClaim>::all(self.client.clone());
        wait::until_true("the claims to be bound", DEADLINE, || async {
            let all = claims.list(&ListParams::default()).await?.items;
            Ok(all.into_iter().all(|claim| {
                let phase = claim.status.and_then(|status| status.phase);
                phase.is_some_and(|phase| phase == "Bound")
            }))
        })
        .await
        .unwrap();
    }

    /// What the planner makes of the objects as they are now.
    pub(crate) async fn plan(&self, policy: &Policy) -> Plan {
        let mut objects = Objects::default();
        for list in LISTS {
            let request = http::Request::get(list).body(Vec::new()).unwrap();
            let text = self.client.request_text(request).await.unwrap();
            for object in read::objects(&text, read::Format::Json).unwrap() {
                objects.apply(object);
            }
        }
        let now = Timestamp::now();
        let (cluster, bad) = objects.to_cluster(now);
        assert!(bad.is_empty(), "{bad:?}");
        let snapshot = Snapshot {
            cluster,
            ..Snapshot::default()
        };
        smartscale_planner::plan(&snapshot, policy, now)
    }

    /// Lets the plan's nodes join, each of its first type.
    pub(crate) async fn launch(&self, name: &str, plan: &Plan, policy: &Policy) {
        let node = |(index, launch): (usize, &smartscale_planner::Launch)| {
            let pool = policy.pool(launch.pool.as_str()).unwrap();
            let spec = &policy.types[&launch.instance_types[0]];
            new_node(
                &format!("{name}-{index}"),
                pool,
                spec,
                &launch.zone,
                launch.market,
            )
        };
        self.join(plan.launch.iter().enumerate().map(node)).await;
    }

    async fn workload(&self) -> kube::Result<Vec<Pod>> {
        let pods = Api::<Pod>::all(self.client.clone());
        Ok(pods.list(&ListParams::default().labels(WORKLOAD)).await?.items)
    }

    /// Waits until the scheduler has looked at every pod.
    pub(crate) async fn until_seen(&self, pods: usize) {
        wait::until_true("the scheduler to have seen all pods", DEADLINE, || async {
            let all = self.workload().await?;
            Ok(all.len() == pods && all.iter().all(|pod| is_bound(pod) || !last_word(pod).is_empty()))
        })
        .await
        .unwrap();
    }

    /// Waits until each of these pods is bound or refused by all nodes that there are now (the scheduler says of how
    /// many), or none of them was bound for a while: a pod to which no new node matters is not tried again.
    pub(crate) async fn until_settled(&self, pods: &BTreeSet<PodKey>) {
        let nodes = Api::<Node>::all(self.client.clone());
        let nodes = nodes
            .list_metadata(&ListParams::default())
            .await
            .unwrap()
            .items
            .len();
        let refused = format!("0/{nodes} nodes are available");
        let last = Cell::new((usize::MAX, Instant::now()));
        wait::until_true("the scheduler to come to rest", DEADLINE, || async {
            let unbound = self.unbound(pods).await;
            if unbound.len() != last.get().0 {
                last.set((unbound.len(), Instant::now()));
            }
            let all_refused = unbound.iter().all(|pod| last_word(pod).starts_with(&refused));
            Ok(all_refused || last.get().1.elapsed() > QUIET)
        })
        .await
        .unwrap();
    }

    /// Those of the pods that are not bound.
    pub(crate) async fn unbound(&self, pods: &BTreeSet<PodKey>) -> Vec<Pod> {
        let mut all = self.workload().await.unwrap();
        all.retain(|pod| !is_bound(pod) && pods.contains(&key(pod)));
        all
    }

    pub(crate) async fn until_bound(&self, shape: &str, pods: &BTreeSet<PodKey>) -> anyhow::Result<()> {
        wait::until_true(
            &format!("{shape}: all placed pods to be bound"),
            DEADLINE,
            || async {
                let unbound = self.unbound(pods).await;
                if unbound.is_empty() {
                    return Ok(true);
                }
                let each = unbound
                    .iter()
                    .map(|pod| format!("{}: {}", key(pod), last_word(pod)));
                anyhow::bail!("{}", each.collect::<Vec<_>>().join("\n"))
            },
        )
        .await
    }

    /// Takes nodes and pods away again.
    pub(crate) async fn clear(&self) {
        let at_once = DeleteParams::default().grace_period(0);
        let every = ListParams::default();
        for namespace in NAMESPACES {
            let sets = Api::<DaemonSet>::namespaced(self.client.clone(), namespace);
            sets.delete_collection(&DeleteParams::default(), &every)
                .await
                .unwrap();
            let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
            pods.delete_collection(&at_once, &every).await.unwrap();
        }
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.delete_collection(&at_once, &every).await.unwrap();
        let pods = Api::<Pod>::all(self.client.clone());
        wait::until_true("the cluster to be empty", DEADLINE, || async {
            let left = pods.list_metadata(&every).await?.items.len()
                + nodes.list_metadata(&every).await?.items.len();
            Ok(left == 0)
        })
        .await
        .unwrap();
    }
}

async fn create<K>(api: Api<K>, object: Value)
where
    K: kube::Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// Why the scheduler has not bound it; empty before it has tried.
fn last_word(pod: &Pod) -> &str {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled")
        .and_then(|condition| condition.message.as_deref())
        .unwrap_or_default()
}

fn key(pod: &Pod) -> PodKey {
    let meta = &pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default())
        .parse()
        .unwrap()
}
