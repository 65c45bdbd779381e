//! The fleet of machines that are no EC2: a program of the user's adds and removes them (`docs/command-fleet.md` is its contract).
//!
//! ```text
//!  launch · find · list · look · terminate ──▶ question (JSON, standard input) ──▶ PROGRAM launch|list|terminate
//!                                 [`answer`] ◀── answer (JSON, standard output) ◀──┘ │ standard error
//!                                                                                    └▶ the log, line by line
//! ```
//! `program` runs it: no shell, an environment of its own, a bounded time and a bounded answer, and nothing of its process group
//! is left when a call ends. `answer` believes nothing that it has not looked at.
//!
//! An answer that cannot be used says nothing of what happened, as does a program that fails: the launch stays open, its machines
//! are looked for by its operation in `list`, and the same call is made again under the same token. Only a refusal that is
//! written out is one.

mod answer;
mod program;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use smartscale_planner::model::{InstanceType, Market, PoolName, Zone};
use smartscale_proto::time::SharedClock;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use self::program::{Failed, Program};
use crate::{
    act::fleet::{Fleet, FleetError, Instance, LaunchRequest, Launched},
    ids::{InstanceId, OperationId},
};

/// The version of the contract, which every question names.
const PROTOCOL: u32 = 1;

/// How the program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// Its arguments; the verb is put behind them.
    pub arguments: Vec<String>,
    /// What its environment has beside `PATH` and `LANG`.
    pub environment: BTreeMap<String, String>,
    /// A call that takes longer is killed.
    pub timeout: Duration,
}

/// The user's program as a fleet.
pub struct CommandFleet {
    cluster: String,
    program: Program,
    /// Held during a call that changes something: the program is asked for one change at a time.
    changing: Mutex<()>,
    clock: SharedClock,
}

/// What the program reads.
#[derive(Serialize)]
struct Question<'a> {
    protocol: u32,
    verb: &'static str,
    cluster: &'a str,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    Launch(Launch<'a>),
    List {},
    Terminate { ids: &'a [InstanceId] },
}

#[derive(Serialize)]
struct Launch<'a> {
    token: String,
    operation: &'a OperationId,
    pool: &'a PoolName,
    zone: &'a Zone,
    market: Market,
    types: &'a [InstanceType],
    count: u32,
    secret: &'a str,
}

impl What<'_> {
    fn verb(&self) -> &'static str {
        match self {
            Self::Launch(_) => "launch",
            Self::List {} => "list",
            Self::Terminate { .. } => "terminate",
        }
    }
}

impl CommandFleet {
    /// The fleet of a cluster. Runs nothing yet.
    #[must_use]
    pub fn new(settings: Settings, cluster: String, clock: SharedClock) -> Self {
        Self {
            cluster,
            program: Program::new(settings, SharedClock::clone(&clock)),
            changing: Mutex::default(),
            clock,
        }
    }

    /// One call of the program. What it says, also of its failure, never has the `secret` in it.
    async fn ask(&self, what: What<'_>, secret: &str) -> Result<Vec<u8>, Failed> {
        let verb = what.verb();
        let question = Question {
            protocol: PROTOCOL,
            verb,
            cluster: &self.cluster,
            what,
        };
        let question = serde_json::to_vec(&question).map_err(|error| Failed::Question(error.to_string()))?;
        self.program.run(verb, &Zeroizing::new(question), secret).await
    }

    async fn listed(&self) -> Result<Vec<Instance>, FleetError> {
        let text = self.ask(What::List {}, "").await.map_err(unknown)?;
        answer::listed(&text, &self.cluster, self.clock.now()).map_err(unknown)
    }
}

/// Whatever goes wrong with a call, nobody knows what it did before.
fn unknown(error: impl std::fmt::Display) -> FleetError {
    FleetError::Unknown(error.to_string())
}

#[async_trait]
impl Fleet for CommandFleet {
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError> {
        let secret = request.enrolment_secret.as_deref().unwrap_or_default();
        let launch = Launch {
            token: request.client_token(),
            operation: &request.operation,
            pool: &request.pool,
            zone: &request.zone,
            market: request.market,
            types: &request.instance_types,
            count: request.count,
            secret,
        };
        let text = {
            let _changing = self.changing.lock().await;
            self.ask(What::Launch(launch), secret).await
        };
        let text = Zeroizing::new(text.map_err(unknown)?);
        answer::launched(&text, request, &self.cluster, self.clock.now())
            .map_err(|wrong| unknown(program::clean(&wrong.to_string(), secret)))
    }

    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError> {
        let mut instances = self.listed().await?;
        instances.retain(|instance| instance.operation.as_ref() == Some(operation));
        Ok(instances)
    }

    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        self.listed().await
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Instance>, FleetError> {
        let instances = self.listed().await?;
        Ok(instances.into_iter().find(|known| known.id == *instance))
    }

    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        if instances.is_empty() {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        // Whether they are gone is what `list` says.
        self.ask(What::Terminate { ids: instances }, "")
            .await
            .map(|_| ())
            .map_err(unknown)
    }
}

#[cfg(test)]
mod tests;
