//! Who may come in: a layer over all services. It knows the caller by its certificate, asks the one table of
//! permissions, for agents the node record, and for people what was revoked. What it lets through carries the [`Caller`].
//!
//! ```text
//!   certificate ─▶ Identity ─▶ our trust domain and cluster? ─▶ permission table ─▶ node record (agents) ─▶ service
//!       none ──────────────────────────────────────────────────▶       └─ refusals are audited
//! ```

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use smartscale_proto::{
    identity::{Identity, Leaf, Party, Role},
    permission::{self, Refusal},
};
use tonic::{Code, Request, Status, body::Body};
use tower::{Layer, Service};

use super::{
    audit::Audit,
    authority::{self, Names},
    connection::Peer,
    people::People,
    trust::{Distrust, Trust},
};
use crate::ids::InstanceId;

/// Who makes a call, for its handler.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The identity of its certificate; `None` only where a call needs none.
    pub identity: Option<Identity>,
    /// What else that certificate says.
    pub certificate: Option<Leaf>,
    /// Its address.
    pub address: String,
}

impl Caller {
    /// The caller of a request that came through the door.
    ///
    /// # Errors
    /// `INTERNAL` for a request that did not, which no server of ours lets happen.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Status::internal("the caller is not known"))
    }

    /// The machine whose agent calls.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the caller is no agent.
    pub fn agent(&self) -> Result<InstanceId, Status> {
        match self.identity.as_ref().map(|identity| &identity.party) {
            Some(Party::Agent { instance }) => instance
                .as_str()
                .parse()
                .map_err(|_| Status::permission_denied("this is no machine's name")),
            _ => Err(Status::permission_denied("only an agent may call this")),
        }
    }

    /// The caller as records name it.
    #[must_use]
    pub fn who(&self) -> String {
        self.identity
            .as_ref()
            .map_or_else(|| self.address.clone(), ToString::to_string)
    }

    /// The person's name, for messages.
    #[must_use]
    pub fn person(&self) -> String {
        match self.identity.as_ref().map(|identity| &identity.party) {
            Some(Party::Admin { name, role }) => format!("{name} ({role})"),
            _ => self.who(),
        }
    }

    /// The role of a person.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self.identity.as_ref().map(|identity| &identity.party) {
            Some(Party::Admin { role, .. }) => Some(*role),
            _ => None,
        }
    }
}

struct Doorkeeper {
    names: Names,
    trust: Arc<Trust>,
    people: Arc<People>,
    audit: Arc<Audit>,
}

impl Doorkeeper {
    async fn admit(&self, path: &str, peer: Option<&Peer>) -> Result<Caller, Status> {
        let address = peer
            .and_then(|peer| peer.address)
            .map_or_else(String::new, |at| at.to_string());
        let mut caller = Caller {
            identity: None,
            certificate: None,
            address,
        };
        let verdict = self.judge(path, peer, &mut caller).await;
        if let Err(status) = &verdict {
            self.audit
                .record(&caller.who(), path, status.message(), status.code());
        }
        verdict.map(|()| caller)
    }

    async fn judge(&self, path: &str, peer: Option<&Peer>, caller: &mut Caller) -> Result<(), Status> {
        if !peer.is_some_and(Peer::may_call) {
            return Err(Status::resource_exhausted("too many calls on this connection"));
        }
        if let Some(certificate) = peer.and_then(|peer| peer.certificate.as_ref()) {
            let leaf = Leaf::from_certificate(certificate)
                .map_err(|error| Status::permission_denied(error.to_string()))?;
            let own = self.names.own(&leaf.identity);
            caller.identity = Some(leaf.identity.clone());
            caller.certificate = Some(leaf);
            if !own {
                return Err(Status::permission_denied(
                    "this identity belongs to another cluster",
                ));
            }
        }
        let party = caller.identity.as_ref().map(|identity| &identity.party);
        if let (Some(Party::Admin { .. }), Some(leaf)) = (party, &caller.certificate) {
            self.people.check(leaf).await?;
        }
        permission::authorise(path, party).map_err(|refusal| match refusal {
            Refusal::Unauthenticated => Status::unauthenticated(refusal.to_string()),
            Refusal::PermissionDenied => Status::permission_denied(refusal.to_string()),
        })?;
        if let Some(Party::Agent { .. }) = party
            && permission::requirement(path) == Some(permission::Requirement::Agent)
        {
            let certificate = peer.and_then(|peer| peer.certificate.as_ref());
            let signed_at = certificate.and_then(|certificate| authority::signed_at(certificate));
            self.trust
                .check(&caller.agent()?, signed_at)
                .await
                .map_err(|distrust| refuse(&distrust))?;
        }
        Ok(())
    }
}

/// The refusal of an agent that is not trusted.
pub(super) fn refuse(distrust: &Distrust) -> Status {
    match distrust {
        Distrust::Store(_) => Status::unavailable(distrust.to_string()),
        _ => Status::permission_denied(distrust.to_string()),
    }
}

/// The layer.
#[derive(Clone)]
pub struct Authorise(Arc<Doorkeeper>);

impl Authorise {
    /// Lets in who belongs to `names` and may.
    #[must_use]
    pub fn new(names: Names, trust: Arc<Trust>, people: Arc<People>, audit: Arc<Audit>) -> Self {
        Self(Arc::new(Doorkeeper {
            names,
            trust,
            people,
            audit,
        }))
    }
}

impl<S> Layer<S> for Authorise {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            door: Arc::clone(&self.0),
        }
    }
}

/// Services behind the door.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    door: Arc<Doorkeeper>,
}

type Answer = Result<http::Response<Body>, Infallible>;

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let door = Arc::clone(&self.door);
        // The one that was polled ready goes into the future, a fresh clone stays.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            match door.admit(request.uri().path(), peer.as_ref()).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await.map(blame_the_caller)
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// A message that cannot be decoded is its sender's mistake; the library calls it `INTERNAL`.
fn blame_the_caller(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if is_malformed(&status) => malformed(&status).into_http(),
        _ => response,
    }
}

/// Whether a status of the library says that a message could not be decoded.
pub(super) fn is_malformed(status: &Status) -> bool {
    status.code() == Code::Internal && status.message().starts_with("failed to decode Protobuf message")
        || status.code() == Code::OutOfRange
}

/// What the sender of a malformed message is told.
pub(super) fn malformed(status: &Status) -> Status {
    Status::invalid_argument(format!("the message cannot be read: {}", status.message()))
}
