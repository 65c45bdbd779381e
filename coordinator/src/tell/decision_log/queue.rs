//! Lines that wait for the log: so many bytes, and no more.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{Line, batch::Batch};

#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            filled: Notify::new(),
            most_bytes,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a line in, and says how many of the oldest had to go for it.
    pub(super) fn put(&self, line: Line) -> usize {
        let mut waiting = self.waiting();
        waiting.bytes += line.bytes();
        waiting.lines.push_back(line);
        let mut gone = 0;
        while waiting.bytes > self.most_bytes
            && let Some(oldest) = waiting.lines.pop_front()
        {
            waiting.bytes -= oldest.bytes();
            gone += 1;
        }
        self.filled.notify_one();
        gone
    }

    /// Takes what one call of the log takes.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut waiting = self.waiting();
        let batch = Batch::take(&mut waiting.lines)?;
        waiting.bytes -= batch.lines().iter().map(Line::bytes).sum::<usize>();
        Some(batch)
    }

    /// Ends when a line was put in since the last time.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use jiff::Timestamp;

    use super::*;
    use crate::tell::decision_log::batch::OVERHEAD;

    fn line(text: &str) -> Line {
        Line::new(Timestamp::UNIX_EPOCH, text.to_owned())
    }

    fn texts(queue: &Queue) -> Vec<String> {
        let batch = queue.take();
        let lines = batch.iter().flat_map(Batch::lines);
        lines.map(|line| line.text().to_owned()).collect()
    }

    #[test]
    fn the_oldest_lines_go_first_and_only_as_many_as_it_takes() {
        let queue = Queue::new(3 * (OVERHEAD + 1));
        for text in ["a", "b", "c"] {
            assert_eq!(queue.put(line(text)), 0);
        }
        assert_eq!(queue.put(line("d")), 1);
        assert_eq!(queue.put(line("ee")), 2);
        assert_eq!(texts(&queue), ["d", "ee"]);
        // What was taken is no longer counted.
        for text in ["f", "g", "h"] {
            assert_eq!(queue.put(line(text)), 0);
        }
        assert_eq!(texts(&queue), ["f", "g", "h"]);
        assert!(texts(&queue).is_empty());
    }

    #[test]
    fn a_line_that_has_no_room_at_all_is_gone_itself() {
        let queue = Queue::new(OVERHEAD);
        assert_eq!(queue.put(line("a")), 1);
        assert!(queue.take().is_none());
    }
}
