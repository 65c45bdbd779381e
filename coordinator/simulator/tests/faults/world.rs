//! A world of one seed: coordinators, agents, cluster and cloud in one process, what happens to them, and whether they come
//! to rest when nothing happens any more.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use smartscale_coordinator::{
    ids::InstanceId,
    state::{
        StateStore as _, Write,
        records::{NodeRecord, Record as _},
    },
};
use smartscale_planner::model::Market;
use smartscale_proto::time::{Clock as _, SharedClock};
use smartscale_simulator::cloud;
use tokio::sync::mpsc;

use crate::{
    agents::{self, Machine},
    coordinator::{self, Leading, Running},
    doors::{Door, Rates, Trace, at_once},
    ledger::{Counts, Ledger},
    rest,
    scheduler::{Handle, Owner, Scheduler, Time},
    town::{self, Bug, MACHINES, SERVICES, Town},
    trouble,
};

/// What kind of world a seed makes.
#[derive(Debug, Clone)]
pub(crate) struct Character {
    pub(crate) number: usize,
    /// The machines at the beginning; what is missing is launched under faults.
    pub(crate) machines: u32,
    pub(crate) coordinators: Rates,
    pub(crate) agents: Rates,
    /// How far each coordinator's wall clock is ahead.
    pub(crate) ahead: [SignedDuration; 3],
    /// No fault any more from then on.
    pub(crate) until: Duration,
    /// Between two things that happen, at most.
    pub(crate) pace: Duration,
}

impl Character {
    fn draw(random: &mut SmallRng) -> Self {
        let faults = [0, 10, 30, 60, 120][random.random_range(0..5)];
        Self {
            number: [2, 2, 3][random.random_range(0..3)],
            machines: random.random_range(MACHINES / 2..=MACHINES),
            coordinators: Rates {
                faults,
                crashes: random.random_range(0..3),
            },
            agents: Rates {
                faults: faults * 2,
                crashes: random.random_range(0..8),
            },
            ahead: std::array::from_fn(|_| match random.random_range(0..6) {
                0 => SignedDuration::from_secs(random.random_range(-30..=30)),
                1 => SignedDuration::from_secs(random.random_range(-600..=600)),
                _ => SignedDuration::ZERO,
            }),
            until: Duration::from_secs(random.random_range(30..65)),
            pace: Duration::from_secs(random.random_range(3..9)),
        }
    }
}

/// How a world ended.
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) digest: u64,
    pub(crate) tail: Vec<String>,
    pub(crate) lines: u64,
    pub(crate) polls: u64,
    pub(crate) lasted: Duration,
    pub(crate) counts: Counts,
}

/// Everything that a world's tasks share.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) handle: Handle,
    pub(crate) time: Arc<Time>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) town: Town,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) character: Character,
    pub(crate) coordinators: Mutex<BTreeMap<usize, Running>>,
    pub(crate) machines: Mutex<BTreeMap<InstanceId, Arc<Machine>>>,
    asleep: Mutex<BTreeMap<usize, Arc<Mutex<Duration>>>>,
    lives: AtomicU64,
    streams: AtomicU64,
    pub(crate) at_rest: AtomicBool,
    /// How much of their CPU requests pods use, in percent.
    pub(crate) busy: AtomicU32,
    me: Weak<World>,
}

/// Plays a seed to its end.
pub(crate) fn play(seed: u64, bug: Option<Bug>, print: bool) -> Outcome {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let mut character = Character::draw(&mut random);
    if bug.is_some() {
        // What is to be noticed soon must be given occasions.
        character.coordinators = Rates {
            faults: 100,
            crashes: 8,
        };
    }
    let (scheduler, world, machines) = World::new(seed, town::POLICY, bug, character, print);
    world
        .trace
        .note(format_args!("seed {seed}: {:?}", world.character));
    world.town.settle(&mut world.stream());
    world.begin(machines);
    world.handle.spawn(Owner::World, trouble::happen(world.me()));
    world.handle.spawn(Owner::World, rest::come(world.me()));
    world.end(scheduler)
}

impl World {
    /// A world in which nothing has begun, with who runs it and what its cloud tells of.
    pub(crate) fn new(
        seed: u64,
        policy: &str,
        bug: Option<Bug>,
        character: Character,
        print: bool,
    ) -> (Scheduler, Arc<Self>, mpsc::UnboundedReceiver<cloud::Machine>) {
        let scheduler = Scheduler::new(seed);
        let time = Arc::clone(&scheduler.time);
        let trace = Trace::new(Arc::clone(&time), print);
        let clock: SharedClock = time.clone();
        let (town, machines) = Town::new(seed, policy, &clock, bug);
        let world = Arc::new_cyclic(|me| Self {
            seed,
            handle: scheduler.handle.clone(),
            time: Arc::clone(&time),
            trace: Arc::clone(&trace),
            ledger: Ledger::new(town.clone(), Arc::clone(&time), Arc::clone(&trace)),
            town,
            character,
            coordinators: Mutex::default(),
            machines: Mutex::default(),
            asleep: Mutex::default(),
            lives: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            at_rest: AtomicBool::new(false),
            busy: AtomicU32::new(60),
            me: me.clone(),
        });
        (scheduler, world, machines)
    }

    /// Runs it to its end.
    pub(crate) fn end(self: Arc<Self>, mut scheduler: Scheduler) -> Outcome {
        let looking = Arc::clone(&self);
        scheduler.run(move || looking.look());
        self.coordinators.lock().unwrap().clear();
        Outcome {
            violation: self.ledger.violation(),
            digest: self.trace.digest(),
            tail: self.trace.tail(),
            lines: self.trace.lines(),
            polls: scheduler.polls,
            lasted: self.time.elapsed(),
            counts: self.ledger.counts(),
        }
    }

    fn me(&self) -> Arc<Self> {
        self.me.upgrade().unwrap()
    }

    /// Chance of its own for whoever asks next.
    pub(crate) fn stream(&self) -> SmallRng {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        SmallRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(number))
    }

    pub(crate) fn next_life(&self) -> u64 {
        self.lives.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_faulty(&self) -> bool {
        self.time.elapsed() < self.character.until
    }

    /// For how long a coordinator's machine has been suspended so far.
    pub(crate) fn asleep(&self, number: usize) -> Arc<Mutex<Duration>> {
        Arc::clone(self.asleep.lock().unwrap().entry(number).or_default())
    }

    /// The doors of a new process.
    pub(crate) fn door(&self, name: &str, owner: Owner, rates: Rates) -> Door {
        let me = self.me.clone();
        Door {
            name: name.to_owned(),
            time: Arc::clone(&self.time),
            handle: self.handle.clone(),
            trace: Arc::clone(&self.trace),
            random: Mutex::new(self.stream()),
            rates,
            until: self.character.until,
            crash: Box::new(move || {
                let world = me.upgrade().unwrap();
                match &owner {
                    Owner::Coordinator(number) => world.gone(*number),
                    Owner::Agent(id) => world.agent_gone(id),
                    Owner::World => {}
                }
            }),
            cut_until: Mutex::default(),
        }
    }

    /// Whoever may act, as an agent finds it.
    pub(crate) fn leader(&self) -> Option<Leading> {
        let coordinators = self.coordinators.lock().unwrap();
        coordinators.values().find_map(|running| {
            Some(Leading {
                number: running.number,
                life: running.life,
                epoch: running.term()?,
                sessions: Arc::clone(&running.sessions),
                outside: Arc::clone(&running.outside),
            })
        })
    }

    /// Whether that coordinator is still there, and leads.
    pub(crate) fn leads(&self, leading: &Leading) -> bool {
        let coordinators = self.coordinators.lock().unwrap();
        coordinators
            .get(&leading.number)
            .is_some_and(|running| running.life == leading.life && running.term().is_some())
    }

    /// The process of a coordinator ends at this moment. Another one is started in a while.
    pub(crate) fn gone(&self, number: usize) {
        let down = Duration::from_millis(self.stream().random_range(500..25_000));
        self.gone_for(number, down);
    }

    /// The same, for so long.
    pub(crate) fn gone_for(&self, number: usize, down: Duration) {
        if self.coordinators.lock().unwrap().remove(&number).is_none() {
            return;
        }
        self.trace.note(format_args!("c{number} is gone"));
        self.handle.kill(Owner::Coordinator(number));
        let world = self.me();
        self.handle.spawn(Owner::World, async move {
            world.time.sleep(down).await;
            world.start_coordinator(number);
        });
    }

    fn start_coordinator(&self, number: usize) {
        let running = coordinator::start(&self.me(), number);
        self.trace
            .note(format_args!("c{number} starts, life {}", running.life));
        self.coordinators.lock().unwrap().insert(number, running);
    }

    /// The machine of a coordinator is suspended for a while.
    pub(crate) fn suspend(&self, number: usize, duration: Duration) {
        self.trace
            .note(format_args!("c{number} is suspended for {duration:?}"));
        self.handle.freeze(Owner::Coordinator(number), duration);
        let (world, asleep) = (self.me(), self.asleep(number));
        self.handle.spawn(Owner::World, async move {
            world.time.sleep(duration).await;
            *asleep.lock().unwrap() += duration;
        });
    }

    /// The agent's process on a machine dies; systemd starts it again.
    pub(crate) fn agent_gone(&self, id: &str) {
        self.trace.note(format_args!("the agent of {id} dies"));
        self.handle.kill(Owner::Agent(id.to_owned()));
        let Ok(instance) = id.parse::<InstanceId>() else {
            return;
        };
        let (world, mut random) = (self.me(), self.stream());
        self.handle.spawn(Owner::World, async move {
            let down = Duration::from_millis(random.random_range(500..8_000));
            world.time.sleep(down).await;
            let machine = world.machines.lock().unwrap().get(&instance).cloned();
            if let Some(machine) = machine {
                agents::start(&world, &machine);
            }
        });
    }

    /// Machines and coordinators start, and what happens by itself.
    pub(crate) fn begin(&self, machines: mpsc::UnboundedReceiver<cloud::Machine>) {
        for number in 0..self.character.machines {
            self.found(number);
        }
        for number in 0..self.character.number {
            self.start_coordinator(number);
        }
        self.handle.spawn(Owner::World, nature(self.me(), machines));
    }

    /// A machine that was there before: recorded, enrolled, its node Ready.
    fn found(&self, number: u32) {
        let town = &self.town;
        let pool = &town.policy.pools[0];
        let zone = &pool.zones[usize::try_from(number).unwrap() % pool.zones.len()];
        let market = if number < 2 {
            Market::OnDemand
        } else {
            Market::Spot
        };
        let instance = town
            .cloud
            .found(&pool.name, &pool.types[0].name, zone, market)
            .instance;
        let record = NodeRecord {
            instance: instance.id.clone(),
            pool: pool.name.clone(),
            instance_type: instance.instance_type.clone(),
            zone: zone.clone(),
            market,
            operation: "op-before".parse().unwrap(),
            launched_at: instance.launched_at,
            secret_hash: None,
            secret_expires_at: None,
            enrolled_key: Some(instance.id.to_string()),
            enrolled_at: Some(instance.launched_at),
            ready_at: Some(instance.launched_at),
            binding_secret: None,
            certified: None,
            revoked_at: None,
            boot: Vec::new(),
        };
        let write = Write::Put {
            key: record.key(),
            body: record.body().unwrap(),
            expires_at: None,
            condition: smartscale_coordinator::state::Condition::Absent,
        };
        at_once(town.store.append(&write)).unwrap();
        town.cluster.found(town::node(&town.policy, &instance, true));
        let machine = Machine::new(instance.clone(), true);
        self.machines
            .lock()
            .unwrap()
            .insert(instance.id, Arc::clone(&machine));
        agents::start(&self.me(), &machine);
    }

    /// After each step: who may act. Whether the run is over.
    fn look(&self) -> bool {
        let acting: Vec<_> = self
            .coordinators
            .lock()
            .unwrap()
            .values()
            .filter_map(|running| Some((running.number, running.term()?)))
            .collect();
        self.ledger.acting(&acting);
        self.at_rest.load(Ordering::Relaxed) || self.ledger.violation().is_some()
    }
}

/// What happens by itself in the cluster and in the cloud.
async fn nature(world: Arc<World>, mut machines: mpsc::UnboundedReceiver<cloud::Machine>) {
    loop {
        world.town.cloud.step();
        while let Ok(event) = machines.try_recv() {
            match event {
                cloud::Machine::Up(booted) => {
                    let machine = Machine::new(booted.instance.clone(), false);
                    let id = booted.instance.id.clone();
                    world.machines.lock().unwrap().insert(id, Arc::clone(&machine));
                    agents::start(&world, &machine);
                }
                cloud::Machine::Off(id) => {
                    world.trace.note(format_args!("{id} is off"));
                    world.ledger.taken(&id);
                    world.machines.lock().unwrap().remove(&id);
                    world.handle.kill(Owner::Agent(id.to_string()));
                    world.town.cluster.stop_kubelet(id.as_str());
                }
            }
        }
        world.town.cluster.step();
        world.time.sleep(Duration::from_secs(1)).await;
    }
}

/// The replicas that a service may be given.
pub(crate) fn replicas(service: usize, random: &mut SmallRng) -> (&'static str, u32) {
    let (name, most, ..) = SERVICES[service];
    let least = if random.random_ratio(2, 3) { most / 2 } else { 1 };
    (name, random.random_range(least..=most))
}
