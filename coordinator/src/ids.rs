//! The coordinator's own names, as types.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
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

/// Where new ids come from. The running program's are unique and sort by time; a simulation's repeat with its seed.
pub trait IdSource: Send + Sync {
    /// An id for a decision taken at `now`.
    fn decision(&self, now: Timestamp) -> DecisionId;
    /// An id for an operation begun at `now`.
    fn operation(&self, now: Timestamp) -> OperationId;
}

/// A shared [`IdSource`].
pub type SharedIds = Arc<dyn IdSource>;

/// Ids with the time in front (milliseconds, so that they sort by it) and 48 random bits behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimedIds;

impl TimedIds {
    fn text(prefix: &str, now: Timestamp) -> String {
        let random: u64 = rand::random::<u64>() >> 16;
        format!("{prefix}-{:012x}-{random:012x}", now.as_millisecond().max(0))
    }
}

impl IdSource for TimedIds {
    fn decision(&self, now: Timestamp) -> DecisionId {
        DecisionId(Self::text("d", now))
    }

    fn operation(&self, now: Timestamp) -> OperationId {
        OperationId(Self::text("op", now))
    }
}
