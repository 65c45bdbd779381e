//! The story of the demo: a script that makes things happen and waits until the programs have dealt with them.
//!
//! An act never waits for a time but for a level (nothing is pending, the node is gone) with a deadline in virtual time. A
//! level that is not reached is an error that says what was waited for and what there was instead.

mod acts;
mod summary;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use smartscale_coordinator::{act::operation::Operation, state::StoreError};
use smartscale_planner::model::Node;
use smartscale_proto::time::Clock as _;

pub use summary::{Decided, Fixed, Sample, Summary, stamp};

use crate::{
    cloud::Cloud,
    log::Source,
    world::{World, records},
};

/// Levels are looked at so often.
const LOOK: Duration = Duration::from_millis(500);

/// An act that did not go as it should.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// A level was not reached in time.
    #[error("act {act}: {what} did not happen within {limit:?}; there was: {instead}")]
    Late {
        /// The act.
        act: &'static str,
        /// What was waited for.
        what: String,
        /// For how long, in virtual time.
        limit: Duration,
        /// The state of the world instead.
        instead: String,
    },
    /// Something happened that never may.
    #[error("act {act}: {what}")]
    Wrong {
        /// The act.
        act: &'static str,
        /// What it was.
        what: String,
    },
    /// The store could not be read.
    #[error("the story cannot read the store")]
    Store(#[from] StoreError),
}

/// The acts in their order, with what each shows.
pub const ACTS: [(&str, &str); 6] = [
    ("quiet", "two workers, nothing to do"),
    (
        "load",
        "the load rises: pods stay pending, nodes are launched for them",
    ),
    ("heat", "the pods run hot: one node more, with nothing pending"),
    (
        "calm",
        "the load falls: the least useful node is emptied within its budgets and goes",
    ),
    (
        "spot",
        "a spot machine is taken back: its agent drains it by itself",
    ),
    (
        "takeover",
        "the leader is killed in the middle: the standby goes on exactly where it stood",
    ),
];

/// A story being played in a world.
pub struct Story {
    world: Arc<World>,
    act: &'static str,
}

impl Story {
    /// The story of this world. Nothing has happened yet.
    #[must_use]
    pub fn new(world: Arc<World>) -> Self {
        Self { world, act: "quiet" }
    }

    /// Plays it to its end.
    ///
    /// # Errors
    /// The first act that does not go as it should.
    pub async fn play(&mut self) -> Result<Summary, StoryError> {
        let sampler = summary::Sampler::start(&self.world);
        for (name, shows) in ACTS {
            self.act = name;
            self.world.log.write(Source::Story, "act", name, shows);
            match name {
                "quiet" => self.quiet().await?,
                "load" => self.load().await?,
                "heat" => self.heat().await?,
                "calm" => self.calm().await?,
                "spot" => self.spot().await?,
                _ => self.takeover().await?,
            }
        }
        let samples = sampler.stop();
        Ok(Summary::of(&self.world, samples).await?)
    }

    /// Waits until `level` gives something, at most for `limit` of virtual time.
    async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut level: impl AsyncFnMut(&World) -> Result<Option<T>, StoryError>,
    ) -> Result<T, StoryError> {
        let clock = &self.world.clock;
        let deadline = clock.elapsed() + limit;
        loop {
            if let Some(reached) = level(&self.world).await? {
                return Ok(reached);
            }
            if clock.elapsed() >= deadline {
                let instead = describe(&self.world).await;
                return Err(StoryError::Late {
                    act: self.act,
                    what: what.to_owned(),
                    limit,
                    instead,
                });
            }
            clock.sleep(LOOK).await;
        }
    }

    /// Waits until nothing is pending, starting or under way.
    async fn settled(&self, limit: Duration) -> Result<(), StoryError> {
        self.until(
            "rest (nothing pending, no operation open)",
            limit,
            async |world| {
                let open = records::operations(&world.store)
                    .await?
                    .iter()
                    .any(|operation| !operation.phase.is_end());
                let serving = world
                    .cluster
                    .model()
                    .pods
                    .iter()
                    .all(|pod| pod.ready && !pod.is_terminating());
                Ok((!open && serving).then_some(()))
            },
        )
        .await
    }

    /// Says something in the story's own voice.
    fn say(&self, subject: impl Into<String>, message: impl Into<String>) {
        self.world.log.write(Source::Story, "note", subject, message);
    }

    fn wrong(&self, what: impl Into<String>) -> StoryError {
        StoryError::Wrong {
            act: self.act,
            what: what.into(),
        }
    }
}

/// Our nodes.
fn workers(world: &World) -> Vec<Node> {
    let nodes = world.cluster.model().nodes;
    nodes
        .into_iter()
        .filter(|node| world.policy.pool_of(node).is_some())
        .collect()
}

/// The world in a few words, for whoever looks into a story that went wrong.
async fn describe(world: &World) -> String {
    let mut text = String::new();
    let model = world.cluster.model();
    for node in &model.nodes {
        let pods = model
            .pods
            .iter()
            .filter(|pod| pod.node.as_ref() == Some(&node.name))
            .count();
        let taints: Vec<&str> = node.taints.iter().map(|taint| &*taint.key).collect();
        let _ = write!(
            text,
            "{} (ready {}, cordoned {}, {pods} pods, taints {taints:?}, usage {:?}); ",
            node.name,
            node.ready,
            node.unschedulable,
            world.load.usage(node.name.as_str()),
        );
    }
    let _ = write!(
        text,
        "{} pods pending; {} machines billed; ",
        world.cluster.pending(),
        Cloud::billed(&world.cloud)
    );
    match records::operations(&world.store).await {
        Ok(operations) => {
            for operation in operations.iter().filter(|operation| !operation.phase.is_end()) {
                let _ = write!(text, "{}; ", line(operation));
            }
        }
        Err(error) => {
            let _ = write!(text, "store: {error}; ");
        }
    }
    if let Ok(decisions) = records::decisions(&world.store).await
        && let Some(last) = decisions.last()
    {
        let _ = write!(
            text,
            "last decision: {} held by {:?} ({} times)",
            last.plan.summary, last.plan.held_by, last.repeats
        );
    }
    text
}

fn line(operation: &Operation) -> String {
    let last = operation
        .steps
        .last()
        .map(|step| step.note.as_str())
        .unwrap_or_default();
    format!(
        "{} {} {}: {last}",
        operation.id,
        operation.what.as_str(),
        operation.phase.as_str()
    )
}
