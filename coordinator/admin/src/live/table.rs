//! Tables of at most 80 columns: the last column takes what is left and is shortened where it must be.

/// Columns that a table may take.
const WIDTH: usize = 80;
/// Between two columns.
const GAP: usize = 2;

/// A table with a header. Of the columns before the last none is shortened.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "none".to_owned();
    }
    let columns = header.len();
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let before_last: usize = widths
        .iter()
        .take(columns.saturating_sub(1))
        .map(|width| width + GAP)
        .sum();
    let last = WIDTH.saturating_sub(before_last).max(8);
    let mut text = String::new();
    let titles: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            if index + 1 == columns {
                line.push_str(&shortened(cell, last));
            } else {
                let width = widths.get(index).copied().unwrap_or(0) + GAP;
                line.push_str(&format!("{cell:<width$}"));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// At most `width` characters, the last of them `…` if some were left out.
pub(super) fn shortened(text: &str, width: usize) -> String {
    let line = text.replace('\n', " ");
    if line.chars().count() <= width {
        return line;
    }
    let mut short: String = line.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Lines of at most 80 columns, broken between words; those after the first are indented by `indent`.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.chars().count() + word.chars().count() + 1 > WIDTH && line.trim() != "" {
            lines.push(format!("{indent}{word}"));
        } else {
            if !line.is_empty() && line != indent {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_eighty_columns() {
        let rows = vec![vec!["i-0123456789abcdef0".to_owned(), "x".repeat(200)]];
        let text = table(&["NODE", "WHY"], &rows);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains('…'));
        assert_eq!(table(&["NODE"], &[]), "none");
    }

    #[test]
    fn long_sentences_are_broken_between_words() {
        let text = wrapped(&"word ".repeat(40), "  ");
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        assert!(text.lines().skip(1).all(|line| line.starts_with("  word")));
    }
}
