//! The other opinion: `kube-scheduler-judge`, kube-scheduler's own filter plugins in a process of their own.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use smartscale_tests::rig::cache;

/// One cluster with questions, answered in order.
#[derive(Serialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) objects: Vec<Value>,
    pub(crate) steps: Vec<Step>,
}

/// A change of the cluster, or a question.
#[derive(Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// A node joins, with its DaemonSets' pods.
    Add(Value),
    /// A node joins and stays bare: it opens domains, and nothing else.
    Bare(Value),
    /// A node goes, and its pods wait.
    Remove(String),
    /// May the pod go there? It goes there whatever the answer.
    Place { pod: String, node: String },
    /// May the pod go onto nodes that do not exist, each by itself?
    Ask { pod: String, nodes: Vec<Value> },
    /// May the pod go onto these nodes of the cluster?
    AskThere { pod: String, nodes: Vec<String> },
}

#[derive(Deserialize)]
pub(crate) struct Answer {
    id: Value,
    steps: Option<Vec<StepAnswer>>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
pub(crate) struct StepAnswer {
    /// For each node that was asked for, what refuses.
    #[serde(default)]
    pub(crate) nodes: Vec<Option<Vec<Refusal>>>,
}

/// A plugin that refuses, with what it says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) plugin: String,
    pub(crate) reasons: Vec<String>,
}

/// The running program.
pub(crate) struct Judge {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Judge {
    pub(crate) fn start() -> Self {
        let program = cache::installed("bin/kube-scheduler-judge").expect("the judge");
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kube-scheduler-judge starts");
        let stdin = child.stdin.take().expect("its standard input");
        let stdout = BufReader::new(child.stdout.take().expect("its standard output"));
        Self { child, stdin, stdout }
    }

    /// The answers to a job's steps.
    ///
    /// # Errors
    /// An object is none that an API server would have taken, or the program has ended.
    pub(crate) fn answer(&mut self, job: &Job) -> Result<Vec<StepAnswer>, String> {
        let mut line = serde_json::to_string(job).map_err(|error| error.to_string())?;
        line.push('\n');
        self.stdin
            .write_all(line.as_bytes())
            .map_err(|error| format!("the judge has ended: {error}"))?;
        line.clear();
        self.stdout
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        let answer: Answer = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
        if !answer.error.is_empty() {
            return Err(answer.error);
        }
        let steps = answer.steps.unwrap_or_default();
        if answer.id != job.id || steps.len() != job.steps.len() {
            return Err("the judge answers another question".to_owned());
        }
        Ok(steps)
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
