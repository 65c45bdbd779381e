//! What the coordinator gives for the join: a token made for this machine, and the server to use it with. Kept in memory
//! alone; each enrolment and each session brings them anew, since such a token lives minutes.

use std::time::Duration;

use smartscale_proto::time::{SharedClock, within};
use tokio::sync::watch;

use super::Secret;
use crate::error::Failure;

/// An offer may take so long to come: the agent is enrolling, or looks for a coordinator.
const PATIENCE: Duration = Duration::from_secs(60);
/// Characters of a token or an address.
const LONGEST: usize = 1024;

/// A token and a server's address, as they were said.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The token, not checked yet.
    pub token: Secret,
    /// The server's address, not checked yet.
    pub server: Secret,
}

/// The newest offer. Clones are the same.
#[derive(Debug, Clone)]
pub struct Offers(watch::Sender<Option<Offer>>);

impl Default for Offers {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Offers {
    /// Takes an offer over; one that says nothing leaves the one before.
    pub fn take(&self, token: &str, server: &str) {
        if token.is_empty() || server.is_empty() || token.len() > LONGEST || server.len() > LONGEST {
            return;
        }
        self.0.send_replace(Some(Offer {
            token: Secret::new(token.to_owned()),
            server: Secret::new(server.to_owned()),
        }));
    }

    /// Nothing was offered yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// The newest offer, once there is one.
    ///
    /// # Errors
    /// [`Failure`] when none comes.
    pub async fn newest(&self, clock: &SharedClock) -> Result<Offer, Failure> {
        let mut offers = self.0.subscribe();
        let offer = within(&**clock, PATIENCE, offers.wait_for(Option::is_some)).await;
        let offer = offer.and_then(|offer| offer.ok()?.clone());
        offer.ok_or_else(|| {
            Failure::because(
                "the coordinator has given no join token: have it make them, or set secrets.from = \"store\"",
            )
        })
    }
}
