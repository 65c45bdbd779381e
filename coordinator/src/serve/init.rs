//! What a new installation needs before its first start: an authority and the first person's credentials.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use smartscale_proto::{
    credentials::{Credentials, CredentialsError},
    identity::{Party, Role, Segment},
    tls::{Credential, keys},
};

use super::authority::{Authority, AuthorityError, Names, vault::Vault};

/// How long the first person's credentials live: time enough to set up a way of handing out short ones.
pub const FIRST_CREDENTIAL_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Files of a new installation.
#[derive(Debug)]
pub struct Created {
    /// The authority's certificate, `ca.crt`.
    pub ca_certificate: PathBuf,
    /// Its key, `ca.key` (0600).
    pub ca_key: PathBuf,
    /// The first person's credentials, `credentials.toml` (0600), to be moved to
    /// `~/.config/smartscale/credentials.toml`.
    pub credentials: PathBuf,
    /// When those end.
    pub credentials_end: Timestamp,
    /// SHA-256 of the authority's certificate in hexadecimal: what agents pin.
    pub fingerprint: String,
}

/// An installation that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The authority cannot be created or cannot sign.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The credentials cannot be written.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Creates the authority and the credentials of the first person (role `admin`) in `folder`, which exists. Nothing
/// that is there already is overwritten. The authority's key is sealed if a key of `vault` is named for it.
///
/// # Errors
/// [`InitError`], also when there is an authority already.
pub async fn init(
    folder: &Path,
    names: Names,
    endpoints: Vec<String>,
    person: Segment,
    sealing: (&dyn Vault, Option<&str>),
) -> Result<Created, InitError> {
    let (ca_certificate, ca_key) = (folder.join("ca.crt"), folder.join("ca.key"));
    let authority = Authority::create_files(names, &ca_certificate, &ca_key, sealing).await?;
    let credentials = folder.join("credentials.toml");
    let (content, credentials_end) =
        person_credentials(&authority, endpoints, Role::Admin, person, FIRST_CREDENTIAL_LIFE)?;
    content.write(&credentials)?;
    Ok(Created {
        ca_certificate,
        ca_key,
        credentials,
        credentials_end,
        fingerprint: hex::encode(authority.fingerprint()),
    })
}

/// Credentials of a person, with the time of their end.
///
/// # Errors
/// [`InitError`] when the authority cannot sign.
pub fn person_credentials(
    authority: &Authority,
    endpoints: Vec<String>,
    role: Role,
    name: Segment,
    life: Duration,
) -> Result<(Credentials, Timestamp), InitError> {
    let (credential, ends) = authority.client(Party::Admin { role, name }, life)?;
    Ok((to_file(authority, endpoints, &credential), ends))
}

fn to_file(authority: &Authority, endpoints: Vec<String>, credential: &Credential) -> Credentials {
    let pem = |list: &[CertificateDer<'_>]| {
        list.iter()
            .map(|one| keys::to_pem("CERTIFICATE", one))
            .collect::<Vec<_>>()
            .concat()
    };
    Credentials {
        cluster: authority.names().cluster.clone(),
        trust: authority.names().trust.clone(),
        endpoints,
        ca: pem(&authority.anchors()),
        certificate: pem(&credential.chain),
        key: credential
            .key
            .as_ref()
            .map(|key| keys::to_pem("PRIVATE KEY", key.secret_der()))
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;
    use crate::serve::authority::vault::NoVault;

    #[tokio::test]
    async fn a_new_installation_has_an_authority_and_a_first_person() {
        let folder = tempfile::tempdir().unwrap();
        let names = Names {
            trust: "smartscale".parse().unwrap(),
            cluster: "demo".parse().unwrap(),
        };
        let endpoints = vec!["127.0.0.1:7443".to_owned()];
        let created = init(
            folder.path(),
            names.clone(),
            endpoints.clone(),
            "jo".parse().unwrap(),
            (&NoVault, None),
        )
        .await
        .unwrap();
        let credentials = Credentials::read(&created.credentials).unwrap();
        assert_eq!(
            credentials.identity().unwrap().to_string(),
            "spiffe://smartscale/cluster/demo/admin/admin/jo"
        );
        assert_eq!(credentials.not_after().unwrap(), created.credentials_end);
        let again = init(
            folder.path(),
            names,
            endpoints,
            "jo".parse().unwrap(),
            (&NoVault, None),
        );
        assert!(again.await.is_err());
    }
}
