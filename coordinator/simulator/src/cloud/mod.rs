//! A cloud in memory: machines that are launched, boot for a while, are billed, may be refused, interrupted and terminated.
//!
//! ```text
//!   launch ─▶ Pending ─boot─▶ Running ─terminate or interruption─▶ ShuttingDown ─▶ Terminated
//!                                └─ notice (IMDS), two minutes before an interruption
//! ```
//!
//! Prices, types and zones are the policy's, so that what a decision reckons with is what is billed. What takes time or
//! goes wrong is drawn from the seed or written in the script ([`Cloud::refuse`], [`Cloud::interrupt`]).

mod bill;
mod fleet;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_coordinator::{
    act::fleet::{Instance, Launched, RefusalCause},
    ids::InstanceId,
};
use smartscale_planner::{
    Policy,
    model::{InstanceType, Market, PoolName, Zone},
};
use smartscale_proto::time::SharedClock;
use tokio::sync::mpsc;

pub use bill::Bill;
pub use smartscale_coordinator::act::fleet::InstanceState;

use crate::{
    cluster::signed,
    log::{Log, Source},
    seed::Seed,
};

/// EC2 announces an interruption so long before it takes the machine.
pub const INTERRUPTION_NOTICE: Duration = Duration::from_secs(120);

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From the launch call to the first program of the machine.
    pub boot: Duration,
    /// Spread of that, as a share: 0.2 is ±20 %.
    pub boot_spread: f64,
    /// From the terminate call to Terminated.
    pub shutdown: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(40),
            boot_spread: 0.2,
            shutdown: Duration::from_secs(20),
        }
    }
}

/// What the world must do about a machine.
#[derive(Debug, Clone)]
pub enum Machine {
    /// It is up: its programs start.
    Up(Box<Booted>),
    /// Its power is off: its programs end where they are.
    Off(InstanceId),
}

/// A machine that is up.
#[derive(Debug, Clone)]
pub struct Booted {
    /// The machine.
    pub instance: Instance,
    /// Its place among the machines of this world, from 1: gives it an address.
    pub number: u32,
    /// The one-time secret that came with the launch.
    pub secret: Option<String>,
}

/// A notice that a machine's metadata service shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// When the machine is taken.
    pub at: Timestamp,
}

/// Offerings that refuse.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The type; `None` is every one.
    pub instance_type: Option<InstanceType>,
    /// The zone; `None` is every one.
    pub zone: Option<Zone>,
    /// The market; `None` is both.
    pub market: Option<Market>,
    /// Why.
    pub cause: RefusalCause,
}

impl Refusal {
    fn covers(&self, instance_type: &InstanceType, zone: &Zone, market: Market) -> bool {
        self.instance_type
            .as_ref()
            .is_none_or(|name| name == instance_type)
            && self.zone.as_ref().is_none_or(|name| name == zone)
            && self.market.is_none_or(|name| name == market)
    }
}

#[derive(Debug, Clone)]
struct Entry {
    instance: Instance,
    number: u32,
    secret: Option<String>,
    /// When its first program runs.
    up_at: Timestamp,
    /// USD per hour.
    price: f64,
    /// When terminating began.
    ended_at: Option<Timestamp>,
    interruption: Option<Interruption>,
    up: bool,
    off: bool,
}

struct State {
    instances: BTreeMap<InstanceId, Entry>,
    tokens: BTreeMap<String, (u64, Launched)>,
    refusals: Vec<Refusal>,
    per_zone: BTreeMap<(Zone, Market), u32>,
    count: u32,
    calls: u32,
}

/// The cloud. Clones share it.
#[derive(Clone)]
pub struct Cloud {
    clock: SharedClock,
    log: Log,
    seed: Seed,
    times: Times,
    policy: Arc<Policy>,
    state: Arc<Mutex<State>>,
    machines: mpsc::UnboundedSender<Machine>,
}

impl Cloud {
    /// An empty cloud, and what happens to its machines.
    #[must_use]
    pub fn new(
        clock: SharedClock,
        log: Log,
        seed: Seed,
        times: Times,
        policy: Arc<Policy>,
    ) -> (Self, mpsc::UnboundedReceiver<Machine>) {
        let (machines, events) = mpsc::unbounded_channel();
        let state = State {
            instances: BTreeMap::new(),
            tokens: BTreeMap::new(),
            refusals: Vec::new(),
            per_zone: BTreeMap::new(),
            count: 0,
            calls: 0,
        };
        (
            Self {
                clock,
                log,
                seed,
                times,
                policy,
                state: Arc::new(Mutex::new(state)),
                machines,
            },
            events,
        )
    }

    /// Lets time do its work on machines every `period` until the future is dropped.
    pub async fn run(&self, period: Duration) {
        loop {
            self.step();
            self.clock.sleep(period).await;
        }
    }

    /// Boots, takes and ends machines whose time has come.
    pub fn step(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        for entry in state.instances.values_mut() {
            let id = entry.instance.id.clone();
            if entry.instance.state == InstanceState::Pending && now >= entry.up_at {
                entry.instance.state = InstanceState::Running;
            }
            if !entry.up && entry.instance.state == InstanceState::Running {
                entry.up = true;
                let booted = Booted {
                    instance: entry.instance.clone(),
                    number: entry.number,
                    secret: entry.secret.take(),
                };
                self.log.write(
                    Source::Cloud,
                    "machine_up",
                    id.as_str(),
                    "machine is up, its agent starts",
                );
                let _ = self.machines.send(Machine::Up(Box::new(booted)));
            }
            if entry.instance.state.is_alive()
                && entry
                    .interruption
                    .as_ref()
                    .is_some_and(|interruption| now >= interruption.at)
            {
                self.log.write(
                    Source::Cloud,
                    "machine_taken",
                    id.as_str(),
                    "the spot machine was taken back",
                );
                entry.instance.state = InstanceState::ShuttingDown;
                entry.ended_at = Some(now);
            }
            if entry.instance.state == InstanceState::ShuttingDown && !entry.off {
                entry.off = true;
                let _ = self.machines.send(Machine::Off(id.clone()));
            }
            let over = entry
                .ended_at
                .is_some_and(|at| now >= at + signed(self.times.shutdown));
            if over && entry.instance.state == InstanceState::ShuttingDown {
                entry.instance.state = InstanceState::Terminated;
                self.log
                    .write(Source::Cloud, "machine_gone", id.as_str(), "machine terminated");
            }
        }
    }

    /// From now on these offerings refuse; an empty list ends it.
    pub fn refuse(&self, refusals: Vec<Refusal>) {
        self.state().refusals = refusals;
    }

    /// Announces that a machine is taken in two minutes. Whether there is such a machine.
    pub fn interrupt(&self, instance: &InstanceId) -> bool {
        let at = self.clock.now() + signed(INTERRUPTION_NOTICE);
        let mut state = self.state();
        let Some(entry) = state
            .instances
            .get_mut(instance)
            .filter(|entry| entry.instance.state.is_alive())
        else {
            return false;
        };
        entry.interruption = Some(Interruption { at });
        self.log.write(
            Source::Cloud,
            "spot_notice",
            instance.as_str(),
            "spot interruption notice: the machine is taken in 2 minutes",
        );
        true
    }

    /// What the metadata service of a machine announces.
    #[must_use]
    pub fn interruption(&self, instance: &InstanceId) -> Option<Interruption> {
        self.state().instances.get(instance)?.interruption.clone()
    }

    /// Puts a machine there that has been up for an hour, as found at the beginning.
    pub fn found(
        &self,
        pool: &PoolName,
        instance_type: &InstanceType,
        zone: &Zone,
        market: Market,
    ) -> Booted {
        let now = self.clock.now();
        let launched_at = now - signed(Duration::from_secs(3600));
        let mut state = self.state();
        let mut entry = self.machine(&mut state, pool, instance_type, zone, market);
        entry.instance.state = InstanceState::Running;
        entry.instance.launched_at = launched_at;
        (entry.up_at, entry.up) = (launched_at, true);
        let booted = Booted {
            instance: entry.instance.clone(),
            number: entry.number,
            secret: None,
        };
        state.instances.insert(entry.instance.id.clone(), entry);
        booted
    }

    /// Every machine there ever was, with the price that it is billed at, in USD per hour.
    #[must_use]
    pub fn instances(&self) -> Vec<(Instance, f64)> {
        self.state()
            .instances
            .values()
            .map(|entry| (entry.instance.clone(), entry.price))
            .collect()
    }

    /// Machines that are billed at this moment.
    #[must_use]
    pub fn billed(&self) -> usize {
        self.state()
            .instances
            .values()
            .filter(|entry| entry.instance.state.is_alive())
            .count()
    }

    /// How many launch calls were made, repetitions included.
    #[must_use]
    pub fn launch_calls(&self) -> u32 {
        self.state().calls
    }

    /// A new machine, Pending. Its id depends on its zone, its market and its number in there, so that two launches at
    /// the same moment give the same ids whichever comes first.
    fn machine(
        &self,
        state: &mut State,
        pool: &PoolName,
        instance_type: &InstanceType,
        zone: &Zone,
        market: Market,
    ) -> Entry {
        let now = self.clock.now();
        state.count += 1;
        let number = state.per_zone.entry((zone.clone(), market)).or_default();
        *number += 1;
        let name = format!("{zone}/{market}/{number}");
        let hex = format!("{:016x}", self.seed.number(&format!("instance/{name}")));
        let boot = self.times.boot.mul_f64(
            self.seed
                .around_one(&format!("boot/{name}"), self.times.boot_spread),
        );
        let price = self.price(pool, instance_type, zone, market);
        let id: InstanceId = format!("i-0{hex}")
            .parse()
            .unwrap_or_else(|_| unreachable!("hexadecimal is an id"));
        Entry {
            instance: Instance {
                id,
                instance_type: instance_type.clone(),
                zone: zone.clone(),
                market,
                pool: Some(pool.clone()),
                operation: None,
                state: InstanceState::Pending,
                launched_at: now,
                ended_at: None,
            },
            number: state.count,
            secret: None,
            up_at: now + signed(boot),
            price,
            ended_at: None,
            interruption: None,
            up: false,
            off: false,
        }
    }

    fn price(&self, pool: &PoolName, instance_type: &InstanceType, zone: &Zone, market: Market) -> f64 {
        let price = || {
            let pool = self.policy.pool(pool.as_str())?;
            pool.price(self.policy.types.get(instance_type)?, zone, market)
        };
        price().unwrap_or(0.0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Types of a request that refuse, and the first that does not.
fn offered<'r>(
    refusals: &[Refusal],
    types: &'r [InstanceType],
    zone: &Zone,
    market: Market,
) -> (Option<&'r InstanceType>, BTreeSet<(&'r InstanceType, usize)>) {
    let mut refused = BTreeSet::new();
    for instance_type in types {
        match refusals
            .iter()
            .position(|refusal| refusal.covers(instance_type, zone, market))
        {
            Some(number) => {
                refused.insert((instance_type, number));
            }
            None => return (Some(instance_type), refused),
        }
    }
    (None, refused)
}

#[cfg(test)]
mod tests;
