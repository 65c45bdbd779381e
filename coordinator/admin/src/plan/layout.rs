//! Text for people that fits 80 columns: wrapped paragraphs, hanging indents, lists of names, money.

use std::fmt::Display;

/// Columns that a line may take; only a name that is longer by itself is not broken.
const WIDTH: usize = 80;

/// Hours of a month, as clouds count them.
const HOURS_PER_MONTH: f64 = 730.0;

/// Names that are shown before the rest is counted.
const NAMES: usize = 3;

/// Lines, one after another.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// A paragraph, further lines as far in as the first.
    pub(super) fn line(&mut self, indent: usize, text: &str) {
        self.hanging(indent, "", indent, text);
    }

    /// A paragraph, further lines a step further in.
    pub(super) fn item(&mut self, indent: usize, text: &str) {
        self.hanging(indent, "", indent + 2, text);
    }

    /// A paragraph after an empty line.
    pub(super) fn heading(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(0, text);
    }

    /// A paragraph behind a label; further lines begin at `rest`. A label that reaches beyond `rest` has its line alone.
    pub(super) fn hanging(&mut self, indent: usize, label: &str, rest: usize, text: &str) {
        let mut line = format!("{:indent$}{label}", "");
        let mut empty = label.is_empty();
        if !empty {
            let column = line.chars().count();
            if column + 1 > rest {
                self.push(&line);
                line = " ".repeat(rest);
            } else {
                line.push_str(&" ".repeat(rest - column));
            }
            empty = true;
        }
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let gap = usize::from(!empty);
            if !empty && line.chars().count() + gap + word.chars().count() > WIDTH {
                self.push(&line);
                line = " ".repeat(rest);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.push(&line);
    }

    fn push(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// `$0.0062 an hour ($4.53 a month)`.
pub(super) fn money(per_hour: f64) -> String {
    format!("{} an hour ({} a month)", hourly(per_hour), monthly(per_hour))
}

/// `$0.0062`.
pub(super) fn hourly(per_hour: f64) -> String {
    let sign = if per_hour < 0.0 { "-" } else { "" };
    format!("{sign}${:.4}", per_hour.abs())
}

fn monthly(per_hour: f64) -> String {
    format!("${:.2}", per_hour * HOURS_PER_MONTH)
}

/// `1 node`, `2 nodes`.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

/// The first three, and how many more.
pub(super) fn some<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut names: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let more = names.len().saturating_sub(NAMES);
    // One more is as short as its name.
    if more > 1 {
        names.truncate(NAMES);
        format!("{} and {more} more", names.join(", "))
    } else {
        and(&names)
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn and(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `12 %`, `12.5 %`.
pub(super) fn percent(value: f64) -> String {
    smartscale_planner::model::Percent(value).to_string()
}

/// A span of time in its two greatest units: `45s`, `3m5s`, `1h20m`.
pub(super) fn span(seconds: i64) -> String {
    smartscale_planner::explain::span(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_wrapped_behind_its_label() {
        let mut page = Page::default();
        page.hanging(2, "label", 10, &"word ".repeat(20));
        page.hanging(2, "a-label-that-is-long", 10, "word");
        let text = page.into_text();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(text.starts_with("  label   word word"));
        assert!(text.contains("\n          word"));
        assert!(text.ends_with("  a-label-that-is-long\n          word\n"));
    }

    #[test]
    fn of_many_names_three_are_shown() {
        assert_eq!(some(["a"]), "a");
        assert_eq!(some(["a", "b", "c", "d"]), "a, b, c and d");
        assert_eq!(some(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
