//! Adapters to AWS: the fleet (EC2), the market (EC2, the price list), the state store (DynamoDB), notifications (SNS),
//! metrics (CloudWatch), decisions (CloudWatch Logs), notices (SQS), proofs of machines (STS, EC2), the authority's sealed key (KMS).

pub mod cloudwatch;
pub mod dynamodb;
mod failure;
pub mod fleet;
pub mod kms;
pub mod logs;
pub mod market;
pub mod queue;
pub mod sns;
pub mod sts;

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

/// To connect to an endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One attempt of a call, from its first byte to its answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// A call, its repetitions by the SDK included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What all adapters share: one HTTP client (rustls on ring, as everywhere else), the SDK's usual chains for
/// credentials and region, its standard retries under a deadline. `AWS_ENDPOINT_URL` and
/// `AWS_ENDPOINT_URL_<SERVICE>` are honoured. Nothing is sent except what finding the region takes.
pub async fn sdk_config(region: Option<String>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(
            Builder::new()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build_https(),
        )
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(CALL_TIMEOUT)
                .build(),
        );
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    loader.load().await
}
