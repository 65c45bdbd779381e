//! What pods will ask for within the time that a node takes to boot, learnt from what they asked for so far: a floor for the
//! nodes, which only ever raises their number.
//!
//! ```text
//! demand ─▶ minutes ─▶ level (20 minutes) ──────────────────────────┐
//!              │                                                    ├─▶ how high the next minutes may go ─▶ floor
//!              └─▶ how far above the level minutes went: lately, ───┘
//!                  or at this minute of the hour, day, week
//! ```
//! What the method was chosen from, and what each scored, is in `docs/forecast.md`. Pure: it has no clock, and remembers only
//! what it was shown.

mod boots;
mod demand;
mod history;
mod level;
mod reach;
mod regression;
mod scores;
mod seasons;
mod spread;
mod trend;

pub use boots::BootTimes;
pub use demand::{Demand, room_of_a_node};
pub use history::Hour;
pub use scores::Accuracy;
pub use seasons::Source;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    Policy,
    model::{Bytes, MilliCpu, Resources},
    snapshot::Expected,
};

use self::{
    demand::Gauge, history::History, level::Level, reach::Reach, scores::Scores, spread::Spread, trend::Trend,
};

/// Minutes before which nothing is expected.
const FEWEST_MINUTES: usize = 30;
/// Minutes after which a level that all of them left is given up.
const STEP_MINUTES: usize = 10;
/// How far they must have left it, as a share of it.
const STEP_SHARE: f64 = 0.5;
/// What losing requests weighs, in nodes full of pods that wait.
const LOST: f64 = 14.0;
/// Seconds of a node's price that it must be worth to be kept: it is asked again every minute …
const KEPT: f64 = 93.0;
/// … and, beside its boot, to be launched: it is paid for some minutes before it can be taken back.
const LAUNCHED: f64 = 190.0;
/// Minutes of an hour.
const HOUR: u64 = 60;
/// Of what was remembered, the seasons are scored for so many hours: the scores look back a day.
const SCORED_HOURS: u64 = 72;
/// Hours older than eight weeks are not learnt from.
const KEPT_HOURS: u64 = history::LONGEST as u64 / 60;
/// Pods that room is told as: more of them are told as fewer and larger ones …
const MOST_PODS: f64 = 1_000.0;
/// … as long as so many of these fit on a node.
const FEWEST_ON_A_NODE: f64 = 4.0;
/// Nodes are added one by one up to this many, whatever is expected.
const MOST_NODES: f64 = 10_000.0;

/// What a forecast is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// A node is worth its price if more than 1 − `quantile` of it is expected to be used.
    pub quantile: f64,
    /// How far above the nodes for what pods asked for within the last hour the floor may go, as a share of them; one node
    /// always may be added.
    pub max_extra: f64,
    /// From the launch of a node to its being Ready; a high quantile of what was measured, because what comes too late helps
    /// nobody.
    pub boot: Duration,
    /// What the pods of one node can ask for, in mCPU.
    pub node: f64,
    /// Nodes that are there in any case.
    pub least: u32,
}

impl Terms {
    /// Of a policy, for pods that request `each` on average. `None`: no node holds one, or it requests no CPU.
    #[must_use]
    pub fn of(policy: &Policy, each: &Resources, boot: Duration) -> Option<Self> {
        Some(Self {
            quantile: policy.forecast.quantile,
            max_extra: policy.forecast.max_extra_percent.fraction(),
            boot,
            node: room_of_a_node(policy, each)?,
            least: policy.limits.min_nodes,
        })
    }

    /// Minutes within which a node that is launched now makes a difference.
    fn horizon(&self) -> u64 {
        (self.boot.as_secs() + 30).div_ceil(60).clamp(1, 60)
    }
}

/// What is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// What room there should be beyond what pods ask for now, in mCPU of their requests. 0 while there is too little history
    /// and while the forecast has been worse than none.
    pub extra: f64,
    /// How much of it nodes are worth being launched for; the rest is worth keeping where it is there.
    pub launch: f64,
    /// What of their requests pods do not need at present: their autoscaler is about to end some, in mCPU.
    pub surplus: f64,
    /// The highest demand within the horizon, in mCPU: median and the quantile of the terms.
    pub band: Band,
    /// What it was learnt from.
    pub source: Source,
}

impl Expectation {
    /// The room as pods that request `each`, for the planner; as larger ones where there would be very many. `None`: none.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a floor is not negative; the cast saturates"
    )]
    pub fn room(&self, each: &Resources, terms: &Terms) -> Option<Expected> {
        let cpu = each.cpu.as_f64();
        let largest = (terms.node / (FEWEST_ON_A_NODE * cpu)).floor();
        let times = (self.extra / cpu / MOST_PODS).ceil().min(largest).max(1.0);
        let pods = |room: f64| (room / (cpu * times) + 1e-6).floor() as u32;
        let (kept, surplus) = (pods(self.extra), pods(self.surplus));
        let times = times as i64;
        (kept > 0 || surplus > 0).then(|| Expected {
            pods: kept,
            only_kept: kept.saturating_sub(pods(self.launch)),
            surplus,
            cpu_millis: MilliCpu(each.cpu.0.saturating_mul(times)),
            memory_bytes: Bytes(each.memory.0.saturating_mul(times)),
        })
    }
}

/// Quantiles of what is expected, in mCPU.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Band {
    /// Half of the time it stays below.
    pub median: f64,
    /// So often, as the terms' quantile says, it stays below.
    pub high: f64,
}

/// Learns from demand and says what comes.
#[derive(Debug, Clone, Default)]
pub struct Forecaster {
    history: History,
    /// The minute that runs.
    present: Option<Minute>,
    level: Level,
    trend: Trend,
    /// How high demand goes within the horizon.
    reach: Reach,
    gauge: Gauge,
    /// The highest requests of each minute of the last hour, with the minute's number.
    lately: VecDeque<(u64, f64)>,
    /// The last minute that is over.
    last: Option<u64>,
    /// Expectations whose time has not come, the oldest first.
    open: VecDeque<Open>,
    scores: Scores,
}

/// A minute so far.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    /// Since 1970.
    number: u64,
    /// Highest signal.
    signal: f64,
    /// Highest requests.
    most: f64,
    /// The last requests, and those of them by pods with a node.
    requested: f64,
    running: f64,
    /// The last that was used.
    used: Option<f64>,
}

/// Where a minute comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Learn {
    /// It has just passed.
    Seen,
    /// It is remembered, and expectations are held against it.
    Scored,
    /// It is remembered.
    Unscored,
}

/// An expectation of some minute, to be held against what came.
#[derive(Debug, Clone)]
struct Open {
    /// The last minute that it is about.
    until: u64,
    /// Highest requests since.
    requested: f64,
    /// What pods asked for when it was made.
    then: f64,
    /// What each source said, as a quantile of the demand.
    said: [Option<f64>; Source::ALL.len()],
    /// What was provided for.
    chosen: Source,
}

impl Forecaster {
    /// Takes in what pods ask for at `now`. Times that go backwards are passed over. Whether anything else is to be expected
    /// than before.
    pub fn observe(&mut self, now: Timestamp, demand: &Demand, terms: &Terms) -> bool {
        let Ok(seconds) = u64::try_from(now.as_second()) else {
            return false;
        };
        let number = seconds / 60;
        let before = self.present.map(|minute| minute.running);
        let signal = self.gauge.signal(demand, before);
        if !signal.is_finite() || !demand.requested.is_finite() {
            return false;
        }
        let used = demand.used.filter(|_| demand.waiting <= 0.0);
        if let Some(minute) = self.present.as_mut().filter(|minute| number <= minute.number) {
            if number < minute.number {
                return false;
            }
            let is_new = signal > minute.signal || demand.requested != minute.requested;
            minute.signal = minute.signal.max(signal);
            minute.most = minute.most.max(demand.requested);
            minute.requested = demand.requested;
            minute.running = demand.requested - demand.waiting;
            minute.used = used.or(minute.used);
            return is_new;
        }
        if let Some(over) = self.present.take() {
            self.close(over, terms, Learn::Seen);
        }
        self.present = Some(Minute {
            number,
            signal,
            most: demand.requested,
            requested: demand.requested,
            running: demand.requested - demand.waiting,
            used,
        });
        true
    }

    /// A minute is over.
    fn close(&mut self, minute: Minute, terms: &Terms, learn: Learn) {
        let is_scored = learn != Learn::Unscored;
        self.gauge.learn(minute.most, minute.used);
        if self.last.replace(minute.number) != minute.number.checked_sub(1) {
            // Nobody saw whether what was expected came.
            self.open.clear();
            self.reach.forget_open();
        }
        if let Learn::Seen = learn {
            self.lately.push_back((minute.number, minute.most));
        }
        while self
            .lately
            .pop_front_if(|(number, _)| *number + HOUR <= minute.number)
            .is_some()
        {}
        for open in &mut self.open {
            open.requested = open.requested.max(minute.most);
        }
        while let Some(open) = self.open.pop_front_if(|open| open.until <= minute.number) {
            if is_scored {
                self.scores.add(&open, terms.quantile);
            }
        }
        self.reach.came(minute.number, minute.signal);
        self.level = self.level.with(minute.signal);
        self.trend = self.trend.with(minute.signal);
        self.history.push(minute.number, minute.signal, self.level);
        if let Some(value) = self.history.left(STEP_MINUTES, STEP_SHARE) {
            self.level.value = Some(value);
            self.history.relevel(self.level);
        }
        let said = Source::ALL.map(|source| {
            let quantile = |spread: &Spread| spread.quantile(terms.quantile);
            match source {
                Source::Lately => self.reach.quantile(&self.trend, terms.quantile),
                // What is not scored is said to nobody.
                _ if !is_scored => None,
                _ => seasons::spread(&self.history, source, minute.number, terms.horizon())
                    .and_then(|spread| quantile(&spread))
                    .map(|distance| self.level.value.unwrap_or(0.0) + self.level.unit() * distance),
            }
        });
        let until = minute.number + terms.horizon();
        self.reach.await_until(until, self.trend);
        self.open.push_back(Open {
            until,
            requested: 0.0,
            then: minute.most,
            said,
            chosen: self.scores.best(),
        });
    }

    /// What is expected, by all that was observed.
    #[must_use]
    pub fn expect(&self, terms: &Terms) -> Expectation {
        let mut expectation = Expectation {
            extra: 0.0,
            launch: 0.0,
            surplus: 0.0,
            band: Band::default(),
            source: Source::Lately,
        };
        let Some(minute) = self.present.filter(|_| self.reach.len() >= FEWEST_MINUTES) else {
            return expectation;
        };
        let best = self.scores.best();
        let (outlook, source) = match seasons::spread(&self.history, best, minute.number, terms.horizon()) {
            Some(spread) => (Outlook::of_season(&spread, self.level.with(minute.signal)), best),
            None => {
                let trend = self.trend.with(minute.signal);
                (Outlook(self.reach.heights(&trend).collect()), Source::Lately)
            }
        };
        expectation.source = source;
        expectation.band = Band {
            median: outlook.quantile(0.5),
            high: outlook.quantile(terms.quantile),
        };
        if self.scores.helps() {
            let boot = terms.boot.as_secs_f64();
            let worth = |paid: f64| self.worth(terms, minute.requested, &outlook, paid);
            expectation.extra = worth(KEPT);
            expectation.launch = worth(boot + LAUNCHED);
        }
        if self.gauge.share().is_some() && minute.used.is_some() {
            expectation.surplus = (minute.requested - minute.signal).max(0.0);
        }
        expectation
    }

    /// What nodes are worth `paid` seconds of their price, in mCPU beyond what is requested.
    fn worth(&self, terms: &Terms, requested: f64, outlook: &Outlook, paid: f64) -> f64 {
        if !(terms.node.is_finite() && terms.node > 0.0) {
            return 0.0;
        }
        let full = self.gauge.share().map(|share| terms.node / share);
        let least = f64::from(terms.least);
        let nodes_for = |requested: f64| (requested / terms.node).ceil().max(least);
        let needed = nodes_for(requested);
        let lately = nodes_for(
            self.lately
                .iter()
                .map(|(_, most)| *most)
                .fold(requested, f64::max),
        );
        let most = lately + (lately * terms.max_extra).floor().max(1.0);
        let boot = terms.boot.as_secs_f64();
        // Pods that find no node wait for the boot of one.
        let saves = |nodes: f64| {
            let (mut used, mut lost) = (0.0, 0.0);
            for (demand, weight) in &outlook.0 {
                used += weight * ((demand - terms.node * nodes) / terms.node).clamp(0.0, 1.0);
                if let Some(full) = full
                    && *demand > full * nodes
                    && *demand <= full * (nodes + 1.0)
                {
                    lost += weight;
                }
            }
            boot * (used + LOST * lost)
        };
        let mut nodes = needed;
        while nodes < most.min(MOST_NODES) && saves(nodes) > (1.0 - terms.quantile) * paid {
            nodes += 1.0;
        }
        if nodes > needed {
            nodes * terms.node - requested
        } else {
            0.0
        }
    }

    /// What it remembers of an hour since 1970; `None`: nothing.
    #[must_use]
    pub fn hour(&self, number: u64) -> Option<Hour> {
        Some(Hour {
            hour: number,
            share: self.gauge.share(),
            minutes: self.history.hour(number)?,
        })
    }

    /// The hours since 1970 of which it remembers something: from the first to before the last's end.
    #[must_use]
    pub fn hours(&self) -> std::ops::Range<u64> {
        self.history.hours()
    }

    /// A forecaster that has seen these hours, in any order; of an hour that is there twice the last counts, and of what
    /// lies after `now`, or more than eight weeks before it, nothing. What this one has seen itself comes on top of them.
    #[must_use]
    pub fn with_hours(&self, hours: impl IntoIterator<Item = Hour>, now: Timestamp, terms: &Terms) -> Self {
        let now = u64::try_from(now.as_second()).unwrap_or(0) / 60;
        // A store may hand out what has expired, days late.
        let kept = (now / 60).saturating_sub(KEPT_HOURS)..=now / 60;
        let past = hours.into_iter().filter(|hour| kept.contains(&hour.hour));
        let mut known: BTreeMap<u64, Hour> = past.map(|hour| (hour.hour, hour)).collect();
        for number in self.history.hours() {
            let Some(own) = self.hour(number) else {
                continue;
            };
            match known.get_mut(&number) {
                None => drop(known.insert(number, own)),
                Some(hour) => hour.fill(own),
            }
        }
        let newest = known.keys().next_back().copied().unwrap_or(0);
        let share = self
            .gauge
            .share()
            .or_else(|| known.values().rev().find_map(|hour| hour.share));
        let mut forecaster = Self::default();
        for hour in known.into_values() {
            let is_scored = newest - hour.hour < SCORED_HOURS;
            let learn = if is_scored { Learn::Scored } else { Learn::Unscored };
            for (minute, signal) in (0_u64..60).zip(hour.minutes) {
                let Some(signal) = signal.map(f64::from) else {
                    continue;
                };
                let number = hour.hour * 60 + minute;
                if number >= self.present.map_or(now, |present| present.number) {
                    continue;
                }
                let minute = Minute {
                    number,
                    signal,
                    most: signal,
                    requested: signal,
                    running: signal,
                    used: None,
                };
                forecaster.close(minute, terms, learn);
            }
        }
        forecaster.gauge = Gauge::learnt(share);
        forecaster.present = self.present;
        // Of the last hour's requests the demand is all that is remembered.
        let remembered = now.saturating_sub(HOUR)..now;
        let remembered = remembered.filter_map(|number| Some((number, forecaster.history.signal(number)?)));
        let lately: BTreeMap<u64, f64> = remembered.chain(self.lately.iter().copied()).collect();
        forecaster.lately = lately.into_iter().collect();
        forecaster
    }

    /// How good it has been.
    #[must_use]
    pub fn accuracy(&self) -> Accuracy {
        self.scores.accuracy()
    }
}

/// How high demand may go within the horizon, in mCPU, with the weights of each, which add up to 1; the lowest first.
struct Outlook(Vec<(f64, f64)>);

impl Outlook {
    fn of_season(spread: &Spread, level: Level) -> Self {
        let (value, unit) = (level.value.unwrap_or(0.0), level.unit());
        let at = |(distance, weight)| (value + unit * distance, weight);
        Self(spread.weights().map(at).collect())
    }

    /// The demand below which that share of the weight lies.
    fn quantile(&self, quantile: f64) -> f64 {
        let mut below = 0.0;
        let reaches = |(_, weight): &&(f64, f64)| {
            below += weight;
            below >= quantile
        };
        let found = self.0.iter().find(reaches).or(self.0.last());
        found.map_or(0.0, |(demand, _)| *demand)
    }
}

#[cfg(test)]
mod tests;
