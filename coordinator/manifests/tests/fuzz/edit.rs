//! Edits of a text, by tokens: an input that is wrong in one place gets further than one that is wrong everywhere.

use proptest::{prelude::*, sample::Index};

use crate::corpus::{Corpus, Part};

/// What has broken readers and arithmetic before, here or elsewhere.
const STRANGE: &[&str] = &[
    // Numbers
    "0",
    "-1",
    "1",
    "3",
    "50",
    "4294967295",
    "2147483647",
    "-2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "0x10",
    "1_000",
    "1e308",
    "-0.0",
    "1e-400",
    "1e999",
    "NaN",
    ".inf",
    "nan",
    "inf",
    "0.5",
    // Quantities, shares and ranges
    "1n",
    "\"9223372036854775807\"",
    "\"7Ei\"",
    "\"8Ei\"",
    "\"1e18\"",
    "\"-500m\"",
    "\"0\"",
    "\"1e-9\"",
    "1Zi",
    "\"100%\"",
    "\"0%\"",
    "\"..\"",
    "\"2..8\"",
    "\"8..2\"",
    // Times and durations
    "\"0001-01-01T00:00:00Z\"",
    "\"9999-12-30T22:00:00Z\"",
    "\"-009999-01-02T01:59:59Z\"",
    "\"2026-01-02T03:04:05.999999999Z\"",
    "\"2026-01-02T03:04:05\"",
    "\"0s\"",
    "\"36525d\"",
    "\"1ms\"",
    "\"1h30m\"",
    "60s",
    // Texts
    "\"\"",
    "null",
    "~",
    "true",
    "false",
    "{}",
    "[]",
    "[null]",
    "{\"\": null}",
    "\"\\u0000\"",
    "\"\u{feff}\"",
    "é",
    "\"launch[0]\"",
    // Words that mean something
    "Exists",
    "DoesNotExist",
    "In",
    "NotIn",
    "Gt",
    "Lt",
    "NoExecute",
    "PreferNoSchedule",
    "ScheduleAnyway",
    "DoNotSchedule",
    "Honor",
    "Ignore",
    "Always",
    "Memory",
    "Immediate",
    "WaitForFirstConsumer",
    "ReadWriteOncePod",
    "Lost",
    "Bound",
    "Succeeded",
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "metadata.name",
    "hostPort",
    "minDomains",
    "maxSkew",
    "weight",
    "priority",
    "count",
    "terminationGracePeriodSeconds",
    "on-demand",
    "spot",
    "fits",
    "thresholds",
    "baseline",
    "move",
    "force",
    // YAML
    "&a",
    "*a",
    "<<: *a",
    "!!str",
    "!!binary",
    "!x",
    "|",
    ">-",
    "---",
    "...",
    "? ",
    "%YAML 1.2",
    "\t",
    "#",
    "\r\n",
];

/// One change. Positions are shares of the text that is there when it is made.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// A word gives way to a strange one.
    Strange(Index, Index),
    /// A word gives way to one of its sort from some case.
    Swap(Index, Index, Index, Part),
    /// A token goes.
    Drop(Index),
    /// A token comes.
    Insert(Index, Index),
    /// Lines go.
    DropLines(Index, u8),
    /// Lines come again elsewhere.
    CopyLines(Index, u8, Index),
    /// Lines of another case come.
    Splice(Index, Index, u8, Index, Part),
    /// Something is opened and not closed.
    Open(Index, Index, u16),
    /// The rest is not there.
    Cut(Index),
}

const OPENERS: &[&str] = &["[", "{a: ", "{\"a\":", "- ", "a.", "(", "\"", "&a ", "  "];

pub(crate) fn one() -> impl Strategy<Value = Edit> {
    let at = || any::<Index>();
    let part = || {
        prop_oneof![
            4 => Just(Part::Yaml), 2 => Just(Part::Json), 2 => Just(Part::Policy), 1 => Just(Part::Metrics), 1 => Just(Part::State)
        ]
    };
    prop_oneof![
        10 => (at(), at()).prop_map(|(to, with)| Edit::Strange(to, with)),
        20 => (at(), at(), at(), part()).prop_map(|(to, case, word, part)| Edit::Swap(to, case, word, part)),
        2 => at().prop_map(Edit::Drop),
        1 => (at(), at()).prop_map(|(to, what)| Edit::Insert(to, what)),
        3 => (at(), 1..4_u8).prop_map(|(from, lines)| Edit::DropLines(from, lines)),
        3 => (at(), 1..12_u8, at()).prop_map(|(from, lines, to)| Edit::CopyLines(from, lines, to)),
        2 => (at(), at(), 1..12_u8, at(), part()).prop_map(|(case, from, lines, to, part)| Edit::Splice(case, from, lines, to, part)),
        1 => (at(), at(), 1..400_u16).prop_map(|(to, what, times)| Edit::Open(to, what, times)),
        1 => at().prop_map(Edit::Cut),
    ]
}

/// The text after all edits.
pub(crate) fn apply(text: &str, edits: &[Edit], corpus: &Corpus) -> String {
    edits
        .iter()
        .fold(text.to_owned(), |text, edit| edit.apply(&text, corpus))
}

impl Edit {
    fn apply(&self, text: &str, corpus: &Corpus) -> String {
        let other = |case: &Index, part: Part| case.get(corpus.all()).text(part);
        match self {
            Self::Strange(to, with) => replace_word(text, to, |_| pick(with, STRANGE)),
            Self::Swap(to, case, word, part) => {
                let theirs = words(other(case, *part));
                replace_word(text, to, |old| {
                    let alike: Vec<_> = theirs.into_iter().filter(|new| sort(new) == sort(old)).collect();
                    if alike.is_empty() {
                        old
                    } else {
                        alike[word.index(alike.len())]
                    }
                })
            }
            Self::Drop(at) => replace_token(text, at, ""),
            Self::Insert(at, what) => {
                let tokens = tokens(text);
                let token = tokens
                    .get(at.index(tokens.len().max(1)))
                    .copied()
                    .unwrap_or_default();
                replace_token(text, at, &format!("{token}{}", pick(what, STRANGE)))
            }
            Self::DropLines(from, count) => {
                let mut lines = lines(text);
                let range = some_lines(&lines, from, *count);
                lines.drain(range);
                lines.concat()
            }
            Self::CopyLines(from, count, to) => {
                let all = lines(text);
                paste(&all, &all[some_lines(&all, from, *count)], to)
            }
            Self::Splice(case, from, count, to, part) => {
                let theirs = lines(other(case, *part));
                paste(&lines(text), &theirs[some_lines(&theirs, from, *count)], to)
            }
            Self::Open(at, what, times) => {
                replace_token(text, at, &pick(what, OPENERS).repeat(usize::from(*times)))
            }
            Self::Cut(at) => {
                let tokens = tokens(text);
                tokens[..at.index(tokens.len() + 1)].concat()
            }
        }
    }
}

/// Words, quoted texts, white space and single characters, which together are the text.
fn tokens(text: &str) -> Vec<&str> {
    let in_word = |c: char| c.is_alphanumeric() || "_-./%+".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if in_word(first) {
            rest.find(|c| !in_word(c))
        } else if first == '"' {
            rest[1..].find(['"', '\n']).map(|at| at + 2)
        } else if first.is_whitespace() {
            rest.find(|c: char| !c.is_whitespace())
        } else {
            Some(first.len_utf8())
        };
        let (token, after) = rest.split_at(length.unwrap_or(rest.len()));
        tokens.push(token);
        rest = after;
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || "\"-".contains(c))
}

fn words(text: &str) -> Vec<&str> {
    tokens(text).into_iter().filter(|token| is_word(token)).collect()
}

/// What a word looks like: by the kind of its first character, and whether it is a share, a quantity or a time.
fn sort(word: &str) -> (bool, bool, Option<char>) {
    let inside = word.trim_matches('"');
    let is_number = inside.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let last = inside.chars().last().filter(|_| is_number);
    (
        word.starts_with('"'),
        is_number,
        last.filter(|c| !c.is_ascii_digit()),
    )
}

fn replace_word<'t>(text: &'t str, at: &Index, with: impl FnOnce(&'t str) -> &'t str) -> String {
    let mut tokens = tokens(text);
    let words: Vec<usize> = (0..tokens.len())
        .filter(|index| is_word(tokens[*index]))
        .collect();
    if !words.is_empty() {
        let token = &mut tokens[*at.get(&words)];
        *token = with(token);
    }
    tokens.concat()
}

fn replace_token(text: &str, at: &Index, with: &str) -> String {
    let mut tokens = tokens(text);
    if !tokens.is_empty() {
        let index = at.index(tokens.len());
        tokens[index] = with;
    }
    tokens.concat()
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn some_lines(lines: &[&str], from: &Index, count: u8) -> std::ops::Range<usize> {
    let from = from.index(lines.len() + 1);
    from..(from + usize::from(count)).min(lines.len())
}

fn paste(lines: &[&str], more: &[&str], to: &Index) -> String {
    let (before, after) = lines.split_at(to.index(lines.len() + 1));
    [before, more, after].concat().concat()
}

fn pick(index: &Index, all: &[&'static str]) -> &'static str {
    all[index.index(all.len())]
}
