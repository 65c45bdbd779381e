//! The authority's files: `ca.key` (0600, one key) and `ca.crt` (one or more certificates, PEM).

use std::path::Path;

use rustls::pki_types::CertificateDer;
use smartscale_proto::{files::FileError, tls::keys};

use super::{
    Authority, AuthorityError, Held, Names,
    vault::{KeptKey, Vault},
};

/// Reads the key (0600) and the certificates.
///
/// # Errors
/// [`AuthorityError`] naming the file and what is wrong with it.
pub async fn read(certificates: &Path, key: &Path, vault: &dyn Vault) -> Result<Held, AuthorityError> {
    let key = KeptKey::read(key, vault).await?;
    Held::new(key.into_pair(), read_certificates(certificates)?)
}

pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let pem = std::fs::read(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(keys::certificates_from_pem(&pem)?)
}

/// Replaces the file of certificates as a whole: whoever reads it at the same moment sees the old ones or the new.
pub(super) fn write_certificates(
    path: &Path,
    certificates: &[CertificateDer<'static>],
) -> Result<(), AuthorityError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let pem: String = certificates
        .iter()
        .map(|certificate| keys::to_pem("CERTIFICATE", certificate))
        .collect();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let partial = path.with_file_name(name);
    std::fs::write(&partial, pem).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)?;
    Ok(())
}

pub(super) fn must_be_new(path: &Path) -> Result<(), AuthorityError> {
    if !path.exists() {
        return Ok(());
    }
    let error = FileError::Write {
        path: path.to_owned(),
        source: std::io::ErrorKind::AlreadyExists.into(),
    };
    Err(error.into())
}

impl Authority {
    /// Reads `ca.key` (0600) and `ca.crt` (one or more certificates).
    ///
    /// # Errors
    /// [`AuthorityError`] naming the file and what is wrong with it.
    pub async fn load(
        names: Names,
        certificates: &Path,
        key: &Path,
        vault: &dyn Vault,
    ) -> Result<Self, AuthorityError> {
        Ok(Self::of(names, read(certificates, key, vault).await?))
    }

    /// Creates an authority and writes its two files; neither may exist. The key is sealed with the key of `vault` that is
    /// named, if one is.
    ///
    /// # Errors
    /// [`AuthorityError::File`] also when one of the files is there already: an authority is never overwritten.
    pub async fn create_files(
        names: Names,
        certificate: &Path,
        key: &Path,
        (vault, sealed_with): (&dyn Vault, Option<&str>),
    ) -> Result<Self, AuthorityError> {
        must_be_new(certificate)?;
        must_be_new(key)?;
        let (authority, pair) = Self::create(names)?;
        KeptKey::new(pair, sealed_with.map(str::to_owned))
            .write(key, vault)
            .await?;
        write_certificates(certificate, &authority.anchors())?;
        Ok(authority)
    }
}
