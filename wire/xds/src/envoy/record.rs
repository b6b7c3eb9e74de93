//! What policies did, in the Envoy's own output: a line of JSON about each request that one refused, noted (AUDIT), or would have refused (dry run). Others leave
//! none. Callers are not told.
use super::inbound::{ADDRESS, CALLER};
use super::message::{Message, extension};
use super::rbac::TRIED;

const STDOUT: &str = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
/// Where the RBAC filter leaves what it decided.
const RBAC: &str = "envoy.filters.http.rbac";

/// `AccessLogFilter { metadata_filter { matcher { filter, path { key }, value }, match_if_key_not_found false } }`.
fn says(of: &str, key: &str, value: Message) -> Message {
    let matcher = Message::new().text(1, of).child(2, Message::new().text(1, key)).child(3, value);
    Message::new().child(12, Message::new().child(1, matcher).wrapped(2, 0))
}

/// `envoy.config.accesslog.v3.AccessLog`. `tunnelled`: who calls is what the tunnel's end saw.
pub(super) fn of_requests(tunnelled: bool) -> Message {
    let denied = || Message::new().child(3, Message::new().text(1, "denied"));
    // bool_match
    let noted = says("envoy.common", "access_log_hint", Message::new().number(4, 1));
    let refused = says(RBAC, "enforced_engine_result", denied());
    let tried = says(RBAC, &format!("{TRIED}shadow_engine_result"), denied());
    // or_filter { filters }
    let any = Message::new().child(7, Message::new().children(2, [noted, refused, tried]));
    let (caller, address) = match tunnelled {
        true => (format!("%FILTER_STATE({CALLER}:PLAIN)%"), format!("%FILTER_STATE({ADDRESS}:PLAIN)%")),
        false => ("%DOWNSTREAM_PEER_URI_SAN%".into(), "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%".into()),
    };
    let fields = [
        ("time", "%START_TIME%".to_owned()),
        ("code", "%RESPONSE_CODE%".into()),
        ("policy", format!("%DYNAMIC_METADATA({RBAC}:enforced_effective_policy_id)%")),
        ("tried", format!("%DYNAMIC_METADATA({RBAC}:{TRIED}shadow_effective_policy_id)%")),
        ("audited", "%DYNAMIC_METADATA(envoy.common:access_log_hint)%".into()),
        ("details", "%RESPONSE_CODE_DETAILS%".into()),
        ("caller", caller),
        ("address", address),
        ("method", "%REQ(:METHOD)%".into()),
        ("authority", "%REQ(:AUTHORITY)%".into()),
        ("path", "%PATH(NQ)%".into()),
    ];
    // google.protobuf.Struct
    let json = fields.iter().map(|(name, value)| Message::new().text(1, name).child(2, Message::new().text(3, value)));
    // log_format { json_format, omit_empty_values }
    let format = Message::new().child(2, Message::new().children(1, json)).number(3, 1);
    extension("envoy.access_loggers.stdout", 4, STDOUT, Message::new().child(1, format)).child(2, any)
}
