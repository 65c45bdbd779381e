#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
//! A launch, model-checked: leaders that take it over from one another at any moment, fleet calls that are lost
//! before or after they took effect or land when somebody else leads, journal writes that fail, whose answer is
//! lost or that land late, machines that join late or never.
//!
//! - What is done next is said by [`rule`](super::rule), and [`Operation::advance`](crate::act::operation::Operation)
//!   says whether the diagram has the arrow: both are the executor's own. The model adds what the executor does with
//!   them: journal, then call, then journal.
//! - A leader that crashes is one that does nothing any more; its calls stay under way. Nothing is urgent.
//! - The store takes a write only in the term of whoever writes it, and only if the operation is as the writer knows
//!   it. The cloud answers a token that it knows as
//!   before.
//! - Reconciliation is not modelled: machines that no operation and no record names are left to it.

mod checks;
mod entry;
mod world;

use stateright::{Model, Property};

use self::{entry::At, world::World};
use crate::act::operation::Phase;

/// How far it is looked.
#[derive(Debug, Clone)]
struct Setting {
    /// Terms, and so leaders.
    terms: usize,
    /// Attempts that the cloud may refuse before it must launch.
    refusals: u32,
    /// Calls and writes that fail, in all.
    faults: u8,
    wrong: Wrong,
}

/// A mistake, to see that the checks would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Each call has a token of its own.
    TokenPerCall,
    /// The store takes writes of older terms.
    NoFence,
    /// Machines that do not join are terminated before that is journaled.
    TerminatedFirst,
    /// The call is made before it is journaled.
    CalledFirst,
    /// Nothing is read again after a write whose answer is lost or that is refused.
    NeverReadsAgain,
    /// The store takes a write whatever the operation has become since it was read.
    NoVersions,
}

/// How a journal write ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    /// Written, but the answer is lost.
    Untold,
    /// Not written.
    Failed,
    /// Not written yet; it lands later, in its own term or in another.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The leader looks at the operation, and writes what follows. `late`: it finds that time is over.
    Look {
        leader: usize,
        late: bool,
        fate: Fate,
    },
    /// It makes the call that is journaled, if it may still act.
    Call(usize),
    /// The cloud does what it is asked.
    Serve {
        leader: usize,
        refuse: bool,
    },
    /// The answer arrives, and what follows is written.
    Deliver {
        leader: usize,
        fate: Fate,
    },
    /// No answer arrives; a call that was not served may land later.
    Lose(usize),
    Land(usize),
    LandWrite,
    /// The next plan asks for another attempt.
    PlanAnew(usize),
    TakeOver,
    Join(usize),
}

impl Model for Setting {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let fails = world.faults < self.faults;
        let mut fates = vec![Fate::Written];
        if fails {
            fates.extend([Fate::Untold, Fate::Failed]);
            if world.late_write.is_none() {
                fates.push(Fate::Late);
            }
        }
        for (leader, one) in world.leaders.iter().enumerate() {
            match &one.at {
                At::Idle => {
                    for fate in fates.iter().copied() {
                        let looks = [false, true].map(|late| Action::Look { leader, late, fate });
                        let lates = if one.knows.phase == Phase::Joining { 2 } else { 1 };
                        actions.extend(&looks[..lates]);
                    }
                    if one.knows.phase == Phase::Refused && one.knows.attempt <= self.refusals {
                        actions.push(Action::PlanAnew(leader));
                    }
                }
                At::Call => actions.push(Action::Call(leader)),
                At::Calling(_) => {
                    actions.push(Action::Serve {
                        leader,
                        refuse: false,
                    });
                    actions.push(Action::Serve { leader, refuse: true });
                }
                At::Answered(_) => {
                    let deliver = |fate| Action::Deliver { leader, fate };
                    actions.extend(fates.iter().copied().map(deliver));
                }
            }
            if fails && matches!(one.at, At::Calling(_) | At::Answered(_)) {
                actions.push(Action::Lose(leader));
            }
        }
        actions.extend((0..world.late.len()).map(Action::Land));
        if world.late_write.is_some() {
            actions.push(Action::LandWrite);
        }
        if world.leaders.len() < self.terms {
            actions.push(Action::TakeOver);
        }
        actions.extend((0..world.machines.len()).map(Action::Join));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        (next.act(action, self) && next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no call without a journal entry before it", |_, world: &World| {
                world.unjournaled.is_none()
            }),
            Property::always("one machine for an attempt", |_, world: &World| {
                let attempts = world.machines.iter().map(|machine| machine.attempt);
                attempts
                    .clone()
                    .enumerate()
                    .all(|(place, one)| attempts.clone().take(place).all(|other| other != one))
            }),
            Property::always("what has ended stays so", |_, world: &World| !world.reopened),
            Property::always("a launch that is done keeps its machines", |_, world: &World| {
                world.journal.phase != Phase::Done || world.all_alive(world.journal.instances)
            }),
            Property::always(
                "it ends once nothing fails, and the books are right",
                |setting: &Self, world: &World| {
                    let ways = [(false, false), (false, true), (true, false), (true, true)];
                    ways.iter()
                        .all(|(one_more, lands)| world.settles(setting, *one_more, *lands))
                },
            ),
            Property::sometimes("a successor ends it well", |_, world: &World| {
                world.journal.phase == Phase::Done && world.leaders.len() > 1
            }),
            Property::sometimes("a later attempt ends it well", |_, world: &World| {
                world.journal.phase == Phase::Done && world.journal.attempt > 1
            }),
            Property::sometimes("it fails", |_, world: &World| {
                world.journal.phase == Phase::Failed
            }),
        ]
    }
}
