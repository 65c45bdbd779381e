//! What the kernel's small files say: each reader takes a file's text and gives what it knows, or nothing.

/// Ticks of all CPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ticks {
    /// Outside idle and iowait. Stolen ones count: nobody here could use them.
    pub(super) busy: u64,
    /// Given to others by the hypervisor while a task here was ready to run.
    pub(super) stolen: u64,
    /// All.
    pub(super) total: u64,
}

/// `/proc/stat` (proc_stat(5)).
pub(super) fn cpu(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest times are within user and nice.
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let total = ticks
        .iter()
        .try_fold(0_u64, |sum, ticks| sum.checked_add(*ticks))?;
    let idle = ticks.get(3)?.checked_add(ticks.get(4).copied().unwrap_or(0))?;
    Some(Ticks {
        busy: total.checked_sub(idle)?,
        stolen: ticks.get(7).copied().unwrap_or(0),
        total,
    })
}

/// Total and available memory in bytes, of `/proc/meminfo` (proc_meminfo(5)).
pub(super) fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

/// Runnable tasks on average over a minute, of `/proc/loadavg`.
pub(super) fn load(loadavg: &str) -> Option<f64> {
    loadavg.split_ascii_whitespace().next()?.parse().ok()
}

/// Microseconds in which some task waited, of a file below `/proc/pressure`.
pub(super) fn pressure(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_ascii_whitespace()
        .find_map(|field| field.strip_prefix("total="))?
        .parse()
        .ok()
}

/// Processes that were killed for want of memory, of `/proc/vmstat`.
pub(super) fn oom_kills(vmstat: &str) -> Option<u64> {
    number(vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?)
}

/// A file that holds one number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Errors, received and sent, of the interfaces with a cable, of `/proc/net/dev`. By systemd's scheme and by the kernel's
/// own those begin with `e`; pods' begin with `v`, K3s' bridge and overlay with `c` and `f`.
pub(super) fn nic_errors(dev: &str) -> Option<u64> {
    let mut found = None;
    for line in dev.lines() {
        let Some((name, counters)) = line.split_once(':') else {
            continue;
        };
        if !name.trim_start().starts_with('e') {
            continue;
        }
        // Received: bytes packets errs drop fifo frame compressed multicast; sent: bytes packets errs …
        let mut errors = counters.split_ascii_whitespace().skip(2).step_by(8);
        let (received, sent) = (number(errors.next()?)?, number(errors.next()?)?);
        found = Some(
            found
                .unwrap_or(0_u64)
                .saturating_add(received)
                .saturating_add(sent),
        );
    }
    found
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a percentage needs no more than 52 bits"
)]
pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn proc_is_read_as_the_kernel_writes_it() {
        assert_eq!(
            cpu("cpu  100 20 30 800 50 0 10 5 7 0\ncpu0 1 2\n"),
            Some(Ticks {
                busy: 165,
                stolen: 5,
                total: 1015
            })
        );
        assert_eq!(
            memory("MemTotal:        2000 kB\nMemFree:  10 kB\nMemAvailable:     500 kB\n"),
            Some((2_048_000, 512_000))
        );
        assert_eq!(load("0.42 0.30 0.20 1/234 5678\n"), Some(0.42));
        // Kernels before 5.13 have no `full` line for the CPU.
        assert_eq!(
            pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\n"),
            Some(12345)
        );
        assert_eq!(oom_kills("pgfault 1\noom_kill 3\nnuma_hit 2\n"), Some(3));
        assert_eq!(number("262144\n"), Some(262_144));
    }

    #[test]
    fn errors_of_cables_count_and_those_of_pods_do_not() {
        let dev = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 100 1 9 0 0 0 0 0 100 1 9 0 0 0 0 0\n  ens5: 100 1 2 0 0 0 0 0 200 2 3 0 0 0 0 0\n\
            veth1a2b: 100 1 50 0 0 0 0 0 200 2 50 0 0 0 0 0\n  eth1: 1 1 1 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        assert_eq!(nic_errors(dev), Some(6));
        assert_eq!(nic_errors("lo: 1 1 9 0 0 0 0 0 1 1 9 0 0 0 0 0\n"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text: String) {
            let _ = (cpu(&text), memory(&text), load(&text), pressure(&text), oom_kills(&text), nic_errors(&text));
        }
    }
}
