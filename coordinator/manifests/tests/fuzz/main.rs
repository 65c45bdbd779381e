//! Fuzzing: files that are almost right. Whatever stands in the files of `smartscale plan`, its readers neither panic nor
//! hang nor take memory without bound, say where it is wrong, and what they take can be planned.
//!
//! ```text
//! golden cases of the planner ─▶ edits (edit.rs) ─▶ text ─▶ readers and planner (readers.rs) under a watch (watch.rs)
//! kept/ ─────────────────────────────────────────────┘
//! ```
//!
//! A normal run tries the same inputs every time, so that it fails for the change that made it fail. `make fuzz` tries
//! others each time, for `SMARTSCALE_FUZZ_SECONDS` a target. What fails is shrunk and written to a file; once the mistake
//! is corrected the file goes to `kept/`, named after what is wrong with it, and is tried in every run from then on.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

mod corpus;
mod edit;
mod readers;
mod watch;

use std::time::{Duration, Instant};

use corpus::{Corpus, Part};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use readers::Outcome;

/// Inputs of a target in a normal run.
const CASES: u32 = 400;
/// Edits of one input at most.
const EDITS: usize = 4;

/// Tries mutated files of one part; the other parts are as in the case they come from.
fn fuzz(part: Part) {
    let corpus = Corpus::read();
    let edits = (
        any::<prop::sample::Index>(),
        prop::collection::vec(edit::one(), 1..=EDITS),
    );
    let seconds: Option<u64> = std::env::var("SMARTSCALE_FUZZ_SECONDS")
        .ok()
        .map(|text| text.parse().expect("SMARTSCALE_FUZZ_SECONDS is a number"));
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or_default());
    let mut tally = readers::Tally::default();
    loop {
        let seed: [u8; 32] = match seconds {
            Some(_) => std::array::from_fn(|_| rand_byte()),
            None => *b"the same inputs in every test ru",
        };
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            max_shrink_iters: 2_000,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let counted = std::cell::RefCell::new(&mut tally);
        let result = runner.run(&edits, |(index, edits)| {
            let case = index.get(corpus.cases(part));
            let text = edit::apply(case.text(part), &edits, &corpus);
            let outcome = watch::watched(part, &text, || readers::read(case, part, &text));
            counted.borrow_mut().add(outcome);
            Ok(())
        });
        if let Err(TestError::Fail(reason, (index, edits))) = &result {
            let case = index.get(corpus.cases(part));
            let text = edit::apply(case.text(part), edits, &corpus);
            let file = watch::keep(part, &text);
            panic!("{reason}\ncase {}, input {}", case.name, file.display());
        }
        result.unwrap();
        if Instant::now() >= end {
            break;
        }
    }
    eprintln!("{part:?}: {tally}");
    assert!(tally.planned > 0, "the edits leave nothing that can be read");
}

/// From the operating system, by way of the hasher that the standard library seeds with it.
fn rand_byte() -> u8 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0).to_le_bytes()[0]
}

#[test]
fn manifests_in_yaml() {
    fuzz(Part::Yaml);
}

#[test]
fn manifests_in_json() {
    fuzz(Part::Json);
}

#[test]
fn policies() {
    fuzz(Part::Policy);
}

#[test]
fn metrics() {
    fuzz(Part::Metrics);
}

#[test]
fn states() {
    fuzz(Part::State);
}

#[test]
fn every_file_that_failed_once_is_read_or_refused() {
    let corpus = Corpus::read();
    for (part, name, text) in corpus::kept() {
        for case in corpus.cases(part).iter().take(3) {
            let outcome = watch::watched(part, &text, || readers::read(case, part, &text));
            assert_ne!(outcome, Outcome::Nothing, "{name}");
        }
    }
}

#[test]
fn what_is_nested_without_end_or_repeats_itself_is_refused() {
    let corpus = Corpus::read();
    let deep = 200_000;
    let yaml = |inside: &str| format!("kind: Pod\nmetadata: {{name: a}}\nspec: {inside}\n");
    let block: String = (0..3_000)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let each = format!("*a{}, ", level - 1).repeat(9);
        laughs += &format!("a{level}: &a{level} [{each}]\n");
    }
    let labels: String = (0..20_000).map(|n| format!("    l{n}: *long\n")).collect();
    let long = format!(
        "kind: Pod\nmetadata:\n  name: a\n  labels:\n    first: &long {}\n{labels}",
        "x".repeat(100_000)
    );
    let texts = [
        (Part::Yaml, yaml(&"[".repeat(deep))),
        (Part::Yaml, yaml(&"{a: ".repeat(deep))),
        (Part::Yaml, yaml(&"- ".repeat(deep))),
        (Part::Yaml, block),
        (Part::Yaml, "{kind: List, items: [".repeat(deep)),
        (
            Part::Yaml,
            format!("kind: Pod\nspec:\n  {}", laughs.replace('\n', "\n  ")),
        ),
        (Part::Yaml, long),
        (Part::Json, r#"{"kind":"List","items":["#.repeat(deep)),
        (
            Part::Json,
            format!(r#"{{"kind":"Pod","spec":{}"#, "[".repeat(deep)),
        ),
        (Part::Policy, format!("a = {}", "[".repeat(deep))),
        (Part::Policy, format!("a = {}", "{ a = ".repeat(deep))),
        (Part::Policy, format!("{}a = 1", "a.".repeat(deep))),
        (Part::Policy, format!("[{}a]\nb = 1", "a.".repeat(deep))),
        (Part::Policy, format!("[[{}a]]\nb = 1", "a.".repeat(deep))),
        (
            Part::Metrics,
            format!(r#"{{"cluster":{}"#, r#"{"a":"#.repeat(deep)),
        ),
        (Part::State, "[".repeat(deep)),
    ];
    for (part, text) in texts {
        let case = &corpus.cases(part)[0];
        let outcome = watch::watched(part, &text, || readers::read(case, part, &text));
        let start: String = text.chars().take(60).collect();
        assert_eq!(outcome, Outcome::Refused, "{part:?} {start}");
    }
}
