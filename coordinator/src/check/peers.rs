//! The other coordinators: whether their ports can be reached from here.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use smartscale_proto::{
    check::Finding,
    time::{SharedClock, within},
};
use tokio::net::TcpStream;

use super::Check;
use crate::ids::CoordinatorName;

const AREA: &str = "peers";
/// A port that lets nobody in says nothing for long.
const CONNECT: Duration = Duration::from_secs(5);

/// Opens a connection to each.
pub struct PeerCheck {
    /// `host:port` of each.
    pub peers: BTreeMap<CoordinatorName, String>,
    /// The clock.
    pub clock: SharedClock,
}

#[async_trait]
impl Check for PeerCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        join_all(
            self.peers
                .iter()
                .map(|(name, endpoint)| self.reach(name, endpoint)),
        )
        .await
    }
}

impl PeerCheck {
    async fn reach(&self, name: &CoordinatorName, endpoint: &str) -> Finding {
        let tried = format!("connected to {name} at {endpoint}");
        let remedy = "look whether it runs, at serve.peers, and whether the security group lets the port in";
        match within(&*self.clock, CONNECT, TcpStream::connect(endpoint)).await {
            Some(Ok(_)) => Finding::passed(AREA, tried, "it listens"),
            Some(Err(error)) => Finding::failed(AREA, tried, error.to_string(), remedy),
            None => Finding::failed(AREA, tried, format!("no answer within {CONNECT:?}"), remedy),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::sync::Arc;

    use smartscale_proto::{check::Outcome, time::SystemClock};
    use tokio::net::TcpListener;

    use super::{
        super::testing::{name, outcomes, says_what_to_do},
        *,
    };

    #[tokio::test]
    async fn a_peer_that_listens_passes_and_one_that_does_not_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let check = PeerCheck {
            peers: BTreeMap::from([(name(), endpoint)]),
            clock: Arc::new(SystemClock),
        };
        assert_eq!(outcomes(&check.run().await), [Outcome::Passed]);
        drop(listener);
        let findings = check.run().await;
        assert_eq!(outcomes(&findings), [Outcome::Failed]);
        says_what_to_do(&findings);
    }
}
