//! What an instance signs to prove itself by AWS, in the one form that agent and coordinator both build.
//!
//! A `GetCallerIdentity` request says nothing but whose credentials signed it. What binds it to one enrolment are further
//! headers, which SigV4 signs like any other: the challenge, the request whose key is to be signed, and the coordinator that is
//! meant. Neither side takes method, path, query, body or header names from the other, so that there is nothing to smuggle.
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>,
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>)

use sha2::{Digest as _, Sha256};

use crate::{
    identity::{Identity, Party},
    tls::client::Expected,
};

/// The body of the request.
pub const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// Its type.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// The service in a signature's scope.
pub const SERVICE: &str = "sts";
/// When the request was signed; the signer sets it.
pub const DATE: &str = "x-amz-date";
/// The session of the credentials; the signer sets it.
pub const SECURITY_TOKEN: &str = "x-amz-security-token";
/// The headers that are signed, no more and no fewer, as a signature names them.
pub const SIGNED_HEADERS: &str = "content-type;host;x-amz-date;x-amz-security-token;x-smartscale-challenge;\
                                  x-smartscale-coordinator;x-smartscale-request";

/// The regional endpoint of STS, the only kind that is asked: `None` when `region` is not of a region's form.
///
/// China's partition has a domain of its own
/// (<https://docs.aws.amazon.com/general/latest/gr/sts.html>).
#[must_use]
pub fn sts_host(region: &str) -> Option<String> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !region.contains('-') || region.len() > 32 || !region.bytes().all(sound) {
        return None;
    }
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    Some(format!("sts.{region}.{domain}"))
}

/// The headers that are known before anybody signs: all of [`SIGNED_HEADERS`] but the date and the session's token.
#[must_use]
pub fn bound_headers(
    host: &str,
    challenge: &[u8],
    request: &[u8],
    coordinator: &Expected,
) -> [(&'static str, String); 5] {
    let coordinator = Identity {
        trust: coordinator.trust.clone(),
        cluster: coordinator.cluster.clone(),
        party: Party::Coordinator,
    };
    [
        ("content-type", CONTENT_TYPE.to_owned()),
        ("host", host.to_owned()),
        ("x-smartscale-challenge", hex::encode(challenge)),
        ("x-smartscale-coordinator", coordinator.to_string()),
        ("x-smartscale-request", hex::encode(Sha256::digest(request))),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    #[test]
    fn the_endpoint_is_of_the_region_and_of_its_partition() {
        for (region, host) in [
            ("us-east-1", Some("sts.us-east-1.amazonaws.com")),
            ("us-gov-west-1", Some("sts.us-gov-west-1.amazonaws.com")),
            ("cn-north-1", Some("sts.cn-north-1.amazonaws.com.cn")),
            ("us-east-1.evil.example/", None),
            ("useast1", None),
            ("", None),
        ] {
            assert_eq!(sts_host(region).as_deref(), host, "{region}");
        }
    }

    #[test]
    fn exactly_the_named_headers_are_bound_or_set_by_the_signer() {
        let coordinator = Expected {
            trust: "smartscale".parse().unwrap(),
            cluster: "demo".parse().unwrap(),
        };
        let bound = bound_headers("sts.us-east-1.amazonaws.com", &[7; 32], b"csr", &coordinator);
        let mut names: Vec<&str> = bound.iter().map(|(name, _)| *name).collect();
        names.extend([DATE, SECURITY_TOKEN]);
        names.sort_unstable();
        assert_eq!(names.join(";"), SIGNED_HEADERS);
        assert_eq!(bound[3].1, "spiffe://smartscale/cluster/demo/coordinator");
    }
}
