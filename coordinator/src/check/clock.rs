//! The clock: certificates, signatures of AWS and the lease's people-readable times are judged by it. What decides is the API
//! server's time ([one clock](../../../docs/one-clock.md)), so that a difference is a fault to mend and not a disaster.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use smartscale_proto::check::Finding;

use super::Check;

const AREA: &str = "clock";
/// `Date` has whole seconds, and an answer takes its time.
const ALIKE: SignedDuration = SignedDuration::from_secs(5);
/// AWS refuses requests that are signed by a clock further off (Signature Version 4).
const AWS_REFUSES: SignedDuration = SignedDuration::from_mins(5);

/// A server that knows the time.
#[async_trait]
pub trait TimeSource: Send + Sync {
    /// Its version, and how far this machine's clock is ahead of its own.
    async fn ahead(&self) -> Result<(String, SignedDuration), String>;
}

/// Asks the API server.
pub struct ClockCheck(pub Arc<dyn TimeSource>);

#[async_trait]
impl Check for ClockCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let tried = "asked the Kubernetes API server for version and time";
        let (version, ahead) = match self.0.ahead().await {
            Ok(answer) => answer,
            Err(error) => {
                return vec![Finding::failed(
                    "kubernetes",
                    tried,
                    error,
                    "look at the server of the kubeconfig ([kubernetes] kubeconfig), and whether it is reached from here",
                )];
            }
        };
        let answered = Finding::passed("kubernetes", tried, format!("version {version}"));
        let compared = "compared this machine's clock with the API server's";
        let seconds = ahead.as_secs();
        let off = if seconds < 0 {
            format!("{} s behind", -seconds)
        } else {
            format!("{seconds} s ahead")
        };
        let remedy = "have this machine's clock set by NTP (timedatectl set-ntp true; on EC2 169.254.169.123), and the server's";
        let judged = if ahead.abs() <= ALIKE {
            Finding::passed(AREA, compared, format!("they agree to {} s", ALIKE.as_secs()))
        } else if ahead.abs() < AWS_REFUSES {
            Finding::warning(AREA, compared, off, remedy)
        } else {
            Finding::failed(
                AREA,
                compared,
                format!("{off}; AWS refuses what it signs"),
                remedy,
            )
        };
        vec![answered, judged]
    }
}

#[cfg(test)]
mod tests {
    use smartscale_proto::check::Outcome;

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };

    struct Ahead(Result<i64, &'static str>);

    #[async_trait]
    impl TimeSource for Ahead {
        async fn ahead(&self) -> Result<(String, SignedDuration), String> {
            self.0
                .map(|seconds| ("v1.36.3".to_owned(), SignedDuration::from_secs(seconds)))
                .map_err(str::to_owned)
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_off_is_to_be_looked_at_and_one_that_aws_refuses_fails() {
        for (seconds, outcome) in [
            (0, Outcome::Passed),
            (-5, Outcome::Passed),
            (6, Outcome::Warning),
            (-299, Outcome::Warning),
            (-300, Outcome::Failed),
            (86_400, Outcome::Failed),
        ] {
            let findings = ClockCheck(Arc::new(Ahead(Ok(seconds)))).run().await;
            assert_eq!(outcomes(&findings), [Outcome::Passed, outcome], "{seconds}");
            says_what_to_do(&findings);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_fails() {
        let findings = ClockCheck(Arc::new(Ahead(Err("connection refused")))).run().await;
        assert_eq!(outcomes(&findings), [Outcome::Failed]);
        says_what_to_do(&findings);
    }
}
