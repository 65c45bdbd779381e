//! What can go wrong, in words that say the way out, and the exit code that goes with it.

use std::{error::Error as _, process::ExitCode};

use tonic::{Code, Status};

/// A command that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Exit code 2: bad usage or bad input.
    Usage(String),
    /// Exit code 1: the operation failed.
    Failed(String),
}

impl Failure {
    /// What a coordinator's refusal means.
    pub(super) fn of(status: &Status) -> Self {
        let said = status.message();
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Usage(said.to_owned()),
            Code::PermissionDenied => Self::Failed(format!(
                "refused: {said}\n  Your credentials do not allow this; `operator` may act, `viewer` may only read, `admin` \
                 may hand out identities.\n  An administrator hands out others with `smartscale identity issue`."
            )),
            Code::Unauthenticated => Self::Failed(format!(
                "refused: {said}\n  The credentials were not accepted: they may belong to another cluster."
            )),
            Code::Unimplemented => Self::Failed(format!(
                "the coordinator does not know this command: {said}\n  Its version is older than this client's."
            )),
            Code::Unavailable | Code::Unknown if status.source().is_some() => {
                Self::Failed(format!("the coordinator cannot be reached: {}", chain(status)))
            }
            _ => Self::Failed(said.to_owned()),
        }
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        let (Self::Usage(message) | Self::Failed(message)) = self;
        message
    }

    /// Tells the person and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.message());
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

/// An error with all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
