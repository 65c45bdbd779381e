//! Histories made up for comparison, minute by minute: the same shape and seed give the same requests.

use jiff::{Timestamp, tz::Offset};

use crate::{chance::uniform, trace::Trace};

/// The shape of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The same demand all the time; only its scatter.
    Flat,
    /// Days from 9 to 18 o'clock on weekdays, little else.
    Weekdays,
    /// A quiet day, and once a day, at some time, ten times as much for 20 minutes.
    FlashCrowd,
    /// One level for half of the time, four times as much for the other.
    Step,
    /// A level that wanders without rule.
    Noise,
    /// Three times as much in the first five minutes of every hour and its half.
    Jumps,
    /// Next to nothing, and on some days an event of forty times as much for an hour.
    Calm,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Flat,
        Self::Weekdays,
        Self::FlashCrowd,
        Self::Step,
        Self::Noise,
        Self::Jumps,
        Self::Calm,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Weekdays => "weekdays",
            Self::FlashCrowd => "flash crowd",
            Self::Step => "step",
            Self::Noise => "noise",
            Self::Jumps => "jumps",
            Self::Calm => "calm",
        }
    }

    /// So many days of it, from a Monday on.
    #[must_use]
    pub fn trace(self, days: u32, seed: u64) -> Trace {
        let mut draw = Draws { seed, next: 0 };
        let mut wander = 0.0;
        let mut crowd = 0;
        let minutes = days * DAY;
        let requests = (0..minutes).map(|minute| {
            let of_day = minute % DAY;
            let day = minute / DAY;
            if of_day == 0 {
                crowd = draw.below(DAY - 60);
                if self == Self::Calm && draw.uniform() > 0.3 {
                    crowd = DAY;
                }
            }
            let since_crowd = of_day.checked_sub(crowd);
            let mean = match self {
                Self::Flat => 45.0,
                Self::Weekdays if day % 7 < 5 => 12.0 + 90.0 * bump(of_day, 9 * 60, 18 * 60),
                Self::Weekdays => 12.0,
                Self::FlashCrowd if since_crowd.is_some_and(|since| since < 20) => 250.0,
                Self::FlashCrowd => 25.0,
                Self::Step if minute < minutes / 2 => 20.0,
                Self::Step => 80.0,
                Self::Noise => {
                    wander = wander * 0.995 + 0.05 * draw.normal();
                    45.0 * f64::exp(wander)
                }
                Self::Jumps if minute % 30 < 5 => 90.0,
                Self::Jumps => 30.0,
                Self::Calm if since_crowd.is_some_and(|since| since < 60) => 160.0,
                Self::Calm => 4.0,
            };
            draw.count(mean)
        });
        let requests: Vec<f64> = requests.collect();
        Trace::by_minutes(MONDAY, Offset::UTC, &requests)
    }
}

/// Minutes of a day.
const DAY: u32 = 24 * 60;
/// 2026-01-05T00:00:00Z.
const MONDAY: Timestamp = Timestamp::constant(1_767_571_200, 0);

/// 0 outside, 1 inside, half an hour from one to the other.
fn bump(minute: u32, from: u32, until: u32) -> f64 {
    let (minute, from, until) = (f64::from(minute), f64::from(from), f64::from(until));
    let rise = ((minute - from) / 30.0).clamp(0.0, 1.0);
    let fall = ((until - minute) / 30.0).clamp(0.0, 1.0);
    rise.min(fall)
}

/// Draws one after the other.
struct Draws {
    seed: u64,
    next: u64,
}

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.next += 1;
        uniform(self.seed, self.next)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below the bound"
    )]
    fn below(&mut self, bound: u32) -> u32 {
        (self.uniform() * f64::from(bound)) as u32
    }

    /// Of a normal distribution (Box and Muller, 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Requests in a minute about `mean`, which scatter twice as much as independent ones would: people's do.
    fn count(&mut self, mean: f64) -> f64 {
        (mean + (2.0 * mean).sqrt() * self.normal()).round().max(0.0)
    }
}
