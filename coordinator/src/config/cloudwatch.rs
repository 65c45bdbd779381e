//! `[cloudwatch]`: metrics, and the log of decisions. Either goes without the other.

use std::time::Duration;

use super::{ConfigError, Reader, raw};

/// A group's longest name
/// (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogGroup.html>).
const LONGEST_NAME: usize = 512;

impl Reader<'_> {
    /// Namespace and period of metrics.
    pub(super) fn cloudwatch(
        &self,
        raw: &raw::RawCloudwatch,
    ) -> Result<Option<(String, Duration)>, ConfigError> {
        let period = self.duration("cloudwatch.period", raw.period.as_ref(), Duration::from_secs(60))?;
        let namespace = raw.namespace.as_deref().unwrap_or("SmartScale");
        let enabled = raw.enabled.unwrap_or(false);
        Ok(enabled.then(|| (namespace.to_owned(), period)))
    }

    /// The group of decisions.
    pub(super) fn log_group(&self, raw: &raw::RawCloudwatch) -> Result<Option<String>, ConfigError> {
        let Some(group) = raw.log_group.clone() else {
            return Ok(None);
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/#".contains(&byte);
        if !(1..=LONGEST_NAME).contains(&group.len()) || !group.bytes().all(allowed) {
            let message = format!(
                "`{group}` is not the name of a log group (no ARN): for example /smartscale/k3s-demo/decisions is"
            );
            return Err(self.error("cloudwatch.log_group", message));
        }
        Ok(Some(group))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::path::Path;

    use super::*;
    use crate::config::{Config, parse};

    fn of(cloudwatch: &str) -> Result<Config, ConfigError> {
        let text = format!(
            r#"
            mode = "act"
            policy = "policy.toml"
            serve = {{ listen = "127.0.0.1:0", advertise = "127.0.0.1:7443" }}
            fleet = {{ kind = "command", command = {{ program = ["/bin/true"] }} }}
            cloudwatch = {{ {cloudwatch} }}
            "#
        );
        parse(Path::new("/etc/smartscale/coordinator.toml"), &text)
    }

    #[test]
    fn decisions_go_to_a_log_without_metrics_and_metrics_without_a_log() {
        let config = of(r#"log_group = "/smartscale/demo/decisions""#).unwrap();
        assert_eq!(config.log_group.as_deref(), Some("/smartscale/demo/decisions"));
        assert_eq!(config.cloudwatch, None);
        assert!(config.needs_aws());
        let config = of("enabled = true").unwrap();
        assert_eq!(config.log_group, None);
        assert!(config.cloudwatch.is_some());
        assert!(!of("").unwrap().needs_aws());
    }

    #[test]
    fn what_is_no_name_of_a_group_is_refused_with_one_that_is() {
        let long = "x".repeat(LONGEST_NAME + 1);
        for group in [
            "",
            "a group",
            &long,
            "arn:aws:logs:us-east-1:123456789012:log-group:a",
        ] {
            let error = of(&format!("log_group = \"{group}\"")).unwrap_err();
            assert_eq!(error.path, "cloudwatch.log_group");
            assert!(error.message.contains("/smartscale/"), "{error}");
        }
    }
}
