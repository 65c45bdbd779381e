//! States that differ only in names or in times that no longer matter are one state.
//!
//! - Each clock is set back to its origin. A time so long ago that its lease, its interval or its pause is over
//!   is as good as any earlier one.
//! - `rvn`s are numbered in the order in which they are met; those that nobody can read any more are alike.
//! - Who led a term matters as long as somebody may still come to lead it.
//! - A write whose expected row cannot come back never lands. An attempt that no write and no answer belongs to any
//!   more cannot be found again.
//! - Contenders are alike: they are put in order, and called by their place.

use std::time::Duration;

use super::{
    Setting, Wrong,
    world::{Call, Holder, Member, World, Write, name, origin},
};
use crate::{
    ids::{CoordinatorName, Epoch},
    state::lease::contender::{Contender, Seen, Standing},
};

/// Any `rvn` that the row does not have and will not have again.
const GONE: &str = "-";

impl World {
    pub(super) fn canonical(&mut self, setting: &Setting) {
        let alive = self.bury();
        for (place, member) in self.members.iter_mut().enumerate() {
            member.set_back(origin(place));
        }
        self.put_in_order();
        if setting.wrong != Wrong::RvnsRepeat {
            self.number_rvns(&alive);
        }
    }

    /// Forgets what cannot happen any more. Returns the `rvn`s that somebody may still read.
    fn bury(&mut self) -> Vec<String> {
        let calls = self.members.iter().map(|member| &member.call);
        let mut alive: Vec<String> = calls
            .filter_map(|call| match call {
                Call::Nothing | Call::Asking | Call::Written(_, false) => None,
                Call::Answered(row) => row.as_ref(),
                Call::Writing(write) => Some(&write.row),
                Call::Written(row, true) => Some(row),
            })
            .chain(&self.row)
            .map(|row| row.rvn.clone())
            .collect();
        let current = self.row.as_ref().map(|row| row.rvn.clone());
        let mut late = std::mem::take(&mut self.late);
        // One that follows another late one is alive with it.
        loop {
            let (lives, rest): (Vec<_>, Vec<_>) = late.into_iter().partition(|write| {
                let expected = &write.expected;
                *expected == current || expected.as_ref().is_some_and(|rvn| alive.contains(rvn))
            });
            late = rest;
            if lives.is_empty() {
                break;
            }
            alive.extend(lives.iter().map(|write| write.row.rvn.clone()));
            self.late.extend(lives);
        }
        for member in &mut self.members {
            if let Call::Written(row, false) = &mut member.call {
                row.epoch = Epoch(0);
                row.holder = None;
            }
            let attempts = &mut member.contender.outstanding;
            attempts.retain(|attempt| alive.contains(&attempt.rvn));
        }
        for (term, holder) in (1..).map(Epoch).zip(&mut self.led) {
            let current = self.row.as_ref().is_some_and(|row| row.epoch == term);
            if !current
                && !self
                    .members
                    .iter()
                    .any(|member| member.contender.knows_itself_in(term))
            {
                *holder = None;
            }
        }
        alive
    }

    fn put_in_order(&mut self) {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_cached_key(|place| self.members[*place].rank(origin(*place)));
        if order.is_sorted() {
            return;
        }
        let place_of = |old: usize| order.iter().position(|place| *place == old).unwrap();
        let rename = |holder: &mut Option<CoordinatorName>| {
            let old = (0..order.len()).find(|place| holder.as_ref() == Some(&name(*place)));
            *holder = old.map(|old| name(place_of(old)));
        };
        let mut members: Vec<Member> = order.iter().map(|old| self.members[*old].clone()).collect();
        for (place, member) in members.iter_mut().enumerate() {
            member.set_back(origin(place));
            member.contender.name = name(place);
            if let Standing::Watching { row: Some(row), .. } = &mut member.contender.standing {
                rename(&mut row.holder);
            }
            match &mut member.call {
                Call::Answered(Some(row)) | Call::Written(row, _) | Call::Writing(Write { row, .. }) => {
                    rename(&mut row.holder);
                }
                Call::Nothing | Call::Asking | Call::Answered(None) => {}
            }
        }
        self.members = members;
        let late = self.late.iter_mut().map(|write| &mut write.row);
        for row in late.chain(&mut self.row) {
            rename(&mut row.holder);
        }
        for holder in self.led.iter_mut().flatten() {
            if let Holder::Member(place) = holder {
                *place = place_of(*place);
            }
        }
    }

    fn number_rvns(&mut self, alive: &[String]) {
        let mut known: Vec<String> = Vec::new();
        let mut number = |rvn: &mut String| {
            if !alive.contains(rvn) {
                rvn.replace_range(.., GONE);
                return;
            }
            let place = known.iter().position(|one| one == rvn).unwrap_or_else(|| {
                known.push(rvn.clone());
                known.len() - 1
            });
            *rvn = place.to_string();
        };
        let number_write = |write: &mut Write, number: &mut dyn FnMut(&mut String)| {
            write.expected.iter_mut().for_each(&mut *number);
            number(&mut write.row.rvn);
        };
        if let Some(row) = &mut self.row {
            number(&mut row.rvn);
        }
        for member in &mut self.members {
            match &mut member.call {
                Call::Nothing | Call::Asking | Call::Answered(None) => {}
                Call::Answered(Some(row)) | Call::Written(row, _) => number(&mut row.rvn),
                Call::Writing(write) => number_write(write, &mut number),
            }
            member.contender.visit_rvns(&mut number);
        }
        // In an order that does not depend on the names: by what each follows and when it was begun.
        for write in &mut self.late {
            number_write(write, &mut number);
        }
        self.late.sort_by(|one, other| one.row.rvn.cmp(&other.row.rvn));
    }
}

impl Member {
    /// Lets its clock show `origin`.
    fn set_back(&mut self, origin: Duration) {
        let times = self.contender.times;
        let now = std::mem::replace(&mut self.now, origin);
        let set = |time: &mut Duration, matters: Duration| {
            *time = (*time + origin).saturating_sub(now).max(origin - matters);
        };
        let contender = &mut self.contender;
        if contender.not_before <= now {
            contender.not_before = Duration::ZERO;
        } else {
            set(&mut contender.not_before, Duration::ZERO);
        }
        match &mut contender.standing {
            Standing::Blind => {}
            Standing::Watching { row, since, looked } => {
                set(looked, times.watch);
                match row {
                    Some(Seen {
                        holder: Some(_),
                        lease,
                        ..
                    }) => set(since, *lease),
                    _ => *since = origin,
                }
            }
            Standing::Holding { started, .. } => set(started, times.lease),
        }
        for attempt in &mut contender.outstanding {
            set(&mut attempt.started, times.lease);
        }
    }

    /// Orders contenders by what they are, not by what they are called. Those of one rank stay as they are.
    fn rank(&self, origin: Duration) -> (u8, u8, u64, Duration, Duration, bool, usize) {
        let contender = &self.contender;
        let (standing, epoch, since) = match &contender.standing {
            Standing::Blind => (0, 0, origin),
            Standing::Watching { row, since, .. } => (1, row.as_ref().map_or(0, |row| row.epoch.0), *since),
            Standing::Holding { epoch, started, .. } => (2, epoch.0, *started),
        };
        let call = match &self.call {
            Call::Nothing => 0,
            Call::Asking => 1,
            Call::Answered(_) => 2,
            Call::Writing(_) => 3,
            Call::Written(..) => 4,
        };
        let paused = contender.not_before.saturating_sub(origin);
        let attempts = contender.outstanding.len();
        (
            standing,
            call,
            epoch,
            origin - since,
            paused,
            contender.must_read,
            attempts,
        )
    }
}

impl Contender {
    fn knows_itself_in(&self, term: Epoch) -> bool {
        matches!(&self.standing, Standing::Holding { epoch, .. } if *epoch == term)
            || self.outstanding.iter().any(|attempt| attempt.epoch == term)
    }

    fn visit_rvns(&mut self, visit: &mut dyn FnMut(&mut String)) {
        match &mut self.standing {
            Standing::Blind | Standing::Watching { row: None, .. } => {}
            Standing::Watching { row: Some(row), .. } => visit(&mut row.rvn),
            Standing::Holding { rvn, .. } => visit(rvn),
        }
        for attempt in &mut self.outstanding {
            visit(&mut attempt.rvn);
        }
    }
}
