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
mod scores;
mod seasons;
mod spread;

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

use self::{demand::Gauge, history::History, level::Level, scores::Scores, spread::Spread};

/// Minutes before which nothing is expected.
const FEWEST_MINUTES: usize = 30;
/// Minutes after which a level that all of them left is given up.
const STEP_MINUTES: usize = 10;
/// How far they must have left it, as a share of it.
const STEP_SHARE: f64 = 0.5;
/// What a minute in which requests are lost weighs, in nodes that are used in full for it.
const LOST: f64 = 5.0;
/// Seconds until it is looked at again whether a node is needed.
const LOOKS: f64 = 15.0;
/// Minutes of an hour.
const HOUR: u64 = 60;
/// Of what was remembered, the seasons are scored for so many hours: the scores look back a day.
const SCORED_HOURS: u64 = 72;
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

    /// A pod that finds no node waits for the boot; a node is paid for the horizon, and until somebody looks again.
    #[allow(clippy::cast_precision_loss, reason = "minutes of an hour")]
    fn waits(&self) -> f64 {
        let boot = self.boot.as_secs_f64();
        (boot / (LOOKS + 60.0 * self.horizon() as f64)).min(1.0)
    }
}

/// What is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// What room there should be beyond what pods ask for now, in mCPU of their requests. 0 while there is too little history
    /// and while the forecast has been worse than none.
    pub extra: f64,
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
        let pods = (self.extra / (cpu * times) + 1e-6).floor() as u32;
        let times = times as i64;
        (pods > 0).then_some(Expected {
            pods,
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
    recent: Spread,
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
    /// The last requests.
    requested: f64,
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
    level: f64,
    unit: f64,
    /// Highest signal and requests since.
    signal: f64,
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
        let signal = self.gauge.signal(demand);
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
            open.signal = open.signal.max(minute.signal);
            open.requested = open.requested.max(minute.most);
        }
        while let Some(open) = self.open.pop_front_if(|open| open.until <= minute.number) {
            self.recent.add((open.signal - open.level) / open.unit);
            if is_scored {
                self.scores.add(&open, terms.quantile);
            }
        }
        self.level = self.level.with(minute.signal);
        self.history.push(minute.number, minute.signal, self.level);
        if let Some(value) = self.history.left(STEP_MINUTES, STEP_SHARE) {
            self.level.value = Some(value);
            self.history.relevel(self.level);
        }
        let (level, unit) = (self.level.value.unwrap_or(0.0), self.level.unit());
        let said = Source::ALL.map(|source| {
            let distance = match source {
                Source::Lately => self.recent.quantile(terms.quantile),
                // What is not scored is said to nobody.
                _ if !is_scored => None,
                _ => seasons::spread(&self.history, source, minute.number, terms.horizon())
                    .and_then(|spread| spread.quantile(terms.quantile)),
            };
            Some(level + unit * distance?)
        });
        self.open.push_back(Open {
            until: minute.number + terms.horizon(),
            level,
            unit,
            signal: 0.0,
            requested: 0.0,
            then: minute.most,
            said,
            chosen: self.scores.best(),
        });
    }

    /// What is expected, by all that was observed.
    #[must_use]
    pub fn expect(&self, terms: &Terms) -> Expectation {
        let none = Expectation {
            extra: 0.0,
            band: Band::default(),
            source: Source::Lately,
        };
        let Some(minute) = self.present.filter(|_| self.recent.len() >= FEWEST_MINUTES) else {
            return none;
        };
        let level = self.level.with(minute.signal);
        let (value, unit) = (level.value.unwrap_or(0.0), level.unit());
        let best = self.scores.best();
        let season = seasons::spread(&self.history, best, minute.number, terms.horizon());
        let (source, spread) = match &season {
            Some(spread) => (best, spread),
            None => (Source::Lately, &self.recent),
        };
        let at = |quantile: f64| value + unit * spread.quantile(quantile).unwrap_or(0.0);
        let band = Band {
            median: at(0.5),
            high: at(terms.quantile),
        };
        let extra = if self.scores.helps() {
            self.extra(
                terms,
                minute.requested,
                |distance| value + unit * distance,
                spread,
            )
        } else {
            0.0
        };
        Expectation { extra, band, source }
    }

    /// Adds nodes while more of the next one is expected to be used than `1 − quantile`.
    fn extra(&self, terms: &Terms, requested: f64, demand: impl Fn(f64) -> f64, spread: &Spread) -> f64 {
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
        let is_worth_it = |nodes: f64| {
            let (mut used, mut lost) = (0.0, 0.0);
            spread.each(|distance, weight| {
                let most = demand(distance);
                used += weight * ((most - terms.node * nodes) / terms.node).clamp(0.0, 1.0);
                if let Some(full) = full
                    && most > full * nodes
                    && most <= full * (nodes + 1.0)
                {
                    lost += weight;
                }
            });
            used * terms.waits() + lost * LOST > 1.0 - terms.quantile
        };
        let mut nodes = needed;
        while nodes < most.min(MOST_NODES) && is_worth_it(nodes) {
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
    /// lies after `now` nothing. What this one has seen itself comes on top of them.
    #[must_use]
    pub fn with_hours(&self, hours: impl IntoIterator<Item = Hour>, now: Timestamp, terms: &Terms) -> Self {
        let now = u64::try_from(now.as_second()).unwrap_or(0) / 60;
        let past = hours.into_iter().filter(|hour| hour.hour <= now / 60);
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

#[cfg(test)]
mod tests;
