//! Where demand is.

/// How much of the newest minute the level takes over: it looks back about 20 minutes.
const LEVEL: f64 = 0.05;
/// How much of the newest minute the usual distance from the level takes over.
const DISTANCE: f64 = 0.0001;
/// How much of the highest demand is forgotten in a minute: most of it in a few weeks.
const FORGOTTEN: f64 = 0.0001;
/// A level below this, in mCPU, is none: workloads are scaled to nothing.
const NOTHING: f64 = 1.0;
/// The unit then, as a share of the highest demand: all that there ever was is within the range of what is counted.
const FROM_NOTHING: f64 = 0.04;

/// Where demand is, and how far from there it usually goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Level {
    pub(super) value: Option<f64>,
    /// Usual distance of a minute from the level, in units of the level's square root.
    distance: f64,
    /// Minutes that it was learnt from.
    count: u32,
    /// The highest demand of the last weeks.
    most: f64,
}

impl Level {
    /// With one more minute.
    pub(super) fn with(self, signal: f64) -> Self {
        let most = signal.max(self.most * (1.0 - FORGOTTEN));
        let Some(value) = self.value else {
            return Self {
                value: Some(signal),
                most,
                ..self
            };
        };
        let root = value.max(signal).sqrt();
        let distance = if root > 0.0 {
            (signal - value).abs() / root
        } else {
            0.0
        };
        let count = self.count.saturating_add(1);
        let share = DISTANCE.max(1.0 / f64::from(count));
        Self {
            value: Some(value + LEVEL * (signal - value)),
            distance: self.distance + share * (distance - self.distance),
            count,
            most,
        }
    }

    /// The unit in which distances from the level are counted: events that come independently scatter by the square root. The
    /// first of them, after nothing, come by no such rule.
    pub(super) fn unit(self) -> f64 {
        let value = self.value.unwrap_or(0.0);
        if value < NOTHING {
            return (FROM_NOTHING * self.most).max(1e-6);
        }
        (value.max(0.0).sqrt() * self.distance).max(1e-6 * (1.0 + value))
    }
}
