//! How fast the planner decides, what its answers cost and how far that is from the least possible: `make bench-planner`.
//!
//! Times are of the decision alone (model in memory → plan), medians; beside them the whole program `smartscale plan` from
//! the files, with its peak memory, if `SMARTSCALE_PROGRAM` names it. Arguments choose workloads by parts of their names.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that fails should stop at its line"
)]
#![allow(clippy::print_stdout, reason = "it prints a table")]

#[path = "../../../tests/bench/workloads.rs"]
mod workloads;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use smartscale_manifests::{Kind, Objects, read};
use smartscale_planner::{
    Destination, Plan, Planner, Policy, Snapshot, least_cost,
    model::NodeName,
    plan,
    snapshot::{Metrics, State},
};
use workloads::Workload;

/// Makes a workload when it is its turn.
type Maker = Box<dyn Fn() -> Workload>;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let all: Vec<(&str, Maker)> = vec![
        ("mix 500", Box::new(|| workloads::mix(500, 1))),
        ("mix 2000", Box::new(|| workloads::mix(2000, 1))),
        ("mix 5000", Box::new(|| workloads::mix(5000, 1))),
        ("mix 20000", Box::new(|| workloads::mix(20_000, 1))),
        ("web 1000", Box::new(|| workloads::web(1000, 1))),
        ("web 5000", Box::new(|| workloads::web(5000, 1))),
        ("web 20000", Box::new(|| workloads::web(20_000, 1))),
        ("mixed", Box::new(|| workloads::mixed(5000, 200, 1))),
        ("full", Box::new(|| workloads::full(50_000, 1000))),
        ("preferring", Box::new(|| workloads::preferring(10_000, 100))),
        ("surge", Box::new(|| workloads::affinity_surge(2000, 1000))),
        ("shrink 1000", Box::new(|| workloads::shrink(1000, false, 1))),
        ("shrink 2000", Box::new(|| workloads::shrink(2000, false, 1))),
        (
            "shrink constrained",
            Box::new(|| workloads::shrink(1000, true, 1)),
        ),
        ("steady", Box::new(|| workloads::steady(20_000, 1000))),
    ];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planner-workloads");
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:>6} {:>6} {:>7}",
        "workload", "decision", "on CPU", "program", "memory", "$/h", "bound", "ratio", "nodes", "pending"
    );
    for (name, make) in all {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            let workload = make();
            measure(&workload, &folder);
            if name == "steady" {
                replan(&workload);
            }
        }
    }
}

fn measure(workload: &Workload, folder: &Path) {
    let folder = folder.join(workload.name.replace(' ', "-"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("cluster.json"), &workload.cluster).unwrap();
    fs::write(folder.join("policy.toml"), &workload.policy).unwrap();
    if let Some(metrics) = &workload.metrics {
        fs::write(folder.join("metrics.json"), metrics).unwrap();
    }
    let (policy, _) = Policy::from_toml(&workload.policy).unwrap();
    let now = workloads::NOW.parse().unwrap();
    let mut objects = Objects::default();
    for object in read::objects(&workload.cluster, read::Format::Json).unwrap() {
        objects.apply(object);
    }
    let (cluster, bad) = objects.to_cluster(now);
    assert!(bad.is_empty(), "{bad:?}");
    drop(objects);
    let snapshot = Snapshot {
        cluster,
        metrics: workload
            .metrics
            .as_ref()
            .map(|text| Metrics::from_json(text).unwrap())
            .unwrap_or_default(),
        state: State::default(),
    };
    let mut times = Vec::new();
    let mut on_cpu = Vec::new();
    let begun = Instant::now();
    let mut decided = Plan::default();
    while times.len() < 15 && (times.is_empty() || begun.elapsed() < Duration::from_secs(3)) {
        let (start, cpu) = (Instant::now(), cpu_time());
        decided = plan(&snapshot, &policy, now);
        times.push(start.elapsed());
        on_cpu.push(cpu_time().saturating_sub(cpu));
    }
    times.sort();
    on_cpu.sort();
    let cost: f64 = decided.launch.iter().map(|launch| launch.price_per_hour).sum();
    let bound = least_cost(&snapshot, &policy, now);
    let (program, memory) = whole_program(&folder).map_or_else(
        || ("–".to_owned(), "–".to_owned()),
        |(time, memory)| (shown(time), format!("{} MB", memory / 1024)),
    );
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>7} {:>9.2} {:>9.2} {:>6.3} {:>6} {:>7}",
        workload.name,
        shown(times[times.len() / 2]),
        shown(on_cpu[on_cpu.len() / 2]),
        program,
        memory,
        cost,
        bound,
        if bound > 0.0 { cost / bound } else { 1.0 },
        decided.launch.len(),
        decided.pods.pending.len()
    );
    if !decided.remove.is_empty() {
        shrink(snapshot, &policy, decided, now);
    }
}

/// As the coordinator does when one pod comes: the cluster is put together anew and planned by a planner that has seen
/// it before.
fn replan(workload: &Workload) {
    let (policy, _) = Policy::from_toml(&workload.policy).unwrap();
    let now = workloads::NOW.parse().unwrap();
    let mut objects = Objects::default();
    for object in read::objects(&workload.cluster, read::Format::Json).unwrap() {
        objects.apply(object);
    }
    let mut planner = Planner::default();
    let (mut together, mut decided) = (Vec::new(), Vec::new());
    for round in 0..100 {
        let pod = workloads::late_comer(round);
        objects.remove(Kind::Pod, "default", &format!("late-{}", round.saturating_sub(1)));
        for object in read::objects(&pod, read::Format::Json).unwrap() {
            objects.apply(object);
        }
        let start = Instant::now();
        let (cluster, _) = objects.to_cluster(now);
        let snapshot = Snapshot {
            cluster,
            ..Snapshot::default()
        };
        let assembled = start.elapsed();
        let plan = planner.plan(&snapshot, &policy, now);
        let all = start.elapsed();
        if round > 0 {
            together.push(assembled);
            decided.push(all.saturating_sub(assembled));
        }
        assert!(plan.pods.pending.is_empty());
    }
    together.sort();
    decided.sort();
    println!(
        "{:<30} {:>9} after {} for the cluster's objects",
        "  again after one pod",
        shown(decided[decided.len() / 2]),
        shown(together[together.len() / 2]),
    );
}

/// Carries removals out until nothing more goes.
fn shrink(mut snapshot: Snapshot, policy: &Policy, first: Plan, now: jiff::Timestamp) {
    let mut next = first;
    let mut time = Duration::ZERO;
    let mut rounds = 0;
    while !next.remove.is_empty() && rounds < 2000 {
        carry_out(&mut snapshot, policy, &next, rounds);
        rounds += 1;
        let start = Instant::now();
        next = plan(&snapshot, policy, now);
        time += start.elapsed();
    }
    println!(
        "{:<30} {:>9} {} nodes left after {rounds} rounds",
        "  to the fixed point",
        shown(time),
        snapshot.cluster.nodes.len()
    );
}

fn carry_out(snapshot: &mut Snapshot, policy: &Policy, plan: &Plan, round: usize) {
    let new = |index: usize| NodeName::from(format!("new-{round}-{index}"));
    for (index, launch) in plan.launch.iter().enumerate() {
        let spec = &policy.types[&launch.instance_types[0]];
        let pool = policy.pool(launch.pool.as_str()).unwrap();
        let mut node = snapshot.cluster.nodes[0].clone();
        node.name = new(index);
        let mut label = |key: &str, value: &str| {
            Arc::make_mut(&mut node.labels).insert(key.into(), value.into());
        };
        label("kubernetes.io/hostname", new(index).as_str());
        label("topology.kubernetes.io/zone", launch.zone.as_str());
        label("node.kubernetes.io/instance-type", spec.name.as_str());
        node.allocatable = pool.allocatable(spec);
        if let Some(reading) = snapshot.metrics.nodes.values().next().cloned() {
            snapshot.metrics.nodes.insert(node.name.clone(), reading);
        }
        snapshot.cluster.nodes.push(node);
    }
    let moves: BTreeMap<_, _> = plan
        .remove
        .iter()
        .flat_map(|removal| &removal.moves)
        .map(|moved| (&moved.pod, &moved.to))
        .collect();
    for pod in &mut snapshot.cluster.pods {
        match moves.get(&pod.key) {
            Some(Destination::Node(to)) => Arc::make_mut(pod).node = Some(to.clone()),
            Some(Destination::Launch(index)) => Arc::make_mut(pod).node = Some(new(*index)),
            _ => {}
        }
    }
    let gone: Vec<_> = plan.remove.iter().map(|removal| &removal.node).collect();
    snapshot.cluster.nodes.retain(|node| !gone.contains(&&node.name));
}

/// Runs `smartscale plan` on the files. Returns its time and the most memory it had, in KiB.
fn whole_program(folder: &Path) -> Option<(Duration, u64)> {
    let program = std::env::var_os("SMARTSCALE_PROGRAM")?;
    let mut command = Command::new(program);
    command
        .args(["plan", "--now", workloads::NOW, "-o", "json", "-f"])
        .arg(folder.join("cluster.json"))
        .arg("--policy")
        .arg(folder.join("policy.toml"));
    if folder.join("metrics.json").exists() {
        command.arg("--metrics").arg(folder.join("metrics.json"));
    }
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().ok()?;
    let mut most = 0;
    // The kernel keeps the peak itself; it is read as long as there is a process to ask.
    while child.try_wait().ok()?.is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    Some((start.elapsed(), most))
}

/// What this thread has had of the processor: the same on a machine that others use as well.
fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}
