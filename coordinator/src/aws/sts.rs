//! STS, asked whose signature a request bears that a machine has signed.
//!
//! The request goes to the regional endpoint that it was signed for, byte by byte as the attestor built it, and nowhere else: a
//! redirect is a refusal. `AWS_ENDPOINT_URL_STS` and `AWS_ENDPOINT_URL` are honoured as by the SDK; the `host` header stays
//! that of the signature.

#[path = "sts_answer.rs"]
mod answer;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use smartscale_proto::{attestation::BODY, time::SharedClock};

use crate::{
    observe::web::{WebClient, address},
    serve::attest::ec2::{AwsError, Signatures, SignedRequest, Signer},
};

/// Time for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Bytes of an answer; one has about 500.
const LONGEST_ANSWER: usize = 16 * 1024;

/// STS.
#[derive(Debug)]
pub struct Sts {
    web: WebClient,
    /// Where the endpoint is, if not where its name says.
    endpoint: Option<Uri>,
}

/// STS that cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("STS cannot be asked: {0}")]
pub struct BadSts(String);

impl Sts {
    /// STS where the environment has it, or where AWS has it.
    ///
    /// # Errors
    /// [`BadSts`] when the environment's endpoint is no address.
    pub fn new(clock: SharedClock) -> Result<Self, BadSts> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("AWS_ENDPOINT_URL_STS").or_else(|| variable("AWS_ENDPOINT_URL"));
        Self::at(endpoint.as_deref(), clock)
    }

    /// STS at `endpoint` (`http[s]://host[:port]`), or where AWS has it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn at(endpoint: Option<&str>, clock: SharedClock) -> Result<Self, BadSts> {
        let web = WebClient::new(None, ANSWER_TIME, LONGEST_ANSWER, clock)
            .map_err(|error| BadSts(error.to_string()))?;
        let endpoint = endpoint.map(address).transpose().map_err(BadSts)?;
        Ok(Self { web, endpoint })
    }

    fn request(&self, signed: &SignedRequest) -> Option<Request<Full<Bytes>>> {
        let target = match &self.endpoint {
            Some(endpoint) => Uri::builder()
                .scheme(endpoint.scheme()?.clone())
                .authority(endpoint.authority()?.clone()),
            None => Uri::builder().scheme("https").authority(signed.host.as_str()),
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(target.path_and_query("/").build().ok()?)
            .body(Full::new(Bytes::from_static(BODY.as_bytes())))
            .ok()?;
        for (name, value) in &signed.headers {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        Some(request)
    }
}

#[async_trait]
impl Signatures for Sts {
    async fn whose(&self, request: &SignedRequest) -> Result<Signer, AwsError> {
        let request = self
            .request(request)
            .ok_or_else(|| AwsError::Refused("the request cannot be sent as it is".to_owned()))?;
        let answer = self
            .web
            .send(request)
            .await
            .map_err(|error| AwsError::Unavailable(error.to_string()))?;
        read(&answer)
    }
}

fn read(answer: &Response<Bytes>) -> Result<Signer, AwsError> {
    let status = answer.status();
    let text = String::from_utf8_lossy(answer.body());
    if status == StatusCode::OK {
        return answer::signer(&text).map_err(|error| AwsError::Refused(error.to_string()));
    }
    let said = format!("it answered {status} {}", answer::error_code(&text));
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || said.contains("Throttl") {
        return Err(AwsError::Unavailable(said));
    }
    Err(AwsError::Refused(said))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    fn answered(status: u16, body: &'static str) -> Result<Signer, AwsError> {
        let answer = Response::builder()
            .status(status)
            .body(Bytes::from_static(body.as_bytes()));
        read(&answer.unwrap())
    }

    #[test]
    fn a_redirect_is_a_refusal_and_trouble_at_sts_is_none() {
        assert!(matches!(answered(307, ""), Err(AwsError::Refused(why)) if why.contains("307")));
        assert!(matches!(
            answered(403, "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>"),
            Err(AwsError::Refused(why)) if why.contains("SignatureDoesNotMatch")
        ));
        assert!(matches!(answered(503, ""), Err(AwsError::Unavailable(_))));
        assert!(matches!(
            answered(400, "<Code>Throttling</Code>"),
            Err(AwsError::Unavailable(_))
        ));
        assert!(matches!(answered(200, "{}"), Err(AwsError::Refused(_))));
    }
}
