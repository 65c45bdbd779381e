//! What is where, and what one action makes of it.

use std::time::Duration;

use jiff::Timestamp;

use super::{Action, Setting, TICK, Wrong};
use crate::{
    ids::{CoordinatorName, Epoch},
    state::{
        LeaseRow,
        lease::{
            Leadership,
            contender::{Contender, Outcome, Standing, Step},
        },
    },
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) row: Option<Row>,
    pub(super) members: Vec<Member>,
    pub(super) late: Vec<Write>,
    /// Who was leader in term 1, 2 …
    pub(super) led: Vec<Option<Holder>>,
    pub(super) ends: u8,
    pub(super) missed_ticks: u8,
    /// What must not happen and did.
    pub(super) wrong: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) holder: Option<CoordinatorName>,
    pub(super) rvn: String,
    pub(super) epoch: Epoch,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) expected: Option<String>,
    pub(super) row: Row,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) contender: Contender,
    /// By its own clock.
    pub(super) now: Duration,
    pub(super) call: Call,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Nothing,
    Asking,
    Answered(Option<Row>),
    Writing(Write),
    Written(Row, bool),
}

/// Who was leader in a term: a contender by its place, or one that is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Member(usize),
    Gone,
}

pub(super) fn name(place: usize) -> CoordinatorName {
    ["a", "b", "c"][place].parse().unwrap()
}

/// Where the clock of a contender stands whenever a state is looked at: later than any time that still matters.
pub(super) fn origin(place: usize) -> Duration {
    TICK * (20 + 7 * u32::try_from(place).unwrap())
}

impl Row {
    fn as_read(&self, setting: &Setting) -> LeaseRow {
        LeaseRow {
            holder: self.holder.clone(),
            rvn: self.rvn.clone(),
            epoch: self.epoch,
            lease: match setting.wrong {
                Wrong::RowSaysLess => TICK,
                _ => setting.times.lease,
            },
            expires_at: Timestamp::UNIX_EPOCH,
        }
    }
}

impl Member {
    fn new(place: usize, setting: &Setting) -> Self {
        Self {
            contender: Contender::new(name(place), setting.times),
            now: origin(place),
            call: Call::Nothing,
        }
    }

    fn leads(&self) -> Option<Epoch> {
        match self.contender.leadership(self.now) {
            Leadership::Leader { epoch, .. } => Some(epoch),
            Leadership::Follower { .. } => None,
        }
    }
}

impl World {
    pub(super) fn new(setting: &Setting) -> Self {
        Self {
            row: None,
            members: (0..setting.contenders)
                .map(|place| Member::new(place, setting))
                .collect(),
            late: Vec::new(),
            led: vec![None; usize::try_from(setting.terms).unwrap()],
            ends: 0,
            missed_ticks: 0,
            wrong: None,
        }
    }

    fn rvns(&self) -> impl Iterator<Item = &str> {
        let calls = self.members.iter().flat_map(|member| match &member.call {
            Call::Nothing | Call::Asking | Call::Answered(None) => [None, None],
            Call::Answered(Some(row)) | Call::Written(row, _) => [Some(&row.rvn), None],
            Call::Writing(write) => [Some(&write.row.rvn), write.expected.as_ref()],
        });
        let late = self
            .late
            .iter()
            .flat_map(|write| [Some(&write.row.rvn), write.expected.as_ref()]);
        let known = self.members.iter().flat_map(|member| {
            let standing = match &member.contender.standing {
                Standing::Blind => None,
                Standing::Watching { row, .. } => row.as_ref().map(|row| &row.rvn),
                Standing::Holding { rvn, .. } => Some(rvn),
            };
            let attempts = member.contender.outstanding.iter().map(|one| Some(&one.rvn));
            attempts.chain([standing])
        });
        let row = self.row.as_ref().map(|row| &row.rvn);
        calls
            .chain(late)
            .chain(known)
            .chain([row])
            .flatten()
            .map(String::as_str)
    }

    /// A text that nobody knows.
    fn fresh_rvn(&self, place: usize, setting: &Setting) -> String {
        if setting.wrong == Wrong::RvnsRepeat {
            return name(place).to_string();
        }
        (0..)
            .map(|number: u32| number.to_string())
            .find(|rvn| !self.rvns().any(|known| known == rvn))
            .unwrap()
    }

    fn replace(&mut self, write: Write, setting: &Setting) -> bool {
        let expected = self.row.as_ref().map(|row| row.rvn.as_str());
        let replaces = write.expected.as_deref() == expected || setting.wrong == Wrong::NothingExpected;
        if replaces {
            if self.row.as_ref().is_some_and(|row| write.row.epoch < row.epoch) {
                self.wrong = Some("the row went back to an older term");
            }
            self.row = Some(write.row);
        }
        replaces
    }

    fn begin(&mut self, place: usize, setting: &Setting) -> bool {
        let member = &self.members[place];
        match member.contender.next(member.now) {
            Step::Sleep(_) => return false,
            Step::Read => self.members[place].call = Call::Asking,
            Step::Replace { expected, epoch } => {
                let holder = Some(name(place));
                self.write(place, expected, holder, epoch, setting);
            }
        }
        true
    }

    fn write(
        &mut self,
        place: usize,
        expected: Option<String>,
        holder: Option<CoordinatorName>,
        epoch: Epoch,
        setting: &Setting,
    ) {
        let rvn = self.fresh_rvn(place, setting);
        let row = Row { holder, rvn, epoch };
        let member = &mut self.members[place];
        if setting.wrong != Wrong::CountedFromTheAnswer {
            member.contender.on_write(member.now, &row.as_read(setting));
        }
        member.call = Call::Writing(Write { expected, row });
    }

    fn serve(&mut self, place: usize, setting: &Setting) -> bool {
        self.members[place].call = match &self.members[place].call {
            Call::Asking => Call::Answered(self.row.clone()),
            Call::Writing(write) => {
                let write = write.clone();
                let row = write.row.clone();
                Call::Written(row, self.replace(write, setting))
            }
            _ => return false,
        };
        true
    }

    fn written(&mut self, place: usize, row: &Row, outcome: Outcome, setting: &Setting) {
        let member = &mut self.members[place];
        if setting.wrong == Wrong::CountedFromTheAnswer {
            member.contender.on_write(member.now, &row.as_read(setting));
        }
        member.contender.on_written(member.now, &row.rvn, outcome);
        // The write that hands over is the last thing that a coordinator does.
        if member.contender.resigned {
            self.restart(place, setting);
        }
    }

    fn restart(&mut self, place: usize, setting: &Setting) {
        for holder in &mut self.led {
            if *holder == Some(Holder::Member(place)) {
                *holder = Some(Holder::Gone);
            }
        }
        self.members[place] = Member::new(place, setting);
    }

    /// The end of a call, other than by its answer.
    fn end_call(&mut self, place: usize, action: Action, setting: &Setting) -> bool {
        let member = &mut self.members[place];
        match (std::mem::replace(&mut member.call, Call::Nothing), action) {
            (Call::Asking, Action::Refuse(_)) => member.contender.on_failure(member.now),
            (Call::Writing(write), Action::Refuse(_)) => {
                self.written(place, &write.row, Outcome::NotSent, setting);
            }
            (Call::Writing(write), Action::Lose(_)) => {
                self.late.push(write.clone());
                self.written(place, &write.row, Outcome::Unknown, setting);
            }
            (Call::Written(row, true), Action::DeliverNo(_)) => {
                self.written(place, &row, Outcome::NotReplaced, setting);
            }
            (Call::Written(row, _), Action::Lose(_))
            | (Call::Writing(Write { row, .. }), Action::Drop(_)) => {
                self.written(place, &row, Outcome::Unknown, setting);
            }
            _ => return false,
        }
        true
    }

    fn deliver(&mut self, place: usize, setting: &Setting) -> bool {
        let member = &mut self.members[place];
        if !matches!(member.call, Call::Answered(_) | Call::Written(..)) {
            return false;
        }
        match std::mem::replace(&mut member.call, Call::Nothing) {
            Call::Answered(row) => {
                if setting.wrong == Wrong::NameIsEnough
                    && let Some(row) = &row
                    && row.holder.as_ref() == Some(member.contender.name())
                    && member.contender.standing == Standing::Blind
                {
                    member.contender.on_write(member.now, &row.as_read(setting));
                }
                let row = row.map(|row| row.as_read(setting));
                member.contender.on_read(member.now, row);
            }
            Call::Written(row, replaced) => {
                let outcome = if replaced {
                    Outcome::Replaced
                } else {
                    Outcome::NotReplaced
                };
                self.written(place, &row, outcome, setting);
            }
            _ => return false,
        }
        true
    }

    fn tick(&mut self, without: Option<usize>) {
        for (place, member) in self.members.iter_mut().enumerate() {
            if Some(place) != without {
                member.now += TICK;
            }
        }
    }

    fn crash(&mut self, place: usize, setting: &Setting) {
        if let Call::Writing(write) = &self.members[place].call {
            self.late.push(write.clone());
        }
        self.restart(place, setting);
    }

    fn hand_over(&mut self, place: usize, setting: &Setting) -> bool {
        let member = &mut self.members[place];
        let (Call::Nothing, Some((rvn, epoch))) = (&member.call, member.contender.held()) else {
            return false;
        };
        member.contender.resign();
        self.write(place, Some(rvn), None, epoch, setting);
        true
    }

    pub(super) fn act(&mut self, action: Action, setting: &Setting) -> bool {
        match action {
            Action::Begin(place) => self.begin(place, setting),
            Action::Serve(place) => self.serve(place, setting),
            Action::Deliver(place) => self.deliver(place, setting),
            Action::Refuse(place) | Action::DeliverNo(place) | Action::Lose(place) | Action::Drop(place) => {
                self.end_call(place, action, setting)
            }
            Action::Land(number) => {
                let write = self.late.remove(number);
                self.replace(write, setting)
            }
            Action::Crash(place) => {
                self.ends += 1;
                self.crash(place, setting);
                true
            }
            Action::HandOver(place) => {
                self.ends += 1;
                self.hand_over(place, setting)
            }
            Action::Tick => {
                self.tick(None);
                true
            }
            Action::TickWithout(place) => {
                self.missed_ticks += 1;
                self.tick(Some(place));
                true
            }
        }
    }

    /// Looks who leads, and whether somebody else did in that term.
    pub(super) fn note_leaders(&mut self) {
        for (place, member) in self.members.iter().enumerate() {
            let Some(epoch) = member.leads() else { continue };
            let Some(holder) = self.led.get_mut(usize::try_from(epoch.0 - 1).unwrap()) else {
                continue;
            };
            if *holder.get_or_insert(Holder::Member(place)) != Holder::Member(place) {
                self.wrong = Some("a term had two leaders");
            }
        }
    }

    pub(super) fn leaders(&self) -> impl Iterator<Item = Epoch> {
        self.members.iter().filter_map(Member::leads)
    }

    /// What comes of it when nothing fails any more and nobody dawdles: whether somebody leads in time, and goes on.
    pub(super) fn settles(&self, setting: &Setting) -> bool {
        let mut world = self.clone();
        let ticks = |time: Duration| u32::try_from(time.as_millis() / TICK.as_millis()).unwrap();
        let within = 2 * ticks(setting.times.lease) + 2 * ticks(setting.times.watch) + 2;
        for tick in 0..within + ticks(setting.times.lease) {
            for place in 0..world.members.len() {
                // The call under way, and two more: enough to see who holds it, and to write.
                for _ in 0..3 {
                    world.serve(place, setting);
                    if !world.deliver(place, setting) && !world.begin(place, setting) {
                        break;
                    }
                }
                world.serve(place, setting);
                world.deliver(place, setting);
            }
            if tick >= within && world.leaders().count() != 1 {
                return false;
            }
            world.tick(None);
        }
        true
    }
}
