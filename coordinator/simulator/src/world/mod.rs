//! A world: a cluster with its workloads, a cloud, two coordinators on one store, and an agent on every machine.
//!
//! ```text
//!   thread "world":          clock · cluster · cloud · load · agents (one task each)
//!   thread "coordinator-a":  a coordinator as it is        ─┐
//!   thread "coordinator-b":  another, the standby          ─┴─ one SQLite file
//! ```
//! Each coordinator has a runtime of its own, so that it can be killed as a process is: at any instant, with all its tasks
//! and connections, without a word to anybody.

mod coordinator;
mod machine;
pub mod records;
mod store;
mod town;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use smartscale_agent::Config;
use smartscale_coordinator::{
    ids::{CoordinatorName, InstanceId},
    serve::{
        attest,
        authority::{Names, vault::NoVault},
        init,
    },
    state::{
        Condition, SharedStore, Write,
        records::{NodeRecord, Record as _},
        sqlite::SqliteStore,
    },
};
use smartscale_planner::{
    Policy,
    model::{Market, PoolName},
};
use smartscale_proto::{
    identity::Segment,
    time::{Clock as _, SharedClock},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::{
    clock::ScaledClock,
    cloud::{self, Booted, Cloud, Machine},
    cluster::Cluster,
    load::Load,
    log::{Log, Source},
    seed::Seed,
};
use coordinator::Running;
use machine::Site;

/// The demo's policy.
pub const POLICY: &str = include_str!("policy.toml");

/// Kubernetes' controllers look so often.
const CLUSTER_PERIOD: Duration = Duration::from_millis(500);
/// The cloud's machines change state so often at most.
const CLOUD_PERIOD: Duration = Duration::from_secs(1);

/// What a world is made from. The same settings make the same world.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What everything random is derived from.
    pub seed: Seed,
    /// How much faster than real time it runs.
    pub speed: f64,
    /// When it begins. Certificates are judged by the machine's clock, so that this must lie in the hours before now.
    pub start: Timestamp,
    /// The policy (TOML).
    pub policy: String,
    /// How long the cloud takes.
    pub cloud: cloud::Times,
}

impl Settings {
    /// The demo's world: it begins as long ago as its story takes, so that people who ask a kept world see right ages.
    #[must_use]
    pub fn demo(seed: u64, speed: f64) -> Self {
        Self {
            seed: Seed(seed),
            speed,
            start: Timestamp::now() - SignedDuration::from_mins(20),
            policy: POLICY.to_owned(),
            cloud: cloud::Times::default(),
        }
    }
}

/// A running world. It ends when it is dropped.
pub struct World {
    /// Time.
    pub clock: Arc<ScaledClock>,
    /// What happens.
    pub log: Log,
    /// Kubernetes.
    pub cluster: Cluster,
    /// The cloud.
    pub cloud: Cloud,
    /// The workloads.
    pub load: Load,
    /// The policy.
    pub policy: Arc<Policy>,
    /// The coordinators' store.
    pub store: SharedStore,
    seed: Seed,
    policy_text: Arc<str>,
    folder: tempfile::TempDir,
    endpoints: BTreeMap<CoordinatorName, String>,
    coordinators: Mutex<BTreeMap<CoordinatorName, Running>>,
    tasks: Mutex<JoinSet<()>>,
}

impl World {
    /// Builds a world and starts it. Must be called within a Tokio runtime; one of a single thread keeps time best.
    ///
    /// # Errors
    /// What cannot be had from this machine: a folder, a port, randomness; or a policy that is none.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let Settings {
            seed,
            speed,
            start,
            policy: policy_text,
            cloud: times,
        } = settings;
        let (policy, _) = Policy::from_toml(&policy_text).context("the policy")?;
        let policy = Arc::new(policy);
        let clock = ScaledClock::new(start, speed)?;
        let shared: SharedClock = Arc::<ScaledClock>::clone(&clock);
        let log = Log::new(Arc::clone(&shared));
        let cluster = Cluster::new(Arc::clone(&shared), log.clone(), seed);
        let (cloud, machines) =
            Cloud::new(Arc::clone(&shared), log.clone(), seed, times, Arc::clone(&policy));
        let load = Load::new(cluster.clone(), Arc::clone(&shared), seed, town::services());

        let folder = tempfile::Builder::new()
            .prefix("smartscale-demo-")
            .tempdir()
            .context("a folder for state")?;
        let sqlite = SqliteStore::open(
            &folder.path().join("state.db"),
            policy.cluster_id.clone(),
            Arc::clone(&shared),
        )?;
        let store: SharedStore = Arc::new(store::Held::new(Arc::new(sqlite), Arc::clone(&clock)));

        let mut listeners = Vec::new();
        let mut endpoints = BTreeMap::new();
        for name in ["coordinator-a", "coordinator-b"] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port on loopback")?;
            listener.set_nonblocking(true)?;
            let name: CoordinatorName = name.parse()?;
            endpoints.insert(name.clone(), listener.local_addr()?.to_string());
            listeners.push((name, listener));
        }
        let addresses: Vec<String> = endpoints.values().cloned().collect();
        let names = names(&policy)?;
        let (person, unsealed) = ("demo".parse()?, (&NoVault as _, None));
        let created = init::init(folder.path(), names, addresses.clone(), person, unsealed)
            .await
            .context("a certificate authority")?;
        let config = agent_config(&policy, &addresses, &created.fingerprint)?;

        let site = Site {
            clock: shared,
            log: log.clone(),
            seed,
            cluster: cluster.clone(),
            cloud: cloud.clone(),
            load: load.clone(),
            policy: Arc::clone(&policy),
            config,
        };
        let world = Self {
            clock,
            log,
            cluster,
            cloud,
            load,
            policy,
            store,
            seed,
            policy_text: policy_text.into(),
            folder,
            endpoints,
            coordinators: Mutex::default(),
            tasks: Mutex::default(),
        };
        let workers = world.found(&site).await?;
        town::settle(&world.cluster, world.clock.now());
        world.load.set("quiet", &town::QUIET);
        world.run(site, machines, workers);
        // The first to start leads, so that the same seed has the same leader; the others stand by.
        for (name, listener) in listeners {
            world.start_coordinator(&name, listener)?;
            world.led().await?;
        }
        Ok(world)
    }

    /// Waits until some coordinator leads.
    async fn led(&self) -> anyhow::Result<()> {
        let deadline = self.clock.elapsed() + Duration::from_secs(60);
        while records::leader(&self.store).await?.is_none() {
            anyhow::ensure!(self.clock.elapsed() < deadline, "no coordinator takes the lease");
            self.clock.sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// The two workers that are there at the beginning.
    async fn found(&self, site: &Site) -> anyhow::Result<Vec<Booted>> {
        let mut workers = Vec::new();
        for pool in &self.policy.pools {
            let Some(spec) = pool.types.first() else { continue };
            for zone in pool.zones.iter().take(2) {
                let mut booted = self.cloud.found(&pool.name, &spec.name, zone, Market::OnDemand);
                let secret = attest::mint_secret();
                self.record(&booted, &pool.name, &secret.hash).await?;
                booted.secret = Some(secret.text.to_string());
                site.found(&booted)
                    .map_err(|failure| anyhow::anyhow!("{failure}"))?;
                workers.push(booted);
            }
        }
        Ok(workers)
    }

    /// The launch record of a machine that was there before this store was.
    async fn record(&self, booted: &Booted, pool: &PoolName, secret_hash: &str) -> anyhow::Result<()> {
        let instance = &booted.instance;
        let now = self.clock.now();
        let record = NodeRecord {
            instance: instance.id.clone(),
            pool: pool.clone(),
            instance_type: instance.instance_type.clone(),
            zone: instance.zone.clone(),
            market: instance.market,
            operation: "op-before".parse()?,
            launched_at: instance.launched_at,
            secret_hash: Some(secret_hash.to_owned()),
            secret_expires_at: Some(now + SignedDuration::from_mins(15)),
            enrolled_key: None,
            enrolled_at: None,
            ready_at: Some(instance.launched_at),
            binding_secret: None,
            certified: None,
            revoked_at: None,
            boot: Vec::new(),
        };
        let write = Write::Put {
            key: record.key(),
            body: record.body()?,
            expires_at: None,
            condition: Condition::Absent,
        };
        self.store.append(&write).await.context("the record of a worker")
    }

    fn run(&self, site: Site, machines: mpsc::UnboundedReceiver<Machine>, workers: Vec<Booted>) {
        let mut tasks = self.tasks();
        tasks.spawn(Arc::clone(&self.clock).drive());
        let (cluster, cloud) = (self.cluster.clone(), self.cloud.clone());
        tasks.spawn(async move { cluster.run(CLUSTER_PERIOD).await });
        tasks.spawn(async move { cloud.run(CLOUD_PERIOD).await });
        tasks.spawn(power(site, machines, workers));
    }

    fn start_coordinator(
        &self,
        name: &CoordinatorName,
        listener: std::net::TcpListener,
    ) -> anyhow::Result<()> {
        let mut peers = self.endpoints.clone();
        let advertise = peers.remove(name).context("a coordinator without an address")?;
        let running = Running::start(coordinator::Parts {
            name: name.clone(),
            advertise,
            peers,
            listener,
            folder: self.folder.path().to_owned(),
            names: names(&self.policy)?,
            seed: self.seed,
            clock: Arc::clone(&self.clock),
            log: self.log.clone(),
            cluster: self.cluster.clone(),
            cloud: self.cloud.clone(),
            load: self.load.clone(),
            store: Arc::clone(&self.store),
            policy: Arc::clone(&self.policy),
            policy_text: Arc::clone(&self.policy_text),
        })?;
        self.coordinators().insert(name.clone(), running);
        Ok(())
    }

    /// Kills a coordinator: nothing of it runs afterwards, and nobody was told. Whether it ran.
    pub fn kill(&self, name: &CoordinatorName) -> bool {
        let running = self.coordinators().remove(name);
        if let Some(running) = running {
            running.kill();
            self.log.write(
                Source::Story,
                "killed",
                name.as_str(),
                "coordinator killed, without a word",
            );
            return true;
        }
        false
    }

    /// Ends the coordinators in good order.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.coordinators());
        for (_, coordinator) in running {
            coordinator.stop().await;
        }
    }

    /// The coordinators that run, with their addresses.
    #[must_use]
    pub fn running(&self) -> Vec<(CoordinatorName, String)> {
        let running = self.coordinators();
        self.endpoints
            .iter()
            .filter(|(name, _)| running.contains_key(*name))
            .map(|(name, endpoint)| (name.clone(), endpoint.clone()))
            .collect()
    }

    /// Credentials with which a person may speak to the coordinators.
    #[must_use]
    pub fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials.toml")
    }

    /// Where the state lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn coordinators(&self) -> MutexGuard<'_, BTreeMap<CoordinatorName, Running>> {
        self.coordinators.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, running) in std::mem::take(&mut *self.coordinators()) {
            running.kill();
        }
    }
}

fn names(policy: &Policy) -> anyhow::Result<Names> {
    let cluster: Segment = policy.cluster_id.as_str().parse()?;
    Ok(Names {
        trust: "smartscale".parse()?,
        cluster,
    })
}

fn agent_config(policy: &Policy, coordinators: &[String], fingerprint: &str) -> anyhow::Result<Config> {
    let list: Vec<String> = coordinators
        .iter()
        .map(|endpoint| format!("{endpoint:?}"))
        .collect();
    let text = format!(
        "coordinators = [{}]\ntrust_domain = \"smartscale\"\ncluster = {:?}\nca_fingerprint = \"sha256:{fingerprint}\"\n\
         state_dir = \"/nonexistent\"\nrun_dir = \"/nonexistent\"\n[attestor]\nkind = \"token\"\ntoken_file = \"/nonexistent\"\n",
        list.join(", "),
        policy.cluster_id.as_str(),
    );
    Config::parse(&text).context("the agents' configuration")
}

/// Runs what runs on machines: an agent from the moment a machine is up until its power is off.
async fn power(site: Site, mut machines: mpsc::UnboundedReceiver<Machine>, workers: Vec<Booted>) {
    let mut tasks = JoinSet::new();
    let mut agents: BTreeMap<InstanceId, AbortHandle> = BTreeMap::new();
    let up = |tasks: &mut JoinSet<()>, booted: Booted, agents: &mut BTreeMap<InstanceId, AbortHandle>| {
        let id = booted.instance.id.clone();
        let agent = tasks.spawn(site.clone().run(booted));
        agents.insert(id, agent);
    };
    for booted in workers {
        up(&mut tasks, booted, &mut agents);
    }
    while let Some(machine) = machines.recv().await {
        match machine {
            Machine::Up(booted) => up(&mut tasks, *booted, &mut agents),
            Machine::Off(id) => {
                if let Some(agent) = agents.remove(&id) {
                    agent.abort();
                }
                site.cluster.stop_kubelet(id.as_str());
            }
        }
    }
}
