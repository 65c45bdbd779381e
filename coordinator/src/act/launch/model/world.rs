//! What is where, and what one action makes of it.

use jiff::Timestamp;

use super::{
    Action, Fate, Setting, Wrong,
    entry::{
        Answer, At, Call, Entry, Leader, Machine, Machines, id, instance, machines, no_capacity, numbers,
    },
};
use crate::{
    act::{
        fleet::Launched,
        launch::rule::{self, Joined, Next, Outcome},
        operation::{Kind, Launch, Operation, Phase},
    },
    ids::InstanceId,
};

/// A write of the operation and of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct JournalWrite {
    leader: usize,
    /// What it replaces. The store compares versions: where one entry stands twice it refuses more than this model.
    known: Entry,
    entry: Entry,
    records: Machines,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) journal: Entry,
    /// Machines that have node records.
    records: Machines,
    /// By their terms; the last one leads.
    pub(super) leaders: Vec<Leader>,
    pub(super) machines: Vec<Machine>,
    /// Attempts that the cloud refused.
    refused: u8,
    /// Fleet calls that nobody waits for.
    pub(super) late: Vec<Call>,
    pub(super) late_write: Option<JournalWrite>,
    pub(super) faults: u8,
    /// Attempts, and machines given up, that were ever journaled.
    requested: u8,
    given_up: Machines,
    /// A call that no journal entry preceded.
    pub(super) unjournaled: Option<Call>,
    /// An operation that had ended was written again.
    pub(super) reopened: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let journal = Entry {
            phase: Phase::Planned,
            attempt: 1,
            instances: 0,
            ready: 0,
            given_up: false,
        };
        let first = Leader {
            knows: journal,
            at: At::Idle,
        };
        Self {
            journal,
            records: 0,
            leaders: vec![first],
            machines: Vec::new(),
            refused: 0,
            late: Vec::new(),
            late_write: None,
            faults: 0,
            requested: 0,
            given_up: 0,
            unjournaled: None,
            reopened: false,
        }
    }

    pub(super) fn all_alive(&self, machines: Machines) -> bool {
        numbers(machines).all(|machine| self.machines[machine].alive)
    }

    fn joined(&self, among: Machines) -> Vec<InstanceId> {
        let joined = |machine: &usize| self.machines[*machine].joined;
        numbers(among).filter(joined).map(id).collect()
    }

    fn leads(&self, leader: usize) -> bool {
        leader + 1 == self.leaders.len()
    }

    /// Writes the operation, if there is something to write, and the records. Returns whether the leader knows that it did.
    fn write(
        &mut self,
        leader: usize,
        operation: Option<&Operation>,
        records: Machines,
        fate: Fate,
        setting: &Setting,
    ) -> bool {
        let Some(entry) = operation.map(Entry::of) else {
            return false;
        };
        let write = JournalWrite {
            leader,
            known: self.leaders[leader].knows,
            entry,
            records,
        };
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
            self.leaders[leader].knows = entry;
            return true;
        }
        // Who does not know, or was refused, reads again; what lands later is not there yet.
        if fate != Fate::Failed && self.leads(leader) && setting.wrong != Wrong::NeverReadsAgain {
            self.leaders[leader].knows = self.journal;
        }
        false
    }

    fn land_write(&mut self, write: JournalWrite, setting: &Setting) -> bool {
        let JournalWrite {
            leader,
            known,
            entry,
            records,
        } = write;
        if !self.leads(leader) && setting.wrong != Wrong::NoFence {
            return false;
        }
        let versions = !matches!(setting.wrong, Wrong::NoFence | Wrong::NoVersions);
        if versions && known != self.journal {
            return false;
        }
        self.reopened |= self.journal.phase.is_end() && entry != self.journal;
        if entry.phase == Phase::Requesting {
            self.requested |= 1 << entry.attempt;
        }
        if entry.given_up {
            self.given_up |= entry.instances & !entry.ready;
        }
        self.journal = entry;
        self.records = records;
        true
    }

    /// The operation as the leader would write it; nothing if the diagram lacks the arrow.
    fn advance(&self, leader: usize, to: Phase, change: impl FnOnce(&mut Launch)) -> Option<Operation> {
        let mut operation = self.leaders[leader].knows.operation(self);
        change(operation.launch_mut().unwrap());
        operation.advance(to, Timestamp::UNIX_EPOCH, "").ok()?;
        Some(operation)
    }

    fn look(&mut self, leader: usize, late: bool, fate: Fate, setting: &Setting) -> bool {
        // What it begins, it begins while it may act.
        if !self.leads(leader) || self.leaders[leader].at != At::Idle {
            return false;
        }
        let knows = self.leaders[leader].knows;
        match rule::next(knows.phase) {
            Next::Request => self.request(leader, fate, setting),
            Next::Find => {
                let all = (0..self.machines.len()).map(|machine| instance(self, machine));
                match rule::found(all.collect()) {
                    Some(found) => self.launched(leader, found, fate, setting),
                    None => self.request(leader, fate, setting),
                }
            }
            Next::Watch => return self.watch(leader, late, fate, setting),
            Next::AwaitPlan => {
                let next = self.advance(leader, Phase::Failed, |_| {});
                self.write(leader, next.as_ref(), self.records, fate, setting);
            }
            Next::Nothing => return false,
        }
        true
    }

    fn watch(&mut self, leader: usize, late: bool, fate: Fate, setting: &Setting) -> bool {
        let knows = self.leaders[leader].knows;
        let ready = self.joined(knows.instances);
        let operation = knows.operation(self);
        let next = match rule::joined(operation.launch().unwrap(), &ready, late) {
            Joined::Wait => return false,
            Joined::News(to) => self.advance(leader, to, |launch| launch.ready = ready),
            Joined::Over if setting.wrong == Wrong::TerminatedFirst => {
                let missing = knows.instances & !machines(&ready);
                self.leaders[leader].at = At::Calling(Call::Terminate(missing, Phase::Refused));
                return true;
            }
            Joined::Over => self.advance(leader, Phase::Joining, |launch| {
                launch.ready = ready;
                launch.given_up = true;
            }),
            Joined::GiveUp(missing, to) => {
                self.leaders[leader].at = At::Calling(Call::Terminate(machines(&missing), to));
                return true;
            }
        };
        self.write(leader, next.as_ref(), self.records, fate, setting);
        true
    }

    fn request(&mut self, leader: usize, fate: Fate, setting: &Setting) {
        let next = self.advance(leader, Phase::Requesting, |_| {});
        if self.write(leader, next.as_ref(), self.records, fate, setting)
            || setting.wrong == Wrong::CalledFirst
        {
            self.leaders[leader].at = At::Call;
        }
    }

    fn launched(&mut self, leader: usize, launched: Launched, fate: Fate, setting: &Setting) {
        let operation = self.leaders[leader].knows.operation(self);
        let (next, new) = match rule::answered(operation.launch().unwrap(), Ok(launched)) {
            Outcome::Exist(launched) => {
                let next = self.advance(leader, Phase::Joining, |launch| {
                    launch.instances = launched.instances;
                });
                let new = next.as_ref().map_or(0, |next| Entry::of(next).instances);
                (next, new)
            }
            Outcome::Refused { .. } => (self.advance(leader, Phase::Refused, |_| {}), 0),
            Outcome::Open(_) => return,
        };
        self.write(leader, next.as_ref(), self.records | new, fate, setting);
    }

    /// What the cloud does when a call reaches it; `None`: that cannot be.
    fn effect(&mut self, call: Call, refuse: bool, setting: &Setting) -> Option<Answer> {
        let attempt = match call {
            Call::Terminate(..) if refuse => return None,
            Call::Terminate(machines, to) => {
                if machines & !self.given_up != 0 {
                    self.unjournaled = Some(call);
                }
                for machine in numbers(machines) {
                    self.machines[machine].alive = false;
                }
                return Some(Answer::Terminated(to));
            }
            Call::Launch(attempt) => attempt,
        };
        if self.requested & (1 << attempt) == 0 {
            self.unjournaled = Some(call);
        }
        // What it answered it answers again, whatever has become of it.
        let known = self
            .machines
            .iter()
            .position(|machine| machine.attempt == attempt);
        if let Some(known) = known.filter(|_| setting.wrong != Wrong::TokenPerCall) {
            return (!refuse).then_some(Answer::Launched(1 << known));
        }
        if self.refused & (1 << attempt) != 0 {
            return Some(Answer::Refused);
        }
        if refuse {
            self.refused |= 1 << attempt;
            return (attempt <= setting.refusals).then_some(Answer::Refused);
        }
        self.machines.push(Machine {
            attempt,
            alive: true,
            joined: false,
        });
        Some(Answer::Launched(1 << (self.machines.len() - 1)))
    }

    fn deliver(&mut self, leader: usize, fate: Fate, setting: &Setting) -> bool {
        let At::Answered(answer) = self.leaders[leader].at else {
            return false;
        };
        self.leaders[leader].at = At::Idle;
        let mut launched = Launched::default();
        match answer {
            Answer::Launched(machines) => {
                launched.instances = numbers(machines).map(|machine| instance(self, machine)).collect();
            }
            Answer::Refused => launched.refused = vec![no_capacity()],
            Answer::Terminated(to) => {
                let knows = self.leaders[leader].knows;
                let next = self.advance(leader, to, |_| {});
                let records = self.records & !(knows.instances & !knows.ready);
                self.write(leader, next.as_ref(), records, fate, setting);
                return true;
            }
        }
        self.launched(leader, launched, fate, setting);
        true
    }

    fn serve(&mut self, leader: usize, refuse: bool, setting: &Setting) -> bool {
        let At::Calling(call) = self.leaders[leader].at else {
            return false;
        };
        let answer = self.effect(call, refuse, setting);
        if let Some(answer) = answer {
            self.leaders[leader].at = At::Answered(answer);
        }
        answer.is_some()
    }

    /// Makes the call that is journaled, if it may still act.
    fn call(&mut self, leader: usize) {
        if self.leaders[leader].at == At::Call {
            let attempt = self.leaders[leader].knows.attempt;
            self.leaders[leader].at = if self.leads(leader) {
                At::Calling(Call::Launch(attempt))
            } else {
                At::Idle
            };
        }
    }

    fn take_over(&mut self) {
        self.leaders.push(Leader {
            knows: self.journal,
            at: At::Idle,
        });
    }

    pub(super) fn act(&mut self, action: Action, setting: &Setting) -> bool {
        match action {
            Action::Look { leader, late, fate } => return self.look(leader, late, fate, setting),
            Action::Call(leader) => self.call(leader),
            Action::Serve { leader, refuse } => return self.serve(leader, refuse, setting),
            Action::Deliver { leader, fate } => return self.deliver(leader, fate, setting),
            Action::Lose(leader) => {
                self.faults += 1;
                let at = std::mem::replace(&mut self.leaders[leader].at, At::Idle);
                if let At::Calling(call) = at {
                    self.late.push(call);
                }
            }
            Action::Land(place) => {
                let call = self.late.remove(place);
                self.effect(call, false, setting);
            }
            Action::LandWrite => {
                let write = self.late_write.take().unwrap();
                self.land_write(write, setting);
            }
            Action::PlanAnew(leader) => {
                if !self.leads(leader) {
                    return false;
                }
                let mut next = self.leaders[leader].knows.operation(self);
                let launch = next.launch().unwrap();
                next.what = Kind::Launch(launch.again(launch.request.clone()));
                next.advance(Phase::Planned, Timestamp::UNIX_EPOCH, "").unwrap();
                self.write(leader, Some(&next), self.records, Fate::Written, setting);
            }
            Action::TakeOver => self.take_over(),
            Action::Join(machine) => self.machines[machine].joined |= self.machines[machine].alive,
        }
        true
    }

    /// What comes of it when nothing fails any more, with the leader that there is or with one more. Calls that are
    /// under way from others land before it goes on (`lands`) or never.
    pub(super) fn settles(&self, setting: &Setting, one_more: bool, lands: bool) -> bool {
        let mut world = self.clone();
        if one_more {
            world.take_over();
        }
        let leader = world.leaders.len() - 1;
        if lands {
            for call in std::mem::take(&mut world.late) {
                world.effect(call, false, setting);
            }
            for old in 0..leader {
                world.serve(old, false, setting);
            }
        }
        // More looks than a whole launch takes.
        for _ in 0..12 {
            world.look(leader, true, Fate::Written, setting);
            world.call(leader);
            world.serve(leader, false, setting);
            world.deliver(leader, Fate::Written, setting);
        }
        let Entry {
            phase,
            instances,
            ready,
            ..
        } = world.journal;
        let kept = if phase == Phase::Done { instances } else { ready };
        // A machine beyond those is a stranger, which reconciliation ends.
        phase.is_end() && world.records == kept && world.all_alive(kept)
    }
}
