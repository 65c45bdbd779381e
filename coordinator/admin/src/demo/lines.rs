//! What happens in the demo as lines: for people, or as JSON, one object a line.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::json;
use smartscale_simulator::{
    log::{Entry, Source},
    story::{Summary, stamp},
};

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// One line an event, then the summary
    #[value(alias = "table", alias = "text")]
    Lines,
    /// One JSON object an event, the summary is the last
    Json,
}

/// Width of the column with names.
const SUBJECT: usize = 20;

/// Kinds that people need not read: decisions to do nothing, and what another line says as well.
const QUIET: [&str; 2] = ["decided_nothing", "boot_secret"];

/// Makes lines of entries.
pub(super) struct Lines {
    form: Form,
    /// The last message about each subject: a step that is tried again and again is told once.
    last: BTreeMap<(&'static str, String), String>,
}

impl Lines {
    /// Lines of this form.
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            last: BTreeMap::new(),
        }
    }

    /// The line of an entry; `None` for one that people need not read.
    pub(super) fn line(&mut self, entry: &Entry) -> serde_json::Result<Option<String>> {
        match self.form {
            Form::Json => serde_json::to_string(entry).map(Some),
            Form::Lines => Ok(self.is_news(entry).then(|| for_people(entry))),
        }
    }

    fn is_news(&mut self, entry: &Entry) -> bool {
        let planned = entry.kind == "operation" && entry.details["phase"] == "planned";
        if planned || QUIET.contains(&entry.kind) {
            return false;
        }
        let key = (entry.kind, entry.subject.clone());
        let before = self.last.insert(key, entry.message.clone());
        before.as_ref() != Some(&entry.message)
    }

    /// The summary at the end.
    pub(super) fn summary(&self, summary: &Summary) -> serde_json::Result<String> {
        match self.form {
            Form::Json => serde_json::to_string(&json!({ "kind": "summary", "summary": summary })),
            Form::Lines => Ok(format!("\n{}", summary.to_string().trim_end())),
        }
    }
}

fn for_people(entry: &Entry) -> String {
    let at = stamp(entry.at.as_secs_f64());
    if entry.source == Source::Story && entry.kind == "act" {
        return format!("\n{at}  ── {}: {}", entry.subject, entry.message);
    }
    let mut line = format!("{at}  {:<11}  ", entry.source.as_str());
    if !entry.subject.is_empty() {
        let _ = write!(line, "{:<SUBJECT$}  ", entry.subject);
    }
    line.push_str(&entry.message);
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    fn entry(kind: &'static str, source: Source) -> Entry {
        Entry {
            number: 7,
            at: Duration::from_millis(65_500),
            source,
            kind,
            subject: "i-1".to_owned(),
            message: "node is Ready".to_owned(),
            details: Value::Null,
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let mut lines = Lines::new(Form::Lines);
        let entry = entry("node_ready", Source::Cluster);
        assert_eq!(
            lines.line(&entry).unwrap().unwrap(),
            "01:05  cluster      i-1                   node is Ready"
        );
        assert_eq!(lines.line(&entry).unwrap(), None, "the same again is no news");
    }

    #[test]
    fn decisions_to_do_nothing_are_for_machines_alone() {
        let entry = entry("decided_nothing", Source::Coordinator);
        assert_eq!(Lines::new(Form::Lines).line(&entry).unwrap(), None);
        let json = Lines::new(Form::Json).line(&entry).unwrap().unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["at_seconds"], 65.5);
        assert_eq!(json["kind"], "decided_nothing");
    }
}
