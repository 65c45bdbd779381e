//! Channels: whether whoever is told, or tells, can be reached. Nobody is told, and nothing is taken away.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use smartscale_proto::{check::Finding, time::SharedClock};

use super::Check;
use crate::observe::web::WebClient;

/// An answer takes so long at most.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of it.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It is there.
    There(String),
    /// It answers, and does not let us look.
    Forbidden(String),
    /// It cannot be reached, or is not there.
    Failed(String),
}

/// Whoever is told, or tells.
#[async_trait]
pub trait Channel: Send + Sync {
    /// What a look at it is, as a clause in the past.
    fn tried(&self) -> String;
    /// Looks.
    async fn look(&self) -> Looked;
}

/// Looks at a channel.
pub struct ChannelCheck {
    /// What it is, in a word.
    pub area: &'static str,
    /// The channel.
    pub channel: Arc<dyn Channel>,
    /// What to do when it cannot be reached.
    pub remedy: &'static str,
}

#[async_trait]
impl Check for ChannelCheck {
    fn area(&self) -> &'static str {
        self.area
    }

    async fn run(&self) -> Vec<Finding> {
        let tried = self.channel.tried();
        vec![match self.channel.look().await {
            Looked::There(found) => Finding::passed(self.area, tried, found),
            Looked::Forbidden(error) => Finding::warning(self.area, tried, error, self.remedy),
            Looked::Failed(error) => Finding::failed(self.area, tried, error, self.remedy),
        }]
    }
}

/// The door of an HTTPS server: its name is resolved, its certificate believed, its root asked for its head.
pub struct Door {
    /// Scheme, host and port alone: the rest may be a secret.
    root: Result<Uri, String>,
    web: Result<WebClient, String>,
}

impl Door {
    /// The door of the server at `address`, which is believed by the authorities of `ca_file` or the system's.
    #[must_use]
    pub fn at(
        address: Result<Uri, impl std::fmt::Display>,
        ca_file: Option<&Path>,
        clock: &SharedClock,
    ) -> Self {
        let root = |uri: Uri| {
            let root = Uri::builder()
                .scheme(uri.scheme_str().unwrap_or("https"))
                .authority(uri.authority().map_or("", |authority| authority.as_str()));
            root.path_and_query("/")
                .build()
                .map_err(|error| error.to_string())
        };
        let web = WebClient::new(ca_file, TIMEOUT, LONGEST_ANSWER, Arc::clone(clock));
        Self {
            root: address.map_err(|error| error.to_string()).and_then(root),
            web: web.map_err(|error| error.to_string()),
        }
    }

    async fn knock(&self) -> Result<String, String> {
        let root = self.root.clone()?;
        let web = self.web.as_ref().map_err(Clone::clone)?;
        let request = Request::head(root)
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let answer = web.send(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        Ok(format!(
            "it answers ({status} to a question for its root); nothing was told"
        ))
    }
}

#[async_trait]
impl Channel for Door {
    fn tried(&self) -> String {
        match &self.root {
            Ok(root) => format!("connected to {root}"),
            Err(_) => "looked where it is".to_owned(),
        }
    }

    async fn look(&self) -> Looked {
        self.knock().await.map_or_else(Looked::Failed, Looked::There)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use smartscale_proto::{check::Outcome, time::SystemClock};

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };
    use crate::tell::post::testing::Slackish;

    fn check(address: &str) -> ChannelCheck {
        let clock: SharedClock = Arc::new(SystemClock);
        let address = address.parse::<Uri>();
        ChannelCheck {
            area: "webhook",
            channel: Arc::new(Door::at(address, None, &clock)),
            remedy: "look whether the way there is open",
        }
    }

    #[tokio::test]
    async fn a_server_that_answers_is_not_told_anything_nor_shown_the_path() {
        let server = Slackish::start().await;
        let findings = check(&server.url("/services/T/B/secret")).run().await;
        assert_eq!(outcomes(&findings), [Outcome::Passed]);
        assert_eq!(server.lines(), ["HEAD /"]);
        assert!(!format!("{findings:?}").contains("secret"), "{findings:?}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_fails() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let findings = check(&format!("http://127.0.0.1:{port}/secret")).run().await;
        assert_eq!(outcomes(&findings), [Outcome::Failed]);
        says_what_to_do(&findings);
        assert!(!format!("{findings:?}").contains("secret"), "{findings:?}");
    }

    struct Closed;

    #[async_trait]
    impl Channel for Closed {
        fn tried(&self) -> String {
            "looked at the topic".to_owned()
        }

        async fn look(&self) -> Looked {
            Looked::Forbidden("AuthorizationError".to_owned())
        }
    }

    #[tokio::test]
    async fn what_may_not_be_looked_at_is_a_warning() {
        let check = ChannelCheck {
            area: "sns",
            channel: Arc::new(Closed),
            remedy: "look at the policy",
        };
        assert_eq!(outcomes(&check.run().await), [Outcome::Warning]);
    }
}
