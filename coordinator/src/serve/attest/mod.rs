//! Proofs that a caller is the machine that it says it is.
//!
//! - [`token`]: a one-time secret of each launch
//! - [`ec2`]: a request that EC2's credentials for the instance signed, and what EC2 says of that instance

pub mod ec2;
pub mod token;

use std::borrow::Cow;

use async_trait::async_trait;
use smartscale_proto::v1::enrol_request::Proof;

pub use self::{
    ec2::Ec2Attestor,
    token::{SECRET_LIFE, Secret, TokenAttestor, hash, mint_secret},
};
use crate::state::records::NodeRecord;

/// A proof that is not accepted. The caller is not told what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAttested {
    /// It does not hold.
    #[error("the proof does not hold")]
    NotProven {
        /// What is wrong, for the log and the audit.
        why: Cow<'static, str>,
    },
    /// Nobody can say at this moment.
    #[error("the proof cannot be judged at this moment: come back")]
    Unavailable {
        /// Who does not answer, for the log and the audit.
        why: Cow<'static, str>,
    },
}

impl NotAttested {
    /// The proof is wrong.
    #[must_use]
    pub fn not_proven(why: impl Into<Cow<'static, str>>) -> Self {
        Self::NotProven { why: why.into() }
    }

    /// Somebody who has to be asked does not answer.
    #[must_use]
    pub fn unavailable(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { why: why.into() }
    }

    /// The proof is of a kind that is not configured here.
    #[must_use]
    pub fn other_kind(wanted: &str) -> Self {
        Self::not_proven(format!("machines prove themselves by `{wanted}` here"))
    }

    /// What is wrong, for the log and the audit.
    #[must_use]
    pub fn why(&self) -> &str {
        let (Self::NotProven { why } | Self::Unavailable { why }) = self;
        why
    }
}

/// What a proof is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The record of the machine that the caller claims to be.
    pub record: &'a NodeRecord,
    /// The single-use challenge of this attempt.
    pub challenge: &'a [u8; 32],
    /// The request (DER) whose key is to be signed.
    pub request: &'a [u8],
}

/// Judges proofs.
#[async_trait]
pub trait Attestor: Send + Sync {
    /// Whether `proof` shows that the caller is the machine of the claim.
    async fn attest(&self, claim: Claim<'_>, proof: &Proof) -> Result<(), NotAttested>;

    /// Whether a machine that enrolled before may prove itself anew, with another key. A secret that is spent may not.
    fn attests_again(&self) -> bool {
        false
    }
}
