//! What a machine joins the cluster with, where its own role is to read no secret: a token of its own, minted when it enrols.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use smartscale_planner::model::NodeName;
use zeroize::Zeroizing;

/// How long a machine may take from its enrolment to its registration. The token is worth nothing afterwards.
pub const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// What machines are told when they enrol.
#[derive(Clone)]
pub struct Joining {
    /// The K3s server, `https://host:port`.
    pub server: String,
    /// Mints the tokens.
    pub tokens: Arc<dyn JoinTokens>,
}

/// No token was minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no join token was minted: {0}")]
pub struct NotMinted(pub String);

/// Mints tokens.
#[async_trait]
pub trait JoinTokens: Send + Sync {
    /// A K3s token in its secure form (`K10<hash>::<id>.<secret>`) that is good for `life`.
    ///
    /// # Errors
    /// [`NotMinted`] says why; the machine comes back.
    async fn mint(&self, node: &NodeName, life: Duration) -> Result<Zeroizing<String>, NotMinted>;
}
