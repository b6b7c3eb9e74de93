//! Resource quantities (apimachinery `resource.Quantity`): `500m`, `1.5Gi`, `2e3`.

use std::fmt;

/// A non-fractional amount in thousandths of the unit: milli-CPU for `cpu`, milli-bytes for `memory`.
/// Saturates at the ends of `i128`; amounts finer than a thousandth are rounded up, as Kubernetes rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    milli: i128,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseQuantityError;

impl fmt::Display for ParseQuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Kubernetes' own wording (resource.ErrFormatWrong), which users search for.
        f.write_str("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    }
}

impl std::error::Error for ParseQuantityError {}

impl Quantity {
    /// From whole units.
    pub const fn from_units(units: i64) -> Self {
        Quantity { milli: units as i128 * 1000 }
    }
    /// From thousandths.
    pub const fn from_milli(milli: i64) -> Self {
        Quantity { milli: milli as i128 }
    }
    /// Thousandths, saturating at the ends of `i64`.
    pub fn milli(self) -> i64 {
        self.milli.clamp(i64::MIN as i128, i64::MAX as i128) as i64
    }
    /// Whole units, rounded up, saturating at the ends of `i64`.
    pub fn units(self) -> i64 {
        let up = self.milli.div_euclid(1000) + i128::from(self.milli.rem_euclid(1000) != 0);
        up.clamp(i64::MIN as i128, i64::MAX as i128) as i64
    }

    /// Parses Kubernetes' notation.
    ///
    /// # Errors
    /// The text is not a signed decimal number with an optional binary (`Ki`..`Ei`), decimal (`n`..`E`) or exponent suffix.
    pub fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
            return Err(ParseQuantityError);
        }
        let mut digits: i128 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            digits = digits
                .checked_mul(10)
                .and_then(|d| d.checked_add(i128::from(byte - b'0')))
                .ok_or(ParseQuantityError)?;
        }
        let scale = fraction.len() as u32;
        let milli = match suffix {
            "Ki" => binary(digits, 10, scale),
            "Mi" => binary(digits, 20, scale),
            "Gi" => binary(digits, 30, scale),
            "Ti" => binary(digits, 40, scale),
            "Pi" => binary(digits, 50, scale),
            "Ei" => binary(digits, 60, scale),
            _ => decimal(digits, decimal_exponent(suffix)?, scale),
        };
        Ok(Quantity { milli: if negative { -milli } else { milli } })
    }
}

fn decimal_exponent(suffix: &str) -> Result<i32, ParseQuantityError> {
    Ok(match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseQuantityError)?;
            let exponent: i32 = exponent.parse().map_err(|_| ParseQuantityError)?;
            if (-30..=30).contains(&exponent) { exponent } else { return Err(ParseQuantityError) }
        }
    })
}

fn binary(digits: i128, shift: u32, scale: u32) -> i128 {
    let scaled = digits.saturating_mul(1i128 << shift).saturating_mul(1000);
    ceil_div(scaled, 10i128.pow(scale))
}

fn decimal(digits: i128, exponent: i32, scale: u32) -> i128 {
    let power = exponent + 3 - scale as i32;
    if power >= 0 {
        10i128.checked_pow(power as u32).map_or(i128::MAX, |ten| digits.saturating_mul(ten))
    } else {
        10i128.checked_pow(power.unsigned_abs()).map_or(i128::from(digits > 0), |ten| ceil_div(digits, ten))
    }
}

fn ceil_div(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_reads() {
        for (text, milli) in [
            ("0", 0),
            ("1", 1000),
            ("500m", 500),
            ("0.1", 100),
            (".5", 500),
            ("1.", 1000),
            ("1.5Gi", 1_610_612_736_000),
            ("64Ki", 65_536_000),
            ("2e3", 2_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("1n", 1),
            ("100u", 1),
            ("-250m", -250),
            ("+3", 3000),
            ("1e-3", 1),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.milli), Ok(milli), "{text}");
        }
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for text in ["", "m", "1 Gi", "1.2.3", "one", "1Kii", "1e", "--1", "0x10", "1e99"] {
            assert_eq!(Quantity::parse(text), Err(ParseQuantityError), "{text}");
        }
    }

    #[test]
    fn rounds_up_to_units() {
        assert_eq!(Quantity::parse("1001m").unwrap().units(), 2);
        assert_eq!(Quantity::parse("-1500m").unwrap().units(), -1);
    }
}
