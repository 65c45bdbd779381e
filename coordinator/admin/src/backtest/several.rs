//! Several policies' results for people, in 80 columns: a row for each, and below them what they are compared with, once.
//! Policies with other pools or limits are compared with others; they stand apart.

use std::fmt::Write as _;

use smartscale_backtest::Totals;

use super::result::{Compared, Tried};

/// Columns of a line.
const WIDTH: usize = 80;
/// Columns of a label at least; a longer one has its line alone.
const LEAST_LABEL: usize = 12;
/// Between two columns of figures.
const GAP: usize = 2;

/// A column of figures.
#[derive(Debug, Clone, Copy)]
enum Figure {
    Cost,
    OverOracle,
    Saved(&'static str),
    Short,
    Evicted,
    Waited,
}

impl Figure {
    /// Those that these results have.
    fn all(compared: &Compared) -> Vec<Self> {
        let oracle = compared.over_oracle_percent.map(|_| Self::OverOracle);
        let saved = compared.saving_percent.keys().copied().map(Self::Saved);
        std::iter::once(Self::Cost)
            .chain(oracle)
            .chain(saved)
            .chain([Self::Short, Self::Evicted, Self::Waited])
            .collect()
    }

    /// The two lines above it.
    fn head(self) -> [&'static str; 2] {
        match self {
            Self::Cost => ["cost,", "USD"],
            Self::OverOracle => ["% over", "oracle"],
            Self::Saved("thresholds") => ["% below", "thresh."],
            Self::Saved(rival) => ["% below", rival],
            Self::Short => ["minutes", "short"],
            Self::Evicted => ["pods", "evicted"],
            Self::Waited => ["hours", "waited"],
        }
    }

    /// What it is in a run; what only a policy has is empty in the others.
    fn of(self, totals: &Totals, policy: Option<&Compared>) -> String {
        let percent =
            |percent: Option<f64>| percent.map_or_else(String::new, |percent| format!("{percent:.1}"));
        match self {
            Self::Cost => format!("{:.2}", totals.cost_usd),
            Self::OverOracle => percent(policy.and_then(|policy| policy.over_oracle_percent)),
            Self::Saved(rival) => {
                percent(policy.and_then(|policy| policy.saving_percent.get(rival).copied()))
            }
            Self::Short => totals.shortfall_minutes.to_string(),
            Self::Evicted => totals.evictions.to_string(),
            Self::Waited => format!("{:.1}", totals.pending_pod_seconds / 3600.0),
        }
    }
}

/// A label and its figures, if it has any.
type Row = (String, Option<Vec<String>>);

/// All of them.
pub(super) fn of(policies: &[Tried]) -> String {
    let Some(first) = policies.first() else {
        return String::new();
    };
    let is_one_file = policies.iter().all(|tried| tried.file == first.file);
    let figures = Figure::all(&first.compared);
    let mut text = String::new();
    if is_one_file {
        put(&mut text, &first.file);
    }
    for (index, (key, _)) in first.swept.iter().enumerate() {
        put(
            &mut text,
            &format!("{} {key}", if index == 0 { "by" } else { "  " }),
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }

    let mut rows: Vec<Row> = Vec::new();
    for section in sections(policies) {
        if !rows.is_empty() {
            rows.push((String::new(), None));
        }
        let row = |label: String, totals: &Totals, policy: Option<&Compared>| {
            let figures = figures.iter().map(|figure| figure.of(totals, policy));
            (label, Some(figures.collect()))
        };
        let mut file = first.file.as_str();
        for (index, tried) in section.iter().enumerate() {
            let is_under_file = !is_one_file && !tried.swept.is_empty();
            if is_under_file && (index == 0 || tried.file != file) {
                rows.push((tried.file.clone(), None));
            }
            file = &tried.file;
            let label = match is_under_file {
                true => format!("  {}", values(tried)),
                false => label(tried, is_one_file),
            };
            rows.push(row(label, &tried.compared.policy, Some(&tried.compared)));
        }
        let rivals = section.iter().take(1).flat_map(|tried| &tried.compared.compare);
        rows.extend(rivals.map(|(rival, totals)| row((*rival).to_owned(), totals, None)));
    }
    table(&mut text, &figures, &rows);

    text.push('\n');
    if first.compared.compare.contains_key("fixed") {
        put(
            &mut text,
            "Minutes short beyond those of fixed are for want of nodes; in the others pods",
        );
        put(&mut text, "start late, as they do in a fixed fleet.");
    }
    for tried in policies {
        let files: Vec<&str> = [&tried.series, &tried.plot]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        if !files.is_empty() {
            put(
                &mut text,
                &format!("{}: {}", files.join(", "), label(tried, is_one_file)),
            );
        }
    }
    text
}

/// A line.
fn put(text: &mut String, line: &str) {
    // A string takes whatever is written.
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Policies that are compared with the same, in the order of the first of each.
fn sections(policies: &[Tried]) -> Vec<Vec<&Tried>> {
    let mut sections: Vec<Vec<&Tried>> = Vec::new();
    for tried in policies {
        let is_like = |section: &&mut Vec<&Tried>| section[0].compared.compare == tried.compared.compare;
        match sections.iter_mut().find(is_like) {
            Some(section) => section.push(tried),
            None => sections.push(vec![tried]),
        }
    }
    sections
}

/// What tells it from the others.
fn label(tried: &Tried, is_one_file: bool) -> String {
    match (is_one_file, tried.swept.is_empty()) {
        (_, true) => tried.file.clone(),
        (true, false) => values(tried),
        (false, false) => format!("{} {}", tried.file, values(tried)),
    }
}

/// The swept values alone.
fn values(tried: &Tried) -> String {
    let values: Vec<&str> = tried.swept.iter().map(|(_, value)| value.as_str()).collect();
    values.join(", ")
}

fn table(text: &mut String, figures: &[Figure], rows: &[Row]) {
    let length = |text: &str| text.chars().count();
    let filled = || {
        rows.iter()
            .filter_map(|(label, figures)| Some((label, figures.as_ref()?)))
    };
    let widths: Vec<usize> = figures
        .iter()
        .enumerate()
        .map(|(column, figure)| {
            let figures = filled().map(|(_, figures)| length(&figures[column]));
            let head = figure.head().into_iter().map(length);
            GAP + figures.chain(head).max().unwrap_or(0)
        })
        .collect();
    let room = WIDTH.saturating_sub(widths.iter().sum()).max(LEAST_LABEL);
    let label = filled()
        .map(|(label, _)| length(label))
        .filter(|length| *length <= room)
        .max();
    let label = label.unwrap_or(0).max(LEAST_LABEL);
    let mut line = |first: &str, figures: &mut dyn Iterator<Item = &str>| {
        let figures = figures
            .zip(&widths)
            .map(|(figure, width)| format!("{figure:>width$}"));
        put(text, &format!("{first:<label$}{}", figures.collect::<String>()));
    };
    for half in 0..2 {
        line("", &mut figures.iter().map(|figure| figure.head()[half]));
    }
    for (name, figures) in rows {
        let has_figures = figures.is_some();
        let figures = figures.iter().flatten().map(String::as_str);
        if has_figures && length(name) > label {
            line(name, &mut std::iter::empty());
            line("", &mut { figures });
        } else {
            line(name, &mut { figures });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn totals(cost_usd: f64) -> Totals {
        Totals {
            cost_usd,
            ..Totals::default()
        }
    }

    fn tried(file: &str, values: &[(&str, &str)], fixed: f64) -> Tried {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Tried {
            file: file.to_owned(),
            set: BTreeMap::new(),
            swept: values.iter().map(pair).collect(),
            series: None,
            plot: None,
            compared: Compared {
                policy: totals(1.0),
                compare: BTreeMap::from([("fixed", totals(fixed))]),
                saving_percent: BTreeMap::from([("fixed", 50.0)]),
                over_oracle_percent: None,
            },
        }
    }

    #[test]
    fn one_file_is_named_once_and_rows_by_what_is_swept() {
        let text = of(&[
            tried(
                "a.toml",
                &[("scale_down.sustained", "2m"), ("scale_up.cpu_percent", "70")],
                2.0,
            ),
            tried(
                "a.toml",
                &[("scale_down.sustained", "5m"), ("scale_up.cpu_percent", "70")],
                2.0,
            ),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["a.toml", "by scale_down.sustained", "   scale_up.cpu_percent"]
        );
        assert!(
            lines[6].starts_with("2m, 70 ") && lines[7].starts_with("5m, 70 "),
            "{text}"
        );
        assert!(lines[8].starts_with("fixed ") && lines[9].is_empty(), "{text}");
    }

    #[test]
    fn several_files_with_swept_values_are_headings_of_their_rows() {
        let value = |value| [("scale_down.sustained", value)];
        let text = of(&[
            tried("a.toml", &value("2m"), 2.0),
            tried("a.toml", &value("5m"), 2.0),
            tried("b.toml", &value("2m"), 2.0),
            tried("b.toml", &value("5m"), 2.0),
        ]);
        let labels: Vec<&str> = text
            .lines()
            .skip(4)
            .map(|line| line.get(..8).unwrap_or(line).trim_end())
            .collect();
        assert_eq!(
            labels[..7],
            ["a.toml", "  2m", "  5m", "b.toml", "  2m", "  5m", "fixed"],
            "{text}"
        );
    }

    #[test]
    fn policies_that_are_compared_with_others_stand_apart() {
        let text = of(&[
            tried("a.toml", &[], 2.0),
            tried("b.toml", &[], 3.0),
            tried("c.toml", &[], 2.0),
        ]);
        let firsts: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(
            firsts[2..8],
            ["a.toml", "c.toml", "fixed", "", "b.toml", "fixed"],
            "{text}"
        );
    }

    #[test]
    fn a_label_that_is_too_long_has_its_line_alone() {
        let long = "a/very/long/way/to/where/the/policies/of/this/cluster/lie/policy.toml";
        let text = of(&[tried(long, &[], 2.0), tried("b.toml", &[], 2.0)]);
        assert!(text.lines().any(|line| line == long), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
