//! A drain that is ordered on the machine itself: through the running agent, or, where none runs, with the same code in
//! this process.
//!
//! The agent listens on a socket of its run folder. An order is one line of JSON; the answer is a line with the whole state
//! of the drain whenever it changes, until the drain is over.

use std::{io, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use smartscale_agent::{
    Config,
    drain::{self, DrainState, Drainer, LocalStorage, OnTimeout, Order, Stage, state::PodStage, terms::kept},
    enrol::stored_node,
    retire::Retirer,
    state::{DiskFolder, create_folder},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};

use super::{cli, compose};

/// The socket's name in the run folder.
pub(crate) const SOCKET: &str = "agent.sock";
/// Time that a local client has for its order.
const ORDER_TIME: Duration = Duration::from_secs(5);
/// Bytes that an order may have.
const ORDER_LENGTH: u64 = 4096;

/// What is ordered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    Drain(LocalOrder),
    Cancel,
}

#[derive(Debug, Serialize, Deserialize)]
struct LocalOrder {
    operation: String,
    timeout: Duration,
    on_timeout: OnTimeout,
    local_storage: LocalStorage,
    reason: String,
}

impl LocalOrder {
    fn on(self, node: String) -> Order {
        let Self {
            operation,
            timeout,
            on_timeout,
            local_storage,
            reason,
        } = self;
        Order {
            operation,
            node,
            timeout,
            on_timeout,
            reason,
            taken_at: None,
            local_storage,
        }
    }
}

/// Listens for local orders, of root alone.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(folder) = path.parent() {
        create_folder(folder, 0o755)?;
    }
    // Left by an agent that was killed.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whom local orders are for.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) drainer: Drainer,
    pub(crate) retirer: Retirer,
    pub(crate) node: watch::Receiver<Option<String>>,
}

/// Serves local orders for ever.
pub(crate) async fn serve(listener: Option<UnixListener>, desk: Desk) {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    if let Err(error) = attend(stream, desk).await {
                        tracing::warn!(%error, "a local order failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a local order could not be taken");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn attend(stream: UnixStream, desk: Desk) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(ORDER_LENGTH));
    tokio::time::timeout(ORDER_TIME, reader.read_line(&mut line))
        .await
        .context("no order came")??;
    let mut state = desk.drainer.state();
    let operation = match serde_json::from_str(&line)? {
        Request::Drain(order) => {
            let (operation, node) = (order.operation.clone(), desk.node.borrow().clone());
            let node = node.context("the node's name is not known yet")?;
            desk.drainer.order(order.on(node)).await;
            operation
        }
        Request::Cancel => {
            let Some(operations) = standing(&state) else {
                return Ok(());
            };
            for operation in &operations {
                desk.retirer.revoke(operation.clone()).await;
                desk.drainer.abort(operation.clone()).await;
            }
            operations.into_iter().next_back().unwrap_or_default()
        }
    };
    loop {
        let current = state.wait_for(|state| of(state, &operation)).await?.clone();
        state.mark_unchanged();
        let Some(current) = current else { continue };
        let mut line = serde_json::to_vec(&*current)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        if current.stage.is_finished() {
            return Ok(());
        }
        state.changed().await?;
    }
}

/// The operations of the drain that is under way, or that has left the node cordoned.
fn standing(state: &watch::Receiver<Option<Arc<DrainState>>>) -> Option<Vec<String>> {
    let state = state.borrow();
    let drain = state.as_ref().filter(|drain| drain.stage != Stage::Aborted)?;
    Some(drain.operations.clone())
}

fn of(state: &Option<Arc<DrainState>>, operation: &str) -> bool {
    state
        .as_ref()
        .is_some_and(|state| state.operations.iter().any(|own| own == operation))
}

/// Drains this node and waits for it.
pub(crate) async fn drain(config: Config, options: cli::Drain) -> anyhow::Result<ExitCode> {
    let terms = kept(&DiskFolder::new(&config.state_dir), config.drain.terms);
    let on_timeout = if options.force {
        OnTimeout::Force
    } else {
        terms.on_timeout
    };
    let (request, wanted) = if options.cancel {
        (Request::Cancel, Stage::Aborted)
    } else {
        let order = LocalOrder {
            operation: format!("local/{}", jiff::Timestamp::now().as_millisecond()),
            timeout: options.timeout.unwrap_or(terms.timeout),
            on_timeout,
            local_storage: if options.evict_local_storage {
                LocalStorage::Evict
            } else {
                terms.local_storage
            },
            reason: options.reason,
        };
        (Request::Drain(order), Stage::Drained)
    };
    let mut printer = Printer::default();
    let last = match UnixStream::connect(config.run_dir.join(SOCKET)).await {
        Ok(stream) => through_agent(stream, &request, &mut printer).await?,
        Err(_) => alone(&config, request, options.node, &mut printer).await?,
    };
    let Some(last) = last else {
        println!("there is no drain to give up");
        return Ok(ExitCode::SUCCESS);
    };
    println!("{}", summary(&last));
    Ok(if last.stage == wanted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn through_agent(
    stream: UnixStream,
    request: &Request,
    printer: &mut Printer,
) -> anyhow::Result<Option<DrainState>> {
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    let mut lines = BufReader::new(reader).lines();
    let mut said = false;
    while let Some(line) = lines.next_line().await? {
        let state: DrainState = serde_json::from_str(&line)?;
        said = true;
        printer.show(&state);
        if state.stage.is_finished() {
            return Ok(Some(state));
        }
    }
    if !said && matches!(request, Request::Cancel) {
        return Ok(None);
    }
    anyhow::bail!("the agent ended before the drain did; it goes on when the agent is started again")
}

async fn alone(
    config: &Config,
    request: Request,
    node: Option<String>,
    printer: &mut Printer,
) -> anyhow::Result<Option<DrainState>> {
    let tools = compose::tools(config)?;
    let known = || {
        stored_node(&*tools.folder).or_else(|| config.machine.as_ref().map(|machine| machine.id.to_string()))
    };
    let node = node
        .or_else(known)
        .context("this machine's node is not known: name it with --node")?;
    let (drainer, engine) = drain::engine(tools);
    let mut state = drainer.state();
    let standing = standing(&state);
    let wait = async {
        let operation = match (request, standing) {
            (Request::Drain(order), _) => {
                eprintln!("the agent does not run; draining {node} from here");
                let operation = order.operation.clone();
                drainer.order(order.on(node)).await;
                operation
            }
            (Request::Cancel, Some(operations)) => {
                for operation in &operations {
                    drainer.abort(operation.clone()).await;
                }
                operations.into_iter().next_back().unwrap_or_default()
            }
            (Request::Cancel, None) => return Ok(None),
        };
        loop {
            let current = state.wait_for(|state| of(state, &operation)).await?.clone();
            state.mark_unchanged();
            if let Some(current) = current {
                printer.show(&current);
                if current.stage.is_finished() {
                    return Ok(Some(DrainState::clone(&current)));
                }
            }
            state.changed().await?;
        }
    };
    tokio::select! {
        last = wait => last,
        () = engine.run() => anyhow::bail!("the drain ended unexpectedly"),
    }
}

/// Prints what has changed since the last state.
#[derive(Default)]
struct Printer {
    shown: Vec<(String, PodStage, String)>,
}

impl Printer {
    fn show(&mut self, state: &DrainState) {
        for pod in &state.pods {
            let now = (pod.uid.clone(), pod.stage, pod.reason.clone());
            if !self.shown.contains(&now) {
                let reason = if pod.reason.is_empty() {
                    String::new()
                } else {
                    format!(": {}", pod.reason)
                };
                println!("{} {}{reason}", pod.key, word(pod.stage));
                self.shown.retain(|(uid, ..)| *uid != pod.uid);
                self.shown.push(now);
            }
        }
    }
}

fn word(stage: PodStage) -> &'static str {
    match stage {
        PodStage::Waiting => "waits",
        PodStage::Budget => "is held by a disruption budget",
        PodStage::Terminating => "is terminating",
        PodStage::Gone => "is gone",
        PodStage::Forced => "was deleted at the deadline",
        PodStage::Stayed => "would not leave",
    }
}

fn summary(state: &DrainState) -> String {
    let gone = state.pods.iter().filter(|pod| !pod.is_open()).count();
    let all = state.pods.len();
    match state.stage {
        Stage::Drained => format!("{} is drained: {gone} of {all} pods gone", state.node),
        Stage::Aborted => format!(
            "{} was not drained ({gone} of {all} pods gone): {}",
            state.node, state.error
        ),
        _ => format!(
            "{} could not be drained ({gone} of {all} pods gone): {}",
            state.node, state.error
        ),
    }
}
