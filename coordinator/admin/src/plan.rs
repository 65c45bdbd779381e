//! `smartscale plan`: tries a policy on a cluster that lies in files. Nothing is contacted.
//!
//! ```text
//! -f … ─▶ manifests ─▶ cluster ─┐              ┌─ the plan
//! --metrics --state ────────────┼─▶ planner ─▶ ┼─ --why --why-node: answers about pods and nodes instead ─▶ table, JSON, YAML
//! --policy ─────────────────────┘              └─ --against: what is different from an earlier plan instead
//! ```
//!
//! Exit codes: 0 a plan was made (also one that does nothing, or differs), 1 it could not be written, 2 bad usage or input.

mod answers;
mod difference;
mod layout;
mod names;
mod table;

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::Timestamp;
use smartscale_manifests::{Objects, read};
use smartscale_planner::{
    Plan, Policy, Snapshot,
    explain::{self, Answers, Difference, Questions, Unknown},
    model::{Cluster, NodeName, PodKey},
    snapshot::{Metrics, State},
};

use super::input::{BadInput, text};

/// What `smartscale plan` is asked.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PlanArgs {
    /// Objects of the cluster: files or folders of what `kubectl get nodes,pods,… -A -o yaml` (or json) prints, `-` for
    /// standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The policy to try
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// What agents and Prometheus would have said; without it metrics are unknown
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
    /// What happened before: the state item
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// The moment of the decision, RFC 3339; default: the present
    #[arg(long, value_name = "TIME")]
    pub(crate) now: Option<Timestamp>,
    /// Explains a pod instead of printing the plan: NAMESPACE/NAME, or the name of one in `default`; may be repeated
    #[arg(long, value_name = "POD", value_parser = pod_key)]
    pub(crate) why: Vec<PodKey>,
    /// Explains a node instead of printing the plan; may be repeated
    #[arg(long, value_name = "NODE")]
    pub(crate) why_node: Vec<NodeName>,
    /// Prints what is different from an earlier plan, the output of `-o json`, instead of the plan
    #[arg(long, value_name = "FILE", conflicts_with_all = ["why", "why_node"])]
    pub(crate) against: Option<PathBuf>,
    /// How the plan, the answers or the difference are printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// Forms of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For machines.
    Json,
    /// For machines and people.
    Yaml,
}

/// A pod's name as people type it.
fn pod_key(text: &str) -> Result<PodKey, String> {
    if !text.is_empty() && !text.contains('/') {
        return Ok(PodKey::new("default", text));
    }
    text.parse()
        .map_err(|error: smartscale_planner::model::NotAPodKey| error.to_string())
}

/// A plan and what is worth a warning.
#[derive(Debug)]
pub(crate) struct Decided {
    /// The plan.
    pub(crate) plan: Plan,
    /// Answers to `--why` and `--why-node`, if anything was asked.
    pub(crate) answers: Option<Answers>,
    /// What is different from the plan of `--against`.
    pub(crate) difference: Option<Difference>,
    /// Oddities of the policy.
    pub(crate) warnings: Vec<String>,
}

/// Reads, decides and prints.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the command line hands its arguments over"
)]
pub(crate) fn run(args: PlanArgs) -> ExitCode {
    let decided = match decide(&args, &mut io::stdin()) {
        Ok(decided) => decided,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    for warning in &decided.warnings {
        eprintln!("warning: {warning}");
    }
    let printed = show(&decided, args.output).and_then(|text| {
        io::stdout()
            .lock()
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string())
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the plan could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads everything and decides.
///
/// # Errors
/// The first input that cannot be used.
pub(crate) fn decide(args: &PlanArgs, stdin: &mut impl Read) -> Result<Decided, BadInput> {
    let shown = |path: &Path| path.display().to_string();
    let (policy, warnings) =
        Policy::from_toml(&text(&args.policy)?).map_err(|error| BadInput::new(shown(&args.policy), error))?;
    let now = args.now.unwrap_or_else(Timestamp::now);
    let mut objects = Objects::default();
    for file in &args.files {
        take_up(file, stdin, &mut objects)?;
    }
    let metrics = match &args.metrics {
        Some(path) => Metrics::from_json(&text(path)?).map_err(|error| BadInput::new(shown(path), error))?,
        None => Metrics::default(),
    };
    let state = match &args.state {
        Some(path) => State::from_json(&text(path)?, &policy.cluster_id)
            .map_err(|error| BadInput::new(shown(path), error))?,
        None => State::default(),
    };
    let (cluster, _) = objects.to_cluster(now);
    drop(objects);
    let before = match &args.against {
        Some(path) => Some(Plan::from_json(&text(path)?).map_err(|error| {
            let message = format!("{error}: expected what `smartscale plan -o json` printed");
            BadInput::new(shown(path), message)
        })?),
        None => None,
    };
    let snapshot = Snapshot {
        cluster,
        metrics,
        state,
    };
    let questions = Questions {
        pods: args.why.clone(),
        nodes: args.why_node.clone(),
    };
    let (plan, answers) = explain::explain(&snapshot, &policy, now, &questions)
        .map_err(|unknown| not_there(&unknown, &snapshot.cluster))?;
    let asked = !questions.pods.is_empty() || !questions.nodes.is_empty();
    let warnings = warnings
        .iter()
        .map(|warning| format!("{}: {warning}", shown(&args.policy)))
        .collect();
    Ok(Decided {
        difference: before.map(|before| Difference::of(&before, &plan)),
        plan,
        answers: asked.then_some(answers),
        warnings,
    })
}

fn not_there(unknown: &Unknown, cluster: &Cluster) -> BadInput {
    let (option, meant) = match unknown {
        Unknown::Pod(key) => {
            let pods: Vec<String> = cluster.pods.iter().map(|pod| pod.key.to_string()).collect();
            let meant = names::meant(&key.to_string(), pods.iter().map(String::as_str));
            ("--why", meant)
        }
        Unknown::Node(name) => {
            let nodes = cluster.nodes.iter().map(|node| node.name.as_str());
            ("--why-node", names::meant(name.as_str(), nodes))
        }
    };
    BadInput::new(option, format!("{unknown}{meant}"))
}

/// What was asked for as text: the plan, the answers or the difference.
///
/// # Errors
/// If it cannot be serialized.
pub(crate) fn show(decided: &Decided, output: Output) -> Result<String, String> {
    match (&decided.answers, &decided.difference) {
        (Some(answers), _) => written(answers, output, answers::of),
        (None, Some(difference)) => written(difference, output, difference::of),
        (None, None) => render(&decided.plan, output),
    }
}

/// The plan as text, with a newline at its end.
///
/// # Errors
/// If the plan cannot be serialized.
pub(crate) fn render(plan: &Plan, output: Output) -> Result<String, String> {
    written(plan, output, table::of)
}

fn written<T: serde::Serialize>(
    value: &T,
    output: Output,
    table: impl Fn(&T) -> String,
) -> Result<String, String> {
    match output {
        Output::Table => Ok(table(value)),
        Output::Json => serde_json::to_string_pretty(value)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string()),
        Output::Yaml => serde_saphyr::to_string(value).map_err(|error| error.to_string()),
    }
}

/// Takes up the objects of a file, of the files in a folder (not deeper), or of standard input.
fn take_up(path: &Path, stdin: &mut impl Read, objects: &mut Objects) -> Result<(), BadInput> {
    if path == Path::new("-") {
        let mut text = String::new();
        stdin
            .read_to_string(&mut text)
            .map_err(|error| BadInput::new("standard input", error))?;
        return apply("standard input", &text, read::Format::Unknown, objects);
    }
    if path.is_dir() {
        let unreadable = |error: io::Error| BadInput::new(path.display(), error);
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)
            .map_err(unreadable)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        files.retain(|file| format_of(file).is_some() && file.is_file());
        files.sort();
        return files.iter().try_for_each(|file| take_up(file, stdin, objects));
    }
    let format = format_of(path).unwrap_or(read::Format::Unknown);
    let place = path.display().to_string();
    if format == read::Format::Json
        && let Ok(file) = std::fs::File::open(path)
        && read::each_of_json(io::BufReader::new(file), |object| objects.apply(object)).is_ok()
    {
        return refuse_bad(&place, objects);
    }
    // What could not be read object by object is read as a whole, which says best what is wrong.
    apply(&place, &text(path)?, format, objects)
}

fn apply(place: &str, text: &str, format: read::Format, objects: &mut Objects) -> Result<(), BadInput> {
    for object in read::objects(text, format).map_err(|error| BadInput::new(place, error))? {
        objects.apply(object);
    }
    refuse_bad(place, objects)
}

/// What is wrong is wrong in this file: what came before was fine.
fn refuse_bad(place: &str, objects: &Objects) -> Result<(), BadInput> {
    objects
        .bad()
        .next()
        .map_or(Ok(()), |bad| Err(BadInput::new(place, bad)))
}

fn format_of(path: &Path) -> Option<read::Format> {
    match path.extension()?.to_str()? {
        "json" => Some(read::Format::Json),
        "yaml" | "yml" => Some(read::Format::Yaml),
        _ => None,
    }
}
