//! What is wrong with the machine, said with hysteresis: a figure that swings about its threshold is one condition, not many.
//!
//! Shares of time (pressure, steal) follow KEP-5394's rule for node conditions: a condition begins when the averages over a
//! minute *and* over ten seconds have reached the threshold (it is high, and it is not falling already), and ends when the one
//! over a minute is below it. The averages are exponential, as the kernel's own, and made of exact rates. Levels begin at one
//! figure and end at a lower one; what happens once (a process killed for want of memory) stands for ten minutes.

use std::time::Duration;

use jiff::Timestamp;
use smartscale_proto::{
    time::to_wire,
    v1::{HealthCondition, HealthConditionKind as Kind},
};

use super::Reading;

/// The windows of the averages.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(10);
/// What happened once stands for so long.
const EVENT: Duration = Duration::from_secs(600);
/// A service that does not answer for so long is down. Shorter pauses are those of a restart.
const DOWN: Duration = Duration::from_secs(10);

/// Thresholds for shares of time, in percent. Some task waits for a CPU on any busy machine, so that only near-constant
/// waiting is said; a tenth of the time without memory is thrashing already (oomd acts at that order).
const CPU_PRESSURE: f64 = 80.0;
const MEMORY_PRESSURE: f64 = 10.0;
const IO_PRESSURE: f64 = 60.0;
/// A quarter of the CPU given to others: a burstable instance at its baseline shows far more, a noisy neighbour less.
const STEAL: f64 = 25.0;
/// Errors of interfaces a second.
const NIC: f64 = 1.0;
/// Levels, in percent: begin, end. The kubelet evicts pods at 85 % to 90 % by default.
const DISK: (f64, f64) = (90.0, 85.0);
const CONNTRACK: (f64, f64) = (90.0, 80.0);
/// Clock skew in milliseconds: begin, end.
const SKEW: (f64, f64) = (5000.0, 2000.0);

/// Averages over a minute and over ten seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    long: f64,
    short: f64,
}

impl Average {
    fn take(&mut self, value: f64, passed: Duration) {
        let weight = |window: Duration| 1.0 - (-passed.as_secs_f64() / window.as_secs_f64()).exp();
        self.long += (value - self.long) * weight(LONG);
        self.short += (value - self.short) * weight(SHORT);
    }

    /// Whether the condition stands from now on.
    fn stands(&self, stood: bool, threshold: f64) -> bool {
        self.long >= threshold && (stood || self.short >= threshold)
    }
}

/// What the machine is asked beside its vital signs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Services {
    /// The kubelet's health endpoint answers well.
    pub kubelet: Option<bool>,
    /// The container runtime's socket takes a connection.
    pub runtime: Option<bool>,
    /// The unit that makes the node work is meant to run: before that nothing is down.
    pub expected: bool,
    /// This machine's clock less the coordinator's, in milliseconds.
    pub skew_ms: Option<i64>,
}

/// The conditions that stand, and what they came from.
#[derive(Debug, Default)]
pub struct Conditions {
    at: Option<Duration>,
    averages: [Average; 5],
    counters: [Option<u64>; 2],
    oom_until: Option<Duration>,
    silent_since: [Option<Duration>; 2],
    standing: Vec<(Kind, Timestamp, String)>,
}

impl Conditions {
    /// Takes a reading in, made at `now` (by the clock's elapsed time and by the wall), and says what stands.
    pub fn take(
        &mut self,
        reading: &Reading,
        services: Services,
        now: Duration,
        wall: Timestamp,
    ) -> Vec<HealthCondition> {
        let passed = self
            .at
            .replace(now)
            .map_or(Duration::ZERO, |at| now.saturating_sub(at));
        self.shares(reading, passed, wall);
        self.levels(reading, services, wall);
        self.events(reading, passed, now, wall);
        self.services(services, now, wall);
        let standing = self.standing.iter();
        standing
            .map(|(kind, since, detail)| HealthCondition {
                kind: (*kind).into(),
                since: Some(to_wire(*since)),
                detail: detail.clone(),
            })
            .collect()
    }

    fn stands(&self, kind: Kind) -> bool {
        self.standing.iter().any(|(own, ..)| *own == kind)
    }

    /// The detail is of the beginning, so that a figure that moves makes no news.
    fn set(&mut self, kind: Kind, stands: bool, wall: Timestamp, detail: impl FnOnce() -> String) {
        if stands == self.stands(kind) {
            return;
        }
        if stands {
            let detail = detail();
            tracing::warn!(condition = kind.as_str_name(), detail, "the machine is not well");
            self.standing.push((kind, wall, detail));
        } else {
            tracing::info!(condition = kind.as_str_name(), "the machine is well again");
            self.standing.retain(|(own, ..)| *own != kind);
        }
    }

    fn average(
        &mut self,
        index: usize,
        value: Option<f64>,
        passed: Duration,
        (kind, threshold): (Kind, f64),
        wall: Timestamp,
        what: &str,
    ) {
        let stood = self.stands(kind);
        let Some(average) = self.averages.get_mut(index) else {
            return;
        };
        // What is unknown for a moment leaves what is known.
        if let Some(value) = value {
            average.take(value, passed);
        }
        let (long, stands) = (average.long, average.stands(stood, threshold));
        self.set(kind, stands, wall, || format!("{what}: {long:.0} over a minute"));
    }

    fn shares(&mut self, reading: &Reading, passed: Duration, wall: Timestamp) {
        let figures = [
            (
                reading.cpu_pressure,
                Kind::CpuPressure,
                CPU_PRESSURE,
                "percent of the time some task waited for a CPU",
            ),
            (
                reading.memory_pressure,
                Kind::MemoryPressure,
                MEMORY_PRESSURE,
                "percent of the time some task waited for memory",
            ),
            (
                reading.io_pressure,
                Kind::IoPressure,
                IO_PRESSURE,
                "percent of the time some task waited for input or output",
            ),
            (
                reading.steal_percent,
                Kind::CpuStolen,
                STEAL,
                "percent of the CPU the hypervisor gave to others, as of a burstable instance without credits",
            ),
        ];
        for (index, (value, kind, threshold, what)) in figures.into_iter().enumerate() {
            self.average(index, value, passed, (kind, threshold), wall, what);
        }
    }

    fn level(
        &mut self,
        kind: Kind,
        value: Option<f64>,
        (begin, end): (f64, f64),
        wall: Timestamp,
        what: &str,
    ) {
        let Some(value) = value else { return };
        let stands = value >= if self.stands(kind) { end } else { begin };
        self.set(kind, stands, wall, || format!("{what}: {value:.0}"));
    }

    fn levels(&mut self, reading: &Reading, services: Services, wall: Timestamp) {
        let disks = [
            (reading.disk_percent, "percent of K3s' file system are in use"),
            (
                reading.inode_percent,
                "percent of the inodes of K3s' file system are in use",
            ),
            (
                reading.root_disk_percent,
                "percent of the root file system are in use",
            ),
            (
                reading.image_disk_percent,
                "percent of the images' file system are in use",
            ),
        ];
        let fullest = disks
            .into_iter()
            .filter_map(|(value, what)| Some((value?, what)))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        if let Some((value, what)) = fullest {
            self.level(Kind::DiskFull, Some(value), DISK, wall, what);
        }
        let what = "percent of the connection tracking table are in use";
        self.level(
            Kind::ConntrackFull,
            reading.conntrack_percent,
            CONNTRACK,
            wall,
            what,
        );
        #[allow(clippy::cast_precision_loss, reason = "a skew needs no more than 52 bits")]
        let skew = services.skew_ms.map(|skew| skew.unsigned_abs() as f64);
        let what = "milliseconds between this machine's clock and the coordinator's";
        self.level(Kind::ClockSkew, skew, SKEW, wall, what);
    }

    /// How much a counter grew; nothing for the first look at it, or one that went back.
    fn growth(&mut self, index: usize, value: Option<u64>) -> Option<u64> {
        let value = value?;
        let before = self.counters.get_mut(index)?.replace(value)?;
        value.checked_sub(before)
    }

    fn events(&mut self, reading: &Reading, passed: Duration, now: Duration, wall: Timestamp) {
        let killed = self.growth(0, reading.oom_kills).unwrap_or(0);
        if killed > 0 {
            self.oom_until = Some(now + EVENT);
        }
        let stands = self.oom_until.is_some_and(|until| now < until);
        self.set(Kind::OomKills, stands, wall, || {
            format!("{killed} processes were killed for want of memory")
        });
        let errors = self.growth(1, reading.nic_errors).unwrap_or(0);
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let rate = (!passed.is_zero()).then(|| errors as f64 / passed.as_secs_f64());
        let what = "errors of network interfaces a second";
        self.average(4, rate, passed, (Kind::NicErrors, NIC), wall, what);
    }

    fn services(&mut self, services: Services, now: Duration, wall: Timestamp) {
        let asked = [
            (
                services.kubelet,
                Kind::KubeletDown,
                "the kubelet's health endpoint does not answer",
            ),
            (
                services.runtime,
                Kind::RuntimeDown,
                "the container runtime's socket takes no connection",
            ),
        ];
        for (index, (answers, kind, what)) in asked.into_iter().enumerate() {
            let Some(since) = self.silent_since.get_mut(index) else {
                continue;
            };
            let silent = services.expected && answers == Some(false);
            *since = silent.then(|| since.unwrap_or(now));
            let stands = since.is_some_and(|since| now.saturating_sub(since) >= DOWN);
            self.set(kind, stands, wall, || what.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    /// Feeds a second's reading so many times; says which conditions stand, and how often that changed.
    struct Feed {
        conditions: Conditions,
        second: u64,
        last: Vec<i32>,
        changes: usize,
    }

    impl Feed {
        fn new() -> Self {
            Self {
                conditions: Conditions::default(),
                second: 0,
                last: Vec::new(),
                changes: 0,
            }
        }

        fn seconds(&mut self, count: u64, reading: &Reading, services: Services) -> Vec<Kind> {
            for _ in 0..count {
                self.second += 1;
                let wall =
                    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(self.second.try_into().unwrap_or(0));
                let now = Duration::from_secs(self.second);
                let standing = self.conditions.take(reading, services, now, wall);
                let kinds: Vec<i32> = standing.iter().map(|condition| condition.kind).collect();
                self.changes += usize::from(kinds != self.last);
                self.last = kinds;
            }
            self.last
                .iter()
                .filter_map(|kind| Kind::try_from(*kind).ok())
                .collect()
        }
    }

    fn memory(percent: f64) -> Reading {
        Reading {
            memory_pressure: Some(percent),
            ..Reading::default()
        }
    }

    const WELL: Services = Services {
        kubelet: Some(true),
        runtime: Some(true),
        expected: true,
        skew_ms: None,
    };

    #[test]
    fn a_short_spike_is_no_condition() {
        let mut feed = Feed::new();
        assert_eq!(feed.seconds(4, &memory(100.0), WELL), []);
        assert_eq!(feed.seconds(120, &memory(0.0), WELL), []);
        assert_eq!(feed.changes, 0);
    }

    #[test]
    fn pressure_that_lasts_is_one_and_ends_when_the_minute_is_below() {
        let mut feed = Feed::new();
        assert_eq!(feed.seconds(60, &memory(40.0), WELL), [Kind::MemoryPressure]);
        assert_eq!(feed.seconds(10, &memory(0.0), WELL), [Kind::MemoryPressure]);
        assert_eq!(feed.seconds(120, &memory(0.0), WELL), []);
        assert_eq!(feed.changes, 2);
    }

    #[test]
    fn a_figure_that_swings_about_its_threshold_is_one_condition() {
        let mut feed = Feed::new();
        feed.seconds(120, &memory(14.0), WELL);
        for _ in 0..60 {
            feed.seconds(3, &memory(6.0), WELL);
            feed.seconds(3, &memory(16.0), WELL);
        }
        assert_eq!(feed.changes, 1);
        let mut feed = Feed::new();
        for _ in 0..60 {
            for full in [89.0, 90.5, 88.0, 91.0] {
                let reading = Reading {
                    disk_percent: Some(full),
                    ..Reading::default()
                };
                feed.seconds(1, &reading, WELL);
            }
        }
        assert_eq!(feed.changes, 1);
    }

    #[test]
    fn an_instance_without_credits_is_said_to_be_one() {
        let mut feed = Feed::new();
        let reading = Reading {
            steal_percent: Some(70.0),
            ..Reading::default()
        };
        assert_eq!(feed.seconds(60, &reading, WELL), [Kind::CpuStolen]);
    }

    #[test]
    fn a_process_killed_for_want_of_memory_stands_for_ten_minutes() {
        let killed = |count| Reading {
            oom_kills: Some(count),
            ..Reading::default()
        };
        let mut feed = Feed::new();
        assert_eq!(feed.seconds(5, &killed(7), WELL), [], "of earlier times");
        assert_eq!(feed.seconds(500, &killed(8), WELL), [Kind::OomKills]);
        assert_eq!(feed.seconds(200, &killed(8), WELL), []);
    }

    #[test]
    fn a_restart_of_the_kubelet_is_no_condition_and_its_death_is() {
        let dead = Services {
            kubelet: Some(false),
            ..WELL
        };
        let mut feed = Feed::new();
        assert_eq!(feed.seconds(8, &Reading::default(), dead), []);
        feed.seconds(1, &Reading::default(), WELL);
        assert_eq!(feed.seconds(30, &Reading::default(), dead), [Kind::KubeletDown]);
        assert_eq!(feed.seconds(1, &Reading::default(), WELL), []);
        let not_yet = Services {
            expected: false,
            ..dead
        };
        assert_eq!(feed.seconds(60, &Reading::default(), not_yet), []);
    }

    #[test]
    fn a_wrong_clock_and_a_full_table_are_said() {
        let reading = Reading {
            conntrack_percent: Some(97.0),
            ..Reading::default()
        };
        let services = Services {
            skew_ms: Some(-61_000),
            ..WELL
        };
        let mut feed = Feed::new();
        assert_eq!(
            feed.seconds(1, &reading, services),
            [Kind::ConntrackFull, Kind::ClockSkew]
        );
    }
}
