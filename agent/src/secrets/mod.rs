//! The two secrets of a join, and the care they need.
//!
//! A [`Secret`] is wiped when it is dropped and shows itself to nobody who does not ask by name: not in a log, not in a
//! `Debug` print.

#[cfg(feature = "aws")]
pub mod aws;
pub mod join;
pub mod offer;

use std::{fmt, path::PathBuf};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::error::{Failure, Known};

/// A text that nobody should see.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Keeps secrets by their names.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret called `name`, for a machine in `zone`.
    ///
    /// # Errors
    /// [`Failure`] with the name, never with the value.
    async fn secret(&self, name: &str, zone: &str) -> Result<Secret, Failure>;
}

/// Secrets in files below a folder, for machines without Secrets Manager: `k3s/join-token` is `FOLDER/k3s/join-token`.
#[derive(Debug, Clone)]
pub struct SecretFolder(pub PathBuf);

#[async_trait]
impl Secrets for SecretFolder {
    async fn secret(&self, name: &str, _zone: &str) -> Result<Secret, Failure> {
        let path = self.0.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let failure = Failure::because(format!("{}: {error}", path.display()));
            if error.kind() == std::io::ErrorKind::NotFound {
                failure.known_as(Known::SecretMissing)
            } else {
                failure
            }
        })?;
        Ok(Secret::new(text))
    }
}
