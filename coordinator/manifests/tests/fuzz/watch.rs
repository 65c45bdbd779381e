//! Bounds of one input: time and memory. What breaks the process as a whole, such as a stack that overflows, leaves its
//! input in a file that was written before.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use crate::corpus::Part;

/// Processor time of one input. A whole one of the corpus takes milliseconds.
const TIME: Duration = Duration::from_secs(5);
/// An input that takes so long on a machine however busy does not end.
const HANGS: Duration = Duration::from_secs(120);
/// Address space of the test program; of the corpus nothing needs a tenth.
const MEMORY: u64 = 2 << 30;

/// The inputs that are being read, with their beginning.
static READING: Mutex<Vec<(PathBuf, Instant)>> = Mutex::new(Vec::new());

/// Does `work` on this input within bounds.
pub(crate) fn watched<T>(part: Part, text: &str, work: impl FnOnce() -> T) -> T {
    static BOUNDS: OnceLock<()> = OnceLock::new();
    BOUNDS.get_or_init(|| {
        bound_memory();
        keep_quiet();
        std::thread::spawn(end_what_hangs);
    });
    let file = keep(part, text);
    reading().push((file.clone(), Instant::now()));
    let _done = Done(&file);
    let before = processor_time();
    let done = work();
    let spent = processor_time().saturating_sub(before);
    assert!(spent < TIME, "it took {spent:?}");
    done
}

/// Shrinking panics hundreds of times; what came of it is told in the end.
fn keep_quiet() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("main");
        let is_reading = reading()
            .iter()
            .any(|(file, _)| file.file_prefix().is_some_and(|of| of == name));
        if !is_reading {
            tell(panic);
        }
    }));
}

/// Writes an input to the file of this thread.
pub(crate) fn keep(part: Part, text: &str) -> PathBuf {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("main").to_owned();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", part.extension()));
    fs::write(&file, text).unwrap();
    file
}

struct Done<'a>(&'a Path);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        reading().retain(|(file, _)| file != self.0);
    }
}

fn reading() -> std::sync::MutexGuard<'static, Vec<(PathBuf, Instant)>> {
    READING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// Allocations beyond fail, which ends the process with a message.
fn bound_memory() {
    let limits = getrlimit(Resource::As);
    setrlimit(
        Resource::As,
        Rlimit {
            current: Some(MEMORY),
            ..limits
        },
    )
    .unwrap();
}

fn end_what_hangs() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let hanging = reading()
            .iter()
            .find(|(_, since)| since.elapsed() > HANGS)
            .cloned();
        if let Some((file, _)) = hanging {
            eprintln!("no end after {HANGS:?}: {}", file.display());
            std::process::exit(101);
        }
    }
}
