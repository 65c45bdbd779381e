//! How long a plan takes: `make bench`, or `cargo bench --workspace --bench planner`.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot arrange its cluster ends"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use smartscale_planner::{
    Policy, Snapshot,
    fixtures::{budget, node, now, pod, policy_of, reading, snapshot},
    model::{Node, Pod, keys},
    plan,
    snapshot::Metrics,
};

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// Up to 1,000 nodes of three types in three zones and two markets; removals by what fits.
fn policy() -> Policy {
    policy_of(
        r#"
[cluster]
id = "bench"
[limits]
min_nodes = 1
max_nodes = 1000
[scale_up]
max_step = 1000
[scale_down]
when = "fits"
sustained = "0s"
[[pool]]
name = "workers"
instance_types = ["t3.small", "t3.medium", "m5.large"]
zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
markets = ["spot", "on-demand"]
on_demand_base = 1
spot_share_percent = 50
"#,
    )
}

/// `nodes` of 2 cores with ten pods of 150m each, whose figures are known, and `pending` pods of 500m. Of these, if they are
/// `choosy`, every tenth keeps away from its like and another tenth is spread over zones.
fn cluster(nodes: usize, pending: usize, choosy: bool) -> Snapshot {
    let names: Vec<String> = (0..nodes).map(|i| format!("n{i}")).collect();
    let all: Vec<Node> = names
        .iter()
        .zip(ZONES.iter().cycle())
        .map(|(name, zone)| node(name).zone(zone).build())
        .collect();
    let bound = names.iter().enumerate().flat_map(|(i, name)| {
        (0..10).map(move |j| {
            pod(&format!("app{}-{i}-{j}", i % 20))
                .cpu("150m")
                .on(name)
                .build()
        })
    });
    let waiting = (0..pending).map(|i| {
        let pod = pod(&format!("new-{i}")).cpu("500m");
        let pod = match i % 10 {
            0 if choosy => pod.apart_from("new", keys::HOSTNAME),
            1 if choosy => pod.spread(keys::ZONE, 1),
            _ => pod,
        };
        pod.build()
    });
    let pods: Vec<Pod> = bound.chain(waiting).collect();
    let mut snapshot = snapshot(all, pods);
    snapshot.cluster.disruption_budgets = vec![budget("new", 2)];
    let measured = || reading("2026-01-02T03:04:00Z", 40.0, 30.0);
    snapshot.metrics = Metrics {
        cluster: vec![reading("2026-01-02T03:03:30Z", 40.0, 30.0), measured()],
        nodes: names
            .iter()
            .map(|name| (name.as_str().into(), measured()))
            .collect(),
        ..Metrics::default()
    };
    snapshot
}

fn plans(criterion: &mut Criterion) {
    let policy = policy();
    let cases = [
        ("1,000 pods on 100 nodes, none pending", cluster(100, 0, false)),
        (
            "1,000 pods on 100 nodes, 100 pending, a fifth choosy",
            cluster(100, 100, true),
        ),
        ("1,000 pending pods and no node", cluster(0, 1000, false)),
        (
            "200 pending pods and no node, a fifth choosy",
            cluster(0, 200, true),
        ),
    ];
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    for (name, snapshot) in &cases {
        group.bench_function(*name, |bencher| {
            bencher.iter_batched(
                now,
                |now| plan(black_box(snapshot), black_box(&policy), now),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
