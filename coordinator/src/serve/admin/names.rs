//! Names that people mistype: the refusal names the nearest ones.

use tonic::Status;

/// `NOT_FOUND`, with the names that are most like `asked`.
pub(in crate::serve) fn not_found<'a>(
    what: &str,
    asked: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Status {
    let near = nearest(asked, known);
    let asked: String = asked.chars().take(100).collect();
    let hint = if near.is_empty() {
        "there is none with a similar name".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    Status::not_found(format!("there is no {what} `{asked}`: {hint}"))
}

/// Up to three names, those that contain what was asked first, then by edit distance.
fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let asked: String = asked.chars().take(100).collect();
    let most = (asked.chars().count() / 2).max(2);
    let mut ranked: Vec<_> = known
        .into_iter()
        .filter_map(|name| {
            let contains = !asked.is_empty() && name.contains(&asked);
            let distance = if contains { 0 } else { distance(&asked, name) };
            (distance <= most).then_some((distance, name))
        })
        .collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked
        .into_iter()
        .take(3)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = row.get(j).copied().unwrap_or(usize::MAX - 1) + usize::from(from != *to);
            let removed = row.get(j + 1).map_or(usize::MAX, |cost| cost + 1);
            let added = next.last().map_or(usize::MAX, |cost| cost + 1);
            next.push(replaced.min(removed).min(added));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_offered() {
        let known = ["i-0a1", "i-0a2", "i-ffff", "master"];
        assert_eq!(nearest("i-0a3", known), ["i-0a1", "i-0a2"]);
        assert_eq!(nearest("ast", known), ["master"]);
        assert!(nearest("somewhere-else-entirely", known).is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
