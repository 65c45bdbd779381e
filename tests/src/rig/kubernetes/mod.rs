//! A real Kubernetes control plane: kine (what K3s itself puts under the API server) on SQLite, kube-apiserver,
//! kube-controller-manager, kube-scheduler. No kubelet: nodes come from [`super::Kwok`] or from the boot watcher.
//!
//! ```text
//!  scheduler ─┐
//!  controllers ┼─mTLS─▶ kube-apiserver ──▶ kine ──▶ state.db
//!  test, agent ┘
//! ```

mod accounts;
mod audit;
mod authority;
mod objects;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;

pub use audit::{Call, Eviction, NodeChange};
pub use authority::{Authority, Identity, Pair};
pub use objects::{NodeBuilder, PodBuilder, budget, deployment, node, pod};

use super::process::{Process, Program, serving};
use super::{Folder, cache, port, process, wait};

const DEADLINE: Duration = Duration::from_secs(90);

/// Shortened timings, for tests that would wait minutes otherwise.
#[derive(Debug, Clone)]
pub struct Timings {
    /// A node without heartbeat for this long becomes `Unknown` (Kubernetes' own: 40 s).
    pub node_monitor_grace: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            node_monitor_grace: Duration::from_secs(40),
        }
    }
}

/// A control plane of the test's own.
pub struct Kubernetes {
    // Dropped in this order: clients before servers.
    scheduler: Process,
    controller_manager: Process,
    api_server: Process,
    kine: Process,
    address: SocketAddr,
    access: Access,
    admin_kubeconfig: PathBuf,
    client: Client,
}

/// What it takes to become any identity of the cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access {
    authority: Arc<Authority>,
    url: String,
    folder: Folder,
}

impl Access {
    /// A kubeconfig of the given identity, in a file of the test's folder.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn kubeconfig(&self, identity: &Identity) -> anyhow::Result<PathBuf> {
        let file = identity.user.replace([':', '/'], "-");
        self.authority
            .kubeconfig(&self.folder, &file, &self.url, identity)
    }

    /// The CA that signs all identities.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A kubeconfig of a bearer token, in a file of the test's folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn token_kubeconfig(&self, file: &str, token: &str) -> anyhow::Result<PathBuf> {
        self.authority
            .token_kubeconfig(&self.folder, file, &self.url, token)
    }
}

impl Kubernetes {
    /// Starts one with Kubernetes' own timings.
    ///
    /// # Errors
    /// It is not installed, or does not come up within 90 s.
    pub async fn start(folder: &Folder) -> anyhow::Result<Self> {
        Self::start_with(folder, &Timings::default()).await
    }

    /// Starts one and waits until the API server is ready, the default namespace is there and the scheduler and the
    /// controllers run.
    ///
    /// # Errors
    /// It is not installed, or does not come up within 90 s.
    pub async fn start_with(folder: &Folder, timings: &Timings) -> anyhow::Result<Self> {
        super::install_crypto();
        let authority = Authority::new()?;
        let (kine, datastore) = start_kine(folder).await?;
        let (api_server, address) = start_api_server(folder, &authority, datastore).await?;
        let url = format!("https://{address}");
        let admin_kubeconfig = authority.kubeconfig(folder, "admin", &url, &Identity::admin())?;
        let client = client_of(&admin_kubeconfig).await?;
        let component = |name: &str| {
            let identity = Identity::new(&format!("system:{name}"), None);
            authority.kubeconfig(folder, name, &url, &identity)
        };
        let controller_manager = Program::new(
            "kube-controller-manager",
            cache::installed("bin/kube-controller-manager")?,
        )
        .flag("kubeconfig", component("kube-controller-manager")?)
        .flag("leader-elect", "false")
        .flag("secure-port", "0")
        // Without nodelifecycle the not-ready taint stays, without disruption every eviction under a budget is 429;
        // nodeipam would want a cloud or pod ranges; tokencleaner is not among `*`.
        .flag("controllers", "*,-nodeipam,tokencleaner")
        // Hundreds of pods of one workload appear at once, and not at 20 a second.
        .flag("kube-api-qps", "200")
        .flag("kube-api-burst", "400")
        // Each controller as itself, as in K3s: the controller manager's own identity may do next to nothing.
        .flag("use-service-account-credentials", "true")
        .flag(
            "service-account-private-key-file",
            folder.path().join("kubernetes/service-account.key"),
        )
        .flag("root-ca-file", folder.path().join("kubernetes/ca.crt"))
        .flag(
            "node-monitor-grace-period",
            format!("{}s", timings.node_monitor_grace.as_secs()),
        )
        .flag("v", "1");
        let controller_manager = Process::spawn(controller_manager, folder)?;
        let scheduler = Program::new("kube-scheduler", cache::installed("bin/kube-scheduler")?)
            .flag("kubeconfig", component("kube-scheduler")?)
            .flag("leader-elect", "false")
            .flag("secure-port", "0")
            .flag("v", "1");
        let scheduler = Process::spawn(scheduler, folder)?;
        let access = Access {
            authority: Arc::new(authority),
            url,
            folder: folder.clone(),
        };
        let mut cluster = Self {
            scheduler,
            controller_manager,
            api_server,
            kine,
            address,
            access,
            admin_kubeconfig,
            client,
        };
        cluster.settle().await?;
        Ok(cluster)
    }

    /// `https://127.0.0.1:PORT` of the API server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The CA that signs all identities.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.access.authority
    }

    /// What it takes to become any identity, for who outlives a borrow.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig that may do everything.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// A kubeconfig of the given identity, in a file of the test's folder.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn kubeconfig(&self, identity: &Identity) -> anyhow::Result<PathBuf> {
        self.access.kubeconfig(identity)
    }

    /// A client of the given identity.
    ///
    /// # Errors
    /// As [`Kubernetes::kubeconfig`].
    pub async fn client_of(&self, identity: &Identity) -> anyhow::Result<Client> {
        client_of(&self.kubeconfig(identity)?).await
    }

    /// Every eviction that the API server has answered so far, in that order.
    ///
    /// # Errors
    /// Its audit log cannot be read.
    pub fn evictions(&self) -> anyhow::Result<Vec<Eviction>> {
        audit::evictions(&self.access.folder)
    }

    /// Every change of a Node by its own credential that the API server has answered so far, in that order.
    ///
    /// # Errors
    /// Its audit log cannot be read.
    pub fn node_changes(&self) -> anyhow::Result<Vec<NodeChange>> {
        audit::node_changes(&self.access.folder)
    }

    /// Every call of the coordinator's service account that the API server has answered so far. A watch is there from
    /// its first answer on.
    ///
    /// # Errors
    /// Its audit log cannot be read.
    pub fn coordinators_calls(&self) -> anyhow::Result<Vec<Call>> {
        audit::coordinators_calls(&self.access.folder)
    }

    /// The API server's process, for outages: stop it, start it again, wait with [`Kubernetes::serving`].
    pub fn api_server(&mut self) -> &mut Process {
        &mut self.api_server
    }

    /// The scheduler's process.
    pub fn scheduler(&mut self) -> &mut Process {
        &mut self.scheduler
    }

    /// The controller manager's process.
    pub fn controller_manager(&mut self) -> &mut Process {
        &mut self.controller_manager
    }

    /// Kine's process: what the API server does when its datastore is away.
    pub fn kine(&mut self) -> &mut Process {
        &mut self.kine
    }

    /// Waits until the API server is ready (again).
    ///
    /// # Errors
    /// It ended, or is not ready within 90 s.
    pub async fn serving(&mut self) -> anyhow::Result<()> {
        let client = self.client.clone();
        serving(&mut self.api_server, DEADLINE, || ready(client.clone())).await
    }

    /// Controllers and scheduler have no port here; that they work is seen by what they do: the service-account
    /// controller fills the default namespace, and the scheduler writes an event for a pod that fits nowhere.
    async fn settle(&mut self) -> anyhow::Result<()> {
        use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
        let accounts = kube::Api::<ServiceAccount>::namespaced(self.client(), "default");
        wait::until_true("the controllers to work", DEADLINE, || async {
            Ok(accounts.get_opt("default").await?.is_some())
        })
        .await
        .with_context(|| self.controller_manager.tail(10))?;
        let pods = kube::Api::<Pod>::namespaced(self.client(), "default");
        let probe = pod("rig-probe").node_selector("rig.invalid/none", "true").build();
        pods.create(&kube::api::PostParams::default(), &probe)
            .await
            .context("create the probe pod")?;
        wait::until_true("the scheduler to work", DEADLINE, || async {
            let probe = pods.get("rig-probe").await?;
            let conditions = probe
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|condition| condition.reason.as_deref() == Some("Unschedulable")))
        })
        .await
        .with_context(|| self.scheduler.tail(10))?;
        let at_once = kube::api::DeleteParams::default().grace_period(0);
        pods.delete("rig-probe", &at_once)
            .await
            .context("delete the probe pod")?;
        Ok(())
    }
}

/// A client from a kubeconfig file.
///
/// # Errors
/// The file cannot be read or says nonsense.
pub async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    super::install_crypto();
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .context("use the kubeconfig")?;
    Client::try_from(config).context("make a Kubernetes client")
}

async fn start_kine(folder: &Folder) -> anyhow::Result<(Process, SocketAddr)> {
    let program = cache::installed("bin/kine")?;
    let database = folder.sub("kine")?.join("state.db");
    let attempt = || {
        let address = port::free()?;
        let endpoint = format!(
            "sqlite://{}?_journal=WAL&cache=shared&_busy_timeout=30000&_synchronous=OFF",
            database.display()
        );
        let program = Program::new("kine", &program)
            .arg("--endpoint")
            .arg(endpoint)
            .arg("--listen-address")
            .arg(address.to_string())
            .arg("--metrics-bind-address")
            .arg("0")
            .folder(folder.path());
        Ok((program, address))
    };
    let ready = async |address: SocketAddr| Ok(tokio::net::TcpStream::connect(address).await.is_ok());
    process::start(folder, DEADLINE, attempt, ready).await
}

async fn start_api_server(
    folder: &Folder,
    authority: &Authority,
    datastore: SocketAddr,
) -> anyhow::Result<(Process, SocketAddr)> {
    let program = cache::installed("bin/kube-apiserver")?;
    let keys = folder.sub("kubernetes")?;
    let server = authority.server(&[
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default.svc",
        "10.43.0.1",
    ])?;
    let accounts = rcgen::KeyPair::generate().context("make the service accounts' key")?;
    let authority_file = folder.write("kubernetes/ca.crt", authority.certificate())?;
    let certificate_file = folder.write("kubernetes/apiserver.crt", &server.certificate)?;
    let key_file = folder.write("kubernetes/apiserver.key", &server.key)?;
    let audit_policy = folder.write("kubernetes/audit.yaml", audit::policy())?;
    let accounts_key = folder.write("kubernetes/service-account.key", accounts.serialize_pem())?;
    let accounts_public = folder.write("kubernetes/service-account.pub", accounts.public_key_pem())?;
    let attempt = || {
        let address = port::free()?;
        let program = Program::new("kube-apiserver", &program)
            .flag("etcd-servers", format!("http://{datastore}"))
            .flag("cert-dir", &keys)
            .flag("bind-address", "127.0.0.1")
            .flag("secure-port", address.port().to_string())
            .flag("service-cluster-ip-range", "10.43.0.0/16")
            .flag("allow-privileged", "true")
            .flag("service-account-issuer", "https://kubernetes.default.svc")
            .flag("service-account-key-file", &accounts_public)
            .flag("service-account-signing-key-file", &accounts_key)
            .flag("client-ca-file", &authority_file)
            .flag("tls-cert-file", &certificate_file)
            .flag("tls-private-key-file", &key_file)
            .flag("authorization-mode", "Node,RBAC")
            .flag("enable-bootstrap-token-auth", "true")
            .flag("enable-admission-plugins", "NodeRestriction")
            .flag("disable-admission-plugins", "ServiceAccount")
            .flag("audit-policy-file", &audit_policy)
            .flag("audit-log-path", audit::log(folder))
            .flag("v", "1");
        let kubeconfig =
            authority.kubeconfig(folder, "probe", &format!("https://{address}"), &Identity::admin())?;
        Ok((program, (address, kubeconfig)))
    };
    let probe = async |(_, kubeconfig): (SocketAddr, PathBuf)| ready(client_of(&kubeconfig).await?).await;
    let (process, (address, _)) = process::start(folder, DEADLINE, attempt, probe).await?;
    Ok((process, address))
}

async fn ready(client: Client) -> anyhow::Result<bool> {
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .context("build a request")?;
    match client.request_text(request).await {
        Ok(text) if text == "ok" => Ok(true),
        Ok(text) => bail!("readyz says {text}"),
        Err(error) => Err(anyhow::Error::new(error).context("ask for readyz")),
    }
}
