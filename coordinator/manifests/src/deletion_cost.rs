//! What a pod's annotations say of its deletion. No decision of the planner reads it, so that it is kept beside the pods, and
//! only of those that say something.

use smartscale_planner::model::keys;

use crate::meta::ObjectMeta;

/// What is said of what the deletion of a pod costs, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletionCost {
    /// The cost ([`keys::DELETION_COST`]).
    pub cost: Option<String>,
    /// The cost that we wrote ([`keys::STEERED`]).
    pub mark: Option<String>,
}

impl DeletionCost {
    /// What an object's annotations say; `None`: nothing.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let said = |key| meta.annotations.get(key).cloned();
        let read = Self {
            cost: said(keys::DELETION_COST),
            mark: said(keys::STEERED),
        };
        (read != Self::default()).then_some(read)
    }
}
