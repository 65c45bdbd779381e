//! Who speaks: the names that certificates carry.
//!
//! A certificate bears exactly one URI in its subject alternative name, in the form of a SPIFFE ID
//! (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>):
//!
//! ```text
//! spiffe://TRUST/cluster/CLUSTER/coordinator
//! spiffe://TRUST/cluster/CLUSTER/agent/INSTANCE
//! spiffe://TRUST/cluster/CLUSTER/admin/{viewer,operator,admin}/NAME
//! ```
//!
//! The name in the certificate decides what a caller may do, never a field of a request.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

/// One segment of an identity: ASCII letters, digits, `.`, `-` and `_`, at most 128 of them
/// (SPIFFE-ID, section 2.2; `.` and `..` alone are excluded there).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Segment(String);

impl Segment {
    /// The segment as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Segment {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let sound = !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed);
        if !sound || text == "." || text == ".." {
            return Err(BadIdentity::Segment(text.chars().take(140).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Segment {
    type Error = BadIdentity;

    fn try_from(text: String) -> Result<Self, BadIdentity> {
        text.parse()
    }
}

impl From<Segment> for String {
    fn from(segment: Segment) -> Self {
        segment.0
    }
}

/// What a person may do. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May read.
    Viewer,
    /// May act on nodes and operations.
    Operator,
    /// May hand out and revoke identities.
    Admin,
}

impl Role {
    /// The role's name in a certificate.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            other => Err(BadIdentity::Role(other.chars().take(40).collect())),
        }
    }
}

/// What an identity is, within its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Party {
    /// A coordinator, whatever its address.
    Coordinator,
    /// The agent of one machine.
    Agent {
        /// EC2 instance id, or the machine's id elsewhere.
        instance: Segment,
    },
    /// A person or a program that acts for one.
    Admin {
        /// What it may do.
        role: Role,
        /// Who it is.
        name: Segment,
    },
}

/// A full identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The trust domain: one per installation.
    pub trust: Segment,
    /// The cluster.
    pub cluster: Segment,
    /// The party in that cluster.
    pub party: Party,
}

/// Why a name is no identity of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// A segment is empty, too long, or has other characters.
    #[error("`{0}` is not a name: 1 to 128 ASCII letters, digits, `.`, `-` or `_` are")]
    Segment(String),
    /// An unknown role.
    #[error("`{0}` is not a role: viewer, operator or admin is")]
    Role(String),
    /// The URI has another form.
    #[error(
        "`{0}` is not an identity: spiffe://TRUST/cluster/CLUSTER/{{coordinator,agent/ID,admin/ROLE/NAME}} is"
    )]
    Form(String),
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// The certificate does not carry exactly one URI.
    #[error("the certificate carries {0} URIs in its subject alternative name, one is needed")]
    UriCount(usize),
}

/// What a certificate says of its holder and of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Whose it is.
    pub identity: Identity,
    /// Its serial number, in lower-case hexadecimal.
    pub serial: String,
    /// When its life begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl Leaf {
    /// Reads a certificate (DER).
    ///
    /// # Errors
    /// As [`Identity::from_certificate`], and when it holds a time that cannot be.
    pub fn from_certificate(der: &[u8]) -> Result<Self, BadIdentity> {
        let identity = Identity::from_certificate(der)?;
        let unreadable = |what: &dyn fmt::Display| BadIdentity::Certificate(what.to_string());
        let (_, certificate) =
            x509_parser::certificate::X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|error| unreadable(&error));
        let validity = certificate.validity();
        Ok(Self {
            identity,
            serial: hex::encode(certificate.raw_serial()),
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
        })
    }
}

impl Identity {
    /// The identity that a certificate (DER) carries.
    ///
    /// # Errors
    /// [`BadIdentity`] when the certificate does not parse or carries anything but one URI of our form.
    pub fn from_certificate(der: &[u8]) -> Result<Self, BadIdentity> {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der)
            .map_err(|error| BadIdentity::Certificate(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| BadIdentity::Certificate(error.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.count()) {
            (Some(uri), 0) => uri.parse(),
            (first, more) => Err(BadIdentity::UriCount(usize::from(first.is_some()) + more)),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/cluster/{}/", self.trust, self.cluster)?;
        match &self.party {
            Party::Coordinator => f.write_str("coordinator"),
            Party::Agent { instance } => write!(f, "agent/{instance}"),
            Party::Admin { role, name } => write!(f, "admin/{role}/{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = BadIdentity;

    fn from_str(uri: &str) -> Result<Self, BadIdentity> {
        let form = || BadIdentity::Form(uri.chars().take(300).collect());
        let path = uri.strip_prefix("spiffe://").ok_or_else(form)?;
        let segments: Vec<&str> = path.split('/').collect();
        let (trust, cluster, party) = match segments.as_slice() {
            [trust, "cluster", cluster, "coordinator"] => (trust, cluster, Party::Coordinator),
            [trust, "cluster", cluster, "agent", instance] => (
                trust,
                cluster,
                Party::Agent {
                    instance: instance.parse()?,
                },
            ),
            [trust, "cluster", cluster, "admin", role, name] => (
                trust,
                cluster,
                Party::Admin {
                    role: role.parse()?,
                    name: name.parse()?,
                },
            ),
            _ => return Err(form()),
        };
        Ok(Self {
            trust: trust.parse()?,
            cluster: cluster.parse()?,
            party,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read_back_as_written() {
        for uri in [
            "spiffe://smartscale/cluster/demo/coordinator",
            "spiffe://smartscale/cluster/demo/agent/i-0123456789abcdef0",
            "spiffe://smartscale/cluster/demo/admin/viewer/jo.doe",
            "spiffe://smartscale/cluster/demo/admin/admin/root",
        ] {
            assert_eq!(
                uri.parse::<Identity>()
                    .map(|identity| identity.to_string())
                    .as_deref(),
                Ok(uri)
            );
        }
    }

    #[test]
    fn names_that_could_be_read_otherwise_are_refused() {
        for uri in [
            "",
            "spiffe://",
            "https://smartscale/cluster/demo/coordinator",
            "spiffe://smartscale/cluster/demo/coordinator/",
            "spiffe://smartscale/cluster/demo/agent/",
            "spiffe://smartscale/cluster/demo/agent/i-1/extra",
            "spiffe://smartscale/cluster/../coordinator",
            "spiffe://smartscale/cluster/demo/admin/root/jo",
            "spiffe://smartscale/cluster/demo/admin/admin/j%6f",
            "spiffe://smart scale/cluster/demo/coordinator",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
    }

    #[test]
    fn roles_include_those_before_them() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = text.parse::<Identity>();
        }

        #[test]
        fn no_bytes_make_the_certificate_reader_panic(bytes: Vec<u8>) {
            prop_assert!(Identity::from_certificate(&bytes).is_err());
        }
    }
}
