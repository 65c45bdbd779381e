//! What K3s says in its journal when it does not join: the words of its own failures, and of those below it.
//!
//! K3s tries for ever and its unit stays `activating`, so that the journal alone knows why. The words are those of K3s 1.36
//! and of the libraries that it uses; words that are not known here tell nothing, which is no harm.

use crate::error::Known;

/// Characters of a line that are passed on.
const LONGEST: usize = 300;

/// Words of a line and what they mean. The first that is found counts.
const WORDS: [(&str, Known); 15] = [
    ("node password rejected", Known::DuplicateHostname),
    ("duplicate hostname", Known::DuplicateHostname),
    ("ca hash does not match", Known::CaMismatch),
    ("certificate signed by unknown authority", Known::CaMismatch),
    ("certificate has expired or is not yet valid", Known::ClockSkew),
    ("no space left on device", Known::DiskFull),
    ("not authorized", Known::TokenRefused),
    ("unauthorized", Known::TokenRefused),
    // What a server says to a bootstrap token that has expired: Go's complaint about an answer that broke off.
    ("with body length 0", Known::TokenRefused),
    ("connection refused", Known::ServerUnreachable),
    ("no route to host", Known::ServerUnreachable),
    ("network is unreachable", Known::ServerUnreachable),
    ("no such host", Known::ServerUnreachable),
    ("i/o timeout", Known::ServerUnreachable),
    ("context deadline exceeded", Known::ServerUnreachable),
];

/// The last line of a journal that says why K3s does not join.
#[must_use]
pub fn why(journal: &str) -> Option<(Known, String)> {
    journal.lines().rev().find_map(|line| {
        let small = line.to_lowercase();
        let (_, known) = WORDS.iter().find(|(words, _)| small.contains(words))?;
        Some((*known, message(line)))
    })
}

/// The message of a line of logrus, K3s' logger (`time=… level=… msg="…"`): without the time, the same failure is the same
/// text.
fn message(line: &str) -> String {
    let text = line
        .split_once("msg=")
        .map_or(line, |(_, rest)| rest)
        .trim()
        .trim_matches('"');
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_line_that_says_why_is_found() {
        let journal = "time=\"2026-01-02T03:04:05Z\" level=info msg=\"Starting k3s agent\"\n\
            time=\"2026-01-02T03:04:06Z\" level=error msg=\"failed to get CA certs: Get \\\"https://127.0.0.1:6444/cacerts\\\": connection refused\"\n\
            time=\"2026-01-02T03:04:09Z\" level=error msg=\"Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry\"\n\
            time=\"2026-01-02T03:04:09Z\" level=info msg=\"Waiting\"";
        let (known, text) = why(journal).unwrap_or((Known::DiskFull, String::new()));
        assert_eq!(known, Known::DuplicateHostname);
        assert!(
            text.starts_with("Node password rejected") && !text.contains("03:04"),
            "{text}"
        );
    }

    #[test]
    fn an_expired_bootstrap_token_is_told_by_its_misleading_words() {
        let journal = "level=error msg=\"Post https://10.0.0.1:6443/v1-k3s/client-kubelet.crt: http: ContentLength=189 with Body length 0\"";
        assert_eq!(why(journal).map(|(known, _)| known), Some(Known::TokenRefused));
    }

    #[test]
    fn words_that_are_not_known_tell_nothing() {
        assert_eq!(why("level=info msg=\"all is well\""), None);
    }

    proptest! {
        #[test]
        fn no_journal_makes_the_reader_panic(text: String) {
            prop_assert!(why(&text).is_none_or(|(_, said)| said.chars().count() <= LONGEST));
        }
    }
}
