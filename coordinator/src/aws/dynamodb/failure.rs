//! What a failed call means: whether a write may have taken place all the same, and why a transaction was cancelled.

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::transact_write_items::TransactWriteItemsError,
};

use super::{super::failure::words, DynamoStore};
use crate::state::{StoreError, Write};

impl DynamoStore {
    /// A failed read changed nothing, so nothing about it is unknown.
    pub(super) fn read_error<E>(&self, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        StoreError::Unavailable(format!("table {}: {}", self.table, words(error)))
    }

    pub(super) fn write_error<E>(&self, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let words = format!("table {}: {}", self.table, words(error));
        let never_sent = match error {
            SdkError::ConstructionFailure(_) => true,
            SdkError::DispatchFailure(_) => was_refused(error),
            SdkError::ServiceError(answer) => !matches!(
                answer.err().code(),
                // DynamoDB may have carried the write out before it failed to answer.
                None | Some(
                    "InternalServerError"
                        | "InternalFailure"
                        | "ServiceUnavailable"
                        | "TransactionInProgressException"
                )
            ),
            _ => false,
        };
        if never_sent {
            StoreError::Unavailable(words)
        } else {
            StoreError::Unknown(words)
        }
    }

    /// Why DynamoDB cancelled a transaction: one reason per action, the fence's first.
    pub(super) fn cancelled(
        &self,
        error: &SdkError<TransactWriteItemsError>,
        writes: &[Write],
    ) -> StoreError {
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
        else {
            return self.write_error(error);
        };
        let failed = |reason: &&aws_sdk_dynamodb::types::CancellationReason| {
            reason.code() == Some("ConditionalCheckFailed")
        };
        let reasons = cancelled.cancellation_reasons();
        if reasons.first().as_ref().is_some_and(failed) {
            return StoreError::Fenced;
        }
        let conflict = reasons
            .iter()
            .skip(1)
            .zip(writes)
            .find(|(reason, _)| failed(reason));
        if let Some((_, Write::Put { key, .. } | Write::Delete { key })) = conflict {
            return StoreError::Conflict(key.clone());
        }
        // Another transaction on the same items, throttling, a value that is refused: nothing was written.
        let reasons: Vec<String> = reasons
            .iter()
            .filter(|reason| reason.code().is_some_and(|code| code != "None"))
            .map(|reason| {
                format!(
                    "{} {}",
                    reason.code().unwrap_or("?"),
                    reason.message().unwrap_or_default()
                )
            })
            .collect();
        StoreError::Unavailable(format!(
            "table {}: transaction cancelled: {}",
            self.table,
            reasons.join("; ")
        ))
    }
}

/// Whether the connection was refused, so that no byte of the request left.
fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
pub(super) fn build_error(error: aws_sdk_dynamodb::error::BuildError) -> StoreError {
    StoreError::Unavailable(format!("a request could not be built: {error}"))
}
