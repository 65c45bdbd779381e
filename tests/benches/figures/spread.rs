//! Times of repetitions.

use anyhow::Context as _;
use jiff::SignedDuration;

/// Least, median and greatest of some times.
pub(crate) fn spread(mut times: Vec<SignedDuration>) -> anyhow::Result<String> {
    times.sort();
    let (first, last) = times.first().zip(times.last()).context("nothing was timed")?;
    let median = times.get(times.len() / 2).unwrap_or(last);
    let seconds = |time: &SignedDuration| format!("{:.2} s", time.as_secs_f64());
    Ok(format!(
        "{} / {} / {}",
        seconds(first),
        seconds(median),
        seconds(last)
    ))
}
