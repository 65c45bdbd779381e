//! KMS, which seals the certificate authority's key. Cluster and trust domain go along as encryption context: what was sealed
//! for one cluster opens for no other, and a key's policy may ask for them (`kms:EncryptionContext:smartscale:cluster`).

use async_trait::async_trait;
use aws_sdk_kms::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    primitives::Blob,
};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::failure::{Failure, words};
use crate::serve::authority::{
    Names,
    vault::{Opened, Vault, VaultError},
};

/// The service. Nobody is asked, not even for the region, before there is something to seal or open.
#[derive(Debug)]
pub struct Kms {
    region: Option<String>,
    context: [(&'static str, String); 2],
    client: OnceCell<Client>,
}

impl Kms {
    /// For the authority of this cluster, in `region` or where the SDK's usual chain says.
    #[must_use]
    pub fn new(region: Option<String>, names: &Names) -> Self {
        Self {
            region,
            context: [
                ("smartscale:cluster", names.cluster.to_string()),
                ("smartscale:trust", names.trust.to_string()),
            ],
            client: OnceCell::new(),
        }
    }

    async fn client(&self) -> &Client {
        let connect = || async { Client::new(&super::sdk_config(self.region.clone()).await) };
        self.client.get_or_init(connect).await
    }
}

#[async_trait]
impl Vault for Kms {
    async fn seal(&self, with: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut request = self.client().await.encrypt().key_id(with);
        for (name, value) in &self.context {
            request = request.encryption_context(*name, value);
        }
        let sealed = request.plaintext(Blob::new(secret)).send().await;
        let sealed = sealed.map_err(|error| failed(&error))?.ciphertext_blob;
        let missing = || VaultError::Unavailable("its answer holds nothing sealed".to_owned());
        Ok(sealed.ok_or_else(missing)?.into_inner())
    }

    async fn open(&self, sealed: &[u8]) -> Result<Opened, VaultError> {
        let mut request = self.client().await.decrypt();
        for (name, value) in &self.context {
            request = request.encryption_context(*name, value);
        }
        let opened = request.ciphertext_blob(Blob::new(sealed)).send().await;
        let opened = opened.map_err(|error| failed(&error))?;
        let missing = || VaultError::Unavailable("its answer holds nothing opened".to_owned());
        Ok(Opened {
            secret: Zeroizing::new(opened.plaintext.ok_or_else(missing)?.into_inner()),
            with: opened.key_id.ok_or_else(missing)?,
        })
    }
}

fn failed<E>(error: &SdkError<E, HttpResponse>) -> VaultError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    // All that KMS says of what it cannot open is this name.
    if error.code() == Some("InvalidCiphertextException") {
        return VaultError::Refused(
            "InvalidCiphertextException: it was sealed for another cluster or trust domain, or is damaged"
                .to_owned(),
        );
    }
    match Failure::of(error) {
        Failure::Refused => VaultError::Refused(words(error)),
        Failure::Throttled | Failure::Unknown => VaultError::Unavailable(words(error)),
    }
}
