//! What a removal does next, given its phase and what was seen: pure, so that the executor and the model that is
//! checked (`removal/model.rs`) run the same.

use crate::act::operation::Phase;

/// What is done at a look at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Journal that the drain begins.
    Begin,
    /// Have the node drained, then [`drained`].
    Drain,
    /// Have the kubelet stopped.
    Stop,
    /// Terminate the machine, then [`terminated`].
    Terminate,
    /// Delete the Node, then end.
    Forget,
    /// It has ended.
    Nothing,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Drained {
    Yes,
    /// The machine is gone.
    Gone,
    No(String),
    NotYet,
}

pub(super) fn next(phase: Phase) -> Next {
    match phase {
        Phase::Planned => Next::Begin,
        Phase::Draining => Next::Drain,
        Phase::Stopping => Next::Stop,
        Phase::Terminating => Next::Terminate,
        Phase::Forgetting => Next::Forget,
        _ => Next::Nothing,
    }
}

/// The phase after a drain; `removes`: the machine goes as well.
pub(super) fn drained(removes: bool, drained: &Drained) -> Option<Phase> {
    match drained {
        Drained::NotYet => None,
        Drained::No(_) => Some(Phase::Aborted),
        Drained::Yes | Drained::Gone if !removes => Some(Phase::Done),
        Drained::Yes => Some(Phase::Stopping),
        // No kubelet is left to stop.
        Drained::Gone => Some(Phase::Terminating),
    }
}

/// The phase after the machine's end, which the cloud has to say; that it took the order is not enough.
pub(super) fn terminated(gone: bool) -> Option<Phase> {
    gone.then_some(Phase::Forgetting)
}
