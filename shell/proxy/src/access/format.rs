//! The form of a line: JSON, or a text with Envoy's command operators.

use serde_json::{Map, Value};

/// The form of a line of the access log.
#[derive(Clone, Debug)]
pub enum Format {
    /// One object a line: names and what stands there.
    Json(Vec<(String, Vec<Part>)>),
    /// A text.
    Text(Vec<Part>),
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Literal(String),
    /// What is known of the request; at most so many characters.
    Operator(Operator, Option<usize>),
}

/// Command operators, by Envoy's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `START_TIME`, with strftime's form if one is given.
    StartTime(Option<String>),
    /// `REQ(A?B)`: a field of the request; `:method`, `:path`, `:authority`, `:scheme` too.
    Req(String, Option<String>),
    /// `RESP(A?B)`: a field of the answer.
    Resp(String, Option<String>),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    BytesReceived,
    BytesSent,
    Duration,
    UpstreamHost,
    UpstreamCluster,
    /// The client's address, without its port perhaps.
    DownstreamRemote {
        port: bool,
    },
    DownstreamLocal,
    /// The caller's identity, if it was proved.
    PeerUriSan,
    RequestedServerName,
    RouteName,
    GrpcStatus {
        number: bool,
    },
    TraceId,
    Hostname,
    /// Something of Envoy's that this proxy has nothing to say about.
    Nothing,
}

/// A format that cannot be used. Whoever wrote it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// `%` without its other one.
    #[error("the operator that begins at character {0} has no end; a percent sign is written %%")]
    Unclosed(usize),
    /// No such operator.
    #[error("%{0}% is no operator that is known here")]
    Unknown(String),
    /// Neither an object of texts nor a text.
    #[error("a format that begins with {{ is an object whose values are texts: {0}")]
    Json(String),
}

/// Envoy's operators that this proxy has nothing to say about: formats that hold them are read, and get `-`.
const UNKNOWABLE: [&str; 8] = [
    "CONNECTION_TERMINATION_DETAILS",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_CIPHER",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "CONNECTION_ID",
    "FILTER_STATE",
];

impl Default for Format {
    fn default() -> Self {
        let fields = [
            ("start_time", "%START_TIME%"),
            ("method", "%REQ(:METHOD)%"),
            ("authority", "%REQ(:AUTHORITY)%"),
            ("path", "%REQ(:PATH)%"),
            ("protocol", "%PROTOCOL%"),
            ("status", "%RESPONSE_CODE%"),
            ("flags", "%RESPONSE_FLAGS%"),
            ("details", "%RESPONSE_CODE_DETAILS%"),
            ("grpc_status", "%GRPC_STATUS_NUMBER%"),
            ("duration_ms", "%DURATION%"),
            ("bytes_received", "%BYTES_RECEIVED%"),
            ("bytes_sent", "%BYTES_SENT%"),
            ("client", "%DOWNSTREAM_REMOTE_ADDRESS%"),
            ("caller", "%DOWNSTREAM_PEER_URI_SAN%"),
            ("upstream", "%UPSTREAM_HOST%"),
            ("service", "%UPSTREAM_CLUSTER%"),
            ("route", "%ROUTE_NAME%"),
            ("user_agent", "%REQ(USER-AGENT)%"),
            ("request_id", "%REQ(X-REQUEST-ID)%"),
            ("trace_id", "%TRACE_ID%"),
        ];
        let parts = |text| parts(text).unwrap_or_default();
        Format::Json(fields.into_iter().map(|(name, text)| (name.to_owned(), parts(text))).collect())
    }
}

impl Format {
    /// Reads `json`, an object of texts, or a text.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        if text.is_empty() || text == "json" {
            return Ok(Self::default());
        }
        if !text.trim_start().starts_with('{') {
            return Ok(Self::Text(parts(text)?));
        }
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| FormatError::Json(error.to_string()))?;
        let field = |(name, value): (String, Value)| match value {
            Value::String(text) => Ok((name, parts(&text)?)),
            _ => Err(FormatError::Json(format!("{name} is no text"))),
        };
        Ok(Self::Json(object.into_iter().map(field).collect::<Result<_, _>>()?))
    }

    /// All operators, in the order in which values are asked for.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        let lists: Vec<&[Part]> = match self {
            Self::Json(fields) => fields.iter().map(|(_, parts)| &**parts).collect(),
            Self::Text(parts) => vec![parts],
        };
        lists.into_iter().flatten().filter_map(|part| match part {
            Part::Operator(operator, _) => Some(operator),
            Part::Literal(_) => None,
        })
    }

    /// The line for these values, one for each operator; `Null` is written as `-` in texts.
    pub fn line(&self, values: Vec<Value>) -> String {
        let mut values = values.into_iter();
        match self {
            Self::Text(parts) => text(parts, &mut values),
            Self::Json(fields) => {
                let mut object = Map::new();
                for (name, parts) in fields {
                    let value = match &parts[..] {
                        // One operator alone keeps its type.
                        [Part::Operator(_, most)] => cut(values.next().unwrap_or_default(), *most),
                        parts => text(parts, &mut values).into(),
                    };
                    object.insert(name.clone(), value);
                }
                Value::Object(object).to_string()
            }
        }
    }
}

fn cut(value: Value, most: Option<usize>) -> Value {
    match (value, most) {
        (Value::String(text), Some(most)) => text.chars().take(most).collect::<String>().into(),
        (value, _) => value,
    }
}

fn text(parts: &[Part], values: &mut impl Iterator<Item = Value>) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => out.push_str(literal),
            Part::Operator(_, most) => match cut(values.next().unwrap_or_default(), *most) {
                Value::Null => out.push('-'),
                // What a client sent must not begin a line of its own.
                Value::String(text) => out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c })),
                other => out.push_str(&other.to_string()),
            },
        }
    }
    out
}

fn parts(text: &str) -> Result<Vec<Part>, FormatError> {
    let (mut out, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let begin = text.len() - after.len() - 1;
        // Percent signs may stand within the parentheses: START_TIME(%Y).
        let end = match (after.find('('), after.find('%')) {
            (Some(open), Some(end)) if open < end => {
                let close = after[open..].find(')').ok_or(FormatError::Unclosed(begin))? + open;
                after[close..].find('%').map(|at| at + close)
            }
            (_, end) => end,
        };
        let (command, after) = after.split_at(end.ok_or(FormatError::Unclosed(begin))?);
        if !literal.is_empty() {
            out.push(Part::Literal(std::mem::take(&mut literal)));
        }
        out.push(operator(command)?);
        rest = &after[1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        out.push(Part::Literal(literal));
    }
    Ok(out)
}

/// `NAME`, `NAME(ARGUMENT)`, either with `:LENGTH`.
fn operator(command: &str) -> Result<Part, FormatError> {
    let unknown = || FormatError::Unknown(command.to_owned());
    let (command, most) = match command.rsplit_once(':') {
        Some((before, length)) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            (before, Some(length.parse().map_err(|_| unknown())?))
        }
        _ => (command, None),
    };
    let (name, argument) = match command.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').ok_or_else(unknown)?)),
        None => (command, None),
    };
    let header = |text: &str| {
        let lower = text.to_ascii_lowercase();
        match lower.split_once('?') {
            Some((first, second)) => (first.to_owned(), Some(second.to_owned())),
            None => (lower, None),
        }
    };
    let operator = match (name, argument) {
        ("START_TIME", form) => Operator::StartTime(form.filter(|form| !form.is_empty()).map(str::to_owned)),
        ("REQ", Some(names)) => {
            let (first, second) = header(names);
            Operator::Req(first, second)
        }
        ("RESP", Some(names)) => {
            let (first, second) = header(names);
            Operator::Resp(first, second)
        }
        ("PROTOCOL", None) => Operator::Protocol,
        ("RESPONSE_CODE", None) => Operator::ResponseCode,
        ("RESPONSE_CODE_DETAILS", None) => Operator::ResponseCodeDetails,
        ("RESPONSE_FLAGS", None) => Operator::ResponseFlags,
        ("BYTES_RECEIVED", None) => Operator::BytesReceived,
        ("BYTES_SENT", None) => Operator::BytesSent,
        ("DURATION", None) => Operator::Duration,
        ("UPSTREAM_HOST", None) => Operator::UpstreamHost,
        ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", None) => Operator::UpstreamCluster,
        ("DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", None) => {
            Operator::DownstreamRemote { port: true }
        }
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", None) => {
            Operator::DownstreamRemote { port: false }
        }
        ("DOWNSTREAM_LOCAL_ADDRESS", None) => Operator::DownstreamLocal,
        ("DOWNSTREAM_PEER_URI_SAN", None) => Operator::PeerUriSan,
        ("REQUESTED_SERVER_NAME", None) => Operator::RequestedServerName,
        ("ROUTE_NAME", None) => Operator::RouteName,
        ("GRPC_STATUS", _) => Operator::GrpcStatus { number: argument == Some("NUMBER") },
        ("GRPC_STATUS_NUMBER", None) => Operator::GrpcStatus { number: true },
        ("TRACE_ID", None) => Operator::TraceId,
        ("HOSTNAME", None) => Operator::Hostname,
        (name, _) if UNKNOWABLE.contains(&name) => Operator::Nothing,
        _ => return Err(unknown()),
    };
    Ok(Part::Operator(operator, most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Istio's own format is understood whole.
    const ISTIO: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;

    #[test]
    fn texts() {
        assert_eq!(Format::parse(ISTIO).unwrap().operators().count(), 24);
        let format = Format::parse("100%% %REQ(X-A?:PATH):3%|%START_TIME(%s.%3f)%|%RESPONSE_CODE%").unwrap();
        let operators: Vec<_> = format.operators().cloned().collect();
        assert_eq!(operators[0], Operator::Req("x-a".into(), Some(":path".into())));
        assert_eq!(operators[1], Operator::StartTime(Some("%s.%3f".into())));
        assert_eq!(format.line(vec![json!("/long"), Value::Null, json!(200)]), "100% /lo|-|200");
        assert_eq!(format.line(vec![json!("a\nb"), json!("t"), json!(1)]), "100% a b|t|1", "one line stays one");
        for (bad, error) in [
            ("%REQ(", FormatError::Unclosed(0)),
            ("a %NOPE%", FormatError::Unknown("NOPE".into())),
            ("50% off", FormatError::Unclosed(2)),
            ("%REQ%", FormatError::Unknown("REQ".into())),
        ] {
            assert_eq!(Format::parse(bad).unwrap_err(), error, "{bad}");
        }
    }

    #[test]
    fn objects() {
        let format = Format::parse(r#"{"code": "%RESPONSE_CODE%", "what": "%REQ(:METHOD)% %DURATION% ms"}"#).unwrap();
        let line = format.line(vec![json!(200), json!("GET"), json!(7)]);
        assert_eq!(line, r#"{"code":200,"what":"GET 7 ms"}"#);
        assert!(matches!(Format::parse(r#"{"a": 1}"#), Err(FormatError::Json(_))));
        let Format::Json(fields) = Format::parse("json").unwrap() else { panic!("no object") };
        assert!(fields.iter().all(|(_, parts)| parts.len() == 1));
    }
}
