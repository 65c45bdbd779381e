//! Identities of people: handing them out, listing, revoking.

use std::{io::Read as _, path::Path};

use smartscale_proto::{
    credentials::Grant,
    files::write_public,
    time::duration_to_wire,
    tls::keys,
    v1::{self, ListIdentitiesResponse, revoke_identity_request::Subject},
};

use super::{
    client::Client,
    failure::{Failure, chain},
    print,
    render::Answer,
    say,
    show::{left, or_dash, read},
    table::table,
};
use crate::cli::IdentityCommand;

/// Bytes of a request or an answer in a file.
const LONGEST: u64 = 64 * 1024;

pub(super) async fn execute(client: &mut Client, command: IdentityCommand) -> Result<(), Failure> {
    match command {
        IdentityCommand::Issue {
            role,
            name,
            request,
            life,
            output,
        } => {
            let pem = read_text(&request)?;
            let csr_der = keys::request_from_pem(pem.as_bytes())
                .map_err(|error| Failure::Usage(format!("{}: {}", request.display(), chain(&error))))?;
            let request = v1::IssueIdentityRequest {
                csr_der,
                role: role.to_string(),
                name: name.to_string(),
                life: Some(duration_to_wire(life)),
            };
            let answer = client.ask(request, Client::issue_identity).await?;
            let serial = answer.serial.clone();
            let text = grant(client, answer)?;
            if output == Path::new("-") {
                return say(text.trim_end());
            }
            write_public(&output, text.as_bytes()).map_err(|error| Failure::Failed(chain(&error)))?;
            say(&format!(
                "{name} is `{role}` with the certificate {serial}; hand {0} back: `smartscale login --grant {0}`",
                output.display()
            ))
        }
        IdentityCommand::List { all, format } => {
            let request = v1::ListIdentitiesRequest { include_ended: all };
            print(format, &client.ask(request, Client::identities).await?)
        }
        IdentityCommand::Revoke { name, serial, reason } => {
            let what = name.as_ref().or(serial.as_ref()).cloned().unwrap_or_default();
            let subject = name.map(Subject::Name).or(serial.map(Subject::Serial));
            let request = v1::RevokeIdentityRequest { subject, reason };
            let ended = client.ask(request, Client::revoke_identity).await?.ended;
            say(&format!(
                "{what} is refused from now on; {ended} certificates that are known were good until now"
            ))
        }
    }
}

/// What is handed back to the person: nothing in it is secret.
fn grant(client: &Client, answer: v1::IssueIdentityResponse) -> Result<String, Failure> {
    let certificate = answer
        .certificate
        .ok_or_else(|| Failure::Failed("the coordinator has signed nothing".to_owned()))?;
    let pem = |list: &[Vec<u8>]| {
        list.iter()
            .map(|der| keys::to_pem("CERTIFICATE", der))
            .collect::<String>()
    };
    let expected = client.expected();
    let grant = Grant {
        cluster: expected.cluster.clone(),
        trust: expected.trust.clone(),
        endpoints: answer.endpoints,
        ca: pem(&certificate.trust_anchors_der),
        certificate: pem(&certificate.chain_der),
    };
    grant.to_text().map_err(|error| Failure::Failed(chain(&error)))
}

/// A short text from a file, or from stdin for `-`.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(LONGEST)
            .read_to_string(&mut text)
            .map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

impl Answer for ListIdentitiesResponse {
    const NAME: &'static str = "ListIdentitiesResponse";

    fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .identities
            .iter()
            .map(|identity| {
                let now = jiff::Timestamp::now();
                let state = match (read(&identity.revoked_at), read(&identity.not_after)) {
                    (Some(_), _) => "revoked".to_owned(),
                    (None, Some(end)) if end <= now => "ended".to_owned(),
                    (None, Some(end)) => format!("{} left", left(end)),
                    (None, None) => "-".to_owned(),
                };
                let by = identity.issued_by.rsplit('/').next().unwrap_or_default();
                vec![
                    identity.name.clone(),
                    identity.role.clone(),
                    state,
                    or_dash(by),
                    identity.serial.clone(),
                ]
            })
            .collect();
        table(&["NAME", "ROLE", "STATE", "BY", "SERIAL"], &rows)
    }
}
