//! Checks that agents are asked for over their sessions, and what comes back.

use std::time::Duration;

use smartscale_proto::{
    check::Report,
    time::within,
    v1::{self, SessionResponse, session_response::Command},
};
use tokio::sync::oneshot;

use super::Sessions;
use crate::ids::InstanceId;

/// Time for an agent's answer: somewhat longer than it takes for a whole report at most.
pub(in crate::serve) const PATIENCE: Duration = Duration::from_secs(60);

/// The one answer that is waited for in a session.
pub(super) struct Awaited {
    id: String,
    answer: oneshot::Sender<v1::CheckReport>,
}

/// Why an agent has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::serve) enum Unanswered {
    #[error("its agent has no session")]
    NoSession,
    #[error("its agent is of a version that cannot be asked")]
    Older,
    #[error("its agent does not take its commands")]
    Full,
    #[error("its session ended before the answer came")]
    Ended,
    #[error("its agent has not answered within {} s", PATIENCE.as_secs())]
    Silent,
}

impl Sessions {
    /// Has the agent of a machine try what it depends on. What comes back is as the agent said it.
    pub(in crate::serve) async fn check(&self, instance: &InstanceId) -> Result<Report, Unanswered> {
        let awaited = self.order_check(instance)?;
        match within(&*self.clock, PATIENCE, awaited).await {
            None => Err(Unanswered::Silent),
            Some(Err(_)) => Err(Unanswered::Ended),
            Some(Ok(report)) => Ok(report.into()),
        }
    }

    fn order_check(&self, instance: &InstanceId) -> Result<oneshot::Receiver<v1::CheckReport>, Unanswered> {
        let mut machines = self.machines();
        let machine = machines.get_mut(instance).ok_or(Unanswered::NoSession)?;
        let open = machine.open.as_mut().ok_or(Unanswered::NoSession)?;
        if !machine.hello.as_ref().is_some_and(|hello| hello.can_check) {
            return Err(Unanswered::Older);
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let command = Command::Check(v1::CheckCommand { id: id.clone() });
        open.commands
            .try_send(SessionResponse {
                command: Some(command),
            })
            .map_err(|_| Unanswered::Full)?;
        let (answer, awaited) = oneshot::channel();
        open.awaited = Some(Awaited { id, answer });
        Ok(awaited)
    }

    /// Takes an answer in. One that nobody waits for counts for nothing.
    pub(super) fn checked(&self, instance: &InstanceId, answer: v1::CheckAnswer) {
        let mut machines = self.machines();
        let open = machines
            .get_mut(instance)
            .and_then(|machine| machine.open.as_mut());
        let awaited = open.and_then(|open| open.awaited.take_if(|awaited| awaited.id == answer.id));
        match awaited {
            Some(awaited) => {
                let _ = awaited.answer.send(answer.report.unwrap_or_default());
            }
            None => tracing::debug!(%instance, "an agent answers a check that nobody waits for"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::sync::Arc;

    use smartscale_proto::time::{SharedClock, SystemClock};

    use super::*;
    use crate::{
        observe::notices::board::NoticeBoard,
        serve::{sessions::SessionSettings, testing::store},
        tell::Silent,
    };

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_never_answers_is_silent_and_what_it_says_later_counts_for_nothing() {
        let clock: SharedClock = Arc::new(SystemClock);
        let (store, tell) = (store(Arc::clone(&clock)).await, Arc::new(Silent));
        let board = NoticeBoard::new(Arc::clone(&store), tell.clone(), Arc::clone(&clock));
        let sessions = Sessions::new(SessionSettings::default(), board, store, tell, clock);
        let instance: InstanceId = "i-1".parse().unwrap();
        assert_eq!(sessions.check(&instance).await, Err(Unanswered::NoSession));
        let hello = v1::Hello {
            can_check: true,
            ..v1::Hello::default()
        };
        let mut ticket = sessions.begin(&instance, hello);
        assert_eq!(sessions.check(&instance).await, Err(Unanswered::Silent));
        let Some(Command::Check(command)) = ticket.commands.recv().await.unwrap().command else {
            panic!("no check was ordered")
        };
        let late = v1::CheckAnswer {
            id: command.id,
            report: None,
        };
        sessions.checked(&instance, late);
        assert_eq!(sessions.check(&instance).await, Err(Unanswered::Silent));
        assert!(ticket.commands.recv().await.is_some());
    }
}
