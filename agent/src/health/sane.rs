//! What may leave the machine: figures that can be true. Anything else becomes unknown, never zero.

use smartscale_proto::v1::{Health, PodCounts, Pressure};

/// More memory than any instance has, in bytes (1 PiB).
const MOST_MEMORY: u64 = 1 << 50;
/// More runnable tasks than a kernel can have (the greatest `pid_max`).
const MOST_LOAD: f64 = 4_194_304.0;
/// More pods than a kubelet runs.
const MOST_PODS: u32 = 10_000;

/// A clock that is further off than a century is no clock, in milliseconds.
const MOST_SKEW: u64 = 100 * 366 * 86_400 * 1000;

fn percent(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && (0.0..=100.0).contains(value))
}

fn pods(counts: PodCounts) -> Option<PodCounts> {
    let PodCounts {
        pending,
        running,
        succeeded,
        failed,
        terminating,
    } = counts;
    [pending, running, succeeded, failed, terminating]
        .iter()
        .all(|count| *count <= MOST_PODS)
        .then_some(counts)
}

/// `health` without the figures that cannot be true.
#[must_use]
pub fn sane(health: Health) -> Health {
    Health {
        cpu_percent: percent(health.cpu_percent),
        memory_percent: percent(health.memory_percent),
        memory_total_bytes: health
            .memory_total_bytes
            .filter(|bytes| (1..=MOST_MEMORY).contains(bytes)),
        load1: health
            .load1
            .filter(|load| load.is_finite() && (0.0..=MOST_LOAD).contains(load)),
        pressure: health.pressure.map(|pressure| Pressure {
            cpu_some_percent: percent(pressure.cpu_some_percent),
            memory_some_percent: percent(pressure.memory_some_percent),
            io_some_percent: percent(pressure.io_some_percent),
        }),
        disk_percent: percent(health.disk_percent),
        inode_percent: percent(health.inode_percent),
        pods: health.pods.and_then(pods),
        steal_percent: percent(health.steal_percent),
        root_disk_percent: percent(health.root_disk_percent),
        image_disk_percent: percent(health.image_disk_percent),
        conntrack_percent: percent(health.conntrack_percent),
        clock_skew_ms: health
            .clock_skew_ms
            .filter(|skew| skew.unsigned_abs() <= MOST_SKEW),
        ..health
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_that_cannot_be_true_are_unknown() {
        for absurd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.1, 100.1] {
            let health = sane(Health {
                cpu_percent: Some(absurd),
                memory_percent: Some(absurd),
                disk_percent: Some(absurd),
                inode_percent: Some(absurd),
                pressure: Some(Pressure {
                    cpu_some_percent: Some(absurd),
                    ..Pressure::default()
                }),
                ..Health::default()
            });
            assert_eq!(
                health,
                Health {
                    pressure: Some(Pressure::default()),
                    ..Health::default()
                }
            );
        }
        let absurd = sane(Health {
            memory_total_bytes: Some(u64::MAX),
            load1: Some(f64::NAN),
            pods: Some(PodCounts {
                running: 1_000_000_000,
                ..PodCounts::default()
            }),
            ..Health::default()
        });
        assert_eq!(absurd, Health::default());
    }

    #[test]
    fn sound_figures_pass() {
        let health = Health {
            cpu_percent: Some(0.0),
            memory_percent: Some(100.0),
            memory_total_bytes: Some(1 << 31),
            load1: Some(3.5),
            pods: Some(PodCounts {
                running: 110,
                ..PodCounts::default()
            }),
            ..Health::default()
        };
        assert_eq!(sane(health.clone()), health);
    }

    proptest! {
        #[test]
        fn what_leaves_is_always_in_range(cpu: f64, load: f64, total: u64) {
            let health = sane(Health {
                cpu_percent: Some(cpu), load1: Some(load), memory_total_bytes: Some(total), ..Health::default()
            });
            prop_assert!(health.cpu_percent.is_none_or(|value| (0.0..=100.0).contains(&value)));
            prop_assert!(health.load1.is_none_or(|value| value.is_finite() && value >= 0.0));
        }
    }
}
