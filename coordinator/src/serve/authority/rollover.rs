//! From one authority to the next while agents and people stay connected.
//!
//! ```text
//!   alone ──begin──▶ introduced ──switch──▶ switched ──finish──▶ alone
//!   old signs         old signs              new signs            new signs
//!   old trusted       both trusted           both trusted         new trusted
//!                     └─ everybody must have been told of both ─┘
//!                                            └─ everybody must have a certificate of the new one ─┘
//! ```
//! Each step changes files alone; coordinators read them again on SIGHUP. Beside `ca.key` lies `ca.key.next` before the switch
//! and `ca.key.former` after it. A step that was interrupted is completed by repeating it. Where the present key is sealed, the
//! next one is, with the same key of the key management service.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;
use smartscale_proto::{
    files::{FileError, read_private, write_private},
    tls::keys,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    Authority, AuthorityError, Held, Names, files,
    vault::{KeptKey, Vault},
};
use crate::{
    ids::InstanceId,
    state::records::{Certified, NodeRecord},
};

/// Where a cluster's authority stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// One authority signs and is trusted.
    Alone,
    /// The next one is trusted too.
    Introduced,
    /// The next one signs, the former one is still trusted.
    Switched,
}

/// A step that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum RolloverError {
    /// The step does not follow on where things stand.
    #[error("{0}")]
    OutOfTurn(&'static str),
    /// The files do not belong together.
    #[error("{0} belongs to none of the certificates")]
    Stray(PathBuf),
    /// The authority's files cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl From<FileError> for RolloverError {
    fn from(error: FileError) -> Self {
        Self::Authority(error.into())
    }
}

/// The files of an authority.
#[derive(Clone)]
pub struct Files {
    certificates: PathBuf,
    key: PathBuf,
    vault: Arc<dyn Vault>,
}

/// What the files hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How far the rollover is.
    pub stage: Stage,
    /// SHA-256 of the authority that signs, in hexadecimal.
    pub signing: String,
    /// Of the other one that is trusted.
    pub other: Option<String>,
    /// The key of the key management service that seals the one that signs.
    pub sealed_with: Option<String>,
}

impl Files {
    /// `ca.crt` and `ca.key`, wherever they are; `vault` opens keys that are sealed.
    #[must_use]
    pub fn new(certificates: &Path, key: &Path, vault: Arc<dyn Vault>) -> Self {
        Self {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
            vault,
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.key.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.key.with_file_name(name)
    }

    fn next(&self) -> PathBuf {
        self.beside(".next")
    }

    fn former(&self) -> PathBuf {
        self.beside(".former")
    }

    /// How things stand.
    ///
    /// # Errors
    /// [`RolloverError`] when the files do not belong together.
    pub async fn standing(&self) -> Result<Standing, RolloverError> {
        let key = KeptKey::read(&self.key, &*self.vault).await?;
        let sealed_with = key.sealed_with().map(str::to_owned);
        let held = Held::new(key.into_pair(), files::read_certificates(&self.certificates)?)?;
        let print = |certificate: &CertificateDer<'_>| hex::encode(keys::fingerprint(certificate));
        let stage = match (self.next().exists(), self.former().exists()) {
            (true, _) => Stage::Introduced,
            (false, true) => Stage::Switched,
            (false, false) => Stage::Alone,
        };
        Ok(Standing {
            stage,
            signing: print(held.certificate()),
            other: held.anchors().get(1).map(print),
            sealed_with,
        })
    }

    /// Seals the keys that are there with the service's key of this name, also those that another one has sealed.
    ///
    /// # Errors
    /// [`RolloverError`]; a key that could not be sealed is as it was.
    pub async fn seal(&self, with: &str) -> Result<(), RolloverError> {
        let keys = [self.key.clone(), self.next(), self.former()];
        for path in keys.into_iter().filter(|path| path.exists()) {
            let key = KeptKey::read(&path, &*self.vault).await?;
            let sealed = KeptKey::new(key.into_pair(), Some(with.to_owned()));
            sealed.write(&path, &*self.vault).await?;
        }
        Ok(())
    }

    /// Makes the next authority and has it trusted beside the present one. Gives its fingerprint.
    ///
    /// # Errors
    /// [`RolloverError`]; nothing of the present authority is changed then.
    pub async fn begin(&self, names: Names) -> Result<String, RolloverError> {
        let standing = self.standing().await?;
        if standing.stage == Stage::Switched {
            return Err(RolloverError::OutOfTurn(
                "the former authority is still trusted: `ca finish` comes first",
            ));
        }
        if standing.stage == Stage::Introduced && standing.other.is_some() {
            return Err(RolloverError::OutOfTurn(
                "the next authority is there already: `ca switch` comes next",
            ));
        }
        let mut both = files::read_certificates(&self.certificates)?;
        let (next, key) = Authority::create(names)?;
        let key = KeptKey::new(key, standing.sealed_with);
        key.write(&self.next(), &*self.vault).await?;
        both.extend(next.anchors());
        files::write_certificates(&self.certificates, &both)?;
        Ok(hex::encode(next.fingerprint()))
    }

    /// Has the next authority sign from now on.
    ///
    /// # Errors
    /// [`RolloverError`]; the present one signs on then.
    pub async fn switch(&self) -> Result<(), RolloverError> {
        let next = self.next();
        if !next.exists() {
            return Err(RolloverError::OutOfTurn(
                "there is no next authority: `ca begin` comes first",
            ));
        }
        self.own_certificate(&next).await?;
        // The former key is kept until the end, so that there is a way back; one rename does the switch.
        write_private(&self.former(), &read_private(&self.key)?)?;
        std::fs::rename(&next, &self.key).map_err(|source| FileError::Write {
            path: self.key.clone(),
            source,
        })?;
        Ok(())
    }

    /// Trusts the former authority no more.
    ///
    /// # Errors
    /// [`RolloverError`]; it is still trusted then.
    pub async fn finish(&self) -> Result<(), RolloverError> {
        let former = self.former();
        if !former.exists() || self.next().exists() {
            return Err(RolloverError::OutOfTurn(
                "there is no former authority: `ca switch` comes first",
            ));
        }
        let own = self.own_certificate(&self.key).await?;
        files::write_certificates(&self.certificates, &[own])?;
        std::fs::remove_file(&former)
            .map_err(|source| RolloverError::from(FileError::Write { path: former, source }))
    }

    /// The certificate of the key in this file among the trusted ones.
    async fn own_certificate(&self, path: &Path) -> Result<CertificateDer<'static>, RolloverError> {
        let key = KeptKey::read(path, &*self.vault).await?;
        let own = key.pair().subject_public_key_info();
        let mut all = files::read_certificates(&self.certificates)?.into_iter();
        all.find(|certificate| {
            X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.public_key().raw == own)
        })
        .ok_or_else(|| RolloverError::Stray(path.to_owned()))
    }
}

impl Standing {
    /// Machines that would be lost by the step that comes next, with the reason: nobody told them of the authority that would
    /// sign, or their certificate is of the one that would be trusted no more.
    #[must_use]
    pub fn lagging<'a>(&self, records: &'a [NodeRecord]) -> Vec<(&'a InstanceId, &'static str)> {
        let trusted = records
            .iter()
            .filter(|record| record.enrolled_key.is_some() && record.revoked_at.is_none());
        trusted
            .filter_map(|record| Some((&record.instance, self.lags(record.certified.as_ref())?)))
            .collect()
    }

    fn lags(&self, certified: Option<&Certified>) -> Option<&'static str> {
        let told = certified.map_or(&[][..], |certified| certified.anchors.as_slice());
        match self.stage {
            Stage::Alone => None,
            Stage::Introduced => {
                let next = self.other.as_ref()?;
                (!told.contains(next)).then_some("has not been told of the next authority")
            }
            Stage::Switched => {
                (told.first() != Some(&self.signing)).then_some("has a certificate of the former authority")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;
    use crate::serve::{
        authority::{tests::names, vault::testing::Mirror},
        testing::machine,
    };

    struct Site {
        files: Files,
        _folder: tempfile::TempDir,
    }

    impl Site {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (crt, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
            let vault = Arc::new(Mirror::default());
            Authority::create_files(names(), &crt, &key, (&*vault, None))
                .await
                .unwrap();
            Self {
                files: Files::new(&crt, &key, vault),
                _folder: folder,
            }
        }

        async fn held(&self) -> Held {
            let Files {
                certificates,
                key,
                vault,
            } = &self.files;
            files::read(certificates, key, &**vault).await.unwrap()
        }
    }

    #[tokio::test]
    async fn an_authority_follows_on_another_in_three_steps() {
        let site = Site::new().await;
        let old = site.files.standing().await.unwrap();
        assert_eq!((old.stage, old.other.clone()), (Stage::Alone, None));

        let next = site.files.begin(names()).await.unwrap();
        let introduced = site.files.standing().await.unwrap();
        assert_eq!(introduced.stage, Stage::Introduced);
        assert_eq!(
            (&introduced.signing, introduced.other.as_ref()),
            (&old.signing, Some(&next))
        );
        assert_eq!(site.held().await.anchors().len(), 2);

        site.files.switch().await.unwrap();
        let switched = site.files.standing().await.unwrap();
        assert_eq!(switched.stage, Stage::Switched);
        assert_eq!(
            (&switched.signing, switched.other.as_ref()),
            (&next, Some(&old.signing))
        );

        site.files.finish().await.unwrap();
        let new = site.files.standing().await.unwrap();
        assert_eq!((new.stage, &new.signing, new.other), (Stage::Alone, &next, None));
        assert!(!site.files.former().exists());
    }

    #[tokio::test]
    async fn no_step_is_taken_out_of_turn() {
        let site = Site::new().await;
        assert!(matches!(
            site.files.switch().await,
            Err(RolloverError::OutOfTurn(_))
        ));
        assert!(matches!(
            site.files.finish().await,
            Err(RolloverError::OutOfTurn(_))
        ));
        site.files.begin(names()).await.unwrap();
        assert!(matches!(
            site.files.begin(names()).await,
            Err(RolloverError::OutOfTurn(_))
        ));
        assert!(matches!(
            site.files.finish().await,
            Err(RolloverError::OutOfTurn(_))
        ));
        site.files.switch().await.unwrap();
        assert!(matches!(
            site.files.begin(names()).await,
            Err(RolloverError::OutOfTurn(_))
        ));
        assert!(matches!(
            site.files.switch().await,
            Err(RolloverError::OutOfTurn(_))
        ));
    }

    #[tokio::test]
    async fn a_step_that_was_interrupted_is_completed_by_repeating_it() {
        let site = Site::new().await;
        // Interrupted between the key and the certificates.
        write_private(&site.files.next(), b"half").unwrap();
        site.files.begin(names()).await.unwrap();
        // Interrupted between the copy of the key and the rename.
        write_private(&site.files.former(), &read_private(&site.files.key).unwrap()).unwrap();
        assert_eq!(site.files.standing().await.unwrap().stage, Stage::Introduced);
        site.files.switch().await.unwrap();
        // Interrupted between the certificates and the key's removal.
        let own = site.held().await.certificate().clone();
        files::write_certificates(&site.files.certificates, &[own]).unwrap();
        site.files.finish().await.unwrap();
        assert_eq!(site.files.standing().await.unwrap().stage, Stage::Alone);
    }

    #[tokio::test]
    async fn whoever_would_be_lost_is_named() {
        let site = Site::new().await;
        let old = Authority::of(names(), site.held().await);
        let certified = |authority: &Authority, id: &str| {
            let mut record = machine(id);
            record.enrol("key", jiff::Timestamp::now());
            let request = smartscale_proto::tls::keys::key_and_request().unwrap().1;
            let key = crate::serve::csr::RequestedKey::from_request(&request).unwrap();
            record.certify(
                "key",
                authority.agent(id.parse().unwrap(), &key).unwrap().signed(),
            );
            record
        };
        let mut records = vec![certified(&old, "i-1"), machine("i-never-enrolled")];
        assert!(site.files.standing().await.unwrap().lagging(&records).is_empty());
        site.files.begin(names()).await.unwrap();
        let lagging =
            async |records: &[NodeRecord]| site.files.standing().await.unwrap().lagging(records).len();
        assert_eq!(lagging(&records).await, 1);
        records[0] = certified(&Authority::of(names(), site.held().await), "i-1");
        assert_eq!(lagging(&records).await, 0);
        site.files.switch().await.unwrap();
        assert_eq!(lagging(&records).await, 1);
        records[0] = certified(&Authority::of(names(), site.held().await), "i-1");
        assert_eq!(lagging(&records).await, 0);
    }

    #[tokio::test]
    async fn a_sealed_key_is_followed_by_sealed_ones() {
        let site = Site::new().await;
        site.files.begin(names()).await.unwrap();
        site.files.seal("alias/one").await.unwrap();
        site.files.switch().await.unwrap();
        site.files.finish().await.unwrap();
        site.files.seal("alias/two").await.unwrap();
        assert_eq!(
            site.files.standing().await.unwrap().sealed_with.as_deref(),
            Some("alias/two")
        );
        site.files.begin(names()).await.unwrap();
        for path in [&site.files.key, &site.files.next()] {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(
                text.contains("SEALED PRIVATE KEY") && !text.contains(" PRIVATE KEY-----\nMI"),
                "{text}"
            );
        }
    }
}
