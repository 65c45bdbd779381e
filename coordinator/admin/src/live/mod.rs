//! Commands that talk to a running coordinator.
//!
//! ```text
//!  command line ─▶ Client (credentials, endpoints, leader) ─▶ answer ─▶ table · JSON · YAML on stdout
//!                       └─ Failure ─▶ stderr, with the way out; exit code 1 or 2
//! ```

mod audit;
mod check;
mod client;
mod cost;
mod failure;
mod identity;
mod render;
mod show;
mod snapshot;
mod table;

use std::{io::Write as _, process::ExitCode, time::Duration};

use smartscale_proto::{
    time::{duration_to_wire, from_wire},
    v1,
};
use tonic::{Code, Status, Streaming};

use self::{client::Client, render::Answer};
pub(crate) use self::{
    client::credentials_path,
    failure::{Failure, chain},
    identity::read_text,
};
use crate::{
    cli::{Connection, Format, Live, OnTimeout},
    plan::Output,
};

/// The leader is looked for so long after the one that was watched has gone: two take-overs with default leases.
const LOOKED_FOR: Duration = Duration::from_secs(60);
/// Between two looks for it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// Runs a command and says how it ended.
pub(crate) fn run(connection: &Connection, command: Live) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Failed(format!("the program cannot start: {error}")).report(),
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = execute(connection, command) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The demand that coordinators recorded within so many days.
pub(crate) fn demand(connection: &Connection, days: u16) -> Result<v1::ListDemandResponse, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("the program cannot start: {error}")))?;
    let request = v1::ListDemandRequest { days: days.into() };
    runtime.block_on(async { Client::open(connection)?.ask(request, Client::demand).await })
}

async fn execute(connection: &Connection, command: Live) -> Result<(), Failure> {
    let mut client = Client::open(connection)?;
    match command {
        Live::Status(format) => print(format, &client.ask(v1::StatusRequest {}, Client::status).await?),
        Live::Nodes(format) => print(format, &client.ask(v1::ListNodesRequest {}, Client::nodes).await?),
        Live::Pods { pending, format } => {
            let request = v1::ListPodsRequest {
                pending_only: pending,
            };
            print(format, &client.ask(request, Client::pods).await?)
        }
        Live::Decisions { limit, all, format } => {
            let request = v1::ListDecisionsRequest {
                limit,
                include_idle: all,
            };
            print(format, &client.ask(request, Client::decisions).await?)
        }
        Live::Explain { subject, format } => {
            let request = v1::ExplainRequest {
                subject: Some(parse_subject(&subject)?),
            };
            print(format, &client.ask(request, Client::explain).await?)
        }
        Live::Operations { limit, open, format } => {
            let request = v1::ListOperationsRequest {
                limit,
                open_only: open,
            };
            print(format, &client.ask(request, Client::operations).await?)
        }
        Live::Blockers(format) => print(
            format,
            &client.ask(v1::ListBlockersRequest {}, Client::blockers).await?,
        ),
        Live::Cost {
            month,
            currency,
            rate,
            format,
        } => {
            let request = v1::GetCostRequest {
                month: month.unwrap_or_default(),
            };
            let mut cost = client.ask(request, Client::cost).await?;
            if let (Some(currency), Some(rate)) = (currency, rate) {
                (cost.currency, cost.currency_per_usd) = (currency, rate);
            }
            print(format, &cost)
        }
        Live::Check(args) => check::execute(&mut client, args).await,
        Live::Watch(format) => watch(&mut client, format).await,
        Live::Identity(command) => identity::execute(&mut client, command).await,
        Live::Audit(command) => audit::execute(&mut client, command).await,
        Live::Snapshot { folder } => {
            let files = client.ask(v1::SnapshotRequest {}, Client::snapshot).await?;
            say(&snapshot::write(&folder, &files)?)
        }
        Live::Drain {
            node,
            timeout,
            on_timeout,
            reason,
            cancel,
            format,
        } => {
            let on_timeout = match on_timeout {
                None => v1::OnTimeout::Unspecified,
                Some(OnTimeout::Abort) => v1::OnTimeout::Abort,
                Some(OnTimeout::Force) => v1::OnTimeout::Force,
            };
            let timeout = wire(timeout);
            let request = v1::DrainRequest {
                node,
                timeout,
                on_timeout: on_timeout.into(),
                reason,
                cancel,
            };
            print(format, &client.ask(request, Client::drain).await?)
        }
        Live::Recycle { node, reason, format } => print(
            format,
            &client
                .ask(v1::RecycleRequest { node, reason }, Client::recycle)
                .await?,
        ),
        Live::Cordon { node } => {
            client
                .ask(v1::CordonRequest { node: node.clone() }, Client::cordon)
                .await?;
            say(&format!("{node} is cordoned"))
        }
        Live::Uncordon { node } => {
            client
                .ask(v1::UncordonRequest { node: node.clone() }, Client::uncordon)
                .await?;
            say(&format!("{node} takes pods again"))
        }
        Live::Pause {
            duration,
            reason,
            format,
        } => {
            let request = v1::PauseRequest {
                duration: wire(duration),
                reason,
            };
            print(format, &client.ask(request, Client::pause).await?)
        }
        Live::Resume { lift_brakes } => {
            let request = v1::ResumeRequest {
                lift_brakes: wire(lift_brakes),
            };
            let response = client.ask(request, Client::resume).await?;
            match response
                .brakes_lifted_until
                .and_then(|until| from_wire(&until).ok())
            {
                Some(until) => say(&format!("scaling goes on; brakes are lifted until {until:.0}")),
                None => say("scaling goes on"),
            }
        }
        Live::Scale {
            to,
            duration,
            reason,
            format,
        } => {
            let request = v1::ScaleRequest {
                nodes: to,
                duration: wire(duration),
                reason,
            };
            print(format, &client.ask(request, Client::scale).await?)
        }
    }
}

fn wire(duration: Option<Duration>) -> Option<prost_types::Duration> {
    duration.map(duration_to_wire)
}

/// `ID`, `node NAME`, `pod NS/NAME`, or nothing.
fn parse_subject(words: &[String]) -> Result<v1::explain_request::Subject, Failure> {
    use v1::explain_request::Subject;
    match words {
        [] => Ok(Subject::Id(String::new())),
        [kind, name] if kind == "node" => Ok(Subject::Node(name.clone())),
        [kind, name] if kind == "pod" => Ok(Subject::Pod(name.clone())),
        [word] if word == "node" || word == "pod" => Err(Failure::Usage(format!(
            "which {word}? `smartscale explain {word} NAME`"
        ))),
        [id] => Ok(Subject::Id(id.clone())),
        _ => Err(Failure::Usage(
            "explain takes nothing, an ID, `node NAME` or `pod NAMESPACE/NAME`".to_owned(),
        )),
    }
}

/// Follows what happens, from leader to leader: when a coordinator goes, the next one is looked for, and what happened
/// between the two is in `decisions` and `operations`.
async fn watch(client: &mut Client, format: Format) -> Result<(), Failure> {
    let mut events = client.ask(v1::WatchRequest {}, Client::watch).await?;
    loop {
        let ended = loop {
            match events.message().await {
                Ok(Some(event)) => match format.output {
                    Output::Table => say(&show::event(&event))?,
                    Output::Json => say(&render::json_line(&event)?)?,
                    Output::Yaml => say(&format!("---\n{}", render::yaml(&event)?.trim_end()))?,
                },
                Ok(None) => break Status::unavailable("the coordinator ended the stream"),
                Err(status) => break status,
            }
        };
        match ended.code() {
            // It was killed, is shutting down, or leads no more.
            Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::FailedPrecondition => {}
            _ => return Err(Failure::of(&ended)),
        }
        eprintln!("{}; looking for the coordinator that leads", ended.message());
        events = next_leader(client).await?;
    }
}

/// Asks until a coordinator takes the call, for as long as a take-over may last and some more.
async fn next_leader(client: &mut Client) -> Result<Streaming<v1::WatchResponse>, Failure> {
    let end = tokio::time::Instant::now() + LOOKED_FOR;
    loop {
        client.forget();
        match client.ask(v1::WatchRequest {}, Client::watch).await {
            Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(BETWEEN_LOOKS).await,
            asked => return asked,
        }
    }
}

fn print<A: Answer>(format: Format, answer: &A) -> Result<(), Failure> {
    let text = match format.output {
        Output::Table => answer.table(),
        Output::Json => render::json(answer)?,
        Output::Yaml => render::yaml(answer)?,
    };
    say(text.trim_end())
}

/// Prints to stdout. A reader that has left (`| head`) is no failure.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::Failed(format!("stdout cannot be written: {error}"))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_proto::v1::explain_request::Subject;

    use super::*;

    #[test]
    fn what_is_to_be_explained_is_read_from_one_or_two_words() {
        let read =
            |words: &[&str]| parse_subject(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["node", "i-1"]).unwrap(), Subject::Node("i-1".to_owned()));
        assert_eq!(
            read(&["pod", "default/web-1"]).unwrap(),
            Subject::Pod("default/web-1".to_owned())
        );
        assert_eq!(read(&["d-1"]).unwrap(), Subject::Id("d-1".to_owned()));
        assert_eq!(read(&[]).unwrap(), Subject::Id(String::new()));
        assert!(read(&["node"]).is_err() && read(&["service", "x"]).is_err());
    }
}
