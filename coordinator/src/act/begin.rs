//! Operations as they begin.

use jiff::Timestamp;
use smartscale_planner::model::PodKey;

use super::{
    fleet::LaunchRequest,
    operation::{Kind, Launch, Operation, Phase, Step},
};
use crate::{
    ids::{DecisionId, Epoch, OperationId},
    tell::Grounds,
};

/// An operation that nothing was done for yet.
#[allow(clippy::too_many_arguments, reason = "each is a column of the journal")]
pub(super) fn planned(
    id: OperationId,
    what: Kind,
    pods: Vec<PodKey>,
    decision: Option<DecisionId>,
    reason: String,
    by: Option<String>,
    now: Timestamp,
) -> Operation {
    let note = format!("{} planned: {reason}", what.as_str());
    let step = Step {
        time: now,
        phase: Phase::Planned,
        note,
    };
    Operation {
        id,
        what,
        phase: Phase::Planned,
        decision,
        reason,
        grounds: Grounds::default(),
        by,
        pods,
        created_at: now,
        updated_at: now,
        epoch: Epoch::default(),
        takeovers: 0,
        steps: vec![step],
        error: None,
        error_type: None,
        version: 0,
    }
}

/// A launch that nothing was done for yet.
pub(super) fn launching(
    request: LaunchRequest,
    pods: Vec<PodKey>,
    decision: Option<DecisionId>,
    reason: String,
    by: Option<String>,
    now: Timestamp,
) -> Operation {
    let id = request.operation.clone();
    planned(
        id,
        Kind::Launch(Launch::of(request)),
        pods,
        decision,
        reason,
        by,
        now,
    )
}
