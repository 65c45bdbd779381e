//! What runs on a simulated machine: the real agent, in a world of the simulation's, and the kubelet that it starts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_agent::{
    Agent, Config, Parts,
    embedded::{EmbeddedFiles, EmbeddedSecrets, FixedToken, MemoryFolder},
    enrol::Attestor,
    error::Failure,
    health::{Reading, Vitals},
    k3s::{DropIn, server::Believed},
    machine::{Machine, MachineIdentity},
    notices::{Notice, NoticeKind, NoticeSource},
    secrets::{Secret, Secrets},
    shutdown::NoShutdowns,
    units::Units,
};
use smartscale_coordinator::{act::fleet::Instance, ids::InstanceId};
use smartscale_planner::{
    Policy,
    model::{Bytes, Labels, Node, Resources, Taint, TaintEffect, keys},
};
use smartscale_proto::{time::SharedClock, v1::enrol_request::Proof};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{Booted, Cloud},
    cluster::Cluster,
    load::Load,
    log::{Log, Source},
    seed::Seed,
};

/// From the start of K3s to Ready.
const K3S_START: Duration = Duration::from_secs(8);
/// Disk of every machine.
const DISK: Bytes = Bytes(40 << 30);

/// What all machines of a world share.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) clock: SharedClock,
    pub(super) log: Log,
    pub(super) seed: Seed,
    pub(super) cluster: Cluster,
    pub(super) cloud: Cloud,
    pub(super) load: Load,
    pub(super) policy: Arc<Policy>,
    pub(super) config: Config,
}

impl Site {
    /// The agent of a machine that is up.
    pub(super) fn agent(&self, booted: &Booted) -> Result<Agent, Failure> {
        let Booted { instance, secret, .. } = booted;
        let id = instance.id.as_str();
        let secrets = EmbeddedSecrets::default();
        secrets.set(
            "k3s/join-token",
            &format!("K10{}::node:simulated", "5a".repeat(32)),
        );
        secrets.set("k3s/master-ip", "10.0.0.10");
        let files = Arc::new(EmbeddedFiles::default());
        let teller = Teller {
            log: self.log.clone(),
            id: id.to_owned(),
        };
        Ok(Agent::new(Parts {
            config: self.config.clone(),
            clock: Arc::clone(&self.clock),
            boot_id: format!("boot-{id}"),
            folder: Arc::new(MemoryFolder::default()),
            machine: Arc::new(Metadata {
                machine: machine(booted)?,
                teller: teller.clone(),
            }),
            notices: Arc::new(Notices {
                cloud: self.cloud.clone(),
                instance: instance.id.clone(),
            }),
            secrets: Arc::new(Store {
                secrets,
                teller: teller.clone(),
            }),
            attestor: Arc::new(HandedOver {
                secret: secret.as_deref().map(FixedToken::new),
                asked: AtomicBool::new(false),
                teller: teller.clone(),
            }),
            units: Arc::new(K3s {
                site: self.clone(),
                instance: instance.clone(),
                files: Arc::clone(&files),
                teller,
            }),
            files,
            kubelet: Arc::new(self.cluster.kubelet_api(id)),
            vitals: Arc::new(Sensors {
                site: self.clone(),
                instance: instance.clone(),
            }),
            server: Arc::new(Believed),
            shutdowns: Arc::new(NoShutdowns),
        }))
    }

    /// Runs the agent of a machine until the future is dropped: as hardware would, without a farewell.
    pub(super) async fn run(self, booted: Booted) {
        let id = booted.instance.id.clone();
        let ended = match self.agent(&booted) {
            Ok(agent) => agent
                .run(CancellationToken::new())
                .await
                .err()
                .map(|ended| ended.to_string()),
            Err(failure) => Some(failure.to_string()),
        };
        if let Some(why) = ended {
            self.log.write(Source::Agent, "agent_failed", id.as_str(), why);
        }
    }

    /// The node of a machine that was there before, registered and verified long ago.
    pub(super) fn found(&self, booted: &Booted) -> Result<(), Failure> {
        let machine = machine(booted)?;
        let instance = &booted.instance;
        let pool = instance
            .pool
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let id = instance.id.as_str();
        let drop_in = DropIn::new(
            &machine,
            id,
            &pool,
            instance.market.as_str(),
            String::new(),
            String::new(),
        );
        let mut node = self.node(instance, &drop_in);
        node.taints.clear();
        node.created = Some(instance.launched_at);
        self.cluster.register(node, Duration::ZERO);
        Ok(())
    }

    /// The Node that a kubelet with this drop-in registers.
    fn node(&self, instance: &Instance, drop_in: &DropIn) -> Node {
        let mut labels = Labels::new();
        for label in &drop_in.labels {
            if let Some((key, value)) = label.split_once('=') {
                labels.insert(key.into(), value.into());
            }
        }
        labels.insert(keys::HOSTNAME.into(), drop_in.node_name.as_str().into());
        labels.insert(keys::OS.into(), "linux".into());
        let spec = self.policy.types.get(&instance.instance_type);
        labels.insert(
            keys::ARCH.into(),
            spec.map_or_else(|| "amd64".into(), |spec| Arc::clone(&spec.arch)),
        );
        let pool = instance
            .pool
            .as_ref()
            .and_then(|pool| self.policy.pool(pool.as_str()));
        let capacity = spec.map(|spec| Resources {
            cpu: spec.cpu,
            memory: spec.memory,
            ephemeral_storage: DISK,
            pods: i64::from(spec.max_pods.unwrap_or(110)),
            extended: spec.extended.clone(),
        });
        let allocatable = spec.zip(pool).map(|(spec, pool)| Resources {
            ephemeral_storage: DISK,
            ..pool.allocatable(spec)
        });
        Node {
            name: drop_in.node_name.as_str().into(),
            labels: labels.into(),
            annotations: Labels::new(),
            taints: drop_in
                .taints
                .iter()
                .filter_map(|taint| self::taint(taint))
                .collect(),
            unschedulable: false,
            ready: false,
            created: None,
            being_deleted: false,
            allocatable: allocatable.or_else(|| capacity.clone()).unwrap_or_default(),
            capacity: capacity.unwrap_or_default(),
            provider_id: drop_in
                .kubelet_args
                .iter()
                .find_map(|argument| argument.strip_prefix("provider-id="))
                .map(Into::into),
        }
    }
}

/// A machine as its metadata service describes it.
fn machine(booted: &Booted) -> Result<Machine, Failure> {
    let Booted { instance, number, .. } = booted;
    let [_, _, high, low] = number.to_be_bytes();
    Ok(Machine {
        id: instance.id.as_str().parse()?,
        instance_type: instance.instance_type.to_string(),
        zone: instance.zone.to_string(),
        market: instance.market,
        private_ip: std::net::IpAddr::from([10, 0, high.wrapping_add(1), low]),
        provider_id: Some(format!("aws:///{}/{}", instance.zone, instance.id)),
    })
}

/// `key=value:Effect`.
fn taint(text: &str) -> Option<Taint> {
    let (taint, effect) = text.rsplit_once(':')?;
    let (key, value) = taint.split_once('=').unwrap_or((taint, ""));
    let effect = match effect {
        "NoSchedule" => TaintEffect::NoSchedule,
        "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
        "NoExecute" => TaintEffect::NoExecute,
        _ => return None,
    };
    Some(Taint {
        key: key.into(),
        value: value.into(),
        effect,
    })
}

/// Tells what an agent does, step by step.
#[derive(Clone)]
struct Teller {
    log: Log,
    id: String,
}

impl Teller {
    fn tell(&self, kind: &'static str, message: &str) {
        self.log.write(Source::Agent, kind, self.id.clone(), message);
    }
}

/// The metadata service's answer about the machine.
struct Metadata {
    machine: Machine,
    teller: Teller,
}

#[async_trait]
impl MachineIdentity for Metadata {
    async fn identity(&self) -> Result<Machine, Failure> {
        self.teller.tell(
            "boot_identity",
            "boot: machine identified by its metadata service",
        );
        Ok(self.machine.clone())
    }
}

/// The secrets of the join.
struct Store {
    secrets: EmbeddedSecrets,
    teller: Teller,
}

#[async_trait]
impl Secrets for Store {
    async fn secret(&self, name: &str, zone: &str) -> Result<Secret, Failure> {
        let secret = self.secrets.secret(name, zone).await?;
        self.teller
            .tell("boot_secret", &format!("boot: secret {name} read"));
        Ok(secret)
    }
}

/// The one-time secret that came with the launch.
struct HandedOver {
    secret: Option<FixedToken>,
    asked: AtomicBool,
    teller: Teller,
}

#[async_trait]
impl Attestor for HandedOver {
    async fn prove(&self, machine: &Machine, challenge: &[u8], request: &[u8]) -> Result<Proof, Failure> {
        let secret = self
            .secret
            .as_ref()
            .ok_or_else(|| Failure::because("no secret came with the launch"))?;
        // The standby sends it to the leader, where it asks again.
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.teller.tell(
                "boot_enrolment",
                "boot: asks to be enrolled, with the one-time secret of its launch",
            );
        }
        secret.prove(machine, challenge, request).await
    }
}

/// What the metadata service announces.
struct Notices {
    cloud: Cloud,
    instance: InstanceId,
}

#[async_trait]
impl NoticeSource for Notices {
    async fn standing(&self) -> Result<Vec<Notice>, Failure> {
        let notice = |at: Timestamp| Notice {
            kind: NoticeKind::SpotInterruption,
            id: format!("spot-terminate-{}", at.as_second()),
            at: Some(at),
            detail: "terminate".to_owned(),
        };
        Ok(self
            .cloud
            .interruption(&self.instance)
            .map(|interruption| notice(interruption.at))
            .into_iter()
            .collect())
    }
}

/// The k3s-agent unit: started, it registers the node of the drop-in.
struct K3s {
    site: Site,
    instance: Instance,
    files: Arc<EmbeddedFiles>,
    teller: Teller,
}

#[async_trait]
impl Units for K3s {
    async fn start(&self, unit: &str) -> Result<(), Failure> {
        let drop_in = self
            .files
            .drop_in()
            .ok_or_else(|| Failure::because("there is no configuration"))?;
        if !self.site.cluster.kubelet_runs(&drop_in.node_name) {
            self.teller.tell("boot_kubelet", &format!("boot: {unit} started"));
            let spread = self
                .site
                .seed
                .around_one(&format!("k3s/{}", self.instance.id), 0.25);
            let node = self.site.node(&self.instance, &drop_in);
            self.site.cluster.register(node, K3S_START.mul_f64(spread));
        }
        Ok(())
    }

    async fn stop(&self, unit: &str) -> Result<(), Failure> {
        self.teller.tell("kubelet_stopped", &format!("{unit} stopped"));
        self.site.cluster.stop_kubelet(self.instance.id.as_str());
        Ok(())
    }

    async fn active_state(&self, _unit: &str) -> Result<String, Failure> {
        let runs = self.site.cluster.kubelet_runs(self.instance.id.as_str());
        Ok(if runs { "active" } else { "inactive" }.to_owned())
    }
}

/// The machine's own figures.
struct Sensors {
    site: Site,
    instance: Instance,
}

#[async_trait]
impl Vitals for Sensors {
    async fn read(&self) -> Reading {
        let usage = self.site.load.usage(self.instance.id.as_str());
        let spec = self.site.policy.types.get(&self.instance.instance_type);
        Reading {
            cpu_percent: usage.map(|usage| usage.0),
            memory_percent: usage.map(|usage| usage.1),
            memory_total_bytes: spec.and_then(|spec| u64::try_from(spec.memory.0).ok()),
            ..Reading::default()
        }
    }

    async fn kubelet_healthy(&self) -> Option<bool> {
        Some(self.site.cluster.kubelet_runs(self.instance.id.as_str()))
    }

    async fn runtime_healthy(&self) -> Option<bool> {
        Some(true)
    }
}
