//! The shop: an HTTP server in front of pods. Each pod is a queue with one till.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use k8s_openapi::api::apps::v1::Deployment;
use tokio::time::Instant;

use crate::rig::kubernetes;

/// Whoever would have to wait longer is turned away.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// CPU that a pod requests, and may use at most.
pub(super) const POD_CPU: f64 = 0.5;
/// CPU time of a page, and of every fifth, which is made anew.
const PAGE: Duration = Duration::from_millis(10);
const FRESH_PAGE: Duration = Duration::from_millis(60);

/// The workload as Kubernetes sees it: four pods on a `t3.small`.
#[must_use]
pub(super) fn deployment(name: &str, replicas: u32) -> Deployment {
    let pod = kubernetes::pod(name).requests("500m", "200Mi").grace(10);
    kubernetes::deployment(name, i32::try_from(replicas).unwrap_or(i32::MAX), pod)
}

/// A running shop. Cheap to clone; it closes with the last.
#[derive(Debug, Clone)]
pub(super) struct Shop {
    address: SocketAddr,
    floor: Arc<Mutex<Floor>>,
    _server: Arc<Server>,
}

#[derive(Debug)]
struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the requests of the shop's life came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests that came.
    pub(super) came: u64,
    /// Those that were turned away.
    pub(super) turned_away: u64,
}

#[derive(Debug, Default)]
struct Floor {
    tills: BTreeMap<String, Till>,
    counts: Counts,
}

/// One pod.
#[derive(Debug)]
struct Till {
    node: String,
    /// When it has served all who stand there.
    free: Instant,
    /// Time that all who ever stood there take.
    work: Duration,
    /// Work done at the last look.
    seen: (Instant, Duration),
}

impl Till {
    fn new(node: &str, now: Instant) -> Self {
        Self {
            node: node.to_owned(),
            free: now,
            work: Duration::ZERO,
            seen: (now, Duration::ZERO),
        }
    }

    /// Takes one more; when it is served.
    fn take(&mut self, work: Duration, now: Instant) -> Instant {
        self.free = self.free.max(now) + work;
        self.work += work;
        self.free
    }

    /// The part of the time since the last look that it was busy.
    fn busy(&mut self, now: Instant) -> f64 {
        let done = self.work.saturating_sub(self.free.saturating_duration_since(now));
        let (since, before) = std::mem::replace(&mut self.seen, (now, done));
        let passed = now.saturating_duration_since(since).as_secs_f64();
        if passed <= 0.0 {
            return 0.0;
        }
        (done.saturating_sub(before).as_secs_f64() / passed).min(1.0)
    }
}

impl Floor {
    /// Puts a request where it is served first; when that is. `None`: it would have to wait too long, or nobody serves.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        self.counts.came += 1;
        let cpu = if self.counts.came.is_multiple_of(5) {
            FRESH_PAGE
        } else {
            PAGE
        };
        let first = self.tills.values_mut().min_by_key(|till| till.free);
        let served = first
            .filter(|till| till.free.saturating_duration_since(now) <= PATIENCE)
            .map(|till| till.take(cpu.div_f64(POD_CPU), now));
        self.counts.turned_away += u64::from(served.is_none());
        served
    }

    /// From now on exactly these pods serve: name and node of each.
    fn open<'a>(&mut self, pods: impl Iterator<Item = (&'a str, &'a str)>, now: Instant) {
        let mut before = std::mem::take(&mut self.tills);
        self.tills = pods
            .map(|(name, node)| {
                let till = before.remove(name).unwrap_or_else(|| Till::new(node, now));
                (name.to_owned(), till)
            })
            .collect();
    }
}

impl Shop {
    /// Opens one without pods on a free port of loopback.
    ///
    /// # Errors
    /// There is no port.
    pub(super) async fn open() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("bind the shop")?;
        let address = listener.local_addr().context("read the shop's port")?;
        let floor = Arc::<Mutex<Floor>>::default();
        let seen = Arc::clone(&floor);
        let serve = move || {
            let served = lock(&seen).take(Instant::now());
            async move {
                let Some(at) = served else {
                    return StatusCode::SERVICE_UNAVAILABLE;
                };
                tokio::time::sleep_until(at).await;
                StatusCode::OK
            }
        };
        let router = Router::new().route("/", get(serve));
        let task = tokio::spawn(async move {
            // Accepting ends with the task; there is nobody to tell.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            floor,
            _server: Arc::new(Server(task)),
        })
    }

    /// `http://127.0.0.1:PORT/`.
    #[must_use]
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on exactly these pods serve: name and node of each. What one that is gone has taken is served still.
    pub(super) fn pods<'a>(&self, pods: impl Iterator<Item = (&'a str, &'a str)>) {
        lock(&self.floor).open(pods, Instant::now());
    }

    /// For each pod its node, and the CPU that it has used on average since this was last asked.
    #[must_use]
    pub(super) fn used(&self) -> Vec<(String, f64)> {
        let now = Instant::now();
        let mut floor = lock(&self.floor);
        let tills = floor.tills.values_mut();
        tills
            .map(|till| (till.node.clone(), till.busy(now) * POD_CPU))
            .collect()
    }

    /// Requests up to now.
    #[must_use]
    pub(super) fn counts(&self) -> Counts {
        lock(&self.floor).counts
    }
}

fn lock(floor: &Mutex<Floor>) -> MutexGuard<'_, Floor> {
    floor.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "halves and wholes are exact")]

    use super::*;

    fn floor(pods: &[&str], now: Instant) -> Floor {
        let mut floor = Floor::default();
        floor.open(pods.iter().map(|pod| (*pod, "node")), now);
        floor
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_request_goes_where_it_is_served_first_and_a_page_takes_twice_its_cpu_on_half_a_cpu() {
        let now = Instant::now();
        let mut floor = floor(&["a", "b"], now);
        let served: Vec<_> = (0..5).map(|_| floor.take(now).map(|at| at - now)).collect();
        assert_eq!(
            served,
            [20, 20, 40, 40, 160].map(|milliseconds| Some(ms(milliseconds)))
        );
    }

    #[test]
    fn whoever_would_wait_too_long_or_finds_nobody_is_turned_away() {
        let now = Instant::now();
        let mut nobody = floor(&[], now);
        assert_eq!(nobody.take(now), None);
        let mut one = floor(&["a"], now);
        let taken = std::iter::repeat_with(|| one.take(now))
            .take_while(Option::is_some)
            .count();
        // Five take 200 ms; the last that is taken finds at most 2 s before it.
        assert!((50..=52).contains(&taken), "{taken}");
        assert_eq!(one.counts.turned_away, 1);
    }

    #[test]
    fn a_pod_is_busy_while_it_serves_and_not_before_those_who_wait_are_served() {
        let now = Instant::now();
        let mut floor = floor(&["a"], now);
        for _ in 0..4 {
            floor.take(now);
        }
        let till = floor.tills.get_mut("a").expect("it is there");
        assert_eq!(till.busy(now + ms(40)), 1.0);
        assert_eq!(till.busy(now + ms(120)), 0.5);
        assert_eq!(till.busy(now + ms(200)), 0.0);
    }

    #[test]
    fn a_pod_that_stays_keeps_its_queue_and_one_that_is_gone_takes_nobody() {
        let now = Instant::now();
        let mut floor = floor(&["a", "b"], now);
        floor.take(now);
        floor.open([("a", "node"), ("c", "node")].into_iter(), now);
        assert_eq!(floor.tills.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(floor.take(now), Some(now + ms(20)), "c is free");
        assert_eq!(floor.take(now), Some(now + ms(40)), "a had one already");
    }
}
