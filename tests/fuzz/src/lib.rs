//! Fuzzing of readers of untrusted bytes, on the stable toolchain and as ordinary tests.
//!
//! ```text
//!   seeds, kept/ ─▶ pool ─▶ edits (edit.rs) ─▶ reader under a watch ─▶ its word ─ a new one? ─▶ pool
//! ```
//! A reader says in a few words what it made of an input: which part it refused, or what it took. An input that
//! brings a word that was not heard before is edited further. That stands in for coverage, which the stable toolchain
//! does not measure without building everything anew: a reader that says which check refused an input leads the search
//! through its checks, one after the other.
//!
//! A normal run tries the same inputs every time, so that it fails for the change that made it fail.
//! `SMARTSCALE_FUZZ_SECONDS` has every target try others, for so long; what fails is written to a file and repeated with
//! `SMARTSCALE_FUZZ_SEED`.

mod edit;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

/// Inputs of a target in a normal run.
const CASES: u64 = 4_000;
/// Edits of one input at most.
const EDITS: u32 = 6;
/// Inputs that are edited further, at most.
const POOL: usize = 512;
/// Bytes of an input, at most.
const LONGEST: usize = 64 * 1024;
/// Time that a reader has for one input of at most [`LONGEST`] bytes, in a debug build on a busy machine.
const TIME: Duration = Duration::from_secs(5);
/// The seed of a normal run.
const SEED: u64 = 7;

/// A reader's inputs.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its name: `PACKAGE/READER`.
    pub name: &'a str,
    /// Inputs that are right.
    pub seeds: &'a [&'a [u8]],
    /// Words that inputs are made of.
    pub words: &'a [&'a str],
    /// A folder with more inputs, each once the cause of a mistake; it may lack.
    pub kept: Option<&'a Path>,
}

/// Tries a reader. It returns a short text on what it made of an input; inputs with a new text are edited further.
///
/// # Panics
/// When the reader panics or takes too long, naming the file with the input.
pub fn fuzz(target: Target<'_>, read: impl Fn(&[u8]) -> String) {
    let seconds: Option<u64> = number("SMARTSCALE_FUZZ_SECONDS");
    let seed = number("SMARTSCALE_FUZZ_SEED").unwrap_or_else(|| match seconds {
        Some(_) => rand::random(),
        None => SEED,
    });
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or_default());
    let mut random = SmallRng::seed_from_u64(seed);
    let mut pool: Vec<Vec<u8>> = target.seeds.iter().map(|seed| seed.to_vec()).collect();
    let mut heard = BTreeSet::new();
    let kept = target.kept.map(files).unwrap_or_default();
    for input in pool.iter().chain(&kept) {
        heard.insert(watched(target.name, seed, input, &read));
    }
    pool.extend(kept);
    let mut tried = 0_u64;
    while seconds.map_or(tried < CASES, |_| Instant::now() < end) {
        let mut input = pool
            .get(random.random_range(0..pool.len().max(1)))
            .cloned()
            .unwrap_or_default();
        for _ in 0..random.random_range(1..=EDITS) {
            edit::one(&mut input, &pool, target.words, &mut random);
            input.truncate(LONGEST);
        }
        tried += 1;
        if heard.insert(watched(target.name, seed, &input, &read)) && pool.len() < POOL {
            pool.push(input);
        }
    }
    eprintln!(
        "fuzz {}: {tried} inputs, {} outcomes, seed {seed}",
        target.name,
        heard.len()
    );
}

fn watched(name: &str, seed: u64, input: &[u8], read: &impl Fn(&[u8]) -> String) -> String {
    let began = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| read(input))) {
        Ok(word) => {
            let took = began.elapsed();
            assert!(
                took < TIME,
                "{name} took {took:?}: seed {seed}, input {}",
                keep(name, input).display()
            );
            // Numbers and quoted parts vary without end and say nothing new.
            word.chars().filter(char::is_ascii_alphabetic).take(80).collect()
        }
        Err(panic) => {
            eprintln!("fuzz {name}: seed {seed}, input {}", keep(name, input).display());
            resume_unwind(panic)
        }
    }
}

/// Writes what failed to a file.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fuzz-{}", name.replace('/', "-")));
    if let Err(error) = std::fs::write(&path, input) {
        eprintln!("{} cannot be written: {error}", path.display());
    }
    path
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not `{text}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_stumbles_behind_three_checks_is_found_out() {
        let stumbles = |input: &[u8]| match input {
            [b'a', b'b', b'c', ..] => panic!("it stumbles"),
            [b'a', b'b', ..] => "two".to_owned(),
            [b'a', ..] => "one".to_owned(),
            _ => "none".to_owned(),
        };
        let target = Target {
            name: "fuzz/stumbles",
            seeds: &[b"xyz"],
            words: &["a", "b", "c"],
            kept: None,
        };
        assert!(catch_unwind(|| fuzz(target, stumbles)).is_err());
    }
}
