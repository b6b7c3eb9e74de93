//! Escapes of the schema files' last column.

use std::borrow::Cow;

/// Undoes the escaping of backslash, tab and newline; borrows when nothing is escaped.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some(other)) => out.push(other),
            (other, _) => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// Escapes what [`unescape`] undoes, so that texts of custom resources can stand beside those of the files.
pub(crate) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_comes_back() {
        for text in ["", "plain", "a\nb\tc", "back\\slash", "\\n stays", "é\n"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        assert!(matches!(unescape("plain"), Cow::Borrowed(_)));
    }
}
