use super::*;
use crate::codec::{self, Format};
use crate::registry::Registry;
use proptest::prelude::*;
use serde_json::json;
use std::path::PathBuf;

/// Writes the few wire forms that the fixtures need.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(mut self, number: u32, value: u64) -> Self {
        self.raw_varint(u64::from(number) << 3);
        self.raw_varint(value);
        self
    }
    fn bytes(mut self, number: u32, bytes: &[u8]) -> Self {
        self.raw_varint(u64::from(number) << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

fn message_of(build: impl FnOnce(Writer) -> Writer) -> Vec<u8> {
    build(Writer::default()).0
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = message_of(|w| w.bytes(1, api_version.as_bytes()).bytes(2, kind.as_bytes()));
    let mut out = MAGIC.to_vec();
    out.extend(message_of(|w| w.bytes(1, &meta).bytes(2, raw).bytes(3, b"").bytes(4, b"")));
    out
}

#[test]
fn a_secret_as_kubectl_sends_it() {
    let kind = Kind::builtin("", "v1", "Secret").unwrap();
    let meta = message_of(|w| w.bytes(1, b"s").bytes(2, b"").bytes(3, b"default").bytes(8, b"").varint(7, 0));
    let entry = message_of(|w| w.bytes(1, b"k").bytes(2, &[0, 255]));
    let empty = message_of(|w| w.bytes(1, b"empty"));
    let raw = message_of(|w| w.bytes(1, &meta).bytes(2, &entry).bytes(2, &empty).bytes(3, b"Opaque"));
    let decoded = codec::decode(&kind, Format::Protobuf, &envelope("v1", "Secret", &raw)).unwrap();
    let wanted = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
        "type": "Opaque", "data": {"k": "AP8=", "empty": ""}});
    assert_eq!(decoded.value, wanted);
}

#[test]
fn inlined_messages_quantities_and_unions() {
    let kind = Kind::builtin("", "v1", "Pod").unwrap();
    let volume = {
        let empty_dir = message_of(|w| w.bytes(1, b"Memory").bytes(2, &message_of(|w| w.bytes(1, b"1024Mi"))));
        message_of(|w| w.bytes(1, b"v").bytes(2, &message_of(|w| w.bytes(2, &empty_dir))))
    };
    let probe = {
        let port = message_of(|w| w.varint(1, 1).varint(2, 0).bytes(3, b"http"));
        let get = message_of(|w| w.bytes(1, b"/").bytes(2, &port));
        message_of(|w| {
            w.bytes(1, &message_of(|w| w.bytes(2, &get)))
                .varint(2, 0)
                .varint(3, 0)
                .varint(4, 0)
                .varint(5, 0)
                .varint(6, 3)
        })
    };
    let container = message_of(|w| w.bytes(1, b"c").bytes(2, b"i").bytes(10, &probe));
    let spec = message_of(|w| w.bytes(1, &volume).bytes(2, &container).varint(4, 0));
    let raw = message_of(|w| w.bytes(1, b"").bytes(2, &spec).bytes(3, b"").varint(99, 1));
    let decoded = codec::decode(&kind, Format::Protobuf, &envelope("v1", "Pod", &raw)).unwrap();
    assert_eq!(
        decoded.value,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": {}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
            "containers": [{"name": "c", "image": "i", "resources": {},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "failureThreshold": 3}}],
        }})
    );
}

#[test]
fn a_wrong_wire_type_is_refused_and_names_the_field() {
    let kind = Kind::builtin("", "v1", "Pod").unwrap();
    let spec = message_of(|w| w.varint(10, 1));
    let raw = message_of(|w| w.bytes(2, &spec));
    let error = codec::decode(&kind, Format::Protobuf, &envelope("v1", "Pod", &raw)).unwrap_err();
    assert_eq!(error.to_string(), "spec: nodeName: proto: wrong wireType");
}

#[test]
fn another_kind_in_the_envelope_is_refused() {
    let kind = Kind::builtin("", "v1", "Secret").unwrap();
    let body = envelope("v1", "ConfigMap", b"");
    assert!(matches!(codec::decode(&kind, Format::Protobuf, &body), Err(DecodeError::WrongKind(_))));
    assert!(matches!(codec::decode(&kind, Format::Protobuf, b"{}"), Err(DecodeError::Malformed(_))));
    let options =
        codec::decode(&Kind::delete_options(), Format::Protobuf, &envelope("apps/v1", "DeleteOptions", &[8, 5]))
            .unwrap();
    assert_eq!(options.value, json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5}));
}

/// Kubernetes' own round-trip corpus: every kind with every field set, as JSON and as protobuf.
#[test]
fn decodes_the_corpus_of_kubernetes() {
    let Some(folder) = std::env::var_os("K8S_API_TESTDATA").map(PathBuf::from) else {
        eprintln!("SKIPPED decodes_the_corpus_of_kubernetes: K8S_API_TESTDATA is not set (k8s.io/api's testdata/HEAD)");
        return;
    };
    let registry = Registry::builtin();
    let mut compared = 0;
    for resource in registry.iter().filter(|resource| resource.custom().is_none()) {
        let kind = Kind::of(resource);
        let group = if kind.group.is_empty() { "core" } else { kind.group };
        let path = folder.join(format!("{group}.{}.{}", kind.version, kind.kind));
        let (Ok(proto), Ok(text)) =
            (std::fs::read(path.with_extension_added("pb")), std::fs::read(path.with_extension_added("json")))
        else {
            continue;
        };
        let wanted: Value = serde_json::from_slice(&text).unwrap();
        let from_proto = codec::decode(&kind, Format::Protobuf, &proto).unwrap();
        assert_eq!(difference("", &from_proto.value, &wanted), None, "{} from protobuf", kind.kind);
        let from_json = codec::decode(&kind, Format::Json, &text).unwrap();
        assert_eq!(difference("", &from_json.value, &wanted), None, "{} from JSON", kind.kind);
        assert_eq!(from_json.problems, Vec::<String>::new(), "{}", kind.kind);
        compared += 1;
    }
    assert!(compared > 35, "only {compared} kinds were found in {}", folder.display());
}

trait ExtensionAdded {
    fn with_extension_added(&self, extension: &str) -> PathBuf;
}

impl ExtensionAdded for PathBuf {
    fn with_extension_added(&self, extension: &str) -> PathBuf {
        PathBuf::from(format!("{}.{extension}", self.display()))
    }
}

/// The first place where two values differ.
fn difference(path: &str, found: &Value, wanted: &Value) -> Option<String> {
    match (found, wanted) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let at = |map: &Map<String, Value>| map.get(key).cloned();
            match (at(a), at(b)) {
                (Some(a), Some(b)) => difference(&format!("{path}.{key}"), &a, &b),
                (a, b) => Some(format!("{path}.{key}: {a:?} instead of {b:?}")),
            }
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(at, (a, b))| difference(&format!("{path}[{at}]"), a, b))
        }
        (a, b) if a == b => None,
        (a, b) => Some(format!("{path}: {a} instead of {b}")),
    }
}

fn kinds() -> Vec<Kind<'static>> {
    let names = [
        ("", "Pod"),
        ("", "Secret"),
        ("apps", "Deployment"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("batch", "Job"),
    ];
    names.iter().map(|(group, kind)| Kind::builtin(group, "v1", kind).unwrap()).collect()
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), which in 0usize..5) {
        let kind = kinds()[which];
        let _ = message(kind.schema, &bytes, 0);
        let _ = codec::decode(&kind, Format::Protobuf, &envelope(&kind.api_version(), kind.kind, &bytes));
        let mut magic = MAGIC.to_vec();
        magic.extend(&bytes);
        let _ = codec::decode(&kind, Format::Protobuf, &magic);
    }

    /// Bytes with the right shape reach deeper than noise does: fields of small numbers with nested contents.
    #[test]
    fn structured_noise_never_panics(numbers in proptest::collection::vec((1u32..46, 0u8..3, any::<u8>()), 0..40), which in 0usize..5) {
        let mut inner: Vec<u8> = Vec::new();
        for (number, form, value) in numbers {
            let mut writer = Writer::default();
            writer = match form {
                0 => writer.varint(number, u64::from(value)),
                1 => writer.bytes(number, &[value]),
                _ => writer.bytes(number, &inner),
            };
            if form == 2 { inner = writer.0 } else { inner.extend(writer.0) }
        }
        let _ = message(kinds()[which].schema, &inner, 0);
    }

    #[test]
    fn truncations_never_panic(cut in 0usize..200) {
        let kind = Kind::builtin("", "v1", "Secret").unwrap();
        let meta = message_of(|w| w.bytes(1, b"name").bytes(3, b"namespace"));
        let entry = message_of(|w| w.bytes(1, b"key").bytes(2, &[7; 60]));
        let body = envelope("v1", "Secret", &message_of(|w| w.bytes(1, &meta).bytes(2, &entry)));
        let cut = cut.min(body.len());
        let _ = codec::decode(&kind, Format::Protobuf, &body[..cut]);
    }
}

#[test]
fn nesting_is_bounded() {
    let kind = Kind::builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let props = props_schema(kind.schema);
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        bytes = message_of(|w| w.bytes(28, &bytes));
    }
    assert!(message(props, &bytes, 0).unwrap_err().ends_with("exceeded max nesting depth"));
}
