//! The coordinator's Kubernetes adapters against a real API server, as its service account, with the rights of
//! `packaging/kubernetes/rbac.yaml` and no others.
//!
//! One control plane serves all tests that leave it whole, each in a namespace and on nodes of its own: it takes longer to
//! start than most of them take.

mod binding;
mod events;
mod join_tokens;
mod nodes;
mod outage;
mod packaging;
mod policy;
mod rbac;
mod rights;
mod steering;
mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use kube::{Api, Client};
use smartscale_coordinator::kubernetes::{api, client, clock::ClusterClock, nodes::KubeNodes, watch::Watch};
use smartscale_coordinator::observe::ClusterView as _;
use smartscale_manifests::Objects;
use smartscale_proto::time::SystemClock;
use smartscale_tests::rig::kubernetes::{NodeBuilder, PodBuilder, budget};
use smartscale_tests::rig::{Folder, Kubernetes, Kwok, wait};
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

const DEADLINE: Duration = Duration::from_secs(60);

/// Where all tests of the shared cluster run: connections of a client end with the runtime that opened them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The shared cluster while a test uses it; it ends with the last one.
static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());

/// A cluster with KWOK's nodes, and the way in that a coordinator has.
struct World {
    // Dropped in this order: clients before servers.
    kwok: Kwok,
    cluster: Kubernetes,
    kubeconfig: PathBuf,
    folder: Folder,
}

/// Runs a test in the shared cluster.
fn shared<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F) {
    let world = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let world = Arc::new(RUNTIME.block_on(World::start()).unwrap());
            *shared = Arc::downgrade(&world);
            world
        })
    };
    // Its last user may be another test, which does not know that this one failed.
    let _kept = KeepIfPanicking(world.folder.clone());
    RUNTIME.block_on(test(world));
}

struct KeepIfPanicking(Folder);

impl Drop for KeepIfPanicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.keep();
        }
    }
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let folder = Folder::new("kubernetes-adapters")?;
        let cluster = Kubernetes::start(&folder).await?;
        let kwok = Kwok::start(&folder, &cluster).await?;
        let kubeconfig = cluster.coordinator_kubeconfig().await?;
        Ok(Self {
            kwok,
            cluster,
            kubeconfig,
            folder,
        })
    }

    /// The coordinator's client.
    async fn coordinator(&self) -> Client {
        coordinator(&self.kubeconfig).await
    }

    /// The coordinator's hand on nodes.
    async fn nodes(&self) -> KubeNodes {
        KubeNodes::new(api(self.coordinator().await))
    }

    /// The coordinator's watch, running.
    async fn watch(&self) -> Watching {
        Watching::start(self.coordinator().await)
    }

    /// A node of KWOK's, Ready.
    async fn node(&self, node: NodeBuilder) {
        self.kwok.create_nodes([node]).await.unwrap();
    }

    /// What a test created, read and changed by somebody who may do everything.
    fn admin<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Api::all(self.cluster.client())
    }

    async fn read_node(&self, name: &str) -> Node {
        self.admin::<Node>().get(name).await.unwrap()
    }

    /// A namespace of the test's own.
    async fn place(self: &Arc<Self>, name: &'static str) -> Place {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        create(&self.admin(), &namespace).await;
        Place {
            name,
            client: self.cluster.client(),
        }
    }
}

/// A namespace, in the hands of somebody who may do everything.
#[derive(Clone)]
struct Place {
    name: &'static str,
    client: Client,
}

impl Place {
    fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), self.name)
    }

    /// Creates a pod; its UID.
    async fn pod(&self, pod: PodBuilder) -> String {
        let mut pod = pod.build();
        pod.metadata.namespace = Some(self.name.to_owned());
        create(&self.all(), &pod).await.metadata.uid.unwrap()
    }

    /// Creates a pod and waits until it is Ready.
    async fn ready_pod(&self, pod: PodBuilder) -> String {
        let uid = self.pod(pod).await;
        let pods = self.all::<Pod>();
        wait::until_true("a Ready pod", DEADLINE, || async {
            let all = pods.list(&kube::api::ListParams::default()).await?;
            let pod = all
                .items
                .into_iter()
                .find(|pod| pod.metadata.uid.as_deref() == Some(&*uid));
            let conditions = pod.and_then(|pod| pod.status?.conditions).unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|all| all.type_ == "Ready" && all.status == "True"))
        })
        .await
        .unwrap();
        uid
    }

    /// Takes a pod away at once.
    async fn remove_pod(&self, name: &str) {
        let at_once = kube::api::DeleteParams::default().grace_period(0);
        self.all::<Pod>().delete(name, &at_once).await.unwrap();
    }

    /// The UID of the pod of that name if it is not about to end.
    async fn living(&self, name: &str) -> Option<String> {
        let meta = self.all::<Pod>().get_opt(name).await.unwrap()?.metadata;
        meta.uid.filter(|_| meta.deletion_timestamp.is_none())
    }

    /// A budget that keeps `min_available` pods of `app=app`, once the controller has counted `allowed` disruptions.
    async fn budget(&self, name: &str, app: &str, min_available: i32, allowed: i32) {
        let mut budget = budget(app, min_available);
        budget.metadata.namespace = Some(self.name.to_owned());
        budget.metadata.name = Some(name.to_owned());
        create(&self.all(), &budget).await;
        self.until_allowed(name, allowed).await;
    }

    async fn until_allowed(&self, name: &str, allowed: i32) {
        let budgets = self.all::<PodDisruptionBudget>();
        let what = format!("budget {name} to allow {allowed}");
        wait::until_true(&what, DEADLINE, || async {
            let status = budgets.get(name).await?.status;
            Ok(status.is_some_and(|status| {
                status.observed_generation.is_some() && status.disruptions_allowed == Some(allowed)
            }))
        })
        .await
        .unwrap();
    }
}

async fn create<K>(api: &Api<K>, object: &K) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&kube::api::PostParams::default(), object)
        .await
        .unwrap()
}

/// The client that a coordinator makes of this kubeconfig.
async fn coordinator(kubeconfig: &std::path::Path) -> Client {
    let settings = client::Settings {
        kubeconfig: Some(kubeconfig.to_owned()),
        ..client::Settings::default()
    };
    let clock = Arc::new(ClusterClock::new(Arc::new(SystemClock)));
    client::connect(&settings, &clock).await.unwrap()
}

fn api(client: Client) -> api::Api {
    api::Api::new(client, Arc::new(SystemClock))
}

/// A client before whose evictions and patches something else happens first: what races are made of.
fn overtaken<F>(client: Client, first: impl Fn() -> F + Send + Sync + 'static) -> Client
where
    F: Future<Output = ()> + Send + 'static,
{
    let first = Arc::new(first);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, first) = (client.clone(), Arc::clone(&first));
        let answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            let is_patch = request.method() == http::Method::PATCH;
            if is_patch || request.uri().path().ends_with("/eviction") {
                first().await;
            }
            client.send(request).await
        });
        answer
    });
    Client::new(service, "default")
}

/// A watch that runs until it is dropped.
struct Watching {
    watch: Arc<Watch>,
    _stop: DropGuard,
}

impl Watching {
    fn start(client: Client) -> Self {
        let watch = Watch::new(api(client));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&watch).run(stop.clone()));
        Self {
            watch,
            _stop: stop.drop_guard(),
        }
    }

    /// Waits until the watch has seen this, and gives what it has then.
    async fn until(&self, what: &str, holds: impl Fn(&Objects) -> bool) -> Arc<Objects> {
        let seen = wait::until(what, DEADLINE, || async {
            let latest = self.watch.latest();
            if let (None, Some(error)) = (&latest.value, &latest.error) {
                anyhow::bail!("{error}");
            }
            Ok(latest.value.filter(|objects| holds(objects)))
        });
        seen.await.unwrap()
    }
}

/// Kinds and names of what a snapshot exports, such as `Node i-1` and `Pod shop/web`.
fn exported(objects: &Objects) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(&objects.to_list_json().unwrap()).unwrap();
    let text = |item: &serde_json::Value, path: &str| {
        item.pointer(path)
            .and_then(|text| text.as_str().map(str::to_owned))
    };
    let named = list["items"].as_array().unwrap().iter().map(|item| {
        let namespace = text(item, "/metadata/namespace").map(|namespace| namespace + "/");
        let (kind, name) = (text(item, "/kind"), text(item, "/metadata/name"));
        format!(
            "{} {}{}",
            kind.unwrap(),
            namespace.unwrap_or_default(),
            name.unwrap()
        )
    });
    named.collect()
}
