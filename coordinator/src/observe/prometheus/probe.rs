//! What each query comes to, for `check`: an answer without a figure is no problem to the loop, and is one to people.

use async_trait::async_trait;

use super::{Each, Prometheus};
use crate::check::metrics::{Asked, Queries};

impl Prometheus {
    async fn figure(&self, query: &'static str, promql: Option<&String>) -> Option<Asked> {
        let figure = self.one(query, promql).await;
        Some(Asked {
            query,
            promql: promql?.clone(),
            figures: figure.map(|figure| usize::from(figure.is_some())),
        })
    }

    async fn figures(&self, query: &'static str, promql: Option<&String>) -> Option<Asked> {
        let Each { figures, problems } = self.each(query, promql).await;
        Some(Asked {
            query,
            promql: promql?.clone(),
            figures: if problems.is_empty() {
                Ok(figures.values().flatten().count())
            } else {
                Err(problems.join("; "))
            },
        })
    }
}

#[async_trait]
impl Queries for Prometheus {
    async fn ask_each(&self) -> Vec<Asked> {
        let queries = &self.queries;
        let (cpu, memory, node_cpu, node_memory) = tokio::join!(
            self.figure("cpu", queries.cpu.as_ref()),
            self.figure("memory", queries.memory.as_ref()),
            self.figures("node_cpu", queries.node_cpu.as_ref()),
            self.figures("node_memory", queries.node_memory.as_ref()),
        );
        [cpu, memory, node_cpu, node_memory]
            .into_iter()
            .flatten()
            .collect()
    }
}
