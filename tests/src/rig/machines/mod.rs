//! The boot watcher: what hardware would do. For each instance that appears in EC2 it starts the real agent program
//! with that instance's metadata service and user-data, and a stand-in for `k3s-agent`; the instance's end ends both,
//! as a power cut does.
//!
//! ```text
//!  EC2 ──DescribeInstances──▶ watcher ──▶ machine: IMDS ◀── smartscale-agent ──▶ systemctl (a script)
//!                                                                                     │
//!                                           Kubernetes ◀── kubelet stand-in ◀─────────┘
//! ```
//!
//! The instance's user-data is the agent's configuration (TOML); the rig sets what depends on the machine: addresses of
//! the stand-ins, folders, the file of the enrolment secret.

mod dropin;
mod idle;
mod kubelet;
mod machine;
mod proc;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Instance, InstanceAttributeName, InstanceStateName};
use base64::Engine as _;

pub(in crate::rig) use dropin::Configuration;
pub use idle::IdleMachines;
pub use kubelet::ENDS_AFTER;
pub use machine::Machine;

use self::machine::Body;
use super::imds::Imds;
use super::kubernetes::Access;
use super::{Ec2, Folder, Ministack, aws, ec2, imds, ministack, sts};

const LOOK: Duration = Duration::from_millis(200);

/// What all machines have in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent's program ([`super::programs::agent`]).
    pub agent: PathBuf,
    /// The agent's configuration for instances without user-data.
    pub agent_config: String,
    /// The only token that the K3s server takes: `K10<64 hex>::node:SECRET`.
    pub join_token: String,
    /// The role that each instance gets a session of; it must exist in ministack.
    pub role: Option<String>,
    /// The folder where the coordinator puts the enrolment secret of each launch, in a file named after its client
    /// token.
    pub secrets: Option<PathBuf>,
    /// STS, which knows the keys that machines are given.
    pub sts: Option<sts::Shared>,
    /// From an instance's appearance to the agent's start.
    pub boot: Duration,
    /// How long a pod without annotation [`ENDS_AFTER`] takes to end.
    pub pod_end: Duration,
    /// Instances that bear another value of this tag are another cluster's and do not boot here.
    pub tag: Option<(String, String)>,
}

impl Settings {
    /// The workspace's own agent, no role, no secrets, no delays to speak of.
    ///
    /// # Errors
    /// The agent has not been built.
    pub fn new(join_token: &str) -> anyhow::Result<Self> {
        Ok(Self {
            agent: super::programs::agent()?,
            agent_config: String::new(),
            join_token: join_token.to_owned(),
            role: None,
            secrets: None,
            sts: None,
            boot: Duration::from_millis(200),
            pod_end: Duration::from_millis(500),
            tag: None,
        })
    }

    fn is_ours(&self, instance: &Instance) -> bool {
        self.tag.as_ref().is_none_or(|(key, value)| {
            let mut tags = instance.tags().iter();
            tags.all(|tag| tag.key() != Some(key) || tag.value() == Some(value))
        })
    }
}

/// How machines that boot from now on prove themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Proof {
    /// By the one-time secret of their launch.
    #[default]
    Secret,
    /// By the key of their identity role.
    Identity,
    /// By the key of their instance profile's role.
    Profile,
}

/// A token of the form that K3s gives to agents, with a hash of no CA.
#[must_use]
pub fn join_token() -> String {
    format!(
        "K10{:064x}::node:{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    )
}

/// The watcher. Dropped, it ends all machines.
#[derive(Debug)]
pub struct BootWatcher {
    machines: Machines,
    proof: Arc<Mutex<Proof>>,
    task: tokio::task::JoinHandle<()>,
}

type Machines = Arc<Mutex<BTreeMap<String, Machine>>>;

impl BootWatcher {
    /// Starts watching.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub async fn start(
        folder: &Folder,
        access: Access,
        ec2: &Ec2,
        account: &Ministack,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let machines = Machines::default();
        folder.sub("machines")?;
        let world = World::new(folder, access, ec2, account, settings).await;
        let proof = Arc::clone(&world.proof);
        let task = tokio::spawn(watch(world, Arc::clone(&machines)));
        Ok(Self {
            machines,
            proof,
            task,
        })
    }

    /// One that starts nothing, where other machines boot.
    #[must_use]
    pub(in crate::rig) fn none() -> Self {
        Self {
            machines: Machines::default(),
            proof: Arc::default(),
            task: tokio::spawn(std::future::ready(())),
        }
    }

    /// The ids of the machines that run.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        lock(&self.machines).keys().cloned().collect()
    }

    /// Machines that boot from now on prove themselves so.
    pub fn prove_by(&self, proof: Proof) {
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = proof;
    }

    /// Does something with one machine.
    ///
    /// # Errors
    /// No machine of that id runs.
    pub fn with<R>(&self, id: &str, act: impl FnOnce(&mut Machine) -> R) -> anyhow::Result<R> {
        let mut machines = lock(&self.machines);
        let machine = machines
            .get_mut(id)
            .with_context(|| format!("no machine {id} runs"))?;
        Ok(act(machine))
    }
}

impl Drop for BootWatcher {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.machines).clear();
    }
}

/// What the watcher reaches.
pub(in crate::rig) struct World {
    client: Client,
    ec2_url: String,
    account_url: String,
    access: Access,
    settings: Settings,
    proof: Arc<Mutex<Proof>>,
    folder: Folder,
}

/// What there is to know of an instance that is to boot.
pub(in crate::rig) struct Launched {
    pub(in crate::rig) known: imds::Instance,
    /// CPUs and MiB of memory that its type has.
    pub(in crate::rig) size: (i32, i64),
    pub(in crate::rig) proof: Proof,
    /// The secret of its launch, where it proves itself by that.
    pub(in crate::rig) secret: Option<String>,
}

async fn watch(world: World, machines: Machines) {
    let mut told = BTreeSet::new();
    loop {
        let began = Instant::now();
        let instances = world.instances().await;
        // Of hundreds of instances moto's list takes long: it must have time for others. (What the machines of this look
        // take to boot is no reason to let later ones wait.)
        let pause = LOOK.max(began.elapsed() * 2);
        let looked = async { look(&world, &machines, instances?).await };
        if let Err(error) = looked.await
            && told.insert(format!("{error:#}"))
        {
            eprintln!("rig: boot watcher: {error:#}");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Starts and ends machines so that they are those that EC2 has, and restarts agents that ended by themselves, as
/// systemd does.
async fn look(
    world: &World,
    machines: &Machines,
    instances: BTreeMap<String, Instance>,
) -> anyhow::Result<()> {
    lock(machines).retain(|id, _| instances.contains_key(id));
    // One that cannot be started does not keep the others down.
    let mut failed = Ok(());
    for (id, instance) in instances {
        if lock(machines).contains_key(&id) {
            continue;
        }
        match world.boot(&id, &instance).await {
            Ok(machine) => {
                lock(machines).insert(id, machine);
            }
            Err(error) => failed = failed.and(Err(error).with_context(|| format!("boot {id}"))),
        }
        // Of many that appear at once, the first do not wait for the last.
        supervise(machines)?;
    }
    failed.and(supervise(machines))
}

fn supervise(machines: &Machines) -> anyhow::Result<()> {
    let mut machines = lock(machines);
    let outcomes: Vec<_> = machines.values_mut().map(Machine::supervise).collect();
    outcomes.into_iter().collect()
}

fn is_on(instance: &Instance) -> bool {
    let state = instance.state().and_then(|state| state.name());
    matches!(
        state,
        Some(InstanceStateName::Pending | InstanceStateName::Running)
    )
}

impl World {
    pub(in crate::rig) async fn new(
        folder: &Folder,
        access: Access,
        ec2: &Ec2,
        account: &Ministack,
        settings: Settings,
    ) -> Self {
        Self {
            client: ec2.client().await,
            ec2_url: ec2.url(),
            account_url: account.url(),
            access,
            settings,
            proof: Arc::default(),
            folder: folder.clone(),
        }
    }

    /// Our instances that are on, by id.
    pub(in crate::rig) async fn instances(&self) -> anyhow::Result<BTreeMap<String, Instance>> {
        let described = self.client.describe_instances().send().await;
        let described = described.context("list instances")?;
        Ok(described
            .reservations()
            .iter()
            .flat_map(aws_sdk_ec2::types::Reservation::instances)
            .filter(|instance| is_on(instance) && self.settings.is_ours(instance))
            .filter_map(|instance| Some((instance.instance_id()?.to_owned(), instance.clone())))
            .collect())
    }

    async fn boot(&self, id: &str, instance: &Instance) -> anyhow::Result<Machine> {
        let Launched {
            known,
            size,
            proof,
            secret,
        } = self.launched(id, instance).await?;
        let body = Body {
            name: known.id.clone(),
            ip: known.private_ip,
            size,
        };
        let config = match known.user_data.as_str() {
            "" => &self.settings.agent_config,
            given => given,
        };
        let config: toml::Table = config
            .parse()
            .context("the user-data is no agent configuration")?;
        let mut machine = Machine::switch_on(&self.folder, &self.access, &self.settings, body).await?;
        if let Some(secret) = secret {
            machine.entrust(&secret)?;
        }
        let imds = Imds::start(known).await?;
        let config = of_instance(config, proof, &imds.url(), &self.account_url)?;
        machine.attach(imds);
        let environment = [
            ("AWS_ENDPOINT_URL", self.account_url.as_str()),
            ("AWS_REGION", aws::REGION),
        ];
        machine.install(config, &environment)?;
        Ok(machine)
    }

    /// Looks an instance up wherever something is known of it.
    pub(in crate::rig) async fn launched(&self, id: &str, instance: &Instance) -> anyhow::Result<Launched> {
        let type_name = instance
            .instance_type()
            .context("an instance without type")?
            .clone();
        let types = self
            .client
            .describe_instance_types()
            .instance_types(type_name.clone())
            .send()
            .await;
        let types = types.context("look the type up")?;
        let described = types.instance_types().first().context("an unknown type")?;
        let cpus = described
            .v_cpu_info()
            .and_then(aws_sdk_ec2::types::VCpuInfo::default_v_cpus)
            .context("a type without CPUs")?;
        let memory = described
            .memory_info()
            .and_then(aws_sdk_ec2::types::MemoryInfo::size_in_mib)
            .context("no memory")?;
        let mut known = imds::Instance::new(id);
        known.instance_type = type_name.as_str().to_owned();
        known.spot = instance.instance_lifecycle().is_some();
        if let Some(zone) = instance.placement().and_then(|place| place.availability_zone()) {
            zone.clone_into(&mut known.zone);
        }
        if let Some(ip) = instance.private_ip_address().and_then(|ip| ip.parse().ok()) {
            known.private_ip = ip;
        }
        if let Some(image) = instance.image_id() {
            image.clone_into(&mut known.image);
        }
        known.user_data = self.user_data(id).await?;
        if let Some(role) = &self.settings.role {
            let key = ministack::instance_key(&self.account_url, role, id).await?;
            if let Some(sts) = &self.settings.sts {
                sts.know(&key, role, id);
            }
            known.role = Some((role.clone(), key));
        }
        known.identity = self.settings.sts.as_ref().map(|sts| sts.identity_key(id));
        let proof = *self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = match proof {
            Proof::Secret => self.enrolment_secret(id).await?,
            Proof::Identity | Proof::Profile => None,
        };
        Ok(Launched {
            known,
            size: (cpus, memory),
            proof,
            secret,
        })
    }

    async fn user_data(&self, id: &str) -> anyhow::Result<String> {
        let attribute = InstanceAttributeName::UserData;
        let answer = self
            .client
            .describe_instance_attribute()
            .instance_id(id)
            .attribute(attribute)
            .send()
            .await;
        let answer = answer.context("read the user-data")?;
        let mut text = answer
            .user_data()
            .and_then(|data| data.value())
            .unwrap_or_default()
            .to_owned();
        // EC2 answers in base64; moto keeps it encoded as often as it was.
        while let Some(decoded) = base64::engine::general_purpose::STANDARD
            .decode(text.trim())
            .ok()
            .filter(|decoded| !decoded.is_empty())
            .and_then(|decoded| String::from_utf8(decoded).ok())
        {
            text = decoded;
        }
        Ok(text)
    }

    /// The secret that the coordinator left for the launch which this instance belongs to.
    async fn enrolment_secret(&self, id: &str) -> anyhow::Result<Option<String>> {
        let Some(folder) = &self.settings.secrets else {
            return Ok(None);
        };
        let calls = ec2::calls(&self.ec2_url).await?;
        let launch = calls
            .iter()
            .find(|call| call.instances.iter().any(|instance| instance == id));
        let is_under_way = |call: &ec2::Call| call.action == "CreateFleet" && call.answer.is_none();
        anyhow::ensure!(
            launch.is_some() || !calls.iter().any(is_under_way),
            "a launch is still being answered: this instance may be of it"
        );
        let Some(token) = launch.and_then(|call| call.client_token.as_deref()) else {
            return Ok(None);
        };
        let path = folder.join(token);
        let secret = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(secret))
    }
}

/// The configuration with what an instance of EC2 is told of its surroundings.
fn of_instance(
    mut config: toml::Table,
    proof: Proof,
    imds: &str,
    account_url: &str,
) -> anyhow::Result<toml::Table> {
    let (kind, credentials) = match proof {
        Proof::Secret => ("token", None),
        Proof::Identity => ("ec2", None),
        Proof::Profile => ("ec2", Some("profile")),
    };
    let settings = [
        ("imds", "endpoint", Some(imds)),
        ("secrets", "endpoint", Some(account_url)),
        ("secrets", "region", Some(aws::REGION)),
        ("attestor", "kind", Some(kind)),
        ("attestor", "credentials", credentials),
    ];
    for (section, key, value) in settings {
        if let Some(value) = value {
            machine::set(&mut config, section, key, value.into())?;
        }
    }
    Ok(config)
}

fn lock(machines: &Machines) -> MutexGuard<'_, BTreeMap<String, Machine>> {
    machines.lock().unwrap_or_else(PoisonError::into_inner)
}
