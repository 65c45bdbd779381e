//! Runs the program for one call. It is given a question and a time, and whatever it does, the call ends: with an answer of a
//! bounded size, or with [`Failed`].

use std::{process::ExitStatus, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use smartscale_proto::time::{SharedClock, within};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStderr, ChildStdin, Command},
};
use tokio_util::task::AbortOnDropHandle;

use super::Settings;

/// The longest answer, in bytes: a list of ten thousand machines has 3 MB.
const LONGEST_ANSWER: usize = 8 << 20;
/// Lines of standard error of one call that are logged.
const MOST_LINES: usize = 200;
/// Bytes of a line that are looked at.
const LONGEST_LINE: usize = 4096;
/// Characters of a text of the program's that are shown.
const SHOWN: usize = 500;
/// Somebody else may hold the program's outputs open when it has ended; nobody waits longer for that.
const LINGER: Duration = Duration::from_secs(1);
/// Where it finds other programs, unless the configuration says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a call brought no answer. What the program did before it failed, nobody knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the question has no form: {0}")]
    Question(String),
    #[error("the fleet's program cannot be started: {0}")]
    Start(std::io::Error),
    #[error("the fleet's program did not end within {} s and was killed", .0.as_secs())]
    TimedOut(Duration),
    #[error("the fleet's program answered more than {LONGEST_ANSWER} bytes and was killed")]
    TooMuch,
    #[error("the fleet's program left somebody behind who holds its standard output open")]
    HeldOpen,
    #[error("the fleet's program could not be followed: {0}")]
    Lost(std::io::Error),
    #[error("the fleet's program failed ({0})")]
    Ended(ExitStatus),
}

/// The program.
pub(super) struct Program {
    settings: Settings,
    clock: SharedClock,
}

/// The processes of a call. Dropped, it leaves none of them.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) {
        // None of it may be left, which is what was wanted. (The number could only be another's if all numbers were used up in
        // the moment since.)
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Program {
    pub(super) fn new(settings: Settings, clock: SharedClock) -> Self {
        Self { settings, clock }
    }

    /// One call. `secret` is kept out of the log.
    pub(super) async fn run(
        &self,
        verb: &'static str,
        question: &[u8],
        secret: &str,
    ) -> Result<Vec<u8>, Failed> {
        let Settings {
            program,
            arguments,
            environment,
            timeout,
        } = &self.settings;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(verb)
            .env_clear()
            .envs([("PATH", PATH), ("LANG", "C.UTF-8")])
            .envs(environment)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(Failed::Start)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Group(pid.and_then(Pid::from_raw));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let log = child.stderr.take().map(|stderr| {
            let lines = Lines::new(verb, secret);
            AbortOnDropHandle::new(tokio::spawn(follow(stderr, lines)))
        });
        let mut answer = Vec::new();
        let call = async {
            let talk = async { tokio::join!(tell(stdin, question), hear(stdout, &mut answer)).1 };
            tokio::pin!(talk);
            let (status, heard) = tokio::select! {
                heard = &mut talk => {
                    heard?;
                    (child.wait().await, true)
                }
                status = child.wait() => {
                    group.kill();
                    let heard = within(&*self.clock, LINGER, &mut talk).await.transpose()?;
                    (status, heard.is_some())
                }
            };
            let status = status.map_err(Failed::Lost)?;
            match (status.success(), heard) {
                (false, _) => Err(Failed::Ended(status)),
                (true, false) => Err(Failed::HeldOpen),
                (true, true) => Ok(()),
            }
        };
        let outcome = within(&*self.clock, *timeout, call).await;
        drop(group);
        if let Some(log) = log {
            within(&*self.clock, LINGER, log).await;
        }
        outcome.unwrap_or(Err(Failed::TimedOut(*timeout)))?;
        Ok(answer)
    }
}

/// Whether the program reads what it is told is its own affair.
async fn tell(stdin: Option<ChildStdin>, question: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(question).await;
    }
}

async fn hear(stdout: Option<impl AsyncRead + Unpin>, answer: &mut Vec<u8>) -> Result<(), Failed> {
    let Some(stdout) = stdout else { return Ok(()) };
    let most = u64::try_from(LONGEST_ANSWER).unwrap_or(u64::MAX);
    let mut stdout = stdout.take(most + 1);
    stdout.read_to_end(answer).await.map_err(Failed::Lost)?;
    if answer.len() > LONGEST_ANSWER {
        return Err(Failed::TooMuch);
    }
    Ok(())
}

async fn follow(mut stderr: ChildStderr, mut lines: Lines) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut bytes).await {
        for line in lines.take(bytes.get(..count).unwrap_or_default()) {
            tracing::info!(verb = lines.verb, line, "the fleet's program says");
        }
    }
    for line in lines.end() {
        tracing::info!(verb = lines.verb, line, "the fleet's program says");
    }
}

/// Cuts what comes in pieces into lines that may be shown.
struct Lines {
    verb: &'static str,
    secret: zeroize::Zeroizing<String>,
    line: Vec<u8>,
    count: usize,
}

impl Lines {
    fn new(verb: &'static str, secret: &str) -> Self {
        Self {
            verb,
            secret: secret.to_owned().into(),
            line: Vec::new(),
            count: 0,
        }
    }

    /// The lines that end in these bytes. What follows on [`MOST_LINES`] is only counted.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.extend(self.cut());
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(*byte);
            }
        }
        lines
    }

    /// The line that nothing ended, and how many were not shown.
    fn end(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.line.is_empty() {
            lines.extend(self.cut());
        }
        if let Some(more @ 1..) = self.count.checked_sub(MOST_LINES) {
            lines.push(format!("… and {more} lines more"));
        }
        lines
    }

    fn cut(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        self.count += 1;
        if self.count > MOST_LINES {
            return None;
        }
        let mut text = without(&String::from_utf8_lossy(&line), &self.secret);
        // Half a secret at the end of a line that was cut would not be known again.
        if line.len() == LONGEST_LINE {
            let kept = text.chars().count().saturating_sub(self.secret.len());
            text = text.chars().take(kept).collect();
        }
        Some(clean(&text, ""))
    }
}

fn without(text: &str, secret: &str) -> String {
    match secret {
        "" => text.to_owned(),
        secret => text.replace(secret, "[secret]"),
    }
}

/// A text of the program's as it may be shown: without the secret, in one line, and not too long.
pub(super) fn clean(text: &str, secret: &str) -> String {
    let text = without(text, secret);
    let printed = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.trim().chars().take(SHOWN).map(printed).collect();
    if text.trim().chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "Zm9yLXRlc3RzLW9ubHktYW5kLW5vdGhpbmctZWxzZQ";

    #[test]
    fn lines_are_told_apart_however_they_come_and_the_secret_is_none_of_them() {
        let mut lines = Lines::new("launch", SECRET);
        assert_eq!(lines.take(b"one\ntw"), ["one"]);
        assert_eq!(lines.take(b"o\n\x1b[31mred\n"), ["two", " [31mred"]);
        let (first, second) = SECRET.split_at(7);
        assert!(lines.take(format!("+ echo {first}").as_bytes()).is_empty());
        assert_eq!(
            lines.take(format!("{second} x\n").as_bytes()),
            ["+ echo [secret] x"]
        );
        assert_eq!(lines.end(), Vec::<String>::new());
    }

    #[test]
    fn what_is_too_much_is_counted_and_not_shown() {
        let mut lines = Lines::new("list", "");
        let shown = lines.take("x\n".repeat(MOST_LINES + 5).as_bytes());
        assert_eq!(shown.len(), MOST_LINES);
        assert_eq!(lines.end(), ["… and 5 lines more"]);
    }

    proptest! {
        #[test]
        fn no_secret_is_ever_shown_and_no_line_is_long(
            before in 0..2 * LONGEST_LINE, times in 0..200_usize, pieces in 1..9000_usize,
        ) {
            let text = "a".repeat(before) + &SECRET.repeat(times);
            let mut lines = Lines::new("launch", SECRET);
            let mut shown = Vec::new();
            for piece in text.as_bytes().chunks(pieces) {
                shown.extend(lines.take(piece));
            }
            shown.extend(lines.end());
            for line in shown {
                prop_assert!(line.chars().count() <= SHOWN + 1);
                // Not even a part that would spare somebody the work of guessing it.
                prop_assert!(!line.contains(&SECRET[..12]), "{line}");
            }
        }
    }
}
