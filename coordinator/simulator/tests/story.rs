//! The demo's story, played as fast as this machine keeps up with: every act must happen, and the same seed must make
//! the same decisions.

#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{sync::Arc, time::Duration};

use smartscale_simulator::{
    story::{Story, Summary, stamp},
    world::{Settings, World},
};

/// Real time that a story may take here.
const LIMIT: Duration = Duration::from_secs(240);
/// Virtual seconds in a real one.
const SPEED: f64 = 120.0;

/// Plays the story of a seed on a runtime of its own.
fn play(seed: u64) -> Summary {
    smartscale_proto::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = Arc::new(World::start(Settings::demo(seed, SPEED)).await.unwrap());
        let told = tokio::spawn(tell(Arc::clone(&world)));
        let mut story = Story::new(Arc::clone(&world));
        let summary = tokio::time::timeout(LIMIT, story.play())
            .await
            .expect("the story takes too long")
            .unwrap();
        told.abort();
        world.stop().await;
        summary
    })
}

/// Prints what happens; the test's output is kept when it fails.
async fn tell(world: Arc<World>) {
    let mut changes = world.log.changes();
    let mut next = 0;
    while changes.changed().await.is_ok() {
        for entry in world.log.since(next) {
            next = entry.number + 1;
            if entry.kind == "decided_nothing" {
                continue;
            }
            println!(
                "{} {:<11} {:<16} {:<20} {}",
                stamp(entry.at.as_secs_f64()),
                entry.source.as_str(),
                entry.kind,
                entry.subject,
                entry.message
            );
        }
    }
}

/// The seed that is played: the demo's own, or the one in `SMARTSCALE_SEED`.
fn seed() -> u64 {
    std::env::var("SMARTSCALE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1)
}

#[test]
fn the_story_happens_and_the_same_seed_decides_the_same() {
    let first = play(seed());
    println!("{first}");
    let actions: Vec<&str> = first
        .decisions
        .iter()
        .map(|decided| decided.essence.action.as_str())
        .collect();
    assert!(
        actions.contains(&"scale_up") && actions.contains(&"scale_down"),
        "{actions:?}"
    );
    assert!(first.bill.cost_usd < first.fixed.cost_usd, "{:?}", first.bill);
    let second = play(seed());
    assert_eq!(first.essence(), second.essence());
}
