//! The scheduler let loose on plans: workloads wait in a real API server, the planner reads them back and plans, its nodes
//! join through KWOK, and the real kube-scheduler binds as it likes.
//!
//! ```text
//! workload ─▶ API server ─▶ planner ─▶ planned nodes ─▶ KWOK ─▶ Ready
//!                 ▲ └──────────── kube-scheduler ◀────────────────┘
//!                 └─ what is left: planned once more ("extra")
//! ```
//!
//! The scheduler is greedy and spreads, where a plan packs, so a tight plan need not be repeated to the pod: what finds no
//! place is planned again, once. After that every pod that the first plan called placed must be bound. The table says
//! what that cost: `cargo test --test let_loose -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

#[allow(dead_code, reason = "the differential test asks for more of it")]
#[path = "../differential/dice.rs"]
mod dice;
#[path = "../differential/launched.rs"]
mod launched;
#[path = "../differential/names.rs"]
mod names;
mod shapes;
#[path = "../differential/template.rs"]
mod template;
mod world;

use std::collections::BTreeSet;

use smartscale_planner::{Plan, Policy, model::PodKey};
use smartscale_tests::rig::{Folder, Kubernetes, Kwok};

use shapes::Shape;
use world::World;

/// What became of a shape.
struct Row {
    shape: &'static str,
    pods: usize,
    placed: usize,
    planned: Bought,
    extra: Bought,
}

/// Nodes with their price.
#[derive(Default)]
struct Bought {
    nodes: usize,
    price: f64,
}

impl Bought {
    fn of(plan: &Plan) -> Self {
        Self {
            nodes: plan.launch.len(),
            price: plan.launch.iter().map(|launch| launch.price_per_hour).sum(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_binds_every_pod_that_a_plan_places_after_two_rounds_at_most() {
    let folder = Folder::new("let-loose").unwrap();
    let cluster = Kubernetes::start(&folder).await.unwrap();
    let kwok = Kwok::start(&folder, &cluster).await.unwrap();
    let world = World::new(cluster.client(), kwok);
    world.prepare().await;
    let mut rows = Vec::new();
    for shape in shapes::all() {
        let mut row = run(&world, &shape).await;
        world.clear().await;
        if let Err(unbound) = &row {
            // On a busy machine the scheduler may still have been binding when the second plan was made.
            println!("{}: once more, since not all were bound: {unbound}", shape.name);
            row = run(&world, &shape).await;
            world.clear().await;
        }
        rows.push(row.unwrap());
    }
    show(&rows);
}

/// Plans twice at most; every pod of the first plan must be bound then, or it is said which are not.
async fn run(world: &World, shape: &Shape) -> anyhow::Result<Row> {
    let (policy, _) = Policy::from_toml(&shape.policy).unwrap();
    world.create(shape).await;
    world.until_seen(shape.pods.len()).await;
    let plan = world.plan(&policy).await;
    let placed = placed(&plan);
    assert!(
        !placed.is_empty(),
        "{}: nothing is placed: {}",
        shape.name,
        plan.summary
    );
    world.launch("planned", &plan, &policy).await;
    world.until_settled(&placed).await;

    let mut extra = Bought::default();
    if !world.unbound(&placed).await.is_empty() {
        let second = world.plan(&policy).await;
        world.launch("extra", &second, &policy).await;
        extra = Bought::of(&second);
    }
    world.until_bound(shape.name, &placed).await?;
    Ok(Row {
        shape: shape.name,
        pods: shape.pods.len(),
        placed: placed.len(),
        planned: Bought::of(&plan),
        extra,
    })
}

fn placed(plan: &Plan) -> BTreeSet<PodKey> {
    plan.placements
        .iter()
        .map(|placement| placement.pod.clone())
        .collect()
}

fn show(rows: &[Row]) {
    println!(
        "{:<22} {:>5} {:>7} {:>8} {:>6} {:>9} {:>11}",
        "shape", "pods", "placed", "planned", "extra", "$/h", "over plan"
    );
    for row in rows {
        println!(
            "{:<22} {:>5} {:>7} {:>8} {:>6} {:>9.4} {:>9.1} %",
            row.shape,
            row.pods,
            row.placed,
            row.planned.nodes,
            row.extra.nodes,
            row.planned.price + row.extra.price,
            row.extra.price / row.planned.price * 100.0
        );
    }
}
