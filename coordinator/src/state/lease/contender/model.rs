#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
//! The lease, model-checked: every order in which real [`Contender`](super::Contender)s, one row and a network that
//! delays and loses can meet, up to the bounds that a check names.
//!
//! ```text
//!              begin                 serve                 deliver
//!   Nothing ──────────▶ Asking   ──────────▶ Answered ──────────────▶ Nothing
//!                       Writing  ──────────▶ Written                     ▲
//!                          │ lose               │ lose                   │
//!                          ▼                    └────────────────────────┘
//!                         late ──land──▶ (the row, if it is still the expected one)
//! ```
//!
//! - The state holds the contenders themselves: [`Contender::next`](super::Contender::next) and the `on_…` functions
//!   are what runs here. What is modelled is what surrounds them, as `lease/mod.rs` and a store would.
//! - Each has a clock of its own with an origin of its own. They advance by the same ticks, except for ticks that
//!   one of them misses: a clock that goes slower.
//! - Nothing is urgent: a contender may sleep through any number of ticks, a call may take any number of them.
//! - A crash forgets everything but writes that are on their way.

mod canonical;
mod checks;
mod world;

use std::time::Duration;

use stateright::{Model, Property};

use self::world::{Call, World};
use crate::state::lease::Settings;

/// Two milliseconds, so that the shortest pause of a contender (1 ms) ends within one.
const TICK: Duration = Duration::from_millis(2);

/// What surrounds the contenders, and how far it is looked into.
#[derive(Debug, Clone)]
struct Setting {
    contenders: usize,
    /// Settings of each contender.
    times: Settings,
    /// Terms that are begun.
    terms: u64,
    /// Writes that are under way while nobody waits for them.
    late: usize,
    /// Contenders that crash or hand over, in all.
    ends: u8,
    /// Ticks that some clock misses, in all.
    missed_ticks: u8,
    /// Whether each state is also followed to where it leads when nothing fails any more.
    settles: bool,
    /// What is wrong with it, to see that the checks would notice.
    wrong: Wrong,
}

/// A mistake in what surrounds the contenders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The lease counts from the answer of the write instead of from before it.
    CountedFromTheAnswer,
    /// The store replaces the row whatever its `rvn` is.
    NothingExpected,
    /// Renewals of a contender all bear the same text.
    RvnsRepeat,
    /// The row says a lease that is shorter than its holder's own.
    RowSaysLess,
    /// A restarted contender goes on in the term of the row if that bears its name.
    NameIsEnough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A contender does what it would do now.
    Begin(usize),
    /// The store does what it is asked.
    Serve(usize),
    /// The store refuses, and says so.
    Refuse(usize),
    /// The answer arrives.
    Deliver(usize),
    /// A layer below repeated a write that had taken place, and was told no.
    DeliverNo(usize),
    /// No answer arrives; a write that was not served may land later.
    Lose(usize),
    /// No answer arrives, and the write never lands.
    Drop(usize),
    /// A late write reaches the store.
    Land(usize),
    Crash(usize),
    HandOver(usize),
    Tick,
    /// All clocks but one.
    TickWithout(usize),
}

impl Model for Setting {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (place, member) in world.members.iter().enumerate() {
            let possible: &[fn(usize) -> Action] = match &member.call {
                Call::Nothing => &[Action::Begin],
                Call::Asking => &[Action::Serve, Action::Refuse],
                Call::Answered(_) => &[Action::Deliver],
                Call::Writing(_) => &[Action::Serve, Action::Refuse, Action::Lose, Action::Drop],
                Call::Written(_, true) => &[Action::Deliver, Action::DeliverNo, Action::Lose],
                Call::Written(_, false) => &[Action::Deliver, Action::Lose],
            };
            actions.extend(possible.iter().map(|action| action(place)));
            if world.ends < self.ends {
                actions.push(Action::Crash(place));
                if member.call == Call::Nothing && member.contender.held().is_some() {
                    actions.push(Action::HandOver(place));
                }
            }
            if world.missed_ticks < self.missed_ticks {
                actions.push(Action::TickWithout(place));
            }
        }
        actions.extend((0..world.late.len()).map(Action::Land));
        actions.push(Action::Tick);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        if !next.act(action, self) {
            return None;
        }
        next.note_leaders();
        next.canonical(self);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one leader at most", |_, world: &World| {
                world.leaders().count() <= 1
            }),
            Property::always("one leader a term, and terms rise", |_, world: &World| {
                world.wrong.is_none()
            }),
            Property::always("the store does not refuse who leads", |_, world: &World| {
                world
                    .leaders()
                    .all(|epoch| world.row.as_ref().is_some_and(|row| row.epoch == epoch))
            }),
            Property::always(
                "somebody leads once nothing fails",
                |setting: &Self, world: &World| !setting.settles || world.settles(setting),
            ),
            Property::sometimes("the last term is led", |setting: &Self, world: &World| {
                world.leaders().any(|epoch| epoch.0 == setting.terms)
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        let writes = world.members.iter().filter_map(|member| match &member.call {
            Call::Writing(write) => Some(write),
            _ => None,
        });
        world.late.len() <= self.late
            && writes
                .map(|write| write.row.epoch.0)
                .all(|epoch| epoch <= self.terms)
    }
}
