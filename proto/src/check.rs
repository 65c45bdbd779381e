//! What `check` finds: a line for each thing that a program depends on says what was tried, what came back, and what to do.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::v1;

/// Lines of a report from elsewhere that count.
const MOST_FINDINGS: usize = 32;
/// Bytes of a text in it that count. With the lines that is less than the 64 KiB that an agent may send in one message.
const LONGEST: usize = 512;
/// Bytes of its names and words, which make columns.
const LONGEST_WORD: usize = 64;

/// How a trial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work: `check` ends with an error.
    Failed,
    /// Not tried, and why.
    Skipped,
}

impl Outcome {
    const ALL: [(Self, &str); 4] = [
        (Self::Passed, "passed"),
        (Self::Warning, "warning"),
        (Self::Failed, "failed"),
        (Self::Skipped, "skipped"),
    ];

    /// The word on the wire and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(outcome, _)| *outcome == self)
            .map_or("", |(_, word)| word)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One line of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about, in a word: `clock`, `rights`, …
    pub area: String,
    /// How it went.
    pub outcome: Outcome,
    /// What was tried.
    pub tried: String,
    /// What came back.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub remedy: String,
}

impl Finding {
    fn new(area: &str, outcome: Outcome, tried: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            area: area.to_owned(),
            outcome,
            tried: tried.into(),
            found: found.into(),
            remedy: String::new(),
        }
    }

    /// As it should be.
    #[must_use]
    pub fn passed(area: &str, tried: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(area, Outcome::Passed, tried, found)
    }

    /// It works, and somebody should look at it.
    #[must_use]
    pub fn warning(
        area: &str,
        tried: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(area, Outcome::Warning, tried, found).with(remedy)
    }

    /// It does not work.
    #[must_use]
    pub fn failed(
        area: &str,
        tried: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(area, Outcome::Failed, tried, found).with(remedy)
    }

    /// Not tried; `found` says why.
    #[must_use]
    pub fn skipped(area: &str, tried: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(area, Outcome::Skipped, tried, found)
    }

    fn with(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// All that a program found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which program: `coordinator coordinator-a`, `agent i-0123`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Line by line.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many lines went so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.outcome == outcome)
            .count()
    }

    /// Whether anything does not work.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.count(Outcome::Failed) > 0
    }

    /// The same within what is taken from another machine: few lines, short texts, nothing that moves a terminal's cursor. Of
    /// too many lines those that passed are left out first, and that is said.
    #[must_use]
    pub fn bounded(self) -> Self {
        let mut findings = self.findings;
        let surplus = (findings.len() + 1).saturating_sub(MOST_FINDINGS);
        if surplus > 1 {
            findings.sort_by_key(|finding| finding.outcome == Outcome::Passed);
            findings.truncate(MOST_FINDINGS - 1);
            findings.push(Finding::warning(
                "check",
                "counted the lines of this report",
                format!("{surplus} more are left out"),
                "on that machine, `smartscale-agent check` shows them all",
            ));
        }
        let bounded = |finding: Finding| Finding {
            area: printable(&finding.area, LONGEST_WORD),
            outcome: finding.outcome,
            tried: printable(&finding.tried, LONGEST),
            found: printable(&finding.found, LONGEST),
            remedy: printable(&finding.remedy, LONGEST),
        };
        Self {
            program: printable(&self.program, LONGEST),
            version: printable(&self.version, LONGEST_WORD),
            findings: findings.into_iter().map(bounded).collect(),
        }
    }

    /// The same for people who look for what is wrong: without the lines that passed.
    #[must_use]
    pub fn brief(&self) -> Brief<'_> {
        Brief(self)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, shown: impl Fn(&Finding) -> bool) -> fmt::Result {
        writeln!(f, "{}", format!("{} {}", self.program, self.version).trim_end())?;
        let shown: Vec<_> = self.findings.iter().filter(|finding| shown(finding)).collect();
        let width = shown.iter().map(|finding| finding.area.len()).max().unwrap_or(0);
        for finding in shown {
            let Finding {
                area,
                outcome,
                tried,
                found,
                remedy,
            } = finding;
            writeln!(f, "  {outcome:<7}  {area:<width$}  {tried}: {found}")?;
            if !remedy.is_empty() {
                writeln!(f, "  {:7}  {:width$}  -> {remedy}", "", "")?;
            }
        }
        let counts = Outcome::ALL.iter().filter_map(|(outcome, word)| {
            let count = self.count(*outcome);
            (count > 0).then(|| format!("{count} {word}"))
        });
        let mut last = String::new();
        for count in counts {
            let comma = if last.is_empty() { "" } else { ", " };
            write!(last, "{comma}{count}")?;
        }
        writeln!(f, "  {last}")
    }
}

/// A text on one line, cut where it is longer than so many bytes.
fn printable(text: &str, longest: usize) -> String {
    let mut cut = String::new();
    for c in text.chars() {
        if cut.len() + c.len_utf8() > longest {
            break;
        }
        cut.push(if c.is_control() { ' ' } else { c });
    }
    cut
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |_| true)
    }
}

/// A report without the lines that passed; its last line still counts them.
#[derive(Debug, Clone, Copy)]
pub struct Brief<'a>(&'a Report);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, |finding| finding.outcome != Outcome::Passed)
    }
}

impl From<Report> for v1::CheckReport {
    fn from(report: Report) -> Self {
        let finding = |finding: Finding| v1::Finding {
            area: finding.area,
            outcome: finding.outcome.as_str().to_owned(),
            tried: finding.tried,
            found: finding.found,
            remedy: finding.remedy,
        };
        Self {
            program: report.program,
            version: report.version,
            findings: report.findings.into_iter().map(finding).collect(),
        }
    }
}

impl From<v1::CheckReport> for Report {
    /// An outcome that this version does not know is a warning: it is there to be looked at.
    fn from(report: v1::CheckReport) -> Self {
        let finding = |finding: v1::Finding| Finding {
            outcome: Outcome::ALL
                .iter()
                .find(|(_, word)| *word == finding.outcome)
                .map_or(Outcome::Warning, |(outcome, _)| *outcome),
            area: finding.area,
            tried: finding.tried,
            found: finding.found,
            remedy: finding.remedy,
        };
        Self {
            program: report.program,
            version: report.version,
            findings: report.findings.into_iter().map(finding).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            program: "coordinator a".to_owned(),
            version: "0.1.0".to_owned(),
            findings: vec![
                Finding::passed(
                    "clock",
                    "asked the API server for the time",
                    "ours is within 5 s of it",
                ),
                Finding::failed(
                    "prometheus",
                    "ran query node_cpu",
                    "no series",
                    "scrape node-exporter",
                ),
                Finding::skipped("sns", "publish", "no topic is configured"),
            ],
        }
    }

    #[test]
    fn a_report_says_in_columns_what_was_tried_what_came_back_and_what_to_do() {
        assert_eq!(
            report().to_string(),
            "\
coordinator a 0.1.0
  passed   clock       asked the API server for the time: ours is within 5 s of it
  failed   prometheus  ran query node_cpu: no series
                       -> scrape node-exporter
  skipped  sns         publish: no topic is configured
  1 passed, 1 failed, 1 skipped
"
        );
        assert!(report().has_failed());
    }

    #[test]
    fn a_brief_report_leaves_out_what_passed_and_still_counts_it() {
        assert_eq!(
            report().brief().to_string(),
            "\
coordinator a 0.1.0
  failed   prometheus  ran query node_cpu: no series
                       -> scrape node-exporter
  skipped  sns         publish: no topic is configured
  1 passed, 1 failed, 1 skipped
"
        );
    }

    #[test]
    fn of_a_report_from_elsewhere_few_lines_and_short_printable_texts_are_taken() {
        assert_eq!(report().bounded(), report(), "a usual one stays as it is");
        let long = "\u{1b}[2J\n".to_owned() + &"\u{10ffff}".repeat(10_000);
        let mut hostile = Report {
            program: long.clone(),
            version: long.clone(),
            findings: vec![Finding::failed(&long, &long, &long, &long); 40],
        };
        hostile.findings.insert(0, Finding::passed("a", "b", "c"));
        let taken = hostile.bounded();
        assert_eq!(taken.findings.len(), MOST_FINDINGS);
        assert_eq!(taken.count(Outcome::Passed), 0, "what is wrong is kept first");
        assert_eq!(
            taken.findings.last().map(|finding| &*finding.found),
            Some("10 more are left out")
        );
        let all = taken.to_string();
        assert!(!all.chars().any(|c| c.is_control() && c != '\n'));
        let length = prost::Message::encoded_len(&v1::CheckReport::from(taken));
        assert!(length < 64 * 1024, "{length} bytes fit one message of an agent");
    }

    #[test]
    fn a_report_comes_through_the_wire_as_it_was_and_what_is_not_known_is_to_be_looked_at() {
        let mut wire = v1::CheckReport::from(report());
        assert_eq!(Report::from(wire.clone()), report());
        wire.findings[0].outcome = "dubious".to_owned();
        assert_eq!(Report::from(wire).findings[0].outcome, Outcome::Warning);
    }
}
