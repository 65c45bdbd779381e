//! The `Authorization` header of a SigV4 request, in the one form that is accepted.

use smartscale_proto::attestation::{SERVICE, SIGNED_HEADERS};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Bytes of a header: one of ours has about 340.
const LONGEST: usize = 1024;

/// Its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorization<'a> {
    key_id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    terminator: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads `AWS4-HMAC-SHA256 Credential=ID/DAY/REGION/SERVICE/aws4_request, SignedHeaders=a;b, Signature=HEX`.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let form = || "it is not as SigV4 has it".to_owned();
        if text.len() > LONGEST {
            return Err(form());
        }
        let parts = text
            .strip_prefix(ALGORITHM)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or_else(form)?;
        let mut parts = parts.split(", ");
        let mut part = |name: &str| {
            parts
                .next()
                .and_then(|part| part.strip_prefix(name))
                .and_then(|part| part.strip_prefix('='))
                .ok_or_else(form)
        };
        let (credential, signed_headers, signature) =
            (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
        if parts.next().is_some() {
            return Err(form());
        }
        let scope: Vec<&str> = credential.split('/').collect();
        let [key_id, day, region, service, terminator] = scope.as_slice() else {
            return Err(form());
        };
        Ok(Self {
            key_id,
            day,
            region,
            service,
            terminator,
            signed_headers,
            signature,
        })
    }

    /// Whether it signs what it has to, for the `day` of its date and for `region`.
    pub(super) fn check(&self, day: &str, region: &str) -> Result<(), String> {
        let shown = |text: &str| text.chars().take(80).collect::<String>();
        if !(16..=128).contains(&self.key_id.len())
            || !self.key_id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return Err("the key's id is none".to_owned());
        }
        if (self.day, self.region, self.service, self.terminator) != (day, region, SERVICE, "aws4_request") {
            return Err(format!(
                "its scope is {}/{}/{}, and not {day}/{region}/{SERVICE}",
                shown(self.day),
                shown(self.region),
                shown(self.service)
            ));
        }
        // A header that is not signed could be anybody's; one more would be something that we do not send.
        if self.signed_headers != SIGNED_HEADERS {
            return Err(format!(
                "it signs {:?}, and not {SIGNED_HEADERS:?}",
                shown(self.signed_headers)
            ));
        }
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.signature.len() != 64 || !self.signature.bytes().all(hexadecimal) {
            return Err("the signature is none".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use proptest::prelude::*;

    use super::*;

    fn header() -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE012345678/20260102/us-east-1/sts/aws4_request, \
             SignedHeaders={SIGNED_HEADERS}, Signature={}",
            "0f".repeat(32)
        )
    }

    fn checked(text: &str) -> Result<(), String> {
        Authorization::parse(text)?.check("20260102", "us-east-1")
    }

    #[test]
    fn the_form_of_the_sdk_is_accepted() {
        checked(&header()).unwrap();
    }

    #[test]
    fn whatever_signs_less_more_or_elsewhere_is_refused() {
        for (from, to) in [
            ("x-smartscale-challenge;", ""),
            ("x-smartscale-request", "x-other"),
            (SIGNED_HEADERS, "host;x-amz-date"),
            ("SignedHeaders=", "SignedHeaders=accept;"),
            ("us-east-1", "eu-west-1"),
            ("/sts/", "/iam/"),
            ("20260102", "20260101"),
            ("aws4_request", "aws4"),
            ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
            ("Signature=0f", "Signature=0F"),
            (", SignedHeaders", ",SignedHeaders"),
            (", Signature=", ", Signature=00, Signature="),
            ("Credential=ASIA", "Credential=/ASIA"),
        ] {
            let changed = header().replace(from, to);
            assert_ne!(changed, header(), "{from}");
            assert!(checked(&changed).is_err(), "{changed}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = checked(&text);
        }
    }
}
