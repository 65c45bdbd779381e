//! Calls of EC2, counted.

use std::collections::BTreeMap;

/// As text: each action with its number, the most frequent first.
pub(crate) fn told(counts: &BTreeMap<String, usize>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let counts = counts.iter().map(|(action, count)| format!("{count} {action}"));
    counts.collect::<Vec<_>>().join(", ")
}
