//! Quantities in Kubernetes' notation (`500m`, `512Mi`, `1e3`), read exactly.
//!
//! A quantity is a decimal number with a suffix: none, `n u m k M G T P E` (powers of ten), `Ki Mi Gi Ti Pi Ei`
//! (powers of two) or an exponent `e3`/`E3`. What a scale cannot hold is rounded away from zero, as
//! `resource.Quantity` of `k8s.io/apimachinery` does, so that a request is never counted too small.

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Neither a number nor a number with a known suffix.
    #[error(
        "`{0}` is not a quantity: expected a number with an optional suffix, such as 500m, 2, 512Mi or 1G"
    )]
    Syntax(String),
    /// Larger than 64 bits hold at the wanted scale.
    #[error("`{0}` is too large")]
    Range(String),
    /// Below zero where nothing below zero makes sense.
    #[error("`{0}` is negative")]
    Negative(String),
}

/// Reads a quantity of whole units (bytes, pods, devices), rounded up.
///
/// # Errors
/// If the text is no quantity, is negative or does not fit into 63 bits.
pub fn parse_units(text: &str) -> Result<i64, QuantityError> {
    parse_scaled(text, 0)
}

/// Reads a quantity in thousandths (CPU), rounded up.
///
/// # Errors
/// If the text is no quantity, is negative or does not fit into 63 bits.
pub fn parse_milli(text: &str) -> Result<i64, QuantityError> {
    parse_scaled(text, 3)
}

/// `text × 10^scale`, rounded up.
fn parse_scaled(text: &str, scale: i32) -> Result<i64, QuantityError> {
    let syntax = || QuantityError::Syntax(text.to_owned());
    let range = || QuantityError::Range(text.to_owned());
    let body = text.trim_ascii();
    let (negative, body) = match body.as_bytes().first() {
        Some(b'-') => (true, &body[1..]),
        Some(b'+') => (false, &body[1..]),
        _ => (false, body),
    };
    let number_end = body
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(body.len());
    let (number, suffix) = body.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(syntax());
    }
    let (binary, decimal_exponent) = suffix_of(suffix).ok_or_else(syntax)?;

    let mut digits: u128 = 0;
    let mut exponent = decimal_exponent + scale;
    let mut tail = false;
    for digit in whole.bytes() {
        let more = digits
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u128::from(digit - b'0')));
        digits = more.ok_or_else(range)?;
    }
    // Behind so many digits a fraction cannot matter after rounding up, but that there is one does.
    for digit in fraction.bytes() {
        if digits > u128::MAX / 10_000_000_000_000_000_000_000 {
            tail |= digit != b'0';
        } else {
            digits = digits * 10 + u128::from(digit - b'0');
            exponent -= 1;
        }
    }
    if digits == 0 && !tail {
        return Ok(0);
    }
    if negative {
        return Err(QuantityError::Negative(text.to_owned()));
    }
    let mut value = digits
        .checked_shl(binary)
        .filter(|v| v >> binary == digits)
        .ok_or_else(range)?;
    while exponent > 0 {
        value = value.checked_mul(10).ok_or_else(range)?;
        exponent -= 1;
    }
    while exponent < 0 && value > 0 {
        tail |= value % 10 != 0;
        value /= 10;
        exponent += 1;
    }
    if tail {
        value += 1;
    }
    i64::try_from(value).map_err(|_| range())
}

/// The suffix as (power of two, power of ten).
fn suffix_of(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        other => {
            let exponent = other.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (0, exponent.parse::<i32>().ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn every_suffix_of_kubernetes_is_read() {
        for (text, units) in [
            ("0", 0),
            ("2", 2),
            ("512Mi", 512 << 20),
            ("1.5Gi", 3 << 29),
            ("1e3", 1000),
            ("1E3", 1000),
            ("2k", 2000),
            ("1G", 1_000_000_000),
            ("2E", 2_000_000_000_000_000_000),
            (".5Ki", 512),
            ("5.", 5),
            ("+7", 7),
            ("100000m", 100),
        ] {
            assert_eq!(parse_units(text), Ok(units), "{text}");
        }
        for (text, milli) in [
            ("500m", 500),
            ("2", 2000),
            ("0.1", 100),
            ("1500u", 2),
            ("1n", 1),
            ("1e-3", 1),
        ] {
            assert_eq!(parse_milli(text), Ok(milli), "{text}");
        }
    }

    #[test]
    fn what_the_scale_cannot_hold_is_rounded_up() {
        assert_eq!(parse_units("1m"), Ok(1));
        assert_eq!(parse_units("1001m"), Ok(2));
        assert_eq!(parse_milli("0.0001"), Ok(1));
        assert_eq!(
            parse_units("0.33333333333333333333333333333333333333333333Ki"),
            Ok(342)
        );
        assert_eq!(
            parse_units("99999999999999999.000000000000000000000000001"),
            Ok(100_000_000_000_000_000)
        );
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for text in [
            "", "lots", "1Zi", "1 Gi", "1.2.3", "--1", "e3", "1e", "0x10", "½", "NaN", "inf", "Mi", ".",
        ] {
            assert!(
                matches!(parse_units(text), Err(QuantityError::Syntax(_))),
                "{text}"
            );
        }
        assert!(parse_units("9e18").is_ok());
        assert_eq!(parse_units("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(parse_units("00000000000000000000000000000000000000000002"), Ok(2));
        assert!(matches!(
            parse_units("9223372036854775808"),
            Err(QuantityError::Range(_))
        ));
        assert!(matches!(parse_units("10E"), Err(QuantityError::Range(_))));
        assert!(matches!(parse_units("1e999"), Err(QuantityError::Range(_))));
        assert!(matches!(
            parse_units(&"9".repeat(60)),
            Err(QuantityError::Range(_))
        ));
        assert!(matches!(parse_milli("-1"), Err(QuantityError::Negative(_))));
        assert_eq!(parse_milli("-0"), Ok(0));
    }
}
