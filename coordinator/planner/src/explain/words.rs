//! Figures as people write them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Reason;
use crate::model::{HostPort, Protocol};

/// A span of time in its two greatest units: `45s`, `3m`, `1h20m`, `2d4h`.
pub(crate) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut parts: Vec<(usize, String)> = Vec::new();
    for (index, (unit, name)) in units.into_iter().enumerate() {
        if rest / unit > 0 {
            parts.push((index, format!("{}{name}", rest / unit)));
        }
        rest %= unit;
    }
    match parts.as_slice() {
        [] => "0s".to_owned(),
        [(first, one), (second, two), ..] if second - first == 1 => format!("{one}{two}"),
        [(_, one), ..] => one.clone(),
    }
}

/// The same of a number of seconds.
pub fn seconds(seconds: i64) -> String {
    span(SignedDuration::from_secs(seconds))
}

/// The same of an unsigned one.
pub(crate) fn length(duration: Duration) -> String {
    span(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
}

/// A moment to the second.
pub(crate) fn moment(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// USD per hour, as far as it matters.
pub(crate) fn dollars(price: f64) -> String {
    format!("${price:.4} an hour")
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn and(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `8080/TCP`, with its address if it has one.
pub(crate) fn port(port: &HostPort) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match port.ip {
        Some(ip) => format!("{ip}:{}/{protocol}", port.port),
        None => format!("{}/{protocol}", port.port),
    }
}

/// The nearest miss: `node-b comes nearest, cpu: 250m short (…)`.
pub(crate) fn attempt(by: &str, code: Reason, detail: &str) -> String {
    let detail = if detail.is_empty() {
        code.to_string()
    } else {
        detail.to_owned()
    };
    format!("{by} comes nearest ({detail})")
}

/// An annotation's key without its domain.
pub(crate) fn short_annotation(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_said_in_its_two_greatest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (45, "45s"),
            (180, "3m"),
            (185, "3m5s"),
            (4800, "1h20m"),
            (3605, "1h"),
            (187_200, "2d4h"),
            (-5, "0s"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
    }
}
