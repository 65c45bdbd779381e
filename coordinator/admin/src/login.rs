//! `smartscale login`: a key that stays here, a request that travels, and what an administrator answers.
//!
//! ```text
//!   login --request FILE ─▶ login.key (0600, stays) + request ─▶ administrator: identity issue ─▶ grant
//!   login --grant FILE ──▶ login.key + grant ─▶ credentials.toml (0600)
//! ```
//! Neither file that travels is a secret, and no server is there for strangers to ask: the administrator knows whose request
//! it is, as with a certificate signing request of Kubernetes.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use smartscale_proto::{
    credentials::{CredentialsError, Grant},
    files::{FileError, read_private, write_private, write_public},
    tls::keys,
};

use crate::{
    cli::{Connection, LoginArgs},
    live::{Failure, chain, credentials_path, read_text, say},
};

pub(crate) fn run(connection: &Connection, args: &LoginArgs) -> ExitCode {
    let done = match (&args.request, &args.grant) {
        (Some(request), _) => ask(connection, request),
        (None, Some(grant)) => take(connection, grant),
        (None, None) => Err(Failure::Usage(
            "--request FILE or --grant FILE is needed".to_owned(),
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The key that waits for its certificate, beside the credentials.
fn key_path(credentials: &Path) -> PathBuf {
    credentials.with_file_name("login.key")
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::Failed(chain(error))
}

/// Makes a key, or takes the one that waits, and writes the request.
fn ask(connection: &Connection, request: &Path) -> Result<(), Failure> {
    let path = key_path(&credentials_path(connection)?);
    let key = match waiting(&path)? {
        Some(pem) => keys::key_from_pem(&pem).map_err(|error| failed(&error))?,
        None => {
            let (key, _) = keys::key_and_request().map_err(|error| failed(&error))?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|error| {
                    Failure::Failed(format!("{} cannot be made: {error}", folder.display()))
                })?;
            }
            let pem = keys::to_pem("PRIVATE KEY", key.secret_der());
            write_private(&path, pem.as_bytes()).map_err(|error| failed(&error))?;
            key
        }
    };
    let der = keys::request_for(&key).map_err(|error| failed(&error))?;
    let pem = keys::to_pem("CERTIFICATE REQUEST", &der);
    if request == Path::new("-") {
        return say(pem.trim_end());
    }
    write_public(request, pem.as_bytes()).map_err(|error| failed(&error))?;
    say(&format!(
        "{0} is for an administrator, who runs `smartscale identity issue --role ROLE --for NAME --request {0} -o GRANT`\n\
         the key stays in {1}; then `smartscale login --grant GRANT`",
        request.display(),
        path.display()
    ))
}

/// Puts the key and the administrator's answer together.
fn take(connection: &Connection, grant: &Path) -> Result<(), Failure> {
    let path = credentials_path(connection)?;
    let key_path = key_path(&path);
    let Some(key) = waiting(&key_path)? else {
        return Err(Failure::Usage(format!(
            "no key waits in {}: begin with `smartscale login --request FILE`",
            key_path.display()
        )));
    };
    let key =
        String::from_utf8(key).map_err(|_| Failure::Usage(format!("{} holds no key", key_path.display())))?;
    let text = read_text(grant)?;
    let bad = |error: CredentialsError| Failure::Usage(format!("{}: {}", grant.display(), chain(&error)));
    let credentials = Grant::parse(&text)
        .and_then(|grant| grant.with_key(key))
        .map_err(bad)?;
    let (who, end) = (
        credentials.identity().map_err(bad)?,
        credentials.not_after().map_err(bad)?,
    );
    credentials.write(&path).map_err(|error| failed(&error))?;
    // The credentials have it now.
    std::fs::remove_file(&key_path)
        .map_err(|error| Failure::Failed(format!("{} cannot be removed: {error}", key_path.display())))?;
    say(&format!("{} is {who}, until {end:.0}", path.display()))
}

fn waiting(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match read_private(path) {
        Ok(key) => Ok(Some(key)),
        Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}
