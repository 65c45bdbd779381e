//! What the secrets of a join must look like.
//!
//! K3s' tokens in their secure form (<https://docs.k3s.io/cli/token>):
//! `K10<SHA-256 of the cluster's CA bundle, 64 hex>::<user>:<secret>` with the user `node` for the agent token and `server` for
//! the server token, or `K10<hash>::<id>.<secret>` for a bootstrap token. The short form pins no CA, hence lets
//! anybody in between take the cluster's credentials; the server token would make every worker a server.

use std::net::{IpAddr, Ipv6Addr};

use super::Secret;

/// A K3s agent or bootstrap token in its secure form.
#[derive(Debug, Clone)]
pub struct JoinToken(Secret);

impl JoinToken {
    /// The token itself, for its file.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// SHA-256 of the cluster's authorities, 64 hexadecimal digits. No secret.
    #[must_use]
    pub fn ca_hash(&self) -> &str {
        self.0.reveal().get(3..67).unwrap_or_default()
    }
}

/// Why a secret cannot be used to join. None of these shows the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadJoin {
    /// The token pins no CA.
    #[error(
        "the join token is not in its secure form: `K10` and the CA's hash must come before `::` (K3s writes it to server/agent-token)"
    )]
    Insecure,
    /// The hash has another form.
    #[error("the join token's CA hash is not 64 hexadecimal digits")]
    Hash,
    /// The server token.
    #[error(
        "the join token is the server token, which would make this worker a server: store K3s' agent token instead (server/agent-token)"
    )]
    ServerToken,
    /// Nothing that K3s accepts.
    #[error("the join token's part after `::` is neither `node:SECRET` nor a bootstrap token `ID.SECRET`")]
    Credential,
    /// The server's address.
    #[error("the server's address is neither an IP address, a host name nor an https:// URL")]
    Server,
}

impl TryFrom<Secret> for JoinToken {
    type Error = BadJoin;

    fn try_from(secret: Secret) -> Result<Self, BadJoin> {
        let text = secret.reveal().trim();
        let (hash, credential) = text
            .strip_prefix("K10")
            .and_then(|rest| rest.split_once("::"))
            .ok_or(BadJoin::Insecure)?;
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadJoin::Hash);
        }
        let printable = credential.bytes().all(|byte| byte.is_ascii_graphic());
        let sound = match credential.split_once(':') {
            Some(("server", _)) => return Err(BadJoin::ServerToken),
            Some(("node", secret)) => !secret.is_empty(),
            Some(_) => false,
            None => credential
                .split_once('.')
                .is_some_and(|(id, secret)| !id.is_empty() && !secret.is_empty()),
        };
        if !sound || !printable {
            return Err(BadJoin::Credential);
        }
        Ok(Self(Secret::new(text.to_owned())))
    }
}

/// The URL of the K3s server, from what the secret says: an address or a name (then with K3s' port 6443), with or
/// without a port, or the URL itself.
///
/// # Errors
/// [`BadJoin::Server`].
pub fn server_url(secret: &str) -> Result<String, BadJoin> {
    let text = secret.trim();
    let authority = text
        .strip_prefix("https://")
        .map_or(text, |rest| rest.trim_end_matches('/'));
    let bare = authority.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("https://[{ip}]:6443"));
    }
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(format!("https://{ip}:6443"));
    }
    let uri: http::Uri = format!("https://{authority}/")
        .parse()
        .map_err(|_| BadJoin::Server)?;
    let host = uri.host().ok_or(BadJoin::Server)?;
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')),
    };
    if uri.path() != "/" || uri.query().is_some() || authority.contains('@') || !is_host {
        return Err(BadJoin::Server);
    }
    Ok(format!("https://{host}:{}", uri.port_u16().unwrap_or(6443)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<JoinToken, BadJoin> {
        JoinToken::try_from(Secret::new(text.to_owned()))
    }

    #[test]
    fn agent_and_bootstrap_tokens_in_secure_form_are_taken() {
        let hash = "0f".repeat(32);
        for credential in ["node:s3cr3t", "abcdef.0123456789abcdef"] {
            let text = format!("K10{hash}::{credential}");
            assert_eq!(read(&format!("{text}\n")).unwrap().reveal(), text);
        }
    }

    #[test]
    fn other_tokens_are_refused_with_the_reason_and_without_the_value() {
        let hash = "0f".repeat(32);
        for (text, reason) in [
            ("s3cr3t".to_owned(), BadJoin::Insecure),
            ("K10abc::node:s3cr3t".to_owned(), BadJoin::Hash),
            (format!("K10{hash}::server:s3cr3t"), BadJoin::ServerToken),
            (format!("K10{hash}::node:"), BadJoin::Credential),
            (format!("K10{hash}::s3cr3t"), BadJoin::Credential),
            (
                format!("K10{hash}::node:s3cr3t\nserver: evil"),
                BadJoin::Credential,
            ),
        ] {
            let refused = read(&text).unwrap_err();
            assert_eq!(refused, reason);
            assert!(!refused.to_string().contains("s3cr3t"));
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let token = read(&format!("K10{}::node:s3cr3t", "0f".repeat(32))).unwrap();
        assert!(!format!("{token:?}").contains("s3cr3t"));
    }

    #[test]
    fn the_servers_address_is_read_in_the_forms_people_store() {
        for (text, url) in [
            ("10.0.0.10", "https://10.0.0.10:6443"),
            ("10.0.0.10:6444\n", "https://10.0.0.10:6444"),
            ("k3s.internal", "https://k3s.internal:6443"),
            ("https://k3s.internal:443/", "https://k3s.internal:443"),
            ("fd00::1", "https://[fd00::1]:6443"),
            ("[fd00::1]:6444", "https://[fd00::1]:6444"),
        ] {
            assert_eq!(server_url(text).as_deref(), Ok(url));
        }
        for text in [
            "",
            "http://10.0.0.1",
            "a b",
            "https://x/y",
            "user@host",
            "x\ny: z",
            "a[b",
            "[k3s]:6443",
        ] {
            assert_eq!(server_url(text), Err(BadJoin::Server), "{text:?}");
        }
    }

    mod fuzz {
        use smartscale_fuzz::{Target, fuzz};

        use super::*;

        #[test]
        fn join_tokens_and_addresses() {
            let token = format!("K10{}::node:secret", "a".repeat(64));
            let target = Target {
                name: "agent/join",
                seeds: &[
                    token.as_bytes(),
                    b"10.0.0.1",
                    b"https://[fd00::1]:6443/",
                    b"host.example:7000",
                ],
                words: &[
                    "K10", "::", "node:", "server:", ".", "https://", "[", "]", ":", "@", "/",
                ],
                kept: None,
            };
            fuzz(target, |input| {
                let text = String::from_utf8_lossy(input);
                let token = match read(&text) {
                    Ok(token) => {
                        // It ends in a file of one line.
                        assert!(token.reveal().bytes().all(|byte| byte.is_ascii_graphic()));
                        "taken".to_owned()
                    }
                    Err(error) => error.to_string(),
                };
                let server = match server_url(&text) {
                    Ok(url) => {
                        assert!(url.parse::<http::Uri>().is_ok(), "{url}");
                        assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url}");
                        "taken".to_owned()
                    }
                    Err(error) => error.to_string(),
                };
                format!("{token} {server}")
            });
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text: String) {
            let _ = read(&text);
            let _ = server_url(&text);
        }
    }
}
