//! What binds a Node to the machine that it is named after.
//!
//! ```text
//!   Node with taint, UID u ─▶ coordinator: nonce(u) ─▶ session of the enrolled agent (mutual TLS) ─▶ agent
//!        ▲ annotation smartscale.io/nonce ◀── kubelet's own credential (NodeRestriction: own Node alone) ──┘
//!        └─ the same? ─▶ taint lifted
//! ```
//! Whoever has the cluster's join token can register a Node of any free name. What it cannot have is the session that the
//! enrolled agent of that machine has with the coordinator: the nonce comes over it, and only that Node's kubelet, or an
//! administrator, can write it to the Node. So both are on one machine. The nonce is good for one UID: of what a former
//! Node of the name showed to everybody nothing can be used for another.

use sha2::{Digest as _, Sha256};

use crate::{ids::InstanceId, serve::attest::token::same};

/// What a nonce is hashed after: no other text of ours is hashed to the same.
const LABEL: &[u8] = b"smartscale node nonce v1\0";

/// What a machine's nonces are made from.
#[derive(Clone)]
pub struct Binding {
    instance: InstanceId,
    secret: [u8; 32],
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// What became of a look at a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// It carries its nonce; its startup taint is gone.
    Lifted,
    /// It does not: the taint stays.
    Unproven {
        /// The Node's UID, for which the nonce has to be.
        uid: String,
    },
}

impl Binding {
    /// The binding of a machine whose record keeps this secret (hexadecimal); `None` for what is no secret of ours.
    #[must_use]
    pub fn new(instance: &InstanceId, secret: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret, &mut bytes).ok()?;
        Some(Self {
            instance: instance.clone(),
            secret: bytes,
        })
    }

    /// A secret for a machine that has none yet, in hexadecimal.
    #[must_use]
    pub fn mint() -> String {
        hex::encode(rand::random::<[u8; 32]>())
    }

    /// The nonce for the Node with this UID: 64 hexadecimal digits. The secret is of fixed length and stands first, and each
    /// text has its length before it, so that no nonce can be extended to another one.
    #[must_use]
    pub fn nonce(&self, uid: &str) -> String {
        let mut hash = Sha256::new_with_prefix(self.secret);
        hash.update(LABEL);
        for text in [self.instance.as_str(), uid] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hex::encode(hash.finalize())
    }

    /// Whether what the Node with this UID carries is its nonce. Takes the same time whatever it carries.
    #[must_use]
    pub fn is_proven(&self, uid: &str, carried: Option<&str>) -> bool {
        same(self.nonce(uid).as_bytes(), carried.unwrap_or_default().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    fn binding(instance: &str, secret: &str) -> Binding {
        Binding::new(&instance.parse().unwrap(), secret).unwrap()
    }

    #[test]
    fn a_nonce_is_good_for_one_machine_and_one_node_alone() {
        let secret = Binding::mint();
        let one = binding("i-1", &secret);
        let nonce = one.nonce("u-1");
        assert_eq!(nonce.len(), 64);
        assert!(one.is_proven("u-1", Some(&nonce)));
        assert!(!one.is_proven("u-2", Some(&nonce)));
        assert!(!one.is_proven("u-1", None) && !one.is_proven("u-1", Some("")));
        assert!(!one.is_proven("u-1", Some(&nonce[..63])));
        assert!(!binding("i-2", &secret).is_proven("u-1", Some(&nonce)));
        assert!(!binding("i-1", &Binding::mint()).is_proven("u-1", Some(&nonce)));
    }

    #[test]
    fn a_secret_is_32_bytes_and_does_not_show_itself() {
        assert!(Binding::new(&"i-1".parse().unwrap(), "abcd").is_none());
        let secret = "ab".repeat(32);
        assert!(!format!("{:?}", binding("i-1", &secret)).contains("abab"));
    }
}
