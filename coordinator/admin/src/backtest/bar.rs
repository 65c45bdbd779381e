//! How far a backtest has come, as a line on stderr that is drawn anew while it runs. Only where a person looks on.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use ratatui::crossterm::terminal;
use smartscale_backtest::Progress;

/// Between two drawings.
const PERIOD: Duration = Duration::from_millis(100);
/// Columns of the bar itself, without its brackets.
const BAR: usize = 24;
/// Columns of a terminal that does not say how many it has.
const COLUMNS: u16 = 80;

/// Does `work` and shows meanwhile how far it has come, if stderr is a terminal. The line is gone afterwards.
pub(super) fn beside<T>(progress: &Progress, names: &[impl Display + Sync], work: impl FnOnce() -> T) -> T {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if !io::stderr().is_terminal() || is_dumb {
        return work();
    }
    thread::scope(|scope| {
        // Dropped when the work is done, also by a panic.
        let (working, done) = mpsc::channel::<()>();
        scope.spawn(move || {
            while done.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let columns = terminal::size().map_or(COLUMNS, |(columns, _)| columns);
                draw(&line(progress, names, usize::from(columns)));
            }
            draw("");
        });
        let result = work();
        drop(working);
        result
    })
}

/// Puts `text` in the place of what the line had.
fn draw(text: &str) {
    let mut stderr = io::stderr().lock();
    // A terminal that takes nothing has nobody who misses it.
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

/// The line, shorter than `columns`: a terminal would begin a new one.
fn line(progress: &Progress, names: &[impl Display], columns: usize) -> String {
    let part = progress.part();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "of 0 to 1, a number of columns"
    )]
    let (full, percent) = ((part * BAR as f64) as usize, (part * 100.0) as usize);
    let full = full.min(BAR);
    let under_way = progress.under_way();
    let names: Vec<String> = under_way
        .iter()
        .filter_map(|index| names.get(*index))
        .map(ToString::to_string)
        .collect();
    let line = format!("[{:<BAR$}] {percent:3} %  {}", "#".repeat(full), names.join(", "));
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use smartscale_backtest::{Backtests, Trace, Workload};
    use smartscale_planner::Policy;

    use super::*;

    #[test]
    fn the_line_says_the_part_that_is_done_and_stays_within_the_terminal() {
        let trace =
            Trace::from_rows([(jiff::Timestamp::UNIX_EPOCH, 1.0)], Duration::from_secs(3600)).unwrap();
        let text = "[cluster]\nid = \"c\"\n[limits]\nmin_nodes = 1\nmax_nodes = 2\n[[pool]]\nname = \"w\"\n\
                    zones = [\"us-east-1a\"]\ninstance_types = [\"t3.small\"]\n";
        let policies = [Policy::from_toml(text).unwrap().0];
        let workload =
            Workload::from_toml("[workload]\nrequests_per_pod = 10\ncpu = \"1\"\nmemory = \"1Gi\"\n")
                .unwrap();
        let backtests = Backtests {
            trace: &trace,
            policies: &policies,
            workload: &workload,
            seed: 1,
            keep_series: false,
        };
        let progress = backtests.progress();
        let before = line(&progress, &["a.toml"], 80);
        assert_eq!(before, format!("[{}]   0 %  ", " ".repeat(BAR)));
        backtests.run(&[].into(), &progress);
        let after = line(&progress, &["a.toml"], 80);
        assert_eq!(after, format!("[{}] 100 %  ", "#".repeat(BAR)));
        assert_eq!(line(&progress, &["a.toml"], 10).chars().count(), 9);
    }
}
