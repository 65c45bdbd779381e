//! Waiting for a level, with a deadline: the rig's only way to wait.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(50);

/// One look: a server that is just starting may take a request and never answer it.
const LOOK: Duration = Duration::from_secs(5);

/// Before any look said more.
const NOT_YET: &str = "not yet";

/// Looks every 50 ms until `look` gives a value, for `deadline` at most. An error of `look` is not final: it is
/// told when the deadline has passed.
///
/// # Errors
/// The deadline passed; the message says what was waited for and what the last look saw.
pub async fn until<T, F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + deadline;
    let mut last = NOT_YET.to_owned();
    loop {
        match tokio::time::timeout_at(end.min(Instant::now() + LOOK), look()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = format!("{error:#}"),
            // A look that the deadline itself cut short says less than the one before it.
            Err(_) if Instant::now() >= end && last != NOT_YET => {}
            Err(_) => last = "the last look did not come back".into(),
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} for {what}: {last}");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// [`until`] for a condition.
///
/// # Errors
/// As [`until`].
pub async fn until_true<F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    until(what, deadline, || {
        let looked = look();
        async { Ok(looked.await?.then_some(())) }
    })
    .await
}
