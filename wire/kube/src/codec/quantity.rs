//! Canonical text of quantities, as `resource.Quantity` prints them.

/// A text that is no quantity; worded as Kubernetes words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

#[derive(Clone, Copy, PartialEq)]
enum Notation {
    Decimal,
    Exponent,
    Binary,
}

/// The one text that Kubernetes prints for an amount: `0.5` -> `500m`, `1024Mi` -> `1Gi`, `1000m` -> `1`. Amounts finer than
/// a billionth are rounded up; the notation (binary, decimal, exponent) stays what it was.
///
/// # Errors
/// The text is no quantity, or has more digits than any real amount.
pub fn canonical_quantity(text: &str) -> Result<String, QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(QuantityError);
    }
    let fraction = fraction.trim_end_matches('0');
    let (notation, ten, two) = scale(suffix)?;
    let mut digits: i128 = 0;
    for byte in whole.trim_start_matches('0').bytes().chain(fraction.bytes()) {
        digits = digits.checked_mul(10).and_then(|d| d.checked_add(i128::from(byte - b'0'))).ok_or(QuantityError)?;
    }
    let digits = digits.checked_mul(1i128 << two).ok_or(QuantityError)?;
    let exponent = ten - i32::try_from(fraction.len()).map_err(|_| QuantityError)?;
    let sign = if negative && digits != 0 { "-" } else { "" };
    let (digits, exponent) = round_up(digits, exponent);
    let text = match notation {
        Notation::Binary => binary(digits, exponent),
        Notation::Decimal | Notation::Exponent => Some(decimal(digits, exponent, notation)?),
    };
    Ok(format!("{sign}{}", text.map_or_else(|| decimal(digits, exponent, Notation::Decimal), Ok)?))
}

/// An amount in billionths, rounded up.
///
/// # Errors
/// As [`canonical_quantity`], or the amount is too large to be told.
pub(crate) fn quantity_billionths(text: &str) -> Result<i128, QuantityError> {
    let canonical = canonical_quantity(text)?;
    let end = canonical.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(canonical.len());
    let digits: i128 = canonical[..end].parse().map_err(|_| QuantityError)?;
    let (_, ten, two) = scale(&canonical[end..])?;
    let power = 10i128.checked_pow(u32::try_from(ten + 9).map_err(|_| QuantityError)?).ok_or(QuantityError)?;
    digits.checked_mul(power).and_then(|value| value.checked_mul(1i128 << two)).ok_or(QuantityError)
}

/// Notation, power of ten and power of two of a suffix.
fn scale(suffix: &str) -> Result<(Notation, i32, u32), QuantityError> {
    let decimal = |power| Ok((Notation::Decimal, power, 0));
    let binary = |power| Ok((Notation::Binary, 0, power));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
            let exponent: i32 = exponent.parse().map_err(|_| QuantityError)?;
            if exponent.abs() <= 30 { Ok((Notation::Exponent, exponent, 0)) } else { Err(QuantityError) }
        }
    }
}

/// Rounds up to billionths and takes factors of ten out of the digits.
fn round_up(mut digits: i128, mut exponent: i32) -> (i128, i32) {
    while exponent < -9 && digits != 0 {
        digits = digits / 10 + i128::from(digits % 10 != 0);
        exponent += 1;
    }
    if digits == 0 {
        return (0, 0);
    }
    while digits % 10 == 0 {
        digits /= 10;
        exponent += 1;
    }
    (digits, exponent)
}

fn decimal(digits: i128, exponent: i32, notation: Notation) -> Result<String, QuantityError> {
    let over = exponent.rem_euclid(3);
    let digits = digits.checked_mul(10i128.pow(over.unsigned_abs())).ok_or(QuantityError)?;
    let exponent = exponent - over;
    if notation == Notation::Exponent {
        return Ok(if exponent == 0 { digits.to_string() } else { format!("{digits}e{exponent}") });
    }
    let suffix = match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        0 => "",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        // Larger than any suffix: the digits take the rest.
        more if more > 18 => {
            let rest = 10i128
                .checked_pow((more - 18).unsigned_abs())
                .and_then(|ten| digits.checked_mul(ten))
                .ok_or(QuantityError)?;
            return Ok(format!("{rest}E"));
        }
        _ => return Err(QuantityError),
    };
    Ok(format!("{digits}{suffix}"))
}

/// Binary notation, for whole amounts of at least 1024; smaller ones are printed as decimals.
fn binary(digits: i128, exponent: i32) -> Option<String> {
    let mut whole = if exponent >= 0 {
        digits.checked_mul(10i128.checked_pow(exponent.unsigned_abs())?)?
    } else {
        let ten = 10i128.checked_pow(exponent.unsigned_abs())?;
        if digits / ten < 1024 {
            return None;
        }
        digits / ten + i128::from(digits % ten != 0)
    };
    if whole < 1024 {
        return None;
    }
    let mut power = 0;
    while whole % 1024 == 0 && power < 6 {
        whole /= 1024;
        power += 1;
    }
    Some(format!("{whole}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_kubernetes_prints() {
        for (text, canonical) in [
            ("0", "0"),
            ("0m", "0"),
            ("-0", "0"),
            ("0Ki", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1000", "1k"),
            ("100", "100"),
            ("1024", "1024"),
            ("1000000", "1M"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("100Mi", "100Mi"),
            ("1e3", "1e3"),
            ("12e2", "1200"),
            ("1E", "1E"),
            ("1000E", "1000E"),
            ("-250m", "-250m"),
            ("+3", "3"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.0000000001", "1n"),
            ("123456789", "123456789"),
            ("0064Mi", "64Mi"),
        ] {
            assert_eq!(canonical_quantity(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for text in ["", "m", "1 Gi", "1.2.3", "one", "1Kii", "1e", "--1", "0x10", "1e99", &"9".repeat(60)] {
            assert_eq!(canonical_quantity(text), Err(QuantityError), "{text}");
        }
    }
}
