//! What a failed call of the SDK means, in the terms that the adapters act on.

use aws_sdk_ec2::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::{check::channels::Looked, error::chain, tell::NotifyError};

/// Codes that ask for fewer calls, whatever their HTTP status (EC2 sends some of them with 503).
const THROTTLED: [&str; 9] = [
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "Throttled",
    "TooManyRequestsException",
    "SlowDown",
    "EC2ThrottledException",
    "ClientRequestLimitExceeded",
];

/// What a failed call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Refused for the request's sake; nothing happened.
    Refused,
    /// Too many calls; nothing happened.
    Throttled,
    /// No answer that could be read, or one that says nothing about what happened.
    Unknown,
}

impl Failure {
    /// Of an answer with this status and error code.
    pub(super) fn of_answer(status: u16, code: Option<&str>) -> Self {
        match code {
            Some(code) if is_throttling(code) => Self::Throttled,
            _ if status == 429 => Self::Throttled,
            _ if (400..500).contains(&status) => Self::Refused,
            _ => Self::Unknown,
        }
    }

    pub(super) fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Self {
        match error {
            SdkError::ServiceError(answer) => {
                Self::of_answer(answer.raw().status().as_u16(), answer.err().code())
            }
            // Also credentials that cannot be had for the moment: nothing was sent, but it may work later.
            _ => Self::Unknown,
        }
    }
}

/// Whether a code asks for fewer calls.
pub(super) fn is_throttling(code: &str) -> bool {
    THROTTLED.contains(&code)
}

/// What a service said, as `Code: message`, or why it said nothing.
pub(super) fn words<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let SdkError::ServiceError(answer) = error else {
        return chain(error);
    };
    match (answer.err().code(), answer.err().message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        // What a proxy answers, for one.
        (None, _) => format!("{} (HTTP status {})", chain(error), answer.raw().status()),
    }
}

/// Codes of a refusal for want of a right, which every service calls otherwise.
const FORBIDDEN: [&str; 5] = [
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "UnauthorizedOperation",
];

/// What the failure means for a look at a channel.
pub(super) fn looked<E>(error: &SdkError<E, HttpResponse>) -> Looked
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error.code() {
        Some(code) if FORBIDDEN.contains(&code) => Looked::Forbidden(words(error)),
        _ => Looked::Failed(words(error)),
    }
}

/// What the failure means for a notification.
pub(super) fn not_told<E>(error: &SdkError<E, HttpResponse>) -> NotifyError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match Failure::of(error) {
        Failure::Refused => NotifyError::Refused(words(error)),
        Failure::Throttled | Failure::Unknown => NotifyError::Passing(words(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    #[test]
    fn a_code_tells_more_than_the_status() {
        for (status, code, failure) in [
            (503, Some("RequestLimitExceeded"), Failure::Throttled),
            (400, Some("Throttling"), Failure::Throttled),
            (429, None, Failure::Throttled),
            (400, Some("InvalidLaunchTemplateId.NotFound"), Failure::Refused),
            (403, Some("UnauthorizedOperation"), Failure::Refused),
            (404, None, Failure::Refused),
            (500, Some("InternalError"), Failure::Unknown),
            (503, Some("Unavailable"), Failure::Unknown),
            (200, None, Failure::Unknown),
        ] {
            assert_eq!(Failure::of_answer(status, code), failure, "{status} {code:?}");
        }
    }

    fn answered(error: ErrorMetadata, status: u16) -> SdkError<aws_sdk_ec2::Error, HttpResponse> {
        let error = aws_sdk_ec2::operation::describe_subnets::DescribeSubnetsError::generic(error);
        let answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        SdkError::service_error(error.into(), answer)
    }

    #[test]
    fn a_service_is_quoted_and_nothing_of_its_headers_is() {
        let refused = ErrorMetadata::builder().code("UnauthorizedOperation");
        let refused = refused.message("You are not authorized").build();
        assert_eq!(
            words(&answered(refused, 403)),
            "UnauthorizedOperation: You are not authorized"
        );
        let unavailable = answered(ErrorMetadata::builder().build(), 502);
        assert!(
            words(&unavailable).ends_with("(HTTP status 502)"),
            "{}",
            words(&unavailable)
        );
    }

    #[test]
    fn what_was_not_answered_is_unknown() {
        let error: SdkError<aws_sdk_ec2::Error, HttpResponse> = SdkError::timeout_error("no answer");
        assert_eq!(Failure::of(&error), Failure::Unknown);
        assert!(matches!(not_told(&error), NotifyError::Passing(words) if words.contains("no answer")));
    }
}
