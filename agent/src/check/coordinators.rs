//! The coordinators: whether each is reached and shows a certificate that is believed.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use smartscale_proto::{
    check::Finding,
    time::{Clock, within},
    tls::client::Dialer,
};

use crate::error::chain;

const AREA: &str = "coordinator";
/// Time for a connection and its handshake.
const KNOCK: Duration = Duration::from_secs(10);

/// Doors that one knocks at.
#[async_trait]
pub(super) trait Doors: Send + Sync {
    /// Connects to `endpoint`, and believes it or not. Nothing is asked.
    ///
    /// # Errors
    /// A sentence: it is not reached, or not believed.
    async fn knock(&self, endpoint: &str) -> Result<(), String>;
}

#[async_trait]
impl Doors for Dialer {
    async fn knock(&self, endpoint: &str) -> Result<(), String> {
        self.connect(endpoint)
            .await
            .map(drop)
            .map_err(|error| chain(&error))
    }
}

/// Knocks at each. One that is down is to be looked at, since another serves; none at all fails.
pub(super) async fn findings(endpoints: &[String], doors: &dyn Doors, clock: &dyn Clock) -> Vec<Finding> {
    let knocks = endpoints.iter().map(|endpoint| async move {
        let answer = within(clock, KNOCK, doors.knock(endpoint)).await;
        (
            endpoint,
            answer.unwrap_or_else(|| Err(format!("no answer within {KNOCK:?}"))),
        )
    });
    let answers = join_all(knocks).await;
    let any = answers.iter().any(|(_, answer)| answer.is_ok());
    let finding = |(endpoint, answer): (&String, Result<(), String>)| {
        let tried = format!("connected to {endpoint} over TLS");
        let remedy = "look at coordinators, ca_fingerprint, trust_domain and cluster of the agent's configuration, whether the coordinator \
                      runs, and whether the security groups let this machine reach its port";
        match answer {
            Ok(()) => Finding::passed(AREA, tried, "it is a coordinator of this cluster"),
            Err(error) if any => Finding::warning(AREA, tried, error, remedy),
            Err(error) => Finding::failed(AREA, tried, error, remedy),
        }
    };
    answers.into_iter().map(finding).collect()
}
