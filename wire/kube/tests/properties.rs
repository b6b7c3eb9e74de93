//! Laws of the codec over random objects of every kind.

use diolkos_kube::codec::conform::unknown_fields;
use diolkos_kube::codec::{self, Format, Kind, conform};
use diolkos_kube::{Registry, Resource, Scalar, Schema, Shape};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// Makes a value of a form out of a stream of bytes; now and then one that does not fit.
fn value(schema: Schema<'_>, bytes: &mut impl Iterator<Item = u8>, depth: usize) -> Value {
    let byte = bytes.next().unwrap_or(0);
    if byte > 250 {
        return [Value::Null, json!(1.5), json!("?"), json!([]), json!({})][usize::from(byte) % 5].clone();
    }
    match schema.shape() {
        Shape::Object => {
            let fields: Vec<_> = schema.fields().collect();
            let mut map = Map::new();
            for _ in 0..if depth > 7 { 0 } else { byte % 5 } {
                let at = usize::from(bytes.next().unwrap_or(0)) * 3 + usize::from(byte);
                if let Some(field) = fields.get(at % fields.len().max(1)) {
                    map.insert(field.name().to_owned(), value(field.schema(), bytes, depth + 1));
                }
            }
            Value::Object(map)
        }
        Shape::Map(form) => {
            Value::Object((0..byte % 3).map(|at| (format!("k{at}"), value(form, bytes, depth + 1))).collect())
        }
        Shape::List(form) => (0..byte % 3).map(|_| value(form, bytes, depth + 1)).collect(),
        Shape::Scalar(scalar) => match scalar {
            Scalar::String => ["", "a", "TCP", "é\n"][usize::from(byte) % 4].into(),
            Scalar::Int32 | Scalar::Int64 => [0, 1, -1, 80][usize::from(byte) % 4].into(),
            Scalar::Bool => byte.is_multiple_of(2).into(),
            Scalar::Double => json!([0.0, 1.5, 2.0][usize::from(byte) % 3]),
            Scalar::Bytes => ["", "aGk=", "AA=="][usize::from(byte) % 3].into(),
            Scalar::Quantity => ["0", "0.5", "1024Mi", "1e3", "-1"][usize::from(byte) % 5].into(),
            Scalar::IntOrString => [json!(80), json!("http"), json!("50%")][usize::from(byte) % 3].clone(),
            Scalar::Time | Scalar::MicroTime => {
                ["2024-01-02T03:04:05+02:00", "2024-01-02T03:04:05.678Z"][usize::from(byte) % 2].into()
            }
            Scalar::Duration => ["90s", "1h"][usize::from(byte) % 2].into(),
            _ => json!({"any": [byte, null]}),
        },
    }
}

fn chosen(which: &prop::sample::Index, wanted: fn(&Resource) -> bool) -> &'static Resource {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let resources = REGISTRY.get_or_init(Registry::builtin).iter().map(|resource| &**resource);
    let resources: Vec<&'static Resource> = resources.filter(|resource| wanted(resource)).collect();
    resources[which.index(resources.len())]
}

fn object(kind: &Kind<'_>, bytes: Vec<u8>) -> Value {
    let mut bytes = bytes.into_iter();
    let mut made = value(kind.schema, &mut bytes, 0);
    if let Some(map) = made.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    made
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What was canonical once stays as it is, however often it goes through.
    #[test]
    fn canonical_form_is_a_fixed_point(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in any::<prop::sample::Index>()) {
        let kind = Kind::of(chosen(&which, |_| true));
        let text = object(&kind, bytes).to_string();
        if let Ok(first) = codec::decode(&kind, Format::Json, text.as_bytes()) {
            prop_assert_eq!(&first.problems, &Vec::<String>::new(), "only known fields were made");
            let again = codec::decode(&kind, Format::Json, first.value.to_string().as_bytes()).unwrap();
            prop_assert_eq!(&again.value, &first.value);
            let patched = conform(&kind, first.value.clone()).unwrap();
            prop_assert_eq!(&patched.value, &first.value);
            prop_assert_eq!(unknown_fields(kind.schema, &first.value), Vec::<String>::new());
        }
    }

    /// YAML is another way of writing the same.
    #[test]
    fn yaml_and_json_decode_alike(bytes in proptest::collection::vec(any::<u8>(), 0..200), which in any::<prop::sample::Index>()) {
        let kind = Kind::of(chosen(&which, |_| true));
        let made = object(&kind, bytes);
        let yaml = serde_yaml_ng::to_string(&made).unwrap();
        let from_yaml = codec::decode(&kind, Format::Yaml, yaml.as_bytes());
        let from_json = codec::decode(&kind, Format::Json, made.to_string().as_bytes());
        prop_assert_eq!(from_yaml, from_json);
    }

    /// Defaults of custom resources are there after one pass, and what was pruned stays pruned.
    #[test]
    fn defaulting_is_done_in_one_pass(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in any::<prop::sample::Index>()) {
        let resource = chosen(&which, |resource| resource.custom().is_some());
        let (kind, custom) = (Kind::of(resource), resource.custom().unwrap());
        if let Ok(decoded) = codec::decode(&kind, Format::Json, object(&kind, bytes).to_string().as_bytes()) {
            let mut once = decoded.value;
            custom.set_defaults(&mut once);
            let mut twice = once.clone();
            custom.set_defaults(&mut twice);
            prop_assert_eq!(&twice, &once);
            prop_assert_eq!(conform(&kind, once.clone()).unwrap().value, once.clone());
            // Whatever it holds, looking at it ends without a panic.
            let _ = custom.validate(&once);
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let kind = Kind::builtin("", "v1", "Pod").unwrap();
        for format in [Format::Json, Format::Yaml, Format::Protobuf] {
            let _ = codec::decode(&kind, format, &bytes);
        }
    }
}
