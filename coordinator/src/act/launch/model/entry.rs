//! What a world is made of, in a few bytes, and the real operation that a rule is asked about.

use jiff::Timestamp;
use smartscale_planner::model::Market;

use super::world::World;
use crate::{
    act::{
        fleet::{Instance, InstanceState, LaunchRequest, RefusalCause, RefusedOffering},
        operation::{Kind, Launch, Operation, Phase},
    },
    ids::{Epoch, InstanceId},
    tell::Grounds,
};

/// Machines by their numbers, a bit each.
pub(super) type Machines = u8;

/// What the journal says of the operation, without what no rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) phase: Phase,
    pub(super) attempt: u32,
    pub(super) instances: Machines,
    pub(super) ready: Machines,
    pub(super) given_up: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) knows: Entry,
    pub(super) at: At,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum At {
    Idle,
    /// The call is journaled and not made.
    Call,
    Calling(Call),
    Answered(Answer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Launch(u32),
    /// The phase that follows it.
    Terminate(Machines, Phase),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Launched(Machines),
    Refused,
    Terminated(Phase),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Machine {
    pub(super) attempt: u32,
    pub(super) alive: bool,
    pub(super) joined: bool,
}

impl Entry {
    pub(super) fn of(operation: &Operation) -> Self {
        let launch = operation.launch().unwrap();
        let ids: Vec<InstanceId> = launch.instances.iter().map(|one| one.id.clone()).collect();
        Self {
            phase: operation.phase,
            attempt: launch.request.attempt,
            instances: machines(&ids),
            ready: machines(&launch.ready),
            given_up: launch.given_up,
        }
    }

    pub(super) fn operation(self, world: &World) -> Operation {
        let request = LaunchRequest {
            operation: "op".parse().unwrap(),
            attempt: self.attempt,
            pool: "p".into(),
            zone: "z".into(),
            market: Market::Spot,
            instance_types: vec!["t".into()],
            count: 1,
            enrolment_secret: None,
        };
        Operation {
            id: request.operation.clone(),
            what: Kind::Launch(Launch {
                instances: numbers(self.instances).map(|one| instance(world, one)).collect(),
                ready: numbers(self.ready).map(id).collect(),
                given_up: self.given_up,
                ..Launch::of(request)
            }),
            phase: self.phase,
            decision: None,
            reason: String::new(),
            grounds: Grounds::default(),
            by: None,
            pods: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            epoch: Epoch(1),
            takeovers: 0,
            steps: Vec::new(),
            error: None,
            error_type: None,
            version: 0,
        }
    }
}

pub(super) fn id(machine: usize) -> InstanceId {
    format!("i-{machine}").parse().unwrap()
}

pub(super) fn machines(of: &[InstanceId]) -> Machines {
    let numbers = of.iter().map(|id| id.as_str()[2..].parse::<u8>().unwrap());
    numbers.fold(0, |all, one| all | 1 << one)
}

pub(super) fn numbers(of: Machines) -> impl Iterator<Item = usize> {
    (0..8).filter(move |machine| of & (1 << machine) != 0)
}

pub(super) fn instance(world: &World, machine: usize) -> Instance {
    Instance {
        id: id(machine),
        instance_type: "t".into(),
        zone: "z".into(),
        market: Market::Spot,
        pool: None,
        operation: None,
        state: if world.machines[machine].alive {
            InstanceState::Running
        } else {
            InstanceState::Terminated
        },
        launched_at: Timestamp::UNIX_EPOCH,
        ended_at: None,
    }
}

pub(super) fn no_capacity() -> RefusedOffering {
    RefusedOffering {
        instance_type: None,
        zone: "z".into(),
        market: Market::Spot,
        cause: RefusalCause::Capacity,
        message: String::new(),
    }
}
