//! The coordinator's own names, as types.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
                    return Err(BadId { what: $what, text: text.chars().take(80).collect() });
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

/// A text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: 1 to 64 ASCII letters, digits, `-`, `_` or `.` are")]
pub struct BadId {
    what: &'static str,
    text: String,
}

id!(
    /// An operation of the journal. With an attempt's number it makes EC2's client token (at most 64 characters,
    /// so ids of ours stay below 48).
    OperationId,
    "an operation id"
);
id!(
    /// A decision record.
    DecisionId,
    "a decision id"
);
id!(
    /// A machine of the fleet: on EC2 the instance id. Also the name of its Kubernetes node.
    InstanceId,
    "an instance id"
);
id!(
    /// A coordinator, unique among those that share a state store.
    CoordinatorName,
    "a coordinator's name"
);

/// Number of a term of leadership: grows by one at each acquisition of the lease, never repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
