//! Where demand is.

/// How much of the newest minute the level takes over: it looks back about 20 minutes.
const LEVEL: f64 = 0.05;
/// How much of the newest minute the usual distance from the level takes over.
const DISTANCE: f64 = 0.0001;

/// Where demand is, and how far from there it usually goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Level {
    pub(super) value: Option<f64>,
    /// Usual distance of a minute from the level, in units of the level's square root.
    distance: f64,
    /// Minutes that it was learnt from.
    count: u32,
}

impl Level {
    /// With one more minute.
    pub(super) fn with(self, signal: f64) -> Self {
        let Some(value) = self.value else {
            return Self {
                value: Some(signal),
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
        }
    }

    /// The unit in which distances from the level are counted: events that come independently scatter by the square root.
    pub(super) fn unit(self) -> f64 {
        let value = self.value.unwrap_or(0.0);
        (value.max(0.0).sqrt() * self.distance).max(1e-6 * (1.0 + value))
    }
}
