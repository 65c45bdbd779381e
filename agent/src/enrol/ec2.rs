//! The proof of an EC2 instance: a request to STS, signed with the credentials that EC2 gives to this instance alone.
//!
//! It is not sent from here. The coordinator builds the same request ([`attestation`]), adds this signature, and learns from STS
//! whose it is.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use aws_sdk_secretsmanager::config::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use smartscale_planner::model::Zone;
use smartscale_proto::{
    attestation::{self, BODY, DATE, SECURITY_TOKEN, SERVICE},
    time::SharedClock,
    tls::client::Expected,
    v1::{Ec2Proof, enrol_request::Proof},
};

use super::Attestor;
use crate::{
    error::Failure,
    machine::{
        Machine,
        credentials::{Role, SessionKey},
        imds::Imds,
    },
};

/// Proves by the credentials of the instance.
pub struct Ec2 {
    /// Where they are.
    pub imds: Arc<Imds>,
    /// Which of them.
    pub role: Role,
    /// Whom the proof is for.
    pub coordinator: Expected,
    /// The time that is signed.
    pub clock: SharedClock,
}

#[async_trait]
impl Attestor for Ec2 {
    async fn prove(&self, machine: &Machine, challenge: &[u8], request: &[u8]) -> Result<Proof, Failure> {
        let key = SessionKey::of(&self.imds, self.role).await?;
        let zone = Zone::from(machine.zone.as_str());
        let proof = signed(
            &key,
            zone.region(),
            challenge,
            request,
            &self.coordinator,
            self.clock.now().into(),
        )?;
        Ok(Proof::Ec2(proof))
    }
}

/// The proof by `key`, as of `time`.
fn signed(
    key: &SessionKey,
    region: &str,
    challenge: &[u8],
    request: &[u8],
    coordinator: &Expected,
    time: SystemTime,
) -> Result<Ec2Proof, Failure> {
    let host = attestation::sts_host(region)
        .ok_or_else(|| Failure::because(format!("`{region}` is no region, so STS has no endpoint there")))?;
    let headers = attestation::bound_headers(&host, challenge, request, coordinator);
    let token = key.token.reveal();
    let credentials = Credentials::new(
        &*key.id,
        key.secret.reveal(),
        Some(token.to_owned()),
        None,
        "imds",
    );
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(time)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let url = format!("https://{host}/");
    let signable = SignableRequest::new(
        "POST",
        &url,
        headers.iter().map(|(name, value)| (*name, value.as_str())),
        SignableBody::Bytes(BODY.as_bytes()),
    )?;
    let (instructions, _) = sign(signable, &parameters)?.into_parts();
    let set = |name: &str| {
        instructions
            .headers()
            .find(|(header, _)| *header == name)
            .map(|(_, value)| value.to_owned())
            .ok_or_else(|| Failure::because(format!("the signature lacks {name}")))
    };
    Ok(Ec2Proof {
        host,
        date: set(DATE)?,
        security_token: set(SECURITY_TOKEN)?,
        authorization: set("authorization")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;
    use crate::secrets::Secret;

    #[test]
    fn exactly_the_headers_that_bind_it_are_signed() {
        let key = SessionKey {
            id: "ASIAEXAMPLE012345678".into(),
            secret: Secret::new("secret".into()),
            token: Secret::new("session".into()),
        };
        let coordinator = Expected {
            trust: "smartscale".parse().unwrap(),
            cluster: "demo".parse().unwrap(),
        };
        let time: jiff::Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let sign = |challenge: &[u8]| {
            signed(&key, "eu-west-1", challenge, b"csr", &coordinator, time.into()).unwrap()
        };
        let proof = sign(&[7; 32]);
        assert_eq!(proof.host, "sts.eu-west-1.amazonaws.com");
        assert_eq!(proof.date, "20260102T030405Z");
        assert_eq!(proof.security_token, "session");
        let scope = "Credential=ASIAEXAMPLE012345678/20260102/eu-west-1/sts/aws4_request, ";
        let headers = format!("SignedHeaders={}, Signature=", attestation::SIGNED_HEADERS);
        assert!(
            proof
                .authorization
                .starts_with(&format!("AWS4-HMAC-SHA256 {scope}{headers}")),
            "{}",
            proof.authorization
        );
        assert_eq!(sign(&[7; 32]), proof);
        assert_ne!(sign(&[8; 32]).authorization, proof.authorization);
        assert!(signed(&key, "hall-2/", &[], b"", &coordinator, time.into()).is_err());
    }
}
