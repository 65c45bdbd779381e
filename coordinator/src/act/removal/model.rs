#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
//! A removal, model-checked: leaders that take it over at any moment, orders that are lost before or after they took
//! effect or arrive when somebody else leads, journal writes that fail, whose answer is lost or that land late, a machine
//! that ends by itself.
//!
//! What is done next is said by [`rule`], and [`Operation::advance`] says whether the diagram has the arrow: both are
//! the executor's own. Who drains, the agent or the coordinator through the API, is not told apart.

mod checks;

use std::time::Duration;

use jiff::Timestamp;
use stateright::{Model, Property};

use super::rule::{self, Drained, Next};
use crate::{
    act::operation::{Kind, Operation, Phase, Removal},
    ids::Epoch,
    tell::Grounds,
};

#[derive(Debug, Clone)]
struct Setting {
    /// Terms, and so leaders.
    terms: usize,
    /// Orders and writes that fail, in all.
    faults: u8,
    wrong: Wrong,
}

/// A mistake, to see that the checks would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The store takes writes of older terms.
    NoFence,
    /// The store takes a write whatever the operation has become since it was read.
    NoVersions,
    /// The cloud's word that it took the order counts as the machine's end.
    OrderedIsGone,
    /// A drain that is not over yet counts as one.
    DrainedTooSoon,
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

/// A write of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct JournalWrite {
    leader: usize,
    /// What it replaces. The store compares versions: where one phase is written twice it refuses more than this model.
    known: Phase,
    to: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    journal: Phase,
    late_write: Option<JournalWrite>,
    leaders: Vec<Leader>,
    late: Vec<Order>,
    draining: bool,
    pods: bool,
    kubelet: bool,
    machine: Machine,
    node: bool,
    faults: u8,
    /// What must not happen and did.
    wrong: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Machine {
    Runs,
    /// The order was taken, and is carried out at some time.
    Ending,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Leader {
    knows: Phase,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Idle,
    Ordering(Order),
    Answered(Order),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    Drain,
    Stop,
    Terminate,
    Forget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The leader looks, and orders or writes what follows. `late`: it finds that time is over.
    Look {
        leader: usize,
        late: bool,
        fate: Fate,
    },
    Serve(usize),
    Deliver {
        leader: usize,
        fate: Fate,
    },
    Lose(usize),
    Land(usize),
    LandWrite,
    TakeOver,
    PodsLeave,
    MachineEnds,
}

fn advanced(from: Phase, to: Phase) -> Option<Phase> {
    let mut operation = Operation {
        id: "op".parse().unwrap(),
        what: Kind::Remove(Removal::of("i-1".into(), Duration::ZERO)),
        phase: from,
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
    };
    operation.advance(to, Timestamp::UNIX_EPOCH, "").ok()?;
    Some(operation.phase)
}

impl World {
    fn new() -> Self {
        Self {
            journal: Phase::Planned,
            late_write: None,
            leaders: vec![Leader {
                knows: Phase::Planned,
                at: At::Idle,
            }],
            late: Vec::new(),
            draining: false,
            pods: true,
            kubelet: true,
            machine: Machine::Runs,
            node: true,
            faults: 0,
            wrong: None,
        }
    }

    fn leads(&self, leader: usize) -> bool {
        leader + 1 == self.leaders.len()
    }

    fn write(&mut self, leader: usize, to: Phase, fate: Fate, setting: &Setting) {
        let known = self.leaders[leader].knows;
        let Some(to) = advanced(known, to) else {
            return;
        };
        let write = JournalWrite { leader, known, to };
        let written = match fate {
            Fate::Written | Fate::Untold => self.land_write(write, setting),
            Fate::Failed => false,
            Fate::Late => {
                self.late_write = Some(write);
                false
            }
        };
        if fate != Fate::Written {
            self.faults += 1;
        }
        if written && fate == Fate::Written {
            self.leaders[leader].knows = to;
        } else if fate != Fate::Failed && self.leads(leader) {
            // Who does not know, or was refused, reads again.
            self.leaders[leader].knows = self.journal;
        }
    }

    fn land_write(&mut self, write: JournalWrite, setting: &Setting) -> bool {
        if !self.leads(write.leader) && setting.wrong != Wrong::NoFence {
            return false;
        }
        let versions = !matches!(setting.wrong, Wrong::NoFence | Wrong::NoVersions);
        if versions && write.known != self.journal {
            return false;
        }
        if self.journal.is_end() && self.journal != write.to {
            self.wrong = Some("an operation that had ended was written");
        }
        self.journal = write.to;
        true
    }

    fn look(&mut self, leader: usize, late: bool, fate: Fate, setting: &Setting) -> bool {
        let is_old = !self.leads(leader) && setting.wrong != Wrong::NoFence;
        if is_old || self.leaders[leader].at != At::Idle {
            return false;
        }
        let gone = self.machine == Machine::Gone;
        let (order, to) = match rule::next(self.leaders[leader].knows) {
            Next::Begin => (None, Some(Phase::Draining)),
            Next::Drain => {
                let drained = match () {
                    () if gone => Drained::Gone,
                    () if !self.pods || setting.wrong == Wrong::DrainedTooSoon => Drained::Yes,
                    () if late => Drained::No(String::new()),
                    () => Drained::NotYet,
                };
                (Some(Order::Drain), rule::drained(true, &drained))
            }
            Next::Stop => {
                let over = !self.kubelet || late;
                (Some(Order::Stop), over.then_some(Phase::Terminating))
            }
            Next::Terminate => (Some(Order::Terminate), rule::terminated(gone)),
            Next::Forget => (Some(Order::Forget), None),
            Next::Nothing => return false,
        };
        match (to, order) {
            (Some(to), _) => self.write(leader, to, fate, setting),
            (None, Some(order)) => self.leaders[leader].at = At::Ordering(order),
            (None, None) => return false,
        }
        true
    }

    fn effect(&mut self, order: Order) {
        match order {
            Order::Drain => self.draining = true,
            Order::Stop => self.kubelet = false,
            Order::Terminate if self.machine == Machine::Gone => {}
            Order::Terminate => {
                if self.pods {
                    self.wrong = Some("a machine with pods was terminated");
                }
                if !matches!(self.journal, Phase::Terminating | Phase::Forgetting | Phase::Done) {
                    self.wrong = Some("a machine was terminated before that was journaled");
                }
                self.machine = Machine::Ending;
            }
            Order::Forget => {
                if self.machine != Machine::Gone {
                    self.wrong = Some("a Node was deleted before its machine was gone");
                }
                if !matches!(self.journal, Phase::Forgetting | Phase::Done) {
                    self.wrong = Some("a Node was deleted before that was journaled");
                }
                self.node = false;
            }
        }
    }

    fn serve(&mut self, leader: usize) -> bool {
        let At::Ordering(order) = self.leaders[leader].at else {
            return false;
        };
        self.effect(order);
        self.leaders[leader].at = At::Answered(order);
        true
    }

    fn deliver(&mut self, leader: usize, fate: Fate, setting: &Setting) -> bool {
        let At::Answered(order) = self.leaders[leader].at else {
            return false;
        };
        self.leaders[leader].at = At::Idle;
        match order {
            Order::Forget => self.write(leader, Phase::Done, fate, setting),
            Order::Terminate if setting.wrong == Wrong::OrderedIsGone => {
                self.write(leader, Phase::Forgetting, fate, setting);
            }
            _ => {}
        }
        true
    }

    fn take_over(&mut self) {
        self.leaders.push(Leader {
            knows: self.journal,
            at: At::Idle,
        });
    }

    fn act(&mut self, action: Action, setting: &Setting) -> bool {
        match action {
            Action::Look { leader, late, fate } => return self.look(leader, late, fate, setting),
            Action::Serve(leader) => return self.serve(leader),
            Action::Deliver { leader, fate } => return self.deliver(leader, fate, setting),
            Action::Lose(leader) => {
                self.faults += 1;
                if let At::Ordering(order) = std::mem::replace(&mut self.leaders[leader].at, At::Idle) {
                    self.late.push(order);
                }
            }
            Action::Land(place) => {
                let order = self.late.remove(place);
                self.effect(order);
            }
            Action::LandWrite => {
                let write = self.late_write.take().unwrap();
                self.land_write(write, setting);
            }
            Action::TakeOver => self.take_over(),
            Action::PodsLeave => self.pods &= !self.draining,
            Action::MachineEnds => {
                self.machine = Machine::Gone;
                self.pods = false;
                self.kubelet = false;
            }
        }
        true
    }

    /// Whether it ends when nothing fails any more, by the leader that there is or one more, with the node whole or wholly
    /// gone.
    fn settles(&self, setting: &Setting, one_more: bool) -> bool {
        let mut world = self.clone();
        if one_more {
            world.take_over();
        }
        let leader = world.leaders.len() - 1;
        for _ in 0..14 {
            world.look(leader, true, Fate::Written, setting);
            world.serve(leader);
            world.deliver(leader, Fate::Written, setting);
            if world.machine == Machine::Ending {
                world.act(Action::MachineEnds, setting);
            }
        }
        match world.journal {
            Phase::Done => world.machine == Machine::Gone && !world.node,
            Phase::Aborted => world.node,
            _ => false,
        }
    }
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
            for fate in fates.iter().copied() {
                match one.at {
                    At::Idle => {
                        actions.extend([false, true].map(|late| Action::Look { leader, late, fate }));
                    }
                    At::Ordering(_) => actions.push(Action::Serve(leader)),
                    At::Answered(_) => actions.push(Action::Deliver { leader, fate }),
                }
            }
            if fails && one.at != At::Idle {
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
        actions.extend([Action::PodsLeave, Action::MachineEnds]);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        (next.act(action, self) && next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "drained, terminated, forgotten: in that order",
                |_, world: &World| world.wrong.is_none(),
            ),
            Property::always("what is given up keeps its machine", |_, world: &World| {
                world.journal != Phase::Aborted || (world.machine != Machine::Ending && world.node)
            }),
            Property::always("it ends once nothing fails", |setting: &Self, world: &World| {
                world.settles(setting, false) && world.settles(setting, true)
            }),
            Property::sometimes("a successor ends it", |_, world: &World| {
                world.journal == Phase::Done && world.leaders.len() > 1
            }),
            Property::sometimes("it is given up", |_, world: &World| {
                world.journal == Phase::Aborted
            }),
        ]
    }
}
