//! Numbers as trace headers write them.

/// Reads lower or upper case hex digits; None for anything else, and for none at all.
pub fn parse(text: &str) -> Option<u128> {
    let plain = !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}
