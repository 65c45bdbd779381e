//! What counts as a change of health: a figure that moved by more than a bound since the last report, or a state that flipped.
//! The bounds are below what a decision would notice, and above what an idle machine does by itself.

use smartscale_proto::v1::{Health, Pressure};

/// CPU and pressure, in points.
const BUSY: f64 = 5.0;
/// Memory, disk and inodes, in points.
const FILL: f64 = 1.0;
/// Load, in tasks.
const LOAD: f64 = 1.0;

fn moved(before: Option<f64>, now: Option<f64>, bound: f64) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => (now - before).abs() >= bound,
        (None, None) => false,
        _ => true,
    }
}

/// Whether `now` is worth a report while the coordinator knows `before`.
#[must_use]
pub fn changed(before: &Health, now: &Health) -> bool {
    let pressure = |health: &Health| health.pressure.unwrap_or_default();
    let waits = |pressure: Pressure| {
        [
            pressure.cpu_some_percent,
            pressure.memory_some_percent,
            pressure.io_some_percent,
        ]
    };
    moved(before.cpu_percent, now.cpu_percent, BUSY)
        || moved(before.memory_percent, now.memory_percent, FILL)
        || moved(before.load1, now.load1, LOAD)
        || waits(pressure(before))
            .into_iter()
            .zip(waits(pressure(now)))
            .any(|(b, n)| moved(b, n, BUSY))
        || moved(before.disk_percent, now.disk_percent, FILL)
        || moved(before.inode_percent, now.inode_percent, FILL)
        || before.memory_total_bytes != now.memory_total_bytes
        || before.pods != now.pods
        || before.units != now.units
        || before.node_ready != now.node_ready
        || before.kubelet_healthy != now.kubelet_healthy
        || before.runtime_healthy != now.runtime_healthy
        || before.conditions != now.conditions
        || moved(before.steal_percent, now.steal_percent, BUSY)
        || moved(before.root_disk_percent, now.root_disk_percent, FILL)
        || moved(before.image_disk_percent, now.image_disk_percent, FILL)
        || moved(before.conntrack_percent, now.conntrack_percent, FILL)
        || before.oom_kills != now.oom_kills
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(percent: f64) -> Health {
        Health {
            cpu_percent: Some(percent),
            ..Health::default()
        }
    }

    #[test]
    fn a_small_move_is_quiet_and_a_large_one_is_not() {
        assert!(!changed(&cpu(20.0), &cpu(24.9)));
        assert!(changed(&cpu(20.0), &cpu(25.0)));
        assert!(changed(&cpu(25.0), &cpu(20.0)));
    }

    #[test]
    fn a_figure_that_comes_or_goes_is_a_change() {
        assert!(changed(&Health::default(), &cpu(1.0)));
        assert!(changed(&cpu(1.0), &Health::default()));
    }

    #[test]
    fn a_state_that_flips_is_a_change() {
        let ready = |ready| Health {
            node_ready: Some(ready),
            ..Health::default()
        };
        assert!(changed(&ready(true), &ready(false)));
        assert!(!changed(&ready(true), &ready(true)));
    }
}
