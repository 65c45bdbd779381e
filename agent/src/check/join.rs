//! What a join takes: the two secrets, the K3s server, and a clock that its certificates agree with. No secret is shown.

use jiff::SignedDuration;
use smartscale_proto::check::Finding;

use super::failed;
use crate::{
    config,
    error::{Failure, Known},
    k3s::server::JoinServer,
    machine::Machine,
    secrets::{
        Secrets,
        join::{JoinToken, server_url},
    },
};

const SECRETS: &str = "secrets";
const SERVER: &str = "k3s";
const CLOCK: &str = "clock";
/// A certificate of a cluster is backdated by an hour, and AWS refuses what is signed by a clock five minutes off.
const APART: SignedDuration = SignedDuration::from_mins(5);
/// `Date` has whole seconds, and an answer takes its time.
const ALIKE: SignedDuration = SignedDuration::from_secs(5);

/// Reads the secrets, and asks the server that they name.
pub(super) async fn findings(
    names: &config::Secrets,
    secrets: &dyn Secrets,
    server: &dyn JoinServer,
    machine: Option<&Machine>,
) -> Vec<Finding> {
    if names.from_coordinator {
        let why = "the coordinator gives token and server at the enrolment";
        return vec![Finding::skipped(SECRETS, "read the secrets of a join", why)];
    }
    let Some(machine) = machine else {
        let why = "their region is that of the machine, which is not known";
        return vec![Finding::skipped(SECRETS, "read the secrets of a join", why)];
    };
    let remedy = "look at [secrets] of the agent's configuration";
    let (token, found) = {
        let tried = format!("read {}", names.join_token);
        match token(names, secrets, machine).await {
            Ok(token) => {
                let found = "an agent or bootstrap token in its secure form";
                (Some(token), Finding::passed(SECRETS, tried, found))
            }
            Err(failure) => (None, failed(SECRETS, &tried, &failure, remedy)),
        }
    };
    let mut findings = vec![found];
    let tried = format!("read {}", names.server);
    let url = match address(names, secrets, machine).await {
        Ok(url) => {
            findings.push(Finding::passed(SECRETS, tried, &url));
            url
        }
        Err(failure) => {
            findings.push(failed(SECRETS, &tried, &failure, remedy));
            return findings;
        }
    };
    let tried = format!("asked {url}/cacerts whether it is the token's cluster");
    let Some(token) = token else {
        findings.push(Finding::skipped(
            SERVER,
            tried,
            "there is no token to compare with",
        ));
        return findings;
    };
    match server.look(&url, &token).await {
        Ok(seen) => {
            findings.push(Finding::passed(SERVER, tried, "it is"));
            findings.extend(seen.skew.map(clock));
        }
        Err(failure) => findings.push(failed(
            SERVER,
            &tried,
            &failure,
            Known::ServerUnreachable.remedy(),
        )),
    }
    findings
}

async fn token(
    names: &config::Secrets,
    secrets: &dyn Secrets,
    machine: &Machine,
) -> Result<JoinToken, Failure> {
    let secret = secrets.secret(&names.join_token, &machine.zone).await?;
    JoinToken::try_from(secret)
        .map_err(|error| Failure::because(error.to_string()).known_as(Known::SecretUnusable))
}

async fn address(
    names: &config::Secrets,
    secrets: &dyn Secrets,
    machine: &Machine,
) -> Result<String, Failure> {
    let secret = secrets.secret(&names.server, &machine.zone).await?;
    server_url(secret.reveal())
        .map_err(|error| Failure::because(error.to_string()).known_as(Known::SecretUnusable))
}

fn clock(ahead: SignedDuration) -> Finding {
    let tried = "compared this machine's clock with the K3s server's";
    let seconds = ahead.as_secs();
    let off = if seconds < 0 {
        format!("{} s behind", -seconds)
    } else {
        format!("{seconds} s ahead")
    };
    let remedy = Known::ClockSkew.remedy();
    if ahead.abs() <= ALIKE {
        Finding::passed(CLOCK, tried, format!("they agree to {} s", ALIKE.as_secs()))
    } else if ahead.abs() < APART {
        Finding::warning(CLOCK, tried, off, remedy)
    } else {
        Finding::failed(CLOCK, tried, off, remedy)
    }
}
