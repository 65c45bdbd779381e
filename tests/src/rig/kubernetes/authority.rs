//! The cluster's own certificate authority, and kubeconfigs for the identities it vouches for.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::super::Folder;

/// A CA whose key stays in memory.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Who a client certificate says its holder is: Kubernetes reads the user from the common name and the groups from
/// the organisations. <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>
#[derive(Debug, Clone)]
pub struct Identity {
    /// Such as `system:node:i-1`.
    pub user: String,
    /// Such as `system:nodes`.
    pub groups: Vec<String>,
}

impl Identity {
    /// A user in one group, or in none.
    #[must_use]
    pub fn new(user: &str, group: Option<&str>) -> Self {
        Self {
            user: user.to_owned(),
            groups: group.map(str::to_owned).into_iter().collect(),
        }
    }

    /// The kubelet of `node`.
    #[must_use]
    pub fn kubelet(node: &str) -> Self {
        Self::new(&format!("system:node:{node}"), Some("system:nodes"))
    }

    /// May do everything.
    #[must_use]
    pub fn admin() -> Self {
        Self::new("rig-admin", Some("system:masters"))
    }
}

impl Authority {
    /// A new CA.
    ///
    /// # Errors
    /// The key or the certificate could not be made.
    pub fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("make the CA's key")?;
        let mut params = CertificateParams::new(Vec::new()).context("describe the CA")?;
        params.distinguished_name = name("smartscale-rig", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).context("sign the CA")?.pem();
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server certificate for these names and addresses.
    ///
    /// # Errors
    /// A name is no DNS name, or signing failed.
    pub fn server(&self, names: &[&str]) -> anyhow::Result<Pair> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).context("describe the server")?;
        self.sign(
            params,
            ExtendedKeyUsagePurpose::ServerAuth,
            name("smartscale-rig-server", &[]),
        )
    }

    /// A client certificate.
    ///
    /// # Errors
    /// Signing failed.
    pub fn client(&self, identity: &Identity) -> anyhow::Result<Pair> {
        let params = CertificateParams::new(Vec::new()).context("describe the client")?;
        self.sign(
            params,
            ExtendedKeyUsagePurpose::ClientAuth,
            name(&identity.user, &identity.groups),
        )
    }

    /// A client certificate for whoever made the certificate request (PEM); the names that it asks for count for nothing.
    ///
    /// # Errors
    /// The request is not sound, or signing failed.
    pub fn client_of_request(&self, request: &str, identity: &Identity) -> anyhow::Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(request).context("read the request")?;
        let mut params = CertificateParams::new(Vec::new()).context("describe the client")?;
        params.distinguished_name = name(&identity.user, &identity.groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params = params;
        let certificate = request.signed_by(&self.issuer).context("sign a certificate")?;
        Ok(certificate.pem())
    }

    /// Writes a kubeconfig `NAME.kubeconfig` for `identity` to the API server at `url`, everything inside the file.
    ///
    /// # Errors
    /// Signing or writing failed.
    pub fn kubeconfig(
        &self,
        folder: &Folder,
        file: &str,
        url: &str,
        identity: &Identity,
    ) -> anyhow::Result<PathBuf> {
        let pair = self.client(identity)?;
        let user = serde_json::json!({
            "client-certificate-data": base64(&pair.certificate),
            "client-key-data": base64(&pair.key),
        });
        self.kubeconfig_of(folder, file, url, &user)
    }

    /// Writes a kubeconfig of a bearer token.
    ///
    /// # Errors
    /// Writing failed.
    pub fn token_kubeconfig(
        &self,
        folder: &Folder,
        file: &str,
        url: &str,
        token: &str,
    ) -> anyhow::Result<PathBuf> {
        self.kubeconfig_of(folder, file, url, &serde_json::json!({ "token": token }))
    }

    fn kubeconfig_of(
        &self,
        folder: &Folder,
        file: &str,
        url: &str,
        user: &serde_json::Value,
    ) -> anyhow::Result<PathBuf> {
        // JSON is YAML.
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "rig",
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "rig"}}],
            "clusters": [{"name": "rig", "cluster": {
                "server": url,
                "certificate-authority-data": base64(&self.certificate),
            }}],
            "users": [{"name": "rig", "user": user}],
        });
        folder.write(&format!("kubernetes/{file}.kubeconfig"), format!("{config:#}\n"))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        name: DistinguishedName,
    ) -> anyhow::Result<Pair> {
        let key = KeyPair::generate().context("make a key")?;
        params.distinguished_name = name;
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign a certificate")?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn name(common_name: &str, organisations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organisation in organisations {
        name.push(DnType::OrganizationName, organisation.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}
