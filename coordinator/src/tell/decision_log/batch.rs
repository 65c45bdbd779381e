//! What one call of `PutLogEvents` takes
//! (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>).

use std::collections::VecDeque;

use jiff::SignedDuration;

use super::Line;

/// The most bytes of a batch, [`OVERHEAD`] of each line included.
pub const MOST_BYTES: usize = 1_048_576;
/// What a line counts beside its text.
pub const OVERHEAD: usize = 26;
/// The most lines of a batch.
pub const MOST_LINES: usize = 10_000;
/// The longest time between the first and the last line of a batch.
pub const LONGEST_SPAN: SignedDuration = SignedDuration::from_hours(24);
/// The longest text of a line. The limit is written as "1 MB": this is right whether that counts 10⁶ or 2²⁰ bytes, and
/// whether it includes [`OVERHEAD`] or not.
pub const LONGEST_LINE: usize = 999_000;

/// Lines that one call takes, by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch(Vec<Line>);

impl Batch {
    /// Takes the first lines that fit into one batch; `None`: there is no line.
    #[must_use]
    pub fn take(waiting: &mut VecDeque<Line>) -> Option<Self> {
        let mut lines: Vec<Line> = waiting.drain(..fitting(waiting)).collect();
        // A clock that was set back.
        lines.sort_by_key(Line::time);
        (!lines.is_empty()).then_some(Self(lines))
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.0
    }
}

/// How many of the first lines fit: at least one where there is one.
fn fitting(waiting: &VecDeque<Line>) -> usize {
    let Some(first) = waiting.front() else { return 0 };
    let (mut bytes, mut earliest, mut latest) = (0, first.time(), first.time());
    let fits = |line: &&Line| {
        bytes += line.bytes();
        earliest = earliest.min(line.time());
        latest = latest.max(line.time());
        bytes <= MOST_BYTES && latest.duration_since(earliest) <= LONGEST_SPAN
    };
    waiting.iter().take(MOST_LINES).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use jiff::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn line(second: i64, length: usize) -> Line {
        Line::new(Timestamp::from_second(second).unwrap(), "x".repeat(length))
    }

    fn batches(lines: impl IntoIterator<Item = Line>) -> Vec<Batch> {
        let mut waiting = lines.into_iter().collect();
        std::iter::from_fn(|| Batch::take(&mut waiting)).collect()
    }

    fn sizes(lines: impl IntoIterator<Item = Line>) -> Vec<usize> {
        batches(lines).iter().map(|batch| batch.lines().len()).collect()
    }

    #[test]
    fn nothing_is_no_batch() {
        assert!(batches([]).is_empty());
    }

    #[test]
    fn what_a_line_counts_beside_its_text_is_counted() {
        let half = MOST_BYTES / 2 - OVERHEAD;
        assert_eq!(sizes([line(0, half), line(1, half)]), [2]);
        assert_eq!(sizes([line(0, half), line(1, half + 1)]), [1, 1]);
    }

    #[test]
    fn a_batch_has_no_more_lines_than_one_call_takes() {
        let lines = (0..MOST_LINES as i64 + 1).map(|n| line(n / 1000, 1));
        assert_eq!(sizes(lines), [MOST_LINES, 1]);
    }

    #[test]
    fn a_batch_is_no_longer_than_a_day() {
        let day = LONGEST_SPAN.as_secs();
        assert_eq!(sizes([line(0, 1), line(day, 1)]), [2]);
        assert_eq!(sizes([line(0, 1), line(day + 1, 1)]), [1, 1]);
        // Also where the clock was set back in between.
        assert_eq!(sizes([line(day, 1), line(2 * day, 1), line(day - 1, 1)]), [2, 1]);
    }

    #[test]
    fn a_batch_is_by_time_even_if_the_clock_was_set_back() {
        let batch = batches([line(7, 1), line(5, 2), line(6, 3), line(5, 4)]).remove(0);
        let lines: Vec<_> = batch.lines().iter().map(|line| line.text().len()).collect();
        assert_eq!(lines, [2, 4, 3, 1]);
    }

    proptest! {
        #[test]
        fn every_line_is_in_exactly_one_batch_and_every_batch_is_one_that_is_taken(
            lines in vec((0_i64..400_000, prop_oneof![1_usize..2_000, 300_000..LONGEST_LINE]), 0..40),
        ) {
            let lines: Vec<Line> = lines.into_iter().map(|(second, length)| line(second, length)).collect();
            let batches = batches(lines.clone());
            for batch in &batches {
                let lines = batch.lines();
                prop_assert!(!lines.is_empty() && lines.len() <= MOST_LINES);
                prop_assert!(lines.iter().map(|line| line.text().len() + 26).sum::<usize>() <= MOST_BYTES);
                prop_assert!(lines.is_sorted_by_key(Line::time));
                let span = lines[lines.len() - 1].time().duration_since(lines[0].time());
                prop_assert!(span <= LONGEST_SPAN);
            }
            // No batch takes what came after something in a later one.
            let mut rest = &lines[..];
            for batch in &batches {
                let (mine, others) = rest.split_at(batch.lines().len());
                let mut mine = mine.to_vec();
                mine.sort_by_key(Line::time);
                prop_assert_eq!(batch.lines(), &mine[..]);
                rest = others;
            }
            prop_assert!(rest.is_empty());
        }
    }
}
