//! Formats of names, keys and values, and what apimachinery says of a wrong one.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// Which names a kind's objects may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Most kinds: DNS-1123 subdomain, 253 bytes.
    Subdomain,
    /// DNS-1123 label, 63 bytes (Namespace).
    Label,
    /// DNS-1035 label (Service).
    Dns1035,
    /// Anything that can be a segment of a URL path (RBAC kinds).
    PathSegment,
}

impl NameRule {
    /// What is wrong with `name`; empty when nothing is.
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            NameRule::Subdomain => subdomain(name),
            NameRule::Label => label(name),
            NameRule::Dns1035 => dns1035(name),
            NameRule::PathSegment => path_segment(name),
        }
    }
}

fn max_len(length: usize) -> String {
    format!("must be no more than {length} characters")
}

fn regex_error(what: &str, examples: &[&str], regex: &str) -> String {
    if examples.is_empty() {
        return format!("{what} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{what} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

fn is_lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label_shaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            is_lower_alnum(*first) && is_lower_alnum(*last) && bytes.iter().all(|b| is_lower_alnum(*b) || *b == b'-')
        }
        _ => false,
    }
}

fn is_subdomain_shaped(text: &str) -> bool {
    text.split('.').all(is_label_shaped)
}

fn is_qualified_shaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// DNS-1123 label.
pub fn label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(max_len(63));
    }
    if !is_label_shaped(value) {
        wrong.push(if is_subdomain_shaped(value) {
            "must not contain dots".to_owned()
        } else {
            let what = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
                        alphanumeric character";
            regex_error(what, &["my-name", "123-abc"], LABEL)
        });
    }
    wrong
}

/// DNS-1123 subdomain.
pub fn subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push(max_len(253));
    }
    if !is_subdomain_shaped(value) {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
                    with an alphanumeric character";
        wrong.push(regex_error(what, &["example.com"], SUBDOMAIN));
    }
    wrong
}

/// DNS-1123 subdomain whose first label may be `*`.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push(max_len(253));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain_shaped) {
        let what = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case \
                    alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        wrong.push(regex_error(what, &["*.example.com"], &format!("\\*\\.{SUBDOMAIN}")));
    }
    wrong
}

/// DNS-1035 label.
pub fn dns1035(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(max_len(63));
    }
    if !(is_label_shaped(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        let what = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end \
                    with an alphanumeric character";
        wrong.push(regex_error(what, &["my-name", "abc-123"], DNS1035));
    }
    wrong
}

/// A name that can be one segment of a URL path.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|part| value.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// A label or annotation key, finalizer or resource name: `[prefix/]name`.
pub fn qualified(value: &str) -> Vec<String> {
    let what = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let examples = ["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let text = regex_error(what, &examples, QUALIFIED);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", max_len(63)));
    }
    if !is_qualified_shaped(name) {
        wrong.push(format!("name part {}", regex_error(what, &examples, QUALIFIED)));
    }
    wrong
}

/// A label's value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(max_len(63));
    }
    if !value.is_empty() && !is_qualified_shaped(value) {
        let what = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                    with an alphanumeric character";
        wrong.push(regex_error(what, &["MyValue", "my_value", "12345"], &format!("({QUALIFIED})?")));
    }
    wrong
}

/// A named port (IANA service name).
pub fn port_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 15 {
        wrong.push(max_len(15));
    }
    if value.is_empty() || !value.bytes().all(|b| is_lower_alnum(b) || b == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// A port number.
pub fn port_number(port: i64) -> Option<String> {
    (!(1..=65535).contains(&port)).then(|| "must be between 1 and 65535, inclusive".to_owned())
}

/// An environment variable's name (the relaxed rule that 1.34 made the default).
pub fn env_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.is_empty() {
        wrong.push("environment variable name must be non-empty".to_owned());
    }
    if value.bytes().any(|b| !(0x20..0x7f).contains(&b) || b == b'=') {
        wrong.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    wrong
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push(max_len(253));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        let what = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        wrong.push(regex_error(what, &["key.name", "KEY_NAME", "key-name"], "[-._a-zA-Z0-9]+"));
    }
    match value {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// `12%`.
pub fn percent(value: &str) -> Vec<String> {
    let ok =
        value.strip_suffix('%').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if ok {
        return Vec::new();
    }
    let what = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(what, &["1%", "93%"], "[0-9]+%")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording_is_apimachinerys() {
        assert_eq!(
            subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
              alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(label("a.b"), ["must not contain dots"]);
        assert!(label("my-name")[..].is_empty());
        assert_eq!(
            label("-a"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
              alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
    }

    #[test]
    fn shapes() {
        type Rule = fn(&str) -> Vec<String>;
        let cases: [(Rule, &str, bool); 16] = [
            (subdomain, "a.b-c.d0", true),
            (subdomain, "a..b", false),
            (subdomain, "", false),
            (dns1035, "a1", true),
            (dns1035, "1a", false),
            (qualified, "example.com/MyName", true),
            (qualified, "/x", false),
            (qualified, "a/b/c", false),
            (label_value, "", true),
            (label_value, "a_", false),
            (port_name, "http-alt", true),
            (port_name, "8080", false),
            (env_name, "A.B-1", true),
            (env_name, "A=B", false),
            (config_key, "..x", false),
            (percent, "12%", true),
        ];
        for (rule, text, ok) in cases {
            assert_eq!(rule(text).is_empty(), ok, "{text}");
        }
    }
}
