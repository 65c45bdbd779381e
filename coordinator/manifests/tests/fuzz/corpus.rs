//! Where mutation starts: the planner's golden cases, the cluster in JSON too.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// The files of `smartscale plan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Yaml,
    Json,
    Policy,
    Metrics,
    State,
}

impl Part {
    fn file(self) -> &'static str {
        match self {
            Self::Yaml | Self::Json => "cluster.yaml",
            Self::Policy => "policy.toml",
            Self::Metrics => "metrics.json",
            Self::State => "state.json",
        }
    }

    /// How files of this part are called in `kept/`: `what-is-wrong.EXTENSION`.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Json => "json",
            Self::Policy => "toml",
            Self::Metrics => "metrics.json",
            Self::State => "state.json",
        }
    }

    fn of(name: &str) -> Option<Self> {
        let all = [Self::Metrics, Self::State, Self::Yaml, Self::Json, Self::Policy];
        all.into_iter()
            .find(|part| name.ends_with(&format!(".{}", part.extension())))
    }
}

/// All input of one golden case.
#[derive(Debug, Default)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) yaml: String,
    json: String,
    pub(crate) policy: String,
    pub(crate) metrics: Option<String>,
    pub(crate) state: Option<String>,
}

impl Case {
    pub(crate) fn text(&self, part: Part) -> &str {
        match part {
            Part::Yaml => &self.yaml,
            Part::Json => &self.json,
            Part::Policy => &self.policy,
            Part::Metrics => self.metrics.as_deref().unwrap_or("{}"),
            Part::State => self.state.as_deref().unwrap_or("{}"),
        }
    }
}

/// The cases, by part those that have it.
pub(crate) struct Corpus {
    all: Vec<Case>,
    with_metrics: usize,
    with_state: usize,
}

impl Corpus {
    pub(crate) fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../planner/tests/cases");
        let mut folders: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        folders.sort();
        let text = |case: &Path, part: Part| fs::read_to_string(case.join(part.file())).ok();
        let mut all: Vec<Case> = folders
            .iter()
            .map(|case| {
                let yaml = text(case, Part::Yaml).unwrap();
                Case {
                    name: case.file_name().unwrap().to_string_lossy().into_owned(),
                    json: as_json(&yaml),
                    yaml,
                    policy: text(case, Part::Policy).unwrap(),
                    metrics: text(case, Part::Metrics),
                    state: text(case, Part::State),
                }
            })
            .collect();
        // Those with both first, then those with metrics alone; of the others each part has its fill.
        all.sort_by_key(|case| (case.metrics.is_none(), case.state.is_none()));
        let with_metrics = all.iter().filter(|case| case.metrics.is_some()).count();
        let with_state = all
            .iter()
            .filter(|case| case.state.is_some() && case.metrics.is_some())
            .count();
        Self {
            all,
            with_metrics,
            with_state,
        }
    }

    pub(crate) fn cases(&self, part: Part) -> &[Case] {
        match part {
            Part::Metrics => &self.all[..self.with_metrics],
            Part::State => &self.all[..self.with_state],
            _ => &self.all,
        }
    }

    pub(crate) fn all(&self) -> &[Case] {
        &self.all
    }
}

fn as_json(yaml: &str) -> String {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

/// Files that failed once: their part, name and text.
pub(crate) fn kept() -> Vec<(Part, String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/kept");
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let part = Part::of(&name).unwrap_or_else(|| panic!("{name} is of no part"));
            (part, name, fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort_by(|a, b| a.1.cmp(&b.1));
    all
}
