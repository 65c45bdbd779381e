//! Keys, requests for certificates, and their files.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;

use super::TlsError;

/// A fresh P-256 key and a request (PKCS#10, DER) that proves its possession and names nobody: the signer
/// decides about names.
///
/// # Errors
/// [`TlsError::Key`] when the system gives no randomness.
pub fn key_and_request() -> Result<(PrivateKeyDer<'static>, Vec<u8>), TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TlsError::Key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((der, request(&key)?))
}

/// A request (PKCS#10, DER) for a key that exists, as [`key_and_request`] makes one.
///
/// # Errors
/// [`TlsError::Key`] when the key is of a kind that cannot sign.
pub fn request_for(key: &PrivateKeyDer<'_>) -> Result<Vec<u8>, TlsError> {
    request(&KeyPair::try_from(key).map_err(TlsError::Key)?)
}

/// The same for a key in PEM.
///
/// # Errors
/// [`TlsError`] when the text holds no key that can sign.
pub fn request_of(pem: &[u8]) -> Result<Vec<u8>, TlsError> {
    request_for(&key_from_pem(pem)?)
}

fn request(key: &KeyPair) -> Result<Vec<u8>, TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(TlsError::Key)?;
    Ok(request.der().to_vec())
}

/// Whether a certificate (DER) is for this key.
#[must_use]
pub fn belong(certificate: &[u8], key: &PrivateKeyDer<'_>) -> bool {
    let own = KeyPair::try_from(key).map(|key| key.subject_public_key_info());
    let read = x509_parser::certificate::X509Certificate::from_der(certificate);
    own.is_ok_and(|own| read.is_ok_and(|(_, read)| read.public_key().raw == own))
}

/// The request (PKCS#10) of a PEM text, in DER.
///
/// # Errors
/// [`TlsError::Pem`] when it does not parse or holds none.
pub fn request_from_pem(pem: &[u8]) -> Result<Vec<u8>, TlsError> {
    CertificateSigningRequestDer::from_pem_slice(pem)
        .map(|request| request.to_vec())
        .map_err(|error| TlsError::Pem(format!("there is no CERTIFICATE REQUEST block: {error}")))
}

/// SHA-256 of a certificate (DER): what `openssl x509 -fingerprint -sha256` prints.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Reads a fingerprint of 64 hexadecimal digits, with or without colons, after an optional `sha256:`.
///
/// # Errors
/// [`TlsError::Pem`] saying what is expected.
pub fn parse_fingerprint(text: &str) -> Result<[u8; 32], TlsError> {
    let digits: String = text
        .trim()
        .trim_start_matches("sha256:")
        .chars()
        .filter(|c| *c != ':')
        .collect();
    hex::decode(&digits)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or_else(|| {
            TlsError::Pem("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits".to_owned())
        })
}

/// The certificates of a PEM text, in their order.
///
/// # Errors
/// [`TlsError::Pem`] when it does not parse or holds none.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem(format!("the certificate is no PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(TlsError::Pem("there is no CERTIFICATE block".to_owned()));
    }
    Ok(certificates)
}

/// The private key of a PEM text.
///
/// # Errors
/// [`TlsError::Pem`] when it does not parse or holds none.
pub fn key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| TlsError::Pem(format!("there is no PRIVATE KEY block: {error}")))
}

/// A PEM text with one block.
#[must_use]
pub fn to_pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 48;
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(LINE) {
        text.push_str(&base64(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
