//! Durations as policies and annotations write them: `200ms`, `90s`, `5m`, `1h30m`.

use std::time::Duration;

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: expected for example 200ms, 90s, 5m or 2h")]
pub struct DurationError(String);

/// Reads a sequence of numbers with units (`ms`, `s`, `m`, `h`, `d`), as Go does (which has no days), at most a century.
///
/// # Errors
/// If the text is anything else; a bare number has no unit and is refused, except `0`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(error)?;
        let value: f64 = rest[..number].parse().map_err(|_| error())?;
        rest = &rest[number..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += value
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return Err(error()),
            };
        rest = &rest[unit..];
    }
    if text.is_empty() || seconds > 36_525.0 * 86_400.0 {
        return Err(error());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, millis) in [
            ("200ms", 200),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("0", 0),
            ("1.5s", 1500),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "", "5", "5 m", "-5m", "m", "5x", "1.2.3s", "9999999h", "NaNs", "infs",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
