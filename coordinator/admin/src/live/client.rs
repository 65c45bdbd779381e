//! The connection to a coordinator: credentials, endpoints in turn, and on to the leader where an order needs it.

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, Unit};
use smartscale_proto::{
    credentials::{Credentials, CredentialsError},
    files::FileError,
    tls::{
        Anchors, Rotating,
        client::{Dialer, Expected},
    },
    v1::{
        self, admin_client::AdminClient, audit_client::AuditClient, checks_client::ChecksClient,
        identities_client::IdentitiesClient,
    },
};
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

use super::failure::{Failure, chain};
use crate::cli::Connection;

/// Metadata of a follower's refusal: where the leader is.
const LEADER: &str = "smartscale-leader";
/// Bytes of an answer: a snapshot of a large cluster.
const ANSWER: usize = 256 << 20;

/// A client of the coordinators of one cluster.
pub(crate) struct Client {
    dialer: Dialer,
    expected: Expected,
    /// As the person or the credentials name them.
    given: Vec<String>,
    /// The same, or the leader's as a follower named them.
    endpoints: Vec<String>,
    open: Option<Channel>,
    /// Whom the credentials trust, in DER.
    anchors: Vec<Vec<u8>>,
}

type Answered<T> = Result<Response<T>, Status>;

macro_rules! calls {
    ($service:ident: $($name:ident: $method:ident($request:ident) -> $answer:ty),+ $(,)?) => {$(
        pub(super) async fn $name(channel: Channel, request: Request<v1::$request>) -> Answered<$answer> {
            $service::new(channel)
                .max_decoding_message_size(ANSWER)
                .$method(request)
                .await
        }
    )+};
}

impl Client {
    calls! {
        AdminClient:
        status: status(StatusRequest) -> v1::StatusResponse,
        nodes: list_nodes(ListNodesRequest) -> v1::ListNodesResponse,
        pods: list_pods(ListPodsRequest) -> v1::ListPodsResponse,
        decisions: list_decisions(ListDecisionsRequest) -> v1::ListDecisionsResponse,
        explain: explain(ExplainRequest) -> v1::ExplainResponse,
        operations: list_operations(ListOperationsRequest) -> v1::ListOperationsResponse,
        blockers: list_blockers(ListBlockersRequest) -> v1::ListBlockersResponse,
        cost: get_cost(GetCostRequest) -> v1::GetCostResponse,
        demand: list_demand(ListDemandRequest) -> v1::ListDemandResponse,
        snapshot: snapshot(SnapshotRequest) -> v1::SnapshotResponse,
        watch: watch(WatchRequest) -> Streaming<v1::WatchResponse>,
        drain: drain(DrainRequest) -> v1::DrainResponse,
        recycle: recycle(RecycleRequest) -> v1::RecycleResponse,
        cordon: cordon(CordonRequest) -> v1::CordonResponse,
        uncordon: uncordon(UncordonRequest) -> v1::UncordonResponse,
        pause: pause(PauseRequest) -> v1::PauseResponse,
        resume: resume(ResumeRequest) -> v1::ResumeResponse,
        scale: scale(ScaleRequest) -> v1::ScaleResponse,
    }

    calls! {
        IdentitiesClient:
        issue_identity: issue_identity(IssueIdentityRequest) -> v1::IssueIdentityResponse,
        identities: list_identities(ListIdentitiesRequest) -> v1::ListIdentitiesResponse,
        revoke_identity: revoke_identity(RevokeIdentityRequest) -> v1::RevokeIdentityResponse,
    }

    calls! {
        ChecksClient:
        check: check(CheckRequest) -> v1::CheckResponse,
        check_agents: check_agents(CheckAgentsRequest) -> v1::CheckAgentsResponse,
    }

    calls! {
        AuditClient:
        audit: list_audit(ListAuditRequest) -> v1::ListAuditResponse,
        export_audit: export_audit(ExportAuditRequest) -> Streaming<v1::ExportAuditResponse>,
    }

    /// Reads the credentials; connects with the first call.
    pub(super) fn open(connection: &Connection) -> Result<Self, Failure> {
        let path = credentials_path(connection)?;
        let credentials = Credentials::read(&path).map_err(|error| unusable(&path, &error))?;
        let bad = |error: CredentialsError| unusable(&path, &error);
        let end = credentials.not_after().map_err(bad)?;
        let now = Timestamp::now();
        if end <= now {
            let ago = now.since(end).and_then(|span| {
                span.round(jiff::SpanRound::new().largest(Unit::Hour).smallest(Unit::Minute))
            });
            let who = credentials.identity().map_err(bad)?;
            return Err(Failure::Failed(format!(
                "the credentials in {} ended {} ago ({end:.0}); they are those of {who}\n  `smartscale login --request \
                 FILE` makes a request that an administrator answers with `smartscale identity issue`.",
                path.display(),
                ago.map_or_else(|_| "some time".to_owned(), |ago| format!("{ago:#}"))
            )));
        }
        let endpoints = if connection.endpoints.is_empty() {
            credentials.endpoints.clone()
        } else {
            connection.endpoints.clone()
        };
        if endpoints.is_empty() {
            return Err(Failure::Usage(format!(
                "{} names no endpoints: add `endpoints = [\"host:port\"]`, or use --endpoint",
                path.display()
            )));
        }
        let credential = credentials.credential().map_err(bad)?;
        let anchors = match &credential.anchors {
            Anchors::Certificates(anchors) => anchors.iter().map(|anchor| anchor.to_vec()).collect(),
            Anchors::Fingerprints(_) => Vec::new(),
        };
        let expected = credentials.expected();
        Ok(Self {
            anchors,
            expected: expected.clone(),
            dialer: Dialer::new(Rotating::new(credential), expected),
            given: endpoints.clone(),
            endpoints,
            open: None,
        })
    }

    /// Makes a call; one that only the leader takes is made there.
    pub(super) async fn ask<Q, A, F>(
        &mut self,
        request: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Answered<A>>,
    {
        let channel = self.channel().await?;
        let status = match call(channel, Request::new(request.clone())).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let elsewhere: Vec<String> = status
            .metadata()
            .get(LEADER)
            .and_then(|value| value.to_str().ok())
            .map(|list| {
                list.split(',')
                    .filter(|at| !at.is_empty())
                    .map(ToOwned::to_owned)
                    .collect()
            })
            .unwrap_or_default();
        if status.code() != Code::FailedPrecondition || elsewhere.is_empty() {
            return Err(Failure::of(&status));
        }
        self.endpoints = elsewhere;
        self.open = None;
        let channel = self.channel().await?;
        let answer = call(channel, Request::new(request))
            .await
            .map_err(|status| Failure::of(&status))?;
        Ok(answer.into_inner())
    }

    /// Makes a call at each coordinator that is given, which answers for itself; why not, in a sentence.
    pub(super) async fn ask_each<Q, A, F>(
        &self,
        request: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Vec<(String, Result<A, String>)>
    where
        Q: Clone,
        F: Future<Output = Answered<A>>,
    {
        let mut answers = Vec::new();
        for endpoint in &self.given {
            let answer = match self.dialer.connect(endpoint).await {
                Ok(channel) => call(channel, Request::new(request.clone()))
                    .await
                    .map(Response::into_inner)
                    .map_err(|status| status.message().to_owned()),
                Err(error) => Err(chain(&error)),
            };
            answers.push((endpoint.clone(), answer));
        }
        answers
    }

    /// Forgets the connection and the leader that it was made to: the next call begins with the endpoints as given.
    pub(super) fn forget(&mut self) {
        self.open = None;
        self.endpoints.clone_from(&self.given);
    }

    /// Whom the credentials trust, in DER.
    pub(super) fn anchors(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(Vec::as_slice)
    }

    /// The credentials' names of the cluster.
    pub(super) fn expected(&self) -> &Expected {
        &self.expected
    }

    async fn channel(&mut self) -> Result<Channel, Failure> {
        if let Some(channel) = &self.open {
            return Ok(channel.clone());
        }
        let mut tried = Vec::new();
        for endpoint in &self.endpoints {
            match self.dialer.connect(endpoint).await {
                Ok(channel) => {
                    self.open = Some(channel.clone());
                    return Ok(channel);
                }
                Err(error) => tried.push(chain(&error)),
            }
        }
        let hint = if tried.iter().any(|why| why.contains("invalid peer certificate")) {
            "The coordinator there is not the one that these credentials belong to, or has another authority now."
        } else {
            "Is the coordinator running, and reachable from here? --endpoint HOST:PORT names another address."
        };
        Err(Failure::Failed(format!(
            "no coordinator answers:\n  {}\n  {hint}",
            tried.join("\n  ")
        )))
    }
}

/// Where a person's credentials are, or are to be.
pub(crate) fn credentials_path(connection: &Connection) -> Result<PathBuf, Failure> {
    if let Some(path) = &connection.credentials {
        return Ok(path.clone());
    }
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .ok_or_else(|| {
            Failure::Usage("HOME is not set: name the credentials with --credentials FILE".to_owned())
        })?;
    Ok(folder.join("smartscale").join("credentials.toml"))
}

fn unusable(path: &Path, error: &CredentialsError) -> Failure {
    match error {
        CredentialsError::File(FileError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Failure::Usage(format!(
                "there are no credentials at {0}\n  `smartscale-coordinator init` writes the first ones \
                 (credentials.toml): copy that file to {0}, or name it\n  with --credentials FILE or \
                 SMARTSCALE_CREDENTIALS. Others get theirs with `smartscale login`.",
                path.display()
            ))
        }
        CredentialsError::File(error) => Failure::Usage(chain(error)),
        other => Failure::Usage(format!("{}: {}", path.display(), chain(other))),
    }
}
