//! Prometheus: whether it answers, and which of the configured queries return nothing that can be used.

use std::sync::Arc;

use async_trait::async_trait;
use smartscale_proto::check::Finding;

use super::Check;

const AREA: &str = "prometheus";

/// What a query came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its key below `prometheus.queries`.
    pub query: &'static str,
    /// Its PromQL, filled in.
    pub promql: String,
    /// How many figures can be used, or what is wrong with the answer.
    pub figures: Result<usize, String>,
}

/// Who runs the queries.
#[async_trait]
pub trait Queries: Send + Sync {
    /// Runs each.
    async fn ask_each(&self) -> Vec<Asked>;
}

/// Runs the queries.
pub struct MetricsCheck {
    /// Who runs them.
    pub queries: Arc<dyn Queries>,
    /// The label that has to carry the node's name.
    pub node_label: String,
}

#[async_trait]
impl Check for MetricsCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let asked = self.queries.ask_each().await;
        asked.into_iter().map(|asked| self.judge(asked)).collect()
    }
}

impl MetricsCheck {
    fn judge(&self, asked: Asked) -> Finding {
        let Asked {
            query,
            promql,
            figures,
        } = asked;
        let tried = format!("ran query {query}, {promql}");
        let label = &self.node_label;
        match figures {
            Ok(0) => Finding::failed(
                AREA,
                tried,
                "nothing came back",
                format!(
                    "have node-exporter scraped with the label `{label}` (packaging/kubernetes/monitoring does), wait two minutes after \
                     the first scrape, or set prometheus.queries.{query}"
                ),
            ),
            Ok(1) => Finding::passed(AREA, tried, "one figure"),
            Ok(count) => Finding::passed(AREA, tried, format!("{count} figures")),
            Err(error) => Finding::failed(
                AREA,
                tried,
                error,
                format!(
                    "look at prometheus.url, prometheus.queries.{query} and prometheus.queries.node_label"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use smartscale_proto::check::Outcome;

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };

    struct Answers;

    #[async_trait]
    impl Queries for Answers {
        async fn ask_each(&self) -> Vec<Asked> {
            let asked = |query, figures| Asked {
                query,
                promql: "avg(x)".to_owned(),
                figures,
            };
            vec![
                asked("cpu", Ok(1)),
                asked("memory", Ok(0)),
                asked("node_cpu", Ok(12)),
                asked(
                    "node_memory",
                    Err("3 of 3 series have no label `node`".to_owned()),
                ),
            ]
        }
    }

    #[tokio::test]
    async fn a_query_that_returns_nothing_or_nothing_of_use_fails_with_its_key() {
        let check = MetricsCheck {
            queries: Arc::new(Answers),
            node_label: "node".to_owned(),
        };
        let findings = check.run().await;
        use Outcome::{Failed, Passed};
        assert_eq!(outcomes(&findings), [Passed, Failed, Passed, Failed]);
        says_what_to_do(&findings);
        assert!(
            findings[1].remedy.contains("prometheus.queries.memory"),
            "{findings:?}"
        );
    }
}
