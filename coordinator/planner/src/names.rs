//! Names as types, so that a pool is never passed where a node is meant.
//!
//! All of them are cheap to clone (shared strings) and ordered, because every output of the planner is in a
//! stable order. They do not validate: a name that came from the API server is what it is.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("A `", stringify!($name), "` of this text.")]
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, shared.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self::new(name)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A Kubernetes node's name. On AWS it is the instance id.
    NodeName
);
name!(
    /// A pool of the policy (`smartscale.io/pool` on its nodes).
    PoolName
);
name!(
    /// An EC2 instance type, such as `t3.small`.
    InstanceType
);
name!(
    /// An availability zone, such as `us-east-1a`.
    Zone
);
name!(
    /// A Kubernetes namespace's name.
    NamespaceName
);
name!(
    /// The cluster that a policy and a state item speak of.
    ClusterId
);

impl Zone {
    /// The region of an AWS zone: everything up to and including the first number (`us-east-1a` and
    /// `us-east-1-bos-1a` lie in `us-east-1`). A name without a number is its own region.
    pub fn region(&self) -> &str {
        let name = self.as_str();
        let Some(first) = name.find(|c: char| c.is_ascii_digit()) else {
            return name;
        };
        let digits = name[first..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(name.len() - first);
        &name[..first + digits]
    }
}

/// A pod by namespace and name, written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name in there.
    pub name: Arc<str>,
}

impl PodKey {
    /// A key of the two parts.
    pub fn new(namespace: impl Into<NamespaceName>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.namespace, self.name))
    }
}

/// A text that is no `namespace/name`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a pod: expected namespace/name")]
pub struct NotAPodKey(String);

impl std::str::FromStr for PodKey {
    type Err = NotAPodKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NotAPodKey(text.to_owned())),
        }
    }
}

impl Serialize for PodKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PodKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How an instance is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// At the full price, for as long as wanted.
    OnDemand,
    /// At a discount, with two minutes' notice before it is taken back.
    Spot,
}

impl Market {
    /// The word used in labels, policies and plans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        }
    }

    /// The market of a label's value; `None` for any other word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "on-demand" => Some(Self::OnDemand),
            "spot" => Some(Self::Spot),
            _ => None,
        }
    }
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn a_region_is_the_zone_up_to_its_first_number() {
        for (zone, region) in [
            ("us-east-1a", "us-east-1"),
            ("us-east-1-bos-1a", "us-east-1"),
            ("ap-southeast-12b", "ap-southeast-12"),
            ("rack", "rack"),
        ] {
            assert_eq!(Zone::from(zone).region(), region);
        }
    }

    #[test]
    fn a_pod_key_is_read_as_it_is_written() {
        let key = PodKey::new("default", "web-1");
        assert_eq!(key.to_string().parse::<PodKey>().unwrap(), key);
        assert!("web-1".parse::<PodKey>().is_err());
        assert!("/web-1".parse::<PodKey>().is_err());
    }
}
