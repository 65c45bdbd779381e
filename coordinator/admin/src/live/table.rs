//! Tables of at most 80 columns: the last column takes what is left and is shortened where it must be.

/// Columns that a table may take.
pub(super) const WIDTH: usize = 80;
/// Between two columns, where there is room.
const GAP: usize = 2;
/// What the last column has at least.
const LAST: usize = 12;
/// What a shortened column keeps.
const LEAST: usize = 6;

/// A table with a header. Where it is tight, columns move together, then the widest ones are shortened.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "none".to_owned();
    }
    let before_last = header.len().saturating_sub(1);
    let mut widths: Vec<usize> = header
        .iter()
        .take(before_last)
        .map(|title| title.chars().count())
        .collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let room = WIDTH - LAST;
    let gap = if widths.iter().map(|width| width + GAP).sum::<usize>() > room {
        1
    } else {
        GAP
    };
    while widths.iter().map(|width| width + gap).sum::<usize>() > room
        && let Some(widest) = widths.iter_mut().max()
        && *widest > LEAST
    {
        *widest -= 1;
    }
    let last = WIDTH
        .saturating_sub(widths.iter().map(|width| width + gap).sum())
        .max(LAST);
    let mut text = String::new();
    let titles: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let padded = width + gap;
            line.push_str(&format!("{:<padded$}", shortened(cell, *width)));
        }
        if let Some(cell) = row.get(before_last) {
            line.push_str(&shortened(cell, last));
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

/// Text of at most 80 columns, broken between words; lines after the first are indented by `indent`.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    wrapped_within(text, WIDTH - indent.len()).join(&format!("\n{indent}"))
}

/// Lines of at most `width` columns, broken between words; a longer word has a line of its own.
pub(super) fn wrapped_within(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![];
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
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
        let wide = vec!["y".repeat(90), "x".repeat(90), "z".repeat(90)];
        let text = table(&["A", "B", "C"], &[wide]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(table(&["NODE"], &[]), "none");
    }

    #[test]
    fn long_sentences_are_broken_between_words() {
        let text = wrapped(&"word ".repeat(40), "  ");
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        assert!(text.lines().skip(1).all(|line| line.starts_with("  word")));
    }
}
