//! Machines and their agents. The drain is the real agent's, with its state on a disk that outlives it; boot, enrolment and
//! the session's wire are modelled: steps that take time, a session with whoever leads, reports until they are acknowledged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use rand::{RngExt as _, rngs::SmallRng};
use smartscale_agent::{
    bind::{self, Binder},
    drain::{self, Drainer, LocalStorage, OnTimeout, Order, Tools},
    embedded::MemoryFolder,
    outbox::Outbox,
};
use smartscale_coordinator::{
    act::fleet::Instance,
    state::{
        Attributes, Condition, StateStore as _, Write,
        records::{NodeRecord, Record as _},
    },
};
use smartscale_proto::{
    time::{Clock as _, SharedClock, duration_from_wire, within},
    v1::{self, Outcome, session_request::Report, session_response::Command},
};

use crate::{kubelet::Kubelet, scheduler::Owner, town, world::World};

/// A machine that is up.
pub(crate) struct Machine {
    instance: Instance,
    /// Outlives the agent's process.
    folder: Arc<MemoryFolder>,
    /// Reports that nobody has acknowledged, by what they are about; on the disk too.
    unheard: Mutex<BTreeMap<String, v1::SessionRequest>>,
    /// Has enrolled and runs a kubelet.
    joined: Mutex<bool>,
}

impl Machine {
    pub(crate) fn new(instance: Instance, joined: bool) -> Arc<Self> {
        Arc::new(Self {
            instance,
            folder: Arc::default(),
            unheard: Mutex::default(),
            joined: Mutex::new(joined),
        })
    }

    fn id(&self) -> &str {
        self.instance.id.as_str()
    }

    fn keep(&self, subject: String, report: Report) {
        let request = v1::SessionRequest {
            time: None,
            report: Some(report),
        };
        self.unheard.lock().unwrap().insert(subject, request);
    }
}

/// Starts the agent of a machine; it may be killed and started again.
pub(crate) fn start(world: &Arc<World>, machine: &Arc<Machine>) {
    let owner = Owner::Agent(machine.id().to_owned());
    let mut random = world.stream();
    let api = Kubelet {
        door: world.door(machine.id(), owner.clone(), world.character.agents),
        cluster: world.town.cluster.clone(),
        ledger: Arc::clone(&world.ledger),
    };
    let api = Arc::new(api);
    let clock: SharedClock = world.time.clone();
    let outbox = Outbox::new(machine.folder.clone(), Arc::clone(&clock));
    let (binder, binding) = bind::binding(api.clone(), outbox.clone(), Arc::clone(&clock));
    let (drainer, engine) = drain::engine(Tools {
        api,
        folder: machine.folder.clone(),
        clock,
        outbox,
        boot_id: format!("boot-{}", machine.id()),
        settings: drain::Settings::default(),
    });
    world
        .handle
        .spawn(owner.clone(), engine.seeded(random.random()).run());
    world
        .handle
        .spawn(owner.clone(), binding.seeded(random.random()).run());
    let agent = Agent {
        world: Arc::clone(world),
        machine: Arc::clone(machine),
        drainer,
        binder,
    };
    world.handle.spawn(owner, agent.run(random));
}

struct Agent {
    world: Arc<World>,
    machine: Arc<Machine>,
    drainer: Drainer,
    binder: Binder,
}

impl Agent {
    async fn run(self, mut random: SmallRng) {
        let joined = *self.machine.joined.lock().unwrap();
        if !joined {
            self.pause(&mut random, 1_000..8_000).await;
            while !self.enrol().await {
                self.pause(&mut random, 1_000..4_000).await;
            }
            self.pause(&mut random, 1_000..5_000).await;
            let node = town::node(&self.world.town.policy, &self.machine.instance, false);
            let ready = Duration::from_millis(random.random_range(1_000..9_000));
            self.world.town.cluster.register(node, ready);
            *self.machine.joined.lock().unwrap() = true;
        }
        loop {
            self.session(&mut random).await;
            self.pause(&mut random, 500..3_000).await;
        }
    }

    async fn pause(&self, random: &mut SmallRng, milliseconds: std::ops::Range<u64>) {
        let duration = Duration::from_millis(random.random_range(milliseconds));
        self.world.time.sleep(duration).await;
    }

    /// As the coordinator's enrolment desk does it, without keys: the record is changed under the lease.
    async fn enrol(&self) -> bool {
        let attempt = async {
            let leader = self.world.leader()?;
            let key = format!("{}{}", NodeRecord::PREFIX, self.machine.id());
            let item = leader.outside.get(&key).await.ok()??;
            let mut record = NodeRecord::from_item(&item).ok()?;
            if record.revoked_at.is_some() {
                return None;
            }
            if record.enrolled_key.is_some() {
                return Some(());
            }
            record.enrolled_key = Some(self.machine.id().to_owned());
            record.enrolled_at = Some(self.world.time.now());
            record.secret_hash = None;
            record.secret_expires_at = None;
            let write = Write::Put {
                key,
                body: record.body().ok()?,
                expires_at: None,
                condition: Condition::Version(item.version),
            };
            let nothing = Attributes::new();
            leader.outside.commit(leader.epoch, &[write], &nothing).await.ok()
        };
        let done = within(&*self.world.time, Duration::from_secs(10), attempt).await;
        done.flatten().is_some()
    }

    /// One session, from its beginning to whatever ends it.
    async fn session(&self, random: &mut SmallRng) {
        let Some(leader) = self.world.leader() else { return };
        let id = &self.machine.instance.id;
        let hello = v1::Hello {
            agent_version: "0.1.0".to_owned(),
            boot_id: format!("boot-{id}"),
            machine: None,
            draining_operation: self.drainer.draining().unwrap_or_default(),
            wants_join_token: false,
            can_check: false,
        };
        let mut ticket = leader.sessions.begin(id, hello);
        let faulty = self.world.is_faulty();
        // Some sessions break after a while, for no reason that anybody learns of.
        let breaks = if faulty && random.random_ratio(1, 4) {
            random.random_range(5..60)
        } else {
            3_600
        };
        let end = self.world.time.elapsed() + Duration::from_secs(breaks);
        let mut drains = self.drainer.state();
        let mut due = Duration::ZERO;
        self.note_drain();
        loop {
            if !self.world.leads(&leader) || self.world.time.elapsed() >= end {
                break;
            }
            self.look_for_notice().await;
            let unheard: Vec<_> = self.machine.unheard.lock().unwrap().clone().into_iter().collect();
            let mut broken = false;
            for (subject, request) in unheard {
                broken |= !self.report(&leader.sessions, Some(subject), request).await;
            }
            if self.world.time.elapsed() >= due {
                broken |= !self.report(&leader.sessions, None, self.health()).await;
                due = self.world.time.elapsed() + Duration::from_secs(5);
            }
            if broken {
                break;
            }
            tokio::select! {
                biased;
                command = ticket.commands.recv() => match command.and_then(|response| response.command) {
                    Some(command) => self.obey(command).await,
                    None => break,
                },
                _ = ticket.end.changed() => break,
                _ = drains.changed() => self.note_drain(),
                () = self.world.time.sleep(Duration::from_secs(3)) => {}
            }
        }
        leader.sessions.end(id, ticket.id);
        if faulty && random.random_ratio(1, 10) {
            self.pause(random, 10_000..100_000).await;
        }
    }

    /// Whether it arrived; an acknowledged one is forgotten if it is still the newest.
    async fn report(
        &self,
        sessions: &smartscale_coordinator::serve::sessions::Sessions,
        subject: Option<String>,
        request: v1::SessionRequest,
    ) -> bool {
        let id = &self.machine.instance.id;
        let taking = sessions.take(id, request.clone());
        let taken = within(&*self.world.time, Duration::from_secs(10), taking).await;
        let heard = matches!(taken, Some(Ok(_)));
        if let Some(subject) = subject.filter(|_| heard) {
            let mut unheard = self.machine.unheard.lock().unwrap();
            if unheard.get(&subject) == Some(&request) {
                unheard.remove(&subject);
            }
        }
        heard
    }

    fn note_drain(&self) {
        let state = self.drainer.state();
        let state = state.borrow();
        let Some(drain) = state.as_deref() else { return };
        for operation in &drain.operations {
            if let Some(report) = drain.to_wire(operation) {
                self.machine
                    .keep(format!("drain {operation}"), Report::Drain(report));
            }
        }
    }

    /// A spot notice: the agent drains by itself, and says so.
    async fn look_for_notice(&self) {
        let Some(interruption) = self.world.town.cloud.interruption(&self.machine.instance.id) else {
            return;
        };
        let id = "spot";
        let operation = format!("notice/{id}");
        let known = self
            .drainer
            .state()
            .borrow()
            .as_deref()
            .is_some_and(|drain| drain.operations.contains(&operation));
        if known {
            return;
        }
        self.machine.keep(
            "notice".to_owned(),
            Report::Notice(v1::Notice {
                kind: v1::NoticeKind::SpotInterruption.into(),
                id: id.to_owned(),
                ..Default::default()
            }),
        );
        let left = smartscale_proto::time::age(self.world.time.now(), interruption.at);
        self.drainer
            .order(Order {
                operation,
                node: self.machine.id().to_owned(),
                timeout: left.saturating_sub(Duration::from_secs(10)),
                on_timeout: OnTimeout::Force,
                reason: "the machine is taken".to_owned(),
                taken_at: Some(interruption.at),
                local_storage: LocalStorage::Evict,
            })
            .await;
    }

    fn health(&self) -> v1::SessionRequest {
        let town = &self.world.town;
        let node = self.machine.id().into();
        let used: f64 = town
            .cluster
            .running_on(&node)
            .iter()
            .map(|pod| pod.requests.cpu.as_f64())
            .sum();
        let busy = f64::from(self.world.busy.load(Ordering::Relaxed));
        let spec = &town.policy.types[&self.machine.instance.instance_type];
        v1::SessionRequest {
            time: None,
            report: Some(Report::Health(v1::Health {
                cpu_percent: Some((busy * used / spec.cpu.as_f64()).min(100.0)),
                memory_percent: Some(30.0),
                ..Default::default()
            })),
        }
    }

    async fn obey(&self, command: Command) {
        match command {
            Command::Drain(drain) => {
                let timeout = drain.timeout.as_ref().map(duration_from_wire);
                let on_timeout = drain.on_timeout().into();
                self.drainer
                    .order(Order {
                        operation: drain.operation_id,
                        node: self.machine.id().to_owned(),
                        timeout: timeout.and_then(Result::ok).unwrap_or_default(),
                        on_timeout,
                        reason: drain.reason,
                        taken_at: None,
                        local_storage: LocalStorage::Evict,
                    })
                    .await;
            }
            Command::BindNode(command) => self.binder.bind(self.machine.id(), command),
            Command::AbortDrain(abort) => self.drainer.abort(abort.operation_id).await,
            Command::StopKubelet(stop) => {
                self.world.town.cluster.stop_kubelet(self.machine.id());
                self.world
                    .trace
                    .note(format_args!("{} kubelet stopped", self.machine.id()));
                self.machine.keep(
                    format!("result {}", stop.operation_id),
                    Report::Result(v1::CommandResult {
                        operation_id: stop.operation_id,
                        command: "stop_kubelet".to_owned(),
                        outcome: Outcome::Done.into(),
                        error: String::new(),
                    }),
                );
            }
            _ => {}
        }
    }
}
