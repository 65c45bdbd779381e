//! Who leads at this moment, as the calls of agents and people need to know it.

use std::collections::BTreeMap;

use smartscale_proto::time::SharedClock;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::{
    ids::{CoordinatorName, Epoch},
    state::lease::Leadership,
};

/// Metadata key that names endpoints of the leader, separated by commas, where a follower refuses a call.
pub const LEADER_METADATA: &str = "smartscale-leader";

/// The lease as this coordinator sees it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leading {
    /// Who holds the lease; `None` when nobody is known to.
    pub leader: Option<CoordinatorName>,
    /// The term, where it is ours; 0 otherwise.
    pub epoch: Epoch,
    /// Whether this coordinator holds it, and may still act.
    pub ours: bool,
}

/// Who leads, to be asked at any moment.
#[derive(Clone)]
pub struct Leader {
    leadership: watch::Receiver<Leadership>,
    clock: SharedClock,
    endpoints: Endpoints,
}

impl Leader {
    /// As the lease says, with where everybody is.
    #[must_use]
    pub fn new(leadership: watch::Receiver<Leadership>, clock: SharedClock, endpoints: Endpoints) -> Self {
        Self {
            leadership,
            clock,
            endpoints,
        }
    }

    /// The state of this moment.
    #[must_use]
    pub fn now(&self) -> Leading {
        let leadership = self.leadership.borrow().clone();
        match (leadership.may_act(&*self.clock), leadership) {
            (Some(epoch), _) => Leading {
                leader: self.own_name(),
                epoch,
                ours: true,
            },
            (None, Leadership::Follower { leader }) => Leading {
                leader,
                epoch: Epoch(0),
                ours: false,
            },
            // Its time is over; whoever takes over is not known yet.
            (None, Leadership::Leader { .. }) => Leading::default(),
        }
    }

    fn own_name(&self) -> Option<CoordinatorName> {
        self.endpoints.own.as_ref().map(|(name, _)| name.clone())
    }

    /// Where everybody is.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Ends when the state may have changed; never, when nobody follows the lease any more.
    pub async fn changed(&mut self) {
        if self.leadership.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The term under which this coordinator may act.
    ///
    /// # Errors
    /// A refusal with `code` that names the leader.
    pub fn epoch(&self, code: Code) -> Result<Epoch, Status> {
        let leading = self.now();
        if leading.ours {
            Ok(leading.epoch)
        } else {
            Err(self.endpoints.refusal(&leading, code))
        }
    }

    /// The refusal of a call whose write was fenced.
    #[must_use]
    pub fn fenced(&self, code: Code) -> Status {
        self.endpoints.refusal(
            &Leading {
                ours: false,
                ..self.now()
            },
            code,
        )
    }
}

/// Where the coordinators are.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// This one's name and `host:port`.
    pub own: Option<(CoordinatorName, String)>,
    /// The others'.
    pub peers: BTreeMap<CoordinatorName, String>,
}

impl Endpoints {
    /// All endpoints, the leader's first.
    #[must_use]
    pub fn leader_first(&self, leading: &Leading) -> Vec<String> {
        let known = self.own.iter().map(|(name, at)| (name, at)).chain(&self.peers);
        let (mut first, rest): (Vec<_>, Vec<_>) =
            known.partition(|(name, _)| leading.leader.as_ref() == Some(*name));
        first.extend(rest);
        first.into_iter().map(|(_, at)| at.clone()).collect()
    }

    /// Where an agent should go instead of here: the leader, or the other coordinators when none is known.
    #[must_use]
    pub fn elsewhere(&self, leading: &Leading) -> Vec<String> {
        let leader = leading.leader.as_ref().and_then(|name| self.peers.get(name));
        leader.map_or_else(|| self.peers.values().cloned().collect(), |at| vec![at.clone()])
    }

    /// The refusal of a call that only the leader takes, with the way to it in [`LEADER_METADATA`].
    #[must_use]
    pub fn refusal(&self, leading: &Leading, code: Code) -> Status {
        let elsewhere = self.elsewhere(leading);
        let message = match (&leading.leader, elsewhere.first()) {
            (Some(leader), Some(at)) if !leading.ours => {
                format!("this coordinator does not lead: ask `{leader}` at {at}")
            }
            (Some(leader), None) if !leading.ours => {
                format!("this coordinator does not lead: `{leader}` does, whose address it was not told")
            }
            _ => "no coordinator leads at this moment: try again in a few seconds".to_owned(),
        };
        let mut status = Status::new(code, message);
        if let Ok(value) = elsewhere.join(",").parse() {
            status.metadata_mut().insert(LEADER_METADATA, value);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints {
            own: Some(("a".parse().unwrap(), "10.0.0.1:1".to_owned())),
            peers: BTreeMap::from([
                ("b".parse().unwrap(), "10.0.0.2:1".to_owned()),
                ("c".parse().unwrap(), "10.0.0.3:1".to_owned()),
            ]),
        }
    }

    fn led_by(name: &str) -> Leading {
        Leading {
            leader: Some(name.parse().unwrap()),
            epoch: Epoch(1),
            ours: name == "a",
        }
    }

    #[test]
    fn the_leader_is_named_first() {
        assert_eq!(
            endpoints().leader_first(&led_by("c")),
            ["10.0.0.3:1", "10.0.0.1:1", "10.0.0.2:1"]
        );
        assert_eq!(endpoints().elsewhere(&led_by("c")), ["10.0.0.3:1"]);
        assert_eq!(
            endpoints().elsewhere(&Leading::default()),
            ["10.0.0.2:1", "10.0.0.3:1"]
        );
    }

    #[test]
    fn a_refusal_says_where_the_leader_is() {
        let refusal = endpoints().refusal(&led_by("b"), Code::FailedPrecondition);
        assert_eq!(
            refusal.message(),
            "this coordinator does not lead: ask `b` at 10.0.0.2:1"
        );
        assert_eq!(refusal.metadata().get(LEADER_METADATA).unwrap(), "10.0.0.2:1");
    }
}
