//! What holds for every text: the readers take it or say where it is wrong, and what they take can be planned.

use std::fmt;

use smartscale_manifests::{Kind, Object, Objects, read};
use smartscale_planner::{
    Plan, Policy, Snapshot, fixtures,
    snapshot::{InputError, Metrics, State},
};

use crate::corpus::{Case, Part};

/// What became of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was nothing to read.
    Nothing,
    /// It was wrong, and it was said where.
    Refused,
    /// A plan was made from it.
    Planned,
}

/// How many of each.
#[derive(Default)]
pub(crate) struct Tally {
    nothing: u64,
    refused: u64,
    pub(crate) planned: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => self.nothing += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Planned => self.planned += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} planned, {} refused, {} without an object",
            self.planned, self.refused, self.nothing
        )
    }
}

/// Reads the text as this part of the case, and plans.
pub(crate) fn read(case: &Case, part: Part, text: &str) -> Outcome {
    let given = |asked: Part| if part == asked { text } else { case.text(asked) };
    let (policy, _) = match Policy::from_toml(given(Part::Policy)) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(part == Part::Policy, "{error}");
            assert!(!error.path.is_empty() && !error.message.is_empty(), "{error:?}");
            return Outcome::Refused;
        }
    };
    let objects = match part {
        Part::Json => json(text),
        Part::Yaml => read::objects(text, read::Format::Yaml),
        _ => read::objects(&case.yaml, read::Format::Yaml),
    };
    let objects = match objects {
        Ok(objects) => objects,
        Err(error) => {
            assert!(matches!(part, Part::Yaml | Part::Json), "{error}");
            assert!(is_placed(&error), "{error:?}");
            return Outcome::Refused;
        }
    };
    if objects.is_empty() {
        return Outcome::Nothing;
    }
    let mut all = Objects::default();
    for object in objects {
        all.apply(object);
    }
    let is_bad = all.bad().count() > 0;
    for bad in all.bad() {
        assert!(!bad.path.is_empty() && !bad.message.is_empty(), "{bad:?}");
    }
    let metrics = match Metrics::from_json(given(Part::Metrics)) {
        Ok(metrics) => metrics,
        Err(error) => return refused(part == Part::Metrics, &error),
    };
    let state = match State::from_json(given(Part::State), &policy.cluster_id) {
        Ok(state) => state,
        // Of a case's own state only its cluster can be wrong, in a policy that was edited.
        Err(error) => return refused(part == Part::State || error.path == "cluster_id", &error),
    };
    // What a watch cannot understand is held still, and planned with as well.
    let snapshot = Snapshot {
        cluster: all.to_cluster(fixtures::now()).0,
        metrics,
        state,
    };
    let plan = smartscale_planner::plan(&snapshot, &policy, fixtures::now());
    let written = serde_json::to_string(&plan).unwrap();
    let again: Plan = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
    if is_bad {
        Outcome::Refused
    } else {
        Outcome::Planned
    }
}

fn refused(may_be: bool, error: &InputError) -> Outcome {
    assert!(may_be, "{error}");
    assert!(!error.path.is_empty() && !error.message.is_empty(), "{error:?}");
    Outcome::Refused
}

/// Read as a whole and object by object, which must agree.
fn json(text: &str) -> Result<Vec<Object>, read::ReadError> {
    let mut one_by_one = Vec::new();
    let streamed = read::each_of_json(text.as_bytes(), |object| one_by_one.push(object));
    let whole = read::objects(text, read::Format::Json);
    match (&streamed, &whole) {
        (Ok(()), Ok(objects)) => assert_eq!(&one_by_one, objects),
        (Err(streamed), Err(whole)) => assert_eq!(streamed.message, whole.message),
        _ => panic!("object by object {streamed:?}, as a whole {:?}", whole.err()),
    }
    whole
}

/// The error says where: line and column, or the object and the path.
fn is_placed(error: &read::ReadError) -> bool {
    let names_object = || {
        let kind = error.message.split(' ').next().unwrap_or_default();
        kind == "object" || Kind::of(None, kind).is_some()
    };
    !error.message.is_empty() && (error.position.is_some() || names_object())
}
