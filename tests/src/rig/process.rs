//! Server processes that cannot outlive the test.
//!
//! ```text
//!  test ──▶ spawner thread ──▶ setpriv --pdeathsig KILL ──exec──▶ server        (own process group)
//! ```
//!
//! A dropped [`Process`] kills its whole process group. If the test program itself is killed, no drop runs; the kernel
//! then kills every server, since each asked for that ("parent death signal"). That signal is sent when the *thread*
//! that made the child ends, and a test's thread ends before the program does, so one thread that never ends makes
//! all children.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};

use super::Folder;

/// How long a process that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    removed: Vec<String>,
    folder: Option<PathBuf>,
}

impl Program {
    /// The program at `path`, called `name` in messages and in its log's file name.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            removed: Vec::new(),
            folder: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds `--name=value`.
    #[must_use]
    pub fn flag(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value);
        self.arg(flag)
    }

    /// Runs it through another program, which takes `arguments` and then this one's command line, and becomes it.
    #[must_use]
    pub fn through(mut self, path: impl Into<PathBuf>, arguments: &[impl AsRef<OsStr>]) -> Self {
        let inner = std::mem::replace(&mut self.path, path.into());
        let outer = arguments.iter().map(|argument| argument.as_ref().to_owned());
        self.arguments = outer
            .chain([inner.into_os_string()])
            .chain(self.arguments)
            .collect();
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Takes a variable of the test's own environment away from it.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.removed.push(name.to_owned());
        self
    }

    /// Its working folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    fn command(&self, log: &Path) -> anyhow::Result<Command> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command
            .arg("--pdeathsig")
            .arg("KILL")
            .arg("--")
            .arg(&self.path)
            .args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for name in &self.removed {
            command.env_remove(name);
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.process_group(0).stdin(Stdio::null());
        command
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log);
        Ok(command)
    }
}

/// A running (or stopped) program. Dropping it kills its process group.
#[derive(Debug)]
pub struct Process {
    program: Program,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts `program`, its output appended to `NAME.log` in the folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(program: Program, folder: &Folder) -> anyhow::Result<Self> {
        let log = folder.sub("logs")?.join(format!("{}.log", program.name));
        let mut process = Self {
            program,
            log,
            child: None,
        };
        process.start()?;
        Ok(process)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), same arguments, same port.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.exited()?.is_none() && self.child.is_some() {
            bail!("{} is running", self.program.name);
        }
        let command = self.program.command(&self.log)?;
        self.child = Some(spawn(command).with_context(|| {
            format!(
                "start {} ({}; setpriv is in util-linux)",
                self.program.name,
                self.program.path.display()
            )
        })?);
        Ok(())
    }

    /// Its name, as given to [`Program::new`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// The file that has its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, when it has ended by itself or by a signal from elsewhere.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        child
            .try_wait()
            .with_context(|| format!("wait for {}", self.program.name))
    }

    /// Sends a signal to the process group.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.program.name))?;
        rustix::process::kill_process_group(pid, signal)
            .with_context(|| format!("signal {}", self.program.name))
    }

    /// Stops it from doing anything (`SIGSTOP`) until [`resume`](Self::resume): a machine that hangs.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused process go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it at once (`SIGKILL`) and waits for its end. Nothing happens when it does not run.
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            // The group may be gone already; then there is nothing to kill.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Asks it to end (`SIGTERM`) and waits 20 s at most, then kills it. Gives its exit status.
    ///
    /// # Errors
    /// It did not run, or did not end in time (it is killed then).
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let name = self.program.name.clone();
        let ended = self.ended(GRACE).await.with_context(|| format!("stop {name}"));
        // What it may have left of its group ends too.
        self.kill();
        ended
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end within `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.program.name);
        super::wait::until(&what, deadline, || {
            let status = self.exited();
            async move { status }
        })
        .await
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_child(self.child.as_ref()?).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a server whose port may be lost to another program before it binds it: `attempt` picks a port and names the
/// program, `ready` looks whether it serves. A server that ends before it is ready is tried twice more.
///
/// # Errors
/// It ended three times, or was not ready within `deadline`; the message has the end of its log.
pub async fn start<A, F, R>(
    folder: &Folder,
    deadline: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<(Program, A)>,
    ready: R,
) -> anyhow::Result<(Process, A)>
where
    A: Clone,
    R: Fn(A) -> F,
    F: Future<Output = anyhow::Result<bool>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        let (program, address) = attempt()?;
        let mut process = Process::spawn(program, folder)?;
        match serving(&mut process, deadline, || ready(address.clone())).await {
            Ok(()) => return Ok((process, address)),
            Err(error) if tries < 3 && process.exited()?.is_some() => {
                eprintln!("rig: {} is tried again: {error:#}", process.name());
            }
            Err(error) => {
                folder.keep();
                bail!("{error:#}\n{}", process.tail(15));
            }
        }
    }
}

/// Waits until `ready` says so, and gives up early when the process has ended.
///
/// # Errors
/// The process ended, or the deadline passed.
pub async fn serving<F>(
    process: &mut Process,
    deadline: Duration,
    ready: impl Fn() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let name = process.name().to_owned();
    let what = format!("{name} to serve");
    let end = super::wait::until(&what, deadline, || {
        let exited = process.exited();
        let ready = ready();
        async move {
            if let Some(status) = exited? {
                return Ok(Some(Some(status)));
            }
            Ok(ready.await?.then_some(None))
        }
    })
    .await?;
    match end {
        Some(status) => bail!("{name} ended before it served: {status}"),
        None => Ok(()),
    }
}

/// Makes a child on the thread that never ends (see the module's text).
fn spawn(command: Command) -> anyhow::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                // Nobody waits any more: the child ends with its handle's owner, as the handle goes nowhere.
                if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
                    let _ = orphan.kill();
                }
            }
        });
        orders
    });
    let (answer, answered) = mpsc::channel();
    spawner
        .send((command, answer))
        .ok()
        .context("the spawner thread is gone")?;
    Ok(answered.recv().context("the spawner thread is gone")??)
}
