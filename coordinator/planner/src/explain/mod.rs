//! Why a plan is as it is: for one pod or node what was tried, what failed, and by how much; and how two plans differ.
//!
//! ```text
//! plan ─▶ the same decision again, before a witness ─▶ world with all pods placed ─┬─▶ PodAnswer
//!                                                                                  └─▶ NodeAnswer
//! plan, plan ─▶ Difference
//! ```
//!
//! Whether a node takes a pod, and what keeps a node, is asked of the very code that decided; here figures are gathered and
//! put into words. A pod that found a place is explained as things stood when its turn came; everything else as it stands once
//! all pods that wait have their places, launches included, and before anything is removed.

mod asks;
mod blockers;
pub(crate) mod cause;
mod difference;
mod leaving;
mod limits;
mod node;
mod pod;
mod tried;
mod utilised;
mod waiting;
pub(crate) mod words;

use jiff::Timestamp;
use serde::Serialize;

pub use blockers::BlockerAnswer;
pub use cause::{Cause, Refusal};
pub use difference::{Change, Difference, Launches, NodeDifference, PendingDifference, RuleDifference};
pub use leaving::Leaving;
pub use limits::Limit;
pub use node::{Fate, Figures, NodeAnswer, PodOnNode, Share};
pub use pod::{PodAnswer, Standing};
pub use tried::{Attempt, NodeState, Offer, Reason, Refused, Tried};
pub(crate) use words::port;
pub use words::seconds as span;

use crate::{
    Plan, Policy, Snapshot,
    decide::{self, Context, Outcome, Witness},
    model::{NodeName, PodKey},
    placement::World,
};

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Pods, by namespace and name.
    pub pods: Vec<PodKey>,
    /// Nodes, by name.
    pub nodes: Vec<NodeName>,
}

/// The answers, in the order of the questions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answers {
    /// About pods.
    pub pods: Vec<PodAnswer>,
    /// About nodes.
    pub nodes: Vec<NodeAnswer>,
}

/// A question about something that the cluster does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No such pod.
    #[error("the cluster has no pod {0}")]
    Pod(PodKey),
    /// No such node.
    #[error("the cluster has no node {0}")]
    Node(NodeName),
}

/// The plan of [`crate::plan()`], and answers to questions about it.
///
/// # Errors
/// The first question about a pod or node that the cluster does not have.
pub fn explain(
    snapshot: &Snapshot,
    policy: &Policy,
    now: Timestamp,
    questions: &Questions,
) -> Result<(Plan, Answers), Unknown> {
    let cluster = &snapshot.cluster;
    let unknown = |key: &&PodKey| !cluster.pods.iter().any(|pod| pod.key == **key);
    if let Some(key) = questions.pods.iter().find(unknown) {
        return Err(Unknown::Pod(key.clone()));
    }
    if let Some(name) = questions
        .nodes
        .iter()
        .find(|name| cluster.node(name.as_str()).is_none())
    {
        return Err(Unknown::Node(name.clone()));
    }
    let plan = decide::plan(snapshot, policy, now);
    if *questions == Questions::default() {
        return Ok((plan, Answers::default()));
    }
    let mut asking = Asking {
        questions,
        plan: &plan,
        answers: Answers::default(),
    };
    decide::plan_before(&mut asking, snapshot, policy, now);
    let answers = asking.answers;
    Ok((plan, answers))
}

/// Answers while the decision is made a second time: then the plan is known.
struct Asking<'q> {
    questions: &'q Questions,
    plan: &'q Plan,
    answers: Answers,
}

impl Witness for Asking<'_> {
    fn pods_are_placed<'a>(&mut self, context: &Context<'a>, world: &World<'a>, outcome: &Outcome<'a>) {
        let seen = Seen {
            context,
            outcome,
            plan: self.plan,
        };
        let pods = self.questions.pods.iter();
        self.answers.pods = pods.filter_map(|key| seen.pod(world, key)).collect();
        let nodes = self.questions.nodes.iter();
        self.answers.nodes = nodes.filter_map(|name| seen.node(world, name)).collect();
    }
}

/// What an answer is drawn from.
struct Seen<'s, 'a> {
    context: &'s Context<'a>,
    outcome: &'s Outcome<'a>,
    plan: &'s Plan,
}
