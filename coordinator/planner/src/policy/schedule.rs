//! Times in which more nodes are there than otherwise.

use super::Window;
use crate::model::PoolName;

/// A minimum that holds for a while, again and again, for people who know their peaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What people call it; without a name of its own, when it begins.
    pub name: String,
    /// When that is.
    pub window: Window,
    /// Never fewer nodes meanwhile.
    pub min_nodes: u32,
    /// The pool whose nodes are counted. `None`: those of all pools.
    pub pool: Option<PoolName>,
}
