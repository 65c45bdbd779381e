//! Times in which something is not done.

use super::Window;

/// What a freeze stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Nothing is launched, for pods or for anything else.
    ScaleUp,
    /// No node is removed without a new one.
    ScaleDown,
    /// No node is replaced by a new one.
    Replace,
}

/// A window in which something is not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Freeze {
    /// When that is.
    pub window: Window,
    /// What is not done meanwhile.
    pub stops: Vec<Stop>,
}

impl Freeze {
    /// Whether it stops that.
    pub fn stops(&self, what: Stop) -> bool {
        self.stops.contains(&what)
    }
}
