//! The doors through which calls leave a process, and what may become of a call on its way.
//!
//! ```text
//!   caller ──▶ nothing │ error before │ error after │ late (the caller may have given up) │ reply lost │ twice │ crash ──▶ effect
//! ```
//! What is drawn and what took effect is in the [`Trace`], line by line: two runs of a seed have the same one.

use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use rand::{RngExt as _, rngs::SmallRng};
use smartscale_proto::time::Clock as _;
use tokio::sync::oneshot;

use crate::scheduler::{Handle, Owner, Time};

/// Lines that are kept for a failure's report.
const KEPT: usize = 250;
/// A call whose reply is lost is given up by the client's library after this.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// What happened, in order.
pub(crate) struct Trace {
    time: Arc<Time>,
    print: bool,
    state: Mutex<(DefaultHasher, VecDeque<String>, u64)>,
}

impl Trace {
    pub(crate) fn new(time: Arc<Time>, print: bool) -> Arc<Self> {
        Arc::new(Self {
            time,
            print,
            state: Mutex::default(),
        })
    }

    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        let line = format!("{:>10.3} {line}", self.time.elapsed().as_secs_f64());
        if self.print {
            println!("{line}");
        }
        let mut state = self.state.lock().unwrap();
        line.hash(&mut state.0);
        state.2 += 1;
        if state.1.len() == KEPT {
            state.1.pop_front();
        }
        state.1.push_back(line);
    }

    /// A number that stands for all lines.
    pub(crate) fn digest(&self) -> u64 {
        self.state.lock().unwrap().0.finish()
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.state.lock().unwrap().1.iter().cloned().collect()
    }

    pub(crate) fn lines(&self) -> u64 {
        self.state.lock().unwrap().2
    }
}

/// How often what goes wrong, in thousandths of the calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    pub(crate) faults: u32,
    pub(crate) crashes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Before,
    After,
    Late(Duration),
    Lost,
    Twice,
    Crash { before: bool },
}

/// What a call says when it fails on its way.
pub(crate) trait Fails: Sized + Send + 'static {
    /// It never arrived.
    fn before() -> Self;
    /// Nobody knows.
    fn unknown() -> Self;
}

/// The doors of one process, in one life of it.
pub(crate) struct Door {
    pub(crate) name: String,
    pub(crate) time: Arc<Time>,
    pub(crate) handle: Handle,
    pub(crate) trace: Arc<Trace>,
    pub(crate) random: Mutex<SmallRng>,
    pub(crate) rates: Rates,
    /// No fault any more from then on.
    pub(crate) until: Duration,
    /// Ends the process, now.
    pub(crate) crash: Box<dyn Fn() + Send + Sync>,
    /// Every call fails before it arrives, until then.
    pub(crate) cut_until: Mutex<Duration>,
}

impl Door {
    fn draw(&self) -> (Fault, Duration) {
        let mut random = self.random.lock().unwrap();
        let latency = if random.random_ratio(1, 3) {
            Duration::from_millis(random.random_range(1..80))
        } else {
            Duration::ZERO
        };
        if self.time.elapsed() >= self.until {
            return (Fault::None, latency);
        }
        if self.time.elapsed() < *self.cut_until.lock().unwrap() {
            return (Fault::Before, latency);
        }
        let drawn = random.random_range(0..1_000);
        let fault = if drawn < self.rates.crashes {
            Fault::Crash {
                before: random.random_ratio(1, 2),
            }
        } else if drawn < self.rates.crashes + self.rates.faults {
            match random.random_range(0..12) {
                0..3 => Fault::Before,
                3..6 => Fault::After,
                6..8 => Fault::Late(Duration::from_millis(random.random_range(50..9_000))),
                8 => Fault::Late(Duration::from_millis(random.random_range(9_000..60_000))),
                9 => Fault::Lost,
                _ => Fault::Twice,
            }
        } else {
            Fault::None
        };
        (fault, latency)
    }

    /// Makes a call. `again`: a library below may send it twice.
    pub(crate) async fn call<T: Send + 'static, E: Fails>(
        &self,
        what: String,
        again: bool,
        mut effect: impl FnMut() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (fault, latency) = self.draw();
        if fault != Fault::None {
            self.trace.note(format_args!("{} {what}: {fault:?}", self.name));
        }
        if !latency.is_zero() {
            self.time.sleep(latency).await;
        }
        match fault {
            Fault::None => effect(),
            Fault::Before => Err(E::before()),
            Fault::After => {
                let _ = effect();
                Err(E::unknown())
            }
            Fault::Lost => {
                let _ = effect();
                self.time.sleep(GIVEN_UP).await;
                Err(E::unknown())
            }
            Fault::Twice => {
                let first = effect();
                if again { effect() } else { first }
            }
            Fault::Late(delay) => {
                let (answer, answered) = oneshot::channel();
                let time = Arc::clone(&self.time);
                self.handle.spawn(Owner::World, async move {
                    time.sleep(delay).await;
                    let _ = answer.send(effect());
                });
                answered.await.unwrap_or_else(|_| Err(E::unknown()))
            }
            Fault::Crash { before } => {
                if !before {
                    let _ = effect();
                }
                (self.crash)();
                std::future::pending().await
            }
        }
    }
}

/// The outcome of something that waits for nothing.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the simulated world never waits"),
    }
}
