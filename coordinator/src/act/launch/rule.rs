//! What a launch does next, given the operation as journaled and what was seen: pure, so that the executor and the
//! model that is checked ([`model`](super::model)) run the same.

use crate::{
    act::{
        fleet::{FleetError, Instance, Launched, RefusalCause, RefusedOffering},
        operation::{Launch, Phase},
    },
    ids::InstanceId,
    tell::ErrorType,
};

/// What is done at a look at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Journal that the call is made, then make it.
    Request,
    /// Look for machines with the operation's tag, then [`found`].
    Find,
    /// Look which machines are Ready nodes, then [`joined`].
    Watch,
    /// The next plan says.
    AwaitPlan,
    /// It has ended.
    Nothing,
}

/// What follows from a call's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There are machines: [`Phase::Joining`], with their records.
    Exist(Launched),
    /// Nothing came of the attempt: [`Phase::Refused`].
    Refused {
        refused: Vec<RefusedOffering>,
        error: String,
        error_type: ErrorType,
    },
    /// The phase stays: the next look finds out.
    Open(String),
}

/// What follows from who is a Ready node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joined {
    /// Nothing new.
    Wait,
    /// Some more are Ready; the phase that follows.
    News(Phase),
    /// Time is over: journal that those that are missing are given up.
    Over,
    /// That is journaled: terminate them, whatever they are by now; the phase that follows.
    GiveUp(Vec<InstanceId>, Phase),
}

pub(super) fn next(phase: Phase) -> Next {
    match phase {
        Phase::Planned => Next::Request,
        Phase::Requesting => Next::Find,
        Phase::Joining => Next::Watch,
        Phase::Refused => Next::AwaitPlan,
        _ => Next::Nothing,
    }
}

/// What the machines that bear the operation's tag say of a call whose outcome is unknown. `None`: it is to be made
/// again. A machine that is gone was an earlier attempt's, or says nothing.
pub(super) fn found(mut instances: Vec<Instance>) -> Option<Launched> {
    instances.retain(|instance| instance.state.is_alive());
    (!instances.is_empty()).then_some(Launched {
        instances,
        refused: Vec::new(),
    })
}

pub(super) fn answered(launch: &Launch, outcome: Result<Launched, FleetError>) -> Outcome {
    match outcome {
        Ok(launched) if !launched.instances.is_empty() => Outcome::Exist(launched),
        Ok(Launched { refused, .. }) => {
            let cause = refused.first();
            let error = cause.map_or_else(
                || "the cloud launched nothing and said nothing".to_owned(),
                |refused| refused.message.clone(),
            );
            // What is throttled was not refused: the same call is made again.
            if !refused.is_empty() && refused.iter().all(is_throttled) {
                return Outcome::Open(error);
            }
            Outcome::Refused {
                error_type: cause.map_or(ErrorType::Launch, |refused| error_type(refused.cause)),
                error,
                refused,
            }
        }
        Err(FleetError::Refused(error)) => Outcome::Refused {
            refused: vec![RefusedOffering {
                instance_type: None,
                zone: launch.request.zone.clone(),
                market: launch.request.market,
                cause: RefusalCause::Configuration,
                message: error.clone(),
            }],
            error,
            error_type: ErrorType::Configuration,
        },
        Err(error @ (FleetError::Throttled(_) | FleetError::Unknown(_))) => Outcome::Open(error.to_string()),
    }
}

/// `ready`: those of the launch that are Ready nodes by now. `late`: their time is over.
pub(super) fn joined(launch: &Launch, ready: &[InstanceId], late: bool) -> Joined {
    let ids = launch.instances.iter().map(|instance| &instance.id);
    let missing = |ready: &[InstanceId]| {
        let missing = ids.clone().filter(|id| !ready.contains(id));
        missing.cloned().collect::<Vec<_>>()
    };
    if launch.given_up {
        let missing = missing(&launch.ready);
        // Those that joined stay; what is lacking is planned for.
        let to = if missing.len() < launch.instances.len() {
            Phase::Failed
        } else {
            Phase::Refused
        };
        return Joined::GiveUp(missing, to);
    }
    match missing(ready).is_empty() {
        true => Joined::News(Phase::Done),
        false if late => Joined::Over,
        false if ready.len() > launch.ready.len() => Joined::News(Phase::Joining),
        false => Joined::Wait,
    }
}

fn is_throttled(refused: &RefusedOffering) -> bool {
    refused.cause == RefusalCause::Throttled
}

fn error_type(cause: RefusalCause) -> ErrorType {
    match cause {
        RefusalCause::Capacity => ErrorType::Capacity,
        RefusalCause::Quota => ErrorType::Quota,
        RefusalCause::Configuration => ErrorType::Configuration,
        RefusalCause::Throttled => ErrorType::Throttled,
        RefusalCause::Other => ErrorType::Launch,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

    use smartscale_planner::model::Market;

    use super::*;
    use crate::act::fleet::InstanceState;

    #[test]
    fn a_machine_that_is_gone_is_none_that_an_attempt_brought() {
        let instance = |id: &str, state| Instance {
            id: id.parse().unwrap(),
            instance_type: "t3.small".into(),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            pool: None,
            operation: None,
            state,
            launched_at: jiff::Timestamp::UNIX_EPOCH,
            ended_at: None,
        };
        let before = instance("i-1", InstanceState::Terminated);
        let now = instance("i-2", InstanceState::Pending);
        let launched = found(vec![before.clone(), now.clone()]).unwrap();
        assert_eq!(launched.instances, [now]);
        assert_eq!(found(vec![before]), None);
    }
}
