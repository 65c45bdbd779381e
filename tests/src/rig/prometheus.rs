//! Prometheus, scraping every second an exporter whose figures the test sets.
//!
//! The exporter speaks as node-exporter does: CPU as seconds that grow, memory as bytes. A test says "node a is at
//! 80 %" and the counters grow from then on at that pace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::Router;
use axum::routing::get;

use super::process::{Process, Program};
use super::{Folder, cache, http, port, process, wait};

/// A Prometheus of the test's own and its exporter.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    exporter: Exporter,
}

/// The figures that Prometheus sees. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<String, Node>,
    samples: BTreeMap<String, f64>,
}

/// One node's counters, up to `since`.
#[derive(Debug)]
struct Node {
    cpu: f64,
    memory: f64,
    since: Instant,
    busy_s: f64,
    idle_s: f64,
}

/// What node-exporter would see of a machine with 8 GiB.
const MEMORY_BYTES: f64 = 8.0 * 1024.0 * 1024.0 * 1024.0;

impl Figures {
    /// From now on `node` uses these shares (0 to 1) of its CPU and memory.
    pub fn node(&self, node: &str, cpu: f64, memory: f64) {
        let mut inner = self.lock();
        let now = Instant::now();
        let entry = inner.nodes.entry(node.to_owned()).or_insert(Node {
            cpu,
            memory,
            since: now,
            busy_s: 0.0,
            idle_s: 0.0,
        });
        entry.advance(now);
        entry.cpu = cpu;
        entry.memory = memory;
    }

    /// Forgets a node: its series end.
    pub fn forget(&self, node: &str) {
        self.lock().nodes.remove(node);
    }

    /// Sets any other sample, such as `load{node="a"}`.
    pub fn sample(&self, series: &str, value: f64) {
        self.lock().samples.insert(series.to_owned(), value);
    }

    /// The exposition text, with counters up to now.
    fn text(&self) -> String {
        let mut inner = self.lock();
        let now = Instant::now();
        let mut text = String::new();
        for (name, node) in &mut inner.nodes {
            node.advance(now);
            let labels = format!("instance=\"{name}\",node=\"{name}\"");
            let available = MEMORY_BYTES * (1.0 - node.memory);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "node_cpu_seconds_total{{{labels},cpu=\"0\",mode=\"user\"}} {}",
                node.busy_s
            );
            let _ = writeln!(
                text,
                "node_cpu_seconds_total{{{labels},cpu=\"0\",mode=\"idle\"}} {}",
                node.idle_s
            );
            let _ = writeln!(text, "node_memory_MemTotal_bytes{{{labels}}} {MEMORY_BYTES}");
            let _ = writeln!(text, "node_memory_MemAvailable_bytes{{{labels}}} {available}");
            let _ = writeln!(text, "smartscale_rig_cpu_ratio{{{labels}}} {}", node.cpu);
            let _ = writeln!(text, "smartscale_rig_memory_ratio{{{labels}}} {}", node.memory);
        }
        for (series, value) in &inner.samples {
            let _ = writeln!(text, "{series} {value}");
        }
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    fn advance(&mut self, now: Instant) {
        let passed = now.duration_since(self.since).as_secs_f64();
        self.busy_s += passed * self.cpu;
        self.idle_s += passed * (1.0 - self.cpu);
        self.since = now;
    }
}

/// The exporter's server; it ends when dropped.
#[derive(Debug)]
struct Exporter {
    address: SocketAddr,
    figures: Figures,
    task: tokio::task::JoinHandle<()>,
}

impl Exporter {
    async fn start() -> anyhow::Result<Self> {
        let figures = Figures::default();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("bind the exporter")?;
        let address = listener.local_addr().context("read the exporter's port")?;
        let seen = figures.clone();
        let router = Router::new().route("/metrics", get(move || std::future::ready(seen.text())));
        let task = tokio::spawn(async move {
            // Accepting ends with the task; there is nobody to tell.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            figures,
            task,
        })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prometheus {
    /// Starts one with an empty exporter and waits until its target is up.
    ///
    /// # Errors
    /// It is not installed, or does not come up within 60 s.
    pub async fn start(folder: &Folder) -> anyhow::Result<Self> {
        let program = cache::installed("prometheus/usr/bin/prometheus")?;
        let exporter = Exporter::start().await?;
        let data = folder.sub("prometheus")?;
        // The exporter's own `instance` labels count, as with one node-exporter a node.
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: node\n    \
             honor_labels: true\n    static_configs:\n      - targets: ['{}']\n",
            exporter.address
        );
        let config = folder.write("prometheus.yaml", config)?;
        let attempt = || {
            let address = port::free()?;
            let program = Program::new("prometheus", &program)
                .flag("config.file", &config)
                .flag("storage.tsdb.path", &data)
                .flag("web.listen-address", address.to_string())
                .folder(folder.path());
            Ok((program, address))
        };
        let ready = async |address| {
            Ok(http::get(&format!("http://{address}/-/ready"))
                .await?
                .status
                .is_success())
        };
        let (process, address) = process::start(folder, Duration::from_secs(60), attempt, ready).await?;
        let prometheus = Self {
            process,
            address,
            exporter,
        };
        wait::until_true("the first scrape", Duration::from_secs(30), || async {
            Ok(prometheus.value("up{job=\"node\"}").await? == Some(1.0))
        })
        .await?;
        Ok(prometheus)
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The figures that the next scrapes see.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.exporter.figures
    }

    /// The process, to stop, pause or start it again.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The value of a query's first result now; `None` when it has none.
    ///
    /// # Errors
    /// Prometheus does not answer or refuses the query.
    pub async fn value(&self, query: &str) -> anyhow::Result<Option<f64>> {
        let url = format!("{}/api/v1/query", self.url());
        let body = format!("query={}", encode(query));
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http::send("POST", &url, &form, body).await?.json()?;
        if answer["status"] != "success" {
            bail!("query {query}: {answer}");
        }
        let value = &answer["data"]["result"][0]["value"][1];
        value
            .as_str()
            .map(|text| text.parse().context("parse the value"))
            .transpose()
    }
}

/// Percent-encoding of everything but letters and digits.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
