//! Nobody decides: the nodes of the start stay.

use super::Decider;
use crate::world::World;

/// Leaves everything as it is.
pub(crate) struct Fixed;

impl Decider for Fixed {
    fn decide(&mut self, _: &mut World<'_>) -> bool {
        false
    }
}
