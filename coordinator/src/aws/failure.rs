//! What a failed call of the SDK means, in the terms that the adapters act on.

use aws_sdk_ec2::{
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};

use crate::{check::channels::Looked, tell::NotifyError};

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

/// The error with all its causes.
pub(super) fn words<E: std::error::Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    DisplayErrorContext(error).to_string()
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

    #[test]
    fn what_was_not_answered_is_unknown() {
        let error: SdkError<aws_sdk_ec2::Error, HttpResponse> = SdkError::timeout_error("no answer");
        assert_eq!(Failure::of(&error), Failure::Unknown);
        assert!(matches!(not_told(&error), NotifyError::Passing(words) if words.contains("no answer")));
    }
}
