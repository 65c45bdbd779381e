//! A request for a certificate (PKCS#10) as far as we believe it: its key, and the proof that the sender has it.
//! Names and extensions in it are not even looked at.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use sha2::{Digest as _, Sha256};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

/// Bytes that a request may have: one of ours has about 200.
const MOST_BYTES: usize = 8 * 1024;

const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const PRIME256V1: &str = "1.2.840.10045.3.1.7";
const ED25519: &str = "1.3.101.112";

/// A request that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It is no PKCS#10 request.
    #[error("the certificate request cannot be read: PKCS#10 in DER, at most 8 KiB, is expected")]
    Form,
    /// It is not signed by the key that it names.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// The key is of another kind.
    #[error("the key of the certificate request is neither P-256 nor Ed25519")]
    Key,
}

/// The key of a request whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedKey {
    point: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl RequestedKey {
    /// Reads a request (DER) and checks that its sender holds the key.
    ///
    /// # Errors
    /// [`BadRequest`].
    pub fn from_request(der: &[u8]) -> Result<Self, BadRequest> {
        if der.len() > MOST_BYTES {
            return Err(BadRequest::Form);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| BadRequest::Form)?;
        if !rest.is_empty() {
            return Err(BadRequest::Form);
        }
        let subject = &request.certification_request_info.subject_pki;
        let point = subject.subject_public_key.data.as_ref();
        let curve = subject
            .algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.as_oid().ok())
            .map(|oid| oid.to_id_string());
        let algorithm = match (
            subject.algorithm.algorithm.to_id_string().as_str(),
            curve.as_deref(),
            point.len(),
            point.first(),
        ) {
            // Uncompressed points alone: what every library writes.
            (EC_PUBLIC_KEY, Some(PRIME256V1), 65, Some(4)) => &PKCS_ECDSA_P256_SHA256,
            (ED25519, None, 32, _) => &PKCS_ED25519,
            _ => return Err(BadRequest::Key),
        };
        request.verify_signature().map_err(|_| BadRequest::Signature)?;
        Ok(Self {
            point: point.to_vec(),
            algorithm,
        })
    }

    /// SHA-256 of the key (SubjectPublicKeyInfo, DER), in hexadecimal: how a node record names it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.subject_public_key_info()))
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use smartscale_proto::tls::keys::key_and_request;

    use super::*;

    #[test]
    fn a_request_of_ours_is_believed() {
        let (_, request) = key_and_request().unwrap();
        let key = RequestedKey::from_request(&request).unwrap();
        assert_eq!(key.fingerprint().len(), 64);
        assert_eq!(key, RequestedKey::from_request(&request).unwrap());
    }

    #[test]
    fn ed25519_is_accepted_and_p384_is_not() {
        let request = |algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            CertificateParams::default()
                .serialize_request(&key)
                .unwrap()
                .der()
                .to_vec()
        };
        assert!(RequestedKey::from_request(&request(&PKCS_ED25519)).is_ok());
        assert_eq!(
            RequestedKey::from_request(&request(&PKCS_ECDSA_P384_SHA384)),
            Err(BadRequest::Key)
        );
    }

    #[test]
    fn a_request_that_somebody_changed_is_refused() {
        let (_, mut request) = key_and_request().unwrap();
        let last = request.len() - 1;
        request[last] ^= 1;
        assert!(RequestedKey::from_request(&request).is_err());
        request.push(0);
        assert!(RequestedKey::from_request(&request).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            prop_assert!(RequestedKey::from_request(&bytes).is_err());
        }

        #[test]
        fn a_flipped_byte_never_brings_another_key_in(at in 0_usize..1000, flip in 1_u8..) {
            let (_, mut request) = key_and_request().unwrap();
            let key = RequestedKey::from_request(&request).unwrap();
            let at = at % request.len();
            request[at] ^= flip;
            // Some bits of the outer encoding mean nothing; the signed part has none of those.
            if let Ok(read) = RequestedKey::from_request(&request) {
                prop_assert_eq!(read, key);
            }
        }
    }
}
