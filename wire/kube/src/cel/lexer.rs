//! Text -> tokens.

/// One token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Name(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Operators and punctuation.
    Sign(&'static str),
    End,
}

/// Longest first, so that `<=` is not read as `<`.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// A message with the position that it is about.
pub(super) fn error(text: &str, at: usize, detail: &str) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    format!("ERROR: <input>:{line}:{column}: {detail}")
}

/// Splits an expression.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else {
            let (kind, length) = token(rest).map_err(|detail| error(text, at, &detail))?;
            out.push(Token { kind, at });
            at += length;
        }
    }
    out.push(Token { kind: Kind::End, at: text.len() });
    Ok(out)
}

fn token(rest: &str) -> Result<(Kind, usize), String> {
    if let Some(found) = quoted(rest) {
        return found;
    }
    let first = rest.as_bytes()[0];
    if first.is_ascii_digit() || first == b'.' && rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
        return number(rest);
    }
    if first.is_ascii_alphabetic() || first == b'_' {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        return Ok((Kind::Name(rest[..end].to_owned()), end));
    }
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => Ok((Kind::Sign(sign), sign.len())),
        None => Err(format!("Syntax error: token recognition error at: '{}'", rest.chars().next().unwrap_or(' '))),
    }
}

fn number(rest: &str) -> Result<(Kind, usize), String> {
    let bad = |text: &str| format!("invalid number literal '{text}'");
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let (digits, unsigned) = (&hex[..end], hex[end..].starts_with(['u', 'U']));
        return if unsigned {
            u64::from_str_radix(digits, 16).map(|n| (Kind::Uint(n), end + 3)).map_err(|_| bad(digits))
        } else {
            i64::from_str_radix(digits, 16).map(|n| (Kind::Int(n), end + 2)).map_err(|_| bad(digits))
        };
    }
    let bytes = rest.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits(0);
    let mut fractional = false;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
        fractional = true;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signed = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(signed).is_some_and(u8::is_ascii_digit) {
            end = digits(signed);
            fractional = true;
        }
    }
    let text = &rest[..end];
    if fractional {
        return text.parse().map(|n| (Kind::Double(n), end)).map_err(|_| bad(text));
    }
    if rest[end..].starts_with(['u', 'U']) {
        return text.parse().map(|n| (Kind::Uint(n), end + 1)).map_err(|_| bad(text));
    }
    // The least number is written as the negation of one that does not fit.
    let value = text.parse::<u64>().ok().filter(|n| *n <= i64::MIN.unsigned_abs());
    value.map(|n| (Kind::Int(n as i64), end)).ok_or_else(|| bad(text))
}

/// A quoted literal with an optional `r` and `b` before it; `None` when there is none here.
fn quoted(rest: &str) -> Option<Result<(Kind, usize), String>> {
    let prefix = rest.bytes().take(2).take_while(|byte| b"rRbB".contains(byte)).count();
    let (letters, body) = rest.split_at(prefix);
    let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let triple = quote.to_string().repeat(3);
    let delimiter = if body.starts_with(&triple) { triple.as_str() } else { &body[..1] };
    let raw = letters.contains(['r', 'R']);
    let contents = &body[delimiter.len()..];
    let mut at = 0;
    loop {
        let Some(c) = contents[at..].chars().next() else {
            return Some(Err("Syntax error: unterminated string literal".to_owned()));
        };
        if contents[at..].starts_with(delimiter) {
            break;
        }
        if c == '\n' && delimiter.len() == 1 {
            return Some(Err("Syntax error: unterminated string literal".to_owned()));
        }
        at += c.len_utf8();
        if c == '\\' && !raw {
            at += contents[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    let length = prefix + 2 * delimiter.len() + at;
    let text = if raw { Ok(contents[..at].to_owned()) } else { unescape(&contents[..at]) };
    Some(text.map(|text| {
        (if letters.contains(['b', 'B']) { Kind::Bytes(text.into_bytes()) } else { Kind::Text(text) }, length)
    }))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escape = chars.next().unwrap_or('\\');
        let plain = match escape {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => escape,
            'x' | 'X' => code(&mut chars, 2, 16, "")?,
            'u' => code(&mut chars, 4, 16, "")?,
            'U' => code(&mut chars, 8, 16, "")?,
            '0'..='3' => code(&mut chars, 2, 8, &escape.to_string())?,
            other => return Err(format!("Syntax error: unknown escape '\\{other}'")),
        };
        out.push(plain);
    }
    Ok(out)
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize, radix: u32, first: &str) -> Result<char, String> {
    let text: String = first.chars().chain(chars.by_ref().take(digits)).collect();
    let code = u32::from_str_radix(&text, radix).ok().filter(|_| text.len() == digits + first.len());
    code.and_then(char::from_u32).ok_or_else(|| format!("Syntax error: invalid escape of '{text}'"))
}
