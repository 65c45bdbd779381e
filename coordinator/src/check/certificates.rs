//! The certificate authority: whether its key can be used and belongs to the certificate, and how long that lasts.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use smartscale_proto::{check::Finding, time::SharedClock};

use super::Check;

const AREA: &str = "certificates";
/// Every machine and person has to get to know the next authority: that takes weeks and not hours.
const SOON: SignedDuration = SignedDuration::from_hours(90 * 24);

/// What the authority's files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// When its certificate ends.
    pub ends: Timestamp,
    /// How many authorities are trusted.
    pub trusted: usize,
}

/// Who reads the authority's files.
#[async_trait]
pub trait AuthorityFiles: Send + Sync {
    /// Where they lie, for people.
    fn place(&self) -> String;
    /// Opens the key, and holds it against the certificates.
    ///
    /// # Errors
    /// A sentence naming the file and what is wrong with it.
    async fn read(&self) -> Result<Standing, String>;
}

/// Judges the authority.
pub struct CertificateCheck {
    /// Who reads its files.
    pub files: Arc<dyn AuthorityFiles>,
    /// The clock.
    pub clock: SharedClock,
}

#[async_trait]
impl Check for CertificateCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let tried = format!("opened the authority at {}", self.files.place());
        let standing = match self.files.read().await {
            Ok(standing) => standing,
            Err(error) => {
                let remedy = "`smartscale-coordinator init` makes one; a second coordinator has copies of the first one's files, \
                              the key with mode 0600";
                return vec![Finding::failed(AREA, tried, error, remedy)];
            }
        };
        let left = standing.ends.duration_since(self.clock.now());
        let found = format!(
            "its key opens, its certificate ends {}, {} trusted",
            standing.ends, standing.trusted
        );
        let remedy = "begin the next authority: `smartscale-coordinator ca begin`";
        let finding = if left <= SignedDuration::ZERO {
            Finding::failed(AREA, tried, found, remedy)
        } else if left < SOON {
            Finding::warning(AREA, tried, found, remedy)
        } else if standing.trusted > 1 {
            let remedy = "a rollover is under way: `smartscale-coordinator ca status` says how far";
            Finding::warning(AREA, tried, found, remedy)
        } else {
            Finding::passed(AREA, tried, found)
        };
        vec![finding]
    }
}

#[cfg(test)]
mod tests {
    use smartscale_proto::{check::Outcome, time::SystemClock};

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };

    struct Ends(Result<(i64, usize), &'static str>);

    #[async_trait]
    impl AuthorityFiles for Ends {
        fn place(&self) -> String {
            "/etc/smartscale/ca.crt".to_owned()
        }

        async fn read(&self) -> Result<Standing, String> {
            let (hours, trusted) = self.0.map_err(str::to_owned)?;
            Ok(Standing {
                ends: Timestamp::now() + SignedDuration::from_hours(hours),
                trusted,
            })
        }
    }

    #[tokio::test]
    async fn an_authority_is_judged_by_how_long_it_lasts_and_whether_another_follows() {
        for (has, outcome) in [
            (Ok((10 * 365 * 24, 1)), Outcome::Passed),
            (Ok((10 * 365 * 24, 2)), Outcome::Warning),
            (Ok((89 * 24, 1)), Outcome::Warning),
            (Ok((-1, 1)), Outcome::Failed),
            (Err("ca.key: is readable by others"), Outcome::Failed),
        ] {
            let check = CertificateCheck {
                files: Arc::new(Ends(has)),
                clock: Arc::new(SystemClock),
            };
            let findings = check.run().await;
            assert_eq!(outcomes(&findings), [outcome], "{has:?}");
            says_what_to_do(&findings);
        }
    }
}
