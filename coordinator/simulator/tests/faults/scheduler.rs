//! One thread, one seed: tasks that are ready are polled in an order that the seed draws, and time moves only when none
//! is.
//!
//! ```text
//!   ready tasks ──draw──▶ poll ──▶ orders (spawn, kill, freeze) ──▶ look at the invariants ──┐
//!        ▲                                                                                     │
//!        └── wake ◀── next sleeper's moment ◀── nobody is ready ◀─────────────────────────────┘
//! ```
//! Which of several tasks a channel wakes first does not matter here (tokio draws that by itself): they are a set, and
//! the seed picks from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use smartscale_proto::time::Clock;

/// Whose task it is: what dies together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// The world itself.
    World,
    /// The process of a coordinator.
    Coordinator(usize),
    /// The agent's process on a machine.
    Agent(String),
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Order {
    Spawn(Owner, Task),
    Kill(Owner),
    Freeze(Owner, Duration),
}

/// Time that moves only when nobody is ready.
pub(crate) struct Time {
    beginning: Timestamp,
    state: Mutex<Sleepers>,
}

#[derive(Default)]
struct Sleepers {
    elapsed: Duration,
    wakers: BTreeMap<(Duration, u64), Waker>,
    next: u64,
}

impl Default for Time {
    fn default() -> Self {
        Self {
            beginning: "2026-01-05T09:00:00Z".parse().unwrap(),
            state: Mutex::default(),
        }
    }
}

#[async_trait]
impl Clock for Time {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap();
        self.beginning + elapsed
    }

    fn elapsed(&self) -> Duration {
        self.state.lock().unwrap().elapsed
    }

    async fn sleep(&self, duration: Duration) {
        let deadline = self.elapsed().saturating_add(duration);
        Sleep {
            time: self,
            deadline,
            place: None,
        }
        .await;
    }
}

struct Sleep<'t> {
    time: &'t Time,
    deadline: Duration,
    place: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let mut state = self.time.state.lock().unwrap();
        if state.elapsed >= deadline {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or_else(|| {
            state.next += 1;
            state.next
        });
        state.wakers.insert((deadline, place), context.waker().clone());
        drop(state);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let waker = self
                .time
                .state
                .lock()
                .unwrap()
                .wakers
                .remove(&(self.deadline, place));
            drop(waker);
        }
    }
}

#[derive(Default)]
struct Ready(Mutex<BTreeSet<u64>>);

struct Bell {
    task: u64,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ready.0.lock().unwrap().insert(self.task);
    }
}

/// Gives orders to the scheduler, from within tasks.
#[derive(Clone)]
pub(crate) struct Handle {
    orders: Arc<Mutex<Vec<Order>>>,
    time: Arc<Time>,
}

impl Handle {
    pub(crate) fn spawn(&self, owner: Owner, task: impl Future<Output = ()> + Send + 'static) {
        self.order(Order::Spawn(owner, Box::pin(task)));
    }

    /// Ends every task of an owner as soon as the one that is polled has returned.
    pub(crate) fn kill(&self, owner: Owner) {
        self.order(Order::Kill(owner));
    }

    /// Polls no task of an owner for so long: a machine that is suspended.
    pub(crate) fn freeze(&self, owner: Owner, duration: Duration) {
        self.order(Order::Freeze(owner, self.time.elapsed() + duration));
    }

    fn order(&self, order: Order) {
        self.orders.lock().unwrap().push(order);
    }
}

struct Entry {
    owner: Owner,
    task: Task,
    waker: Waker,
}

/// The scheduler of a world.
pub(crate) struct Scheduler {
    pub(crate) time: Arc<Time>,
    pub(crate) handle: Handle,
    random: SmallRng,
    tasks: BTreeMap<u64, Entry>,
    ready: Arc<Ready>,
    frozen: BTreeMap<Owner, Duration>,
    next: u64,
    pub(crate) polls: u64,
}

impl Scheduler {
    pub(crate) fn new(seed: u64) -> Self {
        let time = Arc::new(Time::default());
        let handle = Handle {
            orders: Arc::default(),
            time: Arc::clone(&time),
        };
        Self {
            time,
            handle,
            random: SmallRng::seed_from_u64(seed),
            tasks: BTreeMap::new(),
            ready: Arc::default(),
            frozen: BTreeMap::new(),
            next: 0,
            polls: 0,
        }
    }

    /// Runs until `look`, which is asked after every step, says stop.
    pub(crate) fn run(&mut self, mut look: impl FnMut() -> bool) {
        loop {
            self.obey();
            if look() {
                break;
            }
            if !self.step() && !self.advance() {
                break;
            }
        }
        // Tasks hold the world, the world holds the handle: nothing may be left in there.
        self.tasks.clear();
        self.handle.orders.lock().unwrap().clear();
    }

    fn obey(&mut self) {
        loop {
            let orders = std::mem::take(&mut *self.handle.orders.lock().unwrap());
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::Spawn(owner, task) => self.spawn(owner, task),
                    Order::Kill(owner) => {
                        self.frozen.remove(&owner);
                        let of_owner = |entry: &Entry| entry.owner == owner;
                        let dead: Vec<u64> = self
                            .tasks
                            .iter()
                            .filter(|(_, entry)| of_owner(entry))
                            .map(|(id, _)| *id)
                            .collect();
                        for id in dead {
                            self.tasks.remove(&id);
                        }
                    }
                    Order::Freeze(owner, until) => {
                        self.frozen.insert(owner, until);
                    }
                }
            }
        }
    }

    fn spawn(&mut self, owner: Owner, task: Task) {
        self.next += 1;
        let bell = Bell {
            task: self.next,
            ready: Arc::clone(&self.ready),
        };
        let waker = Waker::from(Arc::new(bell));
        self.tasks.insert(self.next, Entry { owner, task, waker });
        self.ready.0.lock().unwrap().insert(self.next);
    }

    /// Polls one task; `false` when none may be.
    fn step(&mut self) -> bool {
        let now = self.time.elapsed();
        self.frozen.retain(|_, until| *until > now);
        let chosen = {
            let mut ready = self.ready.0.lock().unwrap();
            ready.retain(|id| self.tasks.contains_key(id));
            let able: Vec<u64> = ready
                .iter()
                .filter(|id| self.frozen.is_empty() || !self.frozen.contains_key(&self.tasks[*id].owner))
                .copied()
                .collect();
            if able.is_empty() {
                return false;
            }
            let chosen = able[self.random.random_range(0..able.len())];
            ready.remove(&chosen);
            chosen
        };
        let Some(entry) = self.tasks.get_mut(&chosen) else {
            return true;
        };
        self.polls += 1;
        let mut context = Context::from_waker(&entry.waker);
        if entry.task.as_mut().poll(&mut context).is_ready() {
            self.tasks.remove(&chosen);
        }
        true
    }

    /// Moves time to the next moment at which somebody may go on; `false` when there is none.
    fn advance(&mut self) -> bool {
        let thaw = self.frozen.values().min().copied();
        let mut state = self.time.state.lock().unwrap();
        let sleeper = state.wakers.keys().next().map(|(moment, _)| *moment);
        let Some(moment) = sleeper.into_iter().chain(thaw).min() else {
            return false;
        };
        state.elapsed = state.elapsed.max(moment);
        let mut due = Vec::new();
        while let Some(entry) = state.wakers.first_entry().filter(|entry| entry.key().0 <= moment) {
            due.push(entry.remove());
        }
        drop(state);
        for waker in due {
            waker.wake();
        }
        true
    }
}
