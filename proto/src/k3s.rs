//! How K3s names a cluster's authority in its tokens: `K10<hash>::<credentials>` (<https://docs.k3s.io/cli/token>).

use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, error::PEMError, extensions::ParsedExtension, pem::Pem};

/// Certificates of a bundle that are looked at.
const MOST: usize = 32;

/// A bundle that names no authority.
#[derive(Debug, thiserror::Error)]
pub enum BadBundle {
    /// It is not PEM.
    #[error("the server's CA bundle is not PEM")]
    Pem(#[source] PEMError),
    /// A certificate in it makes no sense.
    #[error("a certificate of the server's CA bundle cannot be read")]
    Certificate,
    /// There is none in it, or there are too many.
    #[error("the server's CA bundle has {0} certificates: 1 to {MOST} are expected")]
    Count(usize),
}

/// The hash by which a token names the authority whose bundle `/cacerts` serves: 64 hexadecimal digits.
///
/// A bundle of one certificate is hashed as it is, byte for byte. Of several, the root to which the first one leads is
/// hashed in DER, so that what is between them may change; without such a root the bundle is hashed as it is, as K3s does.
///
/// # Errors
/// [`BadBundle`] when there is nothing to hash.
pub fn ca_hash(bundle: &[u8]) -> Result<String, BadBundle> {
    let blocks: Vec<Pem> = Pem::iter_from_buffer(bundle)
        .take(MOST + 1)
        .collect::<Result<_, _>>()
        .map_err(BadBundle::Pem)?;
    let certificates: Vec<X509Certificate<'_>> = blocks
        .iter()
        .map(Pem::parse_x509)
        .collect::<Result<_, _>>()
        .map_err(|_| BadBundle::Certificate)?;
    if !(1..=MOST).contains(&certificates.len()) {
        return Err(BadBundle::Count(certificates.len()));
    }
    let hashed = root(&certificates).map_or(bundle, |index| blocks[index].contents.as_slice());
    Ok(hex::encode(Sha256::digest(hashed)))
}

/// The root among the others to which the first certificate leads.
fn root(certificates: &[X509Certificate<'_>]) -> Option<usize> {
    let mut current = certificates.first()?;
    for _ in certificates {
        let issues = |(_, other): &(usize, &X509Certificate<'_>)| {
            other.subject() == current.issuer() && current.verify_signature(Some(other.public_key())).is_ok()
        };
        let (index, issuer) = certificates.iter().enumerate().skip(1).find(issues)?;
        if is_root(issuer) {
            return Some(index);
        }
        current = issuer;
    }
    None
}

/// Whether nobody else vouches for it: it names no other key as its issuer's.
fn is_root(certificate: &X509Certificate<'_>) -> bool {
    let mut own = None;
    let mut issuers = None;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                issuers = id.key_identifier.as_ref().map(|id| id.0);
            }
            _ => {}
        }
    }
    issuers.is_none() || issuers == own
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn root_ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
    }

    fn below(name: &str, above: &CertifiedIssuer<'static, KeyPair>) -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::signed_by(params(name), KeyPair::generate().unwrap(), above).unwrap()
    }

    fn sha256(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    #[test]
    fn one_certificate_is_hashed_as_the_file_has_it() {
        let bundle = format!("{}\n", root_ca("root").pem());
        assert_eq!(ca_hash(bundle.as_bytes()).unwrap(), sha256(bundle.as_bytes()));
    }

    #[test]
    fn of_a_chain_the_root_is_hashed_so_that_what_lies_between_may_change() {
        let root = root_ca("root");
        let middle = below("middle", &root);
        let other = below("another middle", &root);
        for first in [&middle, &other] {
            let server = below("server", first);
            let bundle = [server.pem(), first.pem(), root.pem()].concat();
            assert_eq!(ca_hash(bundle.as_bytes()).unwrap(), sha256(root.der()));
        }
    }

    #[test]
    fn several_certificates_that_lead_to_no_root_are_hashed_as_they_are() {
        let bundle = [root_ca("one").pem(), root_ca("another").pem()].concat();
        assert_eq!(ca_hash(bundle.as_bytes()).unwrap(), sha256(bundle.as_bytes()));
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        assert!(ca_hash(b"").is_err());
        assert!(ca_hash(b"<html>").is_err());
        let many = root_ca("root").pem().repeat(MOST + 1);
        assert!(matches!(ca_hash(many.as_bytes()), Err(BadBundle::Count(_))));
    }
}
