//! Failures of one attempt at something that is tried again: their text for people, and, where it is one that people meet
//! often, which it is and what to do about it.

use std::{error::Error, fmt, io};

use smartscale_proto::v1;

/// Failures that have a remedy of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// There is no secret of this name.
    SecretMissing,
    /// The secret is there and cannot be used to join.
    SecretUnusable,
    /// The machine's role may not do what it has to.
    RoleRefused,
    /// A server does not answer.
    ServerUnreachable,
    /// The K3s server shows another certificate authority than the token pins.
    CaMismatch,
    /// Another machine has this node's name.
    DuplicateHostname,
    /// The machine's clock is wrong.
    ClockSkew,
    /// A file system is full.
    DiskFull,
    /// The K3s server does not take the join token.
    TokenRefused,
    /// The coordinator does not accept this machine.
    EnrolmentRefused,
}

impl Known {
    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::SecretMissing => {
                "create the secret, or name another one in [secrets] of the agent's configuration"
            }
            Self::SecretUnusable => {
                "store K3s' agent token in its secure form (server/agent-token on the K3s server), or the server's address"
            }
            Self::RoleRefused => {
                "give the instance a profile whose role allows secretsmanager:GetSecretValue for the secrets of the join"
            }
            Self::ServerUnreachable => {
                "check the address, that the server runs, and that the security groups let this machine reach its port"
            }
            Self::CaMismatch => {
                "the token belongs to another cluster, or somebody is in between: store this cluster's own agent token"
            }
            Self::DuplicateHostname => {
                "delete the Node of this name and its secret NODE.node-password.k3s in kube-system, or give the machine another name"
            }
            Self::ClockSkew => {
                "set this machine's clock (chrony or systemd-timesyncd); if it is right, a certificate has expired"
            }
            Self::DiskFull => "make room on this machine's disk, or give its launch template a larger one",
            Self::TokenRefused => {
                "the token was changed on the K3s server, or has expired: store the present one, or replace the machine"
            }
            Self::EnrolmentRefused => {
                "see why in the coordinator's audit; a machine that lost its key or its secret has to be replaced (`smartscale recycle`)"
            }
        }
    }

    /// The word of the contract.
    #[must_use]
    pub fn to_wire(self) -> v1::JoinFailure {
        match self {
            Self::SecretMissing => v1::JoinFailure::SecretMissing,
            Self::SecretUnusable => v1::JoinFailure::SecretUnusable,
            Self::RoleRefused => v1::JoinFailure::RoleRefused,
            Self::ServerUnreachable => v1::JoinFailure::ServerUnreachable,
            Self::CaMismatch => v1::JoinFailure::CaMismatch,
            Self::DuplicateHostname => v1::JoinFailure::DuplicateHostname,
            Self::ClockSkew => v1::JoinFailure::ClockSkew,
            Self::DiskFull => v1::JoinFailure::DiskFull,
            Self::TokenRefused => v1::JoinFailure::TokenRefused,
            Self::EnrolmentRefused => v1::JoinFailure::EnrolmentRefused,
        }
    }
}

/// Why an attempt failed. Its text is the whole chain of causes in one sentence.
pub struct Failure {
    error: Box<dyn Error + Send + Sync>,
    known: Option<Known>,
}

impl Failure {
    /// A failure that is explained by this text.
    pub fn because(text: impl Into<String>) -> Self {
        Self {
            error: text.into().into(),
            known: None,
        }
    }

    /// The same failure, as one that is known.
    #[must_use]
    pub fn known_as(mut self, known: Known) -> Self {
        self.known = Some(known);
        self
    }

    /// Which failure it is: as it was said, or as its causes tell.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        self.known.or_else(|| told_by_causes(self.error.as_ref()))
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: Box::new(error),
            known: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self.error.as_ref()))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the system and TLS say by the kind of their error.
fn told_by_causes(error: &(dyn Error + 'static)) -> Option<Known> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if error.get_ref().is_some_and(blames_clock) {
                return Some(Known::ClockSkew);
            }
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Some(Known::DiskFull),
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
                | io::ErrorKind::TimedOut => return Some(Known::ServerUnreachable),
                _ => {}
            }
        }
        cause = error.source();
    }
    None
}

#[cfg(feature = "https")]
fn blames_clock(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    use rustls::CertificateError as Bad;
    matches!(
        error.downcast_ref(),
        Some(rustls::Error::InvalidCertificate(
            Bad::NotValidYet | Bad::NotValidYetContext { .. } | Bad::Expired | Bad::ExpiredContext { .. }
        ))
    )
}

#[cfg(not(feature = "https"))]
fn blames_clock(_error: &(dyn Error + Send + Sync + 'static)) -> bool {
    false
}

/// An error with its causes: `a: b: c`. A cause that its effect already quotes is not said twice.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("connecting failed")]
    struct Connecting(#[source] io::Error);

    #[test]
    fn what_the_system_says_deep_down_is_known() {
        let of = |kind: io::ErrorKind| Failure::from(Connecting(kind.into())).known();
        assert_eq!(
            of(io::ErrorKind::ConnectionRefused),
            Some(Known::ServerUnreachable)
        );
        assert_eq!(of(io::ErrorKind::StorageFull), Some(Known::DiskFull));
        assert_eq!(of(io::ErrorKind::NotFound), None);
    }

    #[test]
    fn what_is_said_counts_more_than_what_is_guessed() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::TimedOut)).known_as(Known::CaMismatch);
        assert_eq!(failure.known(), Some(Known::CaMismatch));
    }

    #[cfg(feature = "https")]
    #[test]
    fn a_certificate_of_the_future_blames_the_clock() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidYet);
        let failure = Failure::from(Connecting(io::Error::new(io::ErrorKind::InvalidData, tls)));
        assert_eq!(failure.known(), Some(Known::ClockSkew));
    }
}
