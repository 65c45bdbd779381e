//! The K3s server before anything is told to it: is it the one that the token belongs to?
//!
//! K3s hands its certificate authorities out to everybody (`/cacerts`), and the token's hash is the SHA-256 of exactly those
//! bytes (<https://docs.k3s.io/cli/token>). K3s itself checks that too, deep in a log; here it is a step of the join that says
//! what is wrong. Nothing is sent but the question, so that it does not matter whom this connection is with.

use async_trait::async_trait;
use jiff::SignedDuration;

use crate::{error::Failure, secrets::join::JoinToken};

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// This machine's clock less the server's, by the `Date` of its answer; a second at best.
    pub skew: Option<SignedDuration>,
}

/// Looks at the K3s server of a join.
#[async_trait]
pub trait JoinServer: Send + Sync {
    /// Whether the server at `url` is the one that `token` belongs to.
    ///
    /// # Errors
    /// [`Failure`], known as an authority that does not match or a server that does not answer.
    async fn look(&self, url: &str, token: &JoinToken) -> Result<Seen, Failure>;
}

/// A server that is believed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Believed;

#[async_trait]
impl JoinServer for Believed {
    async fn look(&self, _url: &str, _token: &JoinToken) -> Result<Seen, Failure> {
        Ok(Seen::default())
    }
}
