//! Utilisation from Prometheus: instant queries whose PromQL stands in the configuration.
//!
//! The answer is judged strictly. No series, or one that is NaN (which PromQL answers where there is nothing to
//! divide), is *unknown*; several series where one is expected, a negative or infinite value or anything that is no
//! answer at all is a problem that names the query. Neither is ever taken for zero, and one bad query does not
//! spoil the others.

mod probe;
mod range;
mod server;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use smartscale_planner::model::NodeName;
use smartscale_proto::time::SharedClock;

use self::server::{Data, Series};
pub use self::{
    range::{Range, Samples},
    server::Server,
};
use super::{MetricsError, MetricsReading, MetricsSource};

/// Where Prometheus is and what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `http://HOST:PORT`, with a path where Prometheus has a prefix.
    pub url: String,
    /// The questions.
    pub queries: Queries,
    /// The label that carries a node's name in the answers to `node_cpu` and `node_memory`.
    pub node_label: String,
    /// How the label's value is made of the node's name (`$node`): `$node:9100` where it carries a port.
    pub node_template: String,
    /// What `$window` stands for in a query.
    pub window: Duration,
    /// What `$cluster` stands for in a query.
    pub cluster_id: String,
    /// How long one answer may take.
    pub timeout: Duration,
    /// How large an answer may be, in bytes.
    pub most_bytes: usize,
    /// How to prove oneself.
    pub auth: Auth,
    /// Authorities to trust instead of the system's, as PEM.
    pub ca_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:30090".into(),
            queries: Queries::default(),
            node_label: "node".into(),
            node_template: "$node".into(),
            window: Duration::from_secs(120),
            cluster_id: String::new(),
            timeout: Duration::from_secs(5),
            most_bytes: 8 << 20,
            auth: Auth::None,
            ca_file: None,
        }
    }
}

/// PromQL of each figure, answered in percent; `None` is not asked. `$window` and `$cluster` are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// Cluster average of CPU: one series.
    pub cpu: Option<String>,
    /// Cluster average of memory: one series.
    pub memory: Option<String>,
    /// CPU of each node: one series a node.
    pub node_cpu: Option<String>,
    /// Memory of each node: one series a node.
    pub node_memory: Option<String>,
}

impl Default for Queries {
    /// For node-exporter as it is usually scraped, with the node's name in the label `node`.
    fn default() -> Self {
        let some = |text: &str| Some(text.to_owned());
        Self {
            cpu: some(r#"100 * (1 - avg(rate(node_cpu_seconds_total{mode="idle"}[$window])))"#),
            memory: some("100 * (1 - sum(node_memory_MemAvailable_bytes) / sum(node_memory_MemTotal_bytes))"),
            node_cpu: some(
                r#"100 * (1 - avg by (node) (rate(node_cpu_seconds_total{mode="idle"}[$window])))"#,
            ),
            node_memory: some(
                "100 * (1 - sum by (node) (node_memory_MemAvailable_bytes) / sum by (node) (node_memory_MemTotal_bytes))",
            ),
        }
    }
}

/// How the coordinator proves itself to Prometheus. Files are read at each call, so that they may rotate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// A bearer token, in a file.
    BearerFile(PathBuf),
    /// Basic authentication, the password in a file.
    Basic {
        /// The user.
        user: String,
        /// The file.
        password_file: PathBuf,
    },
}

/// Settings that cannot be used: the key, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct BadSettings {
    /// The key below `prometheus`.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// The figures that a Prometheus server has.
#[derive(Debug)]
pub struct Prometheus {
    server: Server,
    queries: Queries,
    node_label: String,
    node_template: (String, String),
}

impl Prometheus {
    /// A server as the settings say. Nothing is contacted.
    ///
    /// # Errors
    /// [`BadSettings`] naming the key.
    pub fn new(settings: &Settings, clock: SharedClock) -> Result<Self, BadSettings> {
        let bad = |key, reason: String| BadSettings { key, reason };
        let server = Server::new(settings, clock)?;
        if settings.node_label.is_empty() {
            return Err(bad(
                "queries.node_label",
                "is empty; `node` or `instance` would do".into(),
            ));
        }
        let node_template = settings
            .node_template
            .split_once("$node")
            .map(|(before, after)| (before.to_owned(), after.to_owned()))
            .ok_or_else(|| {
                bad(
                    "queries.node_template",
                    format!("`{}` does not contain `$node`", settings.node_template),
                )
            })?;
        let fill = |key, query: &Option<String>| -> Result<Option<String>, BadSettings> {
            query
                .as_deref()
                .map(|text| fill(text, settings))
                .transpose()
                .map_err(|reason| bad(key, reason))
        };
        let queries = Queries {
            cpu: fill("queries.cpu", &settings.queries.cpu)?,
            memory: fill("queries.memory", &settings.queries.memory)?,
            node_cpu: fill("queries.node_cpu", &settings.queries.node_cpu)?,
            node_memory: fill("queries.node_memory", &settings.queries.node_memory)?,
        };
        if queries
            == (Queries {
                cpu: None,
                memory: None,
                node_cpu: None,
                node_memory: None,
            })
        {
            return Err(bad(
                "queries",
                "nothing is asked; leave out [prometheus] to do without".into(),
            ));
        }
        Ok(Self {
            server,
            queries,
            node_label: settings.node_label.clone(),
            node_template,
        })
    }

    /// One figure of the cluster.
    async fn one(&self, name: &str, query: Option<&String>) -> Result<Option<f64>, String> {
        let Some(query) = query else { return Ok(None) };
        let found = self.ask(query).await.and_then(|answer| match answer.as_slice() {
            [] => Ok(None),
            [series] => series.figure(),
            several => Err(format!(
                "answered with {} series where one is expected; an aggregation such as avg() makes one of them",
                several.len()
            )),
        });
        found.map_err(|reason| format!("query `{name}`: {reason}"))
    }

    /// One figure of each node.
    async fn each(&self, name: &str, query: Option<&String>) -> Each {
        let mut each = Each::default();
        let Some(query) = query else { return each };
        let answer = match self.ask(query).await {
            Ok(answer) => answer,
            Err(reason) => {
                each.problems.push(format!("query `{name}`: {reason}"));
                return each;
            }
        };
        let mut nameless = 0_usize;
        let mut doubled = Vec::new();
        for series in &answer {
            let Some(node) = self.node_of(series) else {
                nameless += 1;
                continue;
            };
            match series.figure() {
                Ok(figure) => {
                    if each.figures.insert(node.clone(), figure).is_some() {
                        doubled.push(node);
                    }
                }
                Err(reason) => each
                    .problems
                    .push(format!("query `{name}`, node {node}: {reason}")),
            }
        }
        for node in doubled {
            // Which of the two would be right nobody knows.
            each.figures.remove(&node);
            each.problems
                .push(format!("query `{name}`: more than one series for node {node}"));
        }
        if nameless > 0 {
            each.problems.push(format!(
                "query `{name}`: {nameless} of {} series have no label `{}` of the form `{}$node{}`",
                answer.len(),
                self.node_label,
                self.node_template.0,
                self.node_template.1
            ));
        }
        each
    }

    fn node_of(&self, series: &Series) -> Option<NodeName> {
        let label = series.metric.get(&self.node_label)?;
        let name = label
            .strip_prefix(&self.node_template.0)?
            .strip_suffix(&self.node_template.1)?;
        (!name.is_empty()).then(|| NodeName::from(name))
    }

    async fn ask(&self, query: &str) -> Result<Vec<Series>, String> {
        at_once(self.server.ask("query", &[("query", query)]).await?)
    }
}

#[derive(Default)]
struct Each {
    figures: BTreeMap<NodeName, Option<f64>>,
    problems: Vec<String>,
}

#[async_trait]
impl MetricsSource for Prometheus {
    async fn read(&self) -> Result<MetricsReading, MetricsError> {
        let queries = &self.queries;
        let (cpu, memory, node_cpu, node_memory) = tokio::join!(
            self.one("cpu", queries.cpu.as_ref()),
            self.one("memory", queries.memory.as_ref()),
            self.each("node_cpu", queries.node_cpu.as_ref()),
            self.each("node_memory", queries.node_memory.as_ref()),
        );
        let mut problems = Vec::new();
        let mut take = |figure: Result<Option<f64>, String>| {
            figure.unwrap_or_else(|problem| {
                problems.push(problem);
                None
            })
        };
        let (cpu_percent, memory_percent) = (take(cpu), take(memory));
        problems.extend(node_cpu.problems);
        problems.extend(node_memory.problems);
        let mut nodes: BTreeMap<NodeName, (Option<f64>, Option<f64>)> = BTreeMap::new();
        for (node, figure) in node_cpu.figures {
            nodes.entry(node).or_default().0 = figure;
        }
        for (node, figure) in node_memory.figures {
            nodes.entry(node).or_default().1 = figure;
        }
        let nothing = cpu_percent.is_none() && memory_percent.is_none() && nodes.is_empty();
        if nothing && !problems.is_empty() {
            problems.dedup_by_key(|problem| problem.split_once(": ").map(|(_, reason)| reason.to_owned()));
            return Err(MetricsError(problems.join("; ")));
        }
        Ok(MetricsReading {
            cpu_percent,
            memory_percent,
            nodes,
            problems,
        })
    }
}

/// Fills `$window` and `$cluster` in; another `$name` is an error. A `$` that no letter follows stays (regular
/// expressions end with one).
fn fill(query: &str, settings: &Settings) -> Result<String, String> {
    if query.trim().is_empty() {
        return Err("is empty".into());
    }
    let mut filled = String::with_capacity(query.len());
    let mut rest = query;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let length = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        match &after[..length] {
            "" => filled.push('$'),
            "window" => filled.push_str(&format!("{}s", settings.window.as_secs().max(1))),
            "cluster" => filled.push_str(&settings.cluster_id),
            other => {
                return Err(format!(
                    "`${other}` is unknown; `$window` and `$cluster` are known"
                ));
            }
        }
        rest = &after[length..];
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The series of an instant query.
fn at_once(data: Data) -> Result<Vec<Series>, String> {
    match data {
        Data::Vector(series) => Ok(series),
        Data::Scalar(value) => Ok(vec![Series {
            metric: BTreeMap::new(),
            value: Some(value),
        }]),
        Data::Matrix(_) | Data::String(_) => {
            Err("answered with no instant vector; a range needs an aggregation over time".into())
        }
    }
}

impl Series {
    /// The value as a percentage; `None` is unknown.
    fn figure(&self) -> Result<Option<f64>, String> {
        let Some((_, text)) = &self.value else {
            return Err("a series without a single value (a histogram?)".into());
        };
        let value = server::number(text)?;
        if value.is_nan() {
            return Ok(None);
        }
        if value.is_infinite() || value < 0.0 {
            return Err(format!("{value} is no percentage"));
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
