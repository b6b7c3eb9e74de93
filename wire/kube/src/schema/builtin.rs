//! Reads `kubernetes-1.37.schema` (format: see tools/schema/generate.py) into a table, once.

use super::table::{FieldDef, Node, NodeId, NodeShape, Number, Table, Text};
use super::{ListKind, PatchStrategy, Scalar, Schema};
use crate::openapi::Fnv;
use std::sync::OnceLock;

const SOURCE: &str = include_str!("../../schema/kubernetes-1.37.schema");

/// The table of Kubernetes' own types.
pub(crate) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| read(SOURCE))
}

/// Sum of the table's text.
pub(crate) fn fingerprint() -> u64 {
    static SUM: OnceLock<u64> = OnceLock::new();
    *SUM.get_or_init(|| {
        let mut sum = Fnv::new();
        sum.add(SOURCE.as_bytes());
        sum.0
    })
}

/// A built-in type by its OpenAPI name.
pub fn schema(name: &str) -> Option<Schema<'static>> {
    let table = table();
    table.named(name).map(|id| Schema::at(table, table.object(id).root))
}

fn read(source: &'static str) -> Table {
    let mut table = Table::default();
    let mut open: Option<(&'static str, bool, &'static str)> = None;
    let mut fields = Vec::new();
    for line in source.lines().filter(|line| !line.starts_with('#')) {
        if let Some(head) = line.strip_prefix("T ") {
            close(&mut table, open.take(), &mut fields);
            let mut columns = head.split('\t');
            let (name, flags, description) = (next(&mut columns), next(&mut columns), next(&mut columns));
            open = Some((name, flags == "atomic", description));
        } else {
            fields.push(field(&mut table, &line[1..]));
        }
    }
    close(&mut table, open, &mut fields);
    table.shrink();
    table
}

fn next(columns: &mut std::str::Split<'static, char>) -> &'static str {
    columns.next().unwrap_or("")
}

fn close(table: &mut Table, open: Option<(&'static str, bool, &'static str)>, fields: &mut Vec<FieldDef>) {
    if let Some((name, atomic, description)) = open {
        let id = table.reserve(Text::Borrowed(name));
        let mut fields = std::mem::take(fields);
        fields.shrink_to_fit();
        table.define(id, Text::Borrowed(description), atomic, fields);
    }
}

/// Flags of a field line.
#[derive(Default)]
struct Flags {
    list: Option<(ListKind, Box<[Text]>)>,
    map_atomic: Option<bool>,
    patch: PatchStrategy,
    merge_key: Option<Text>,
    default: Option<Text>,
    enum_values: &'static str,
    required: bool,
    pointer: bool,
    always: bool,
}

fn field(table: &mut Table, line: &'static str) -> FieldDef {
    let mut columns = line.split('\t');
    let (name, number, expr) = (next(&mut columns), next(&mut columns), next(&mut columns));
    let flags = flags(next(&mut columns));
    let node = expression(table, expr, flags.list, flags.map_atomic);
    FieldDef {
        name: Text::Borrowed(name),
        description: Text::Borrowed(next(&mut columns)),
        merge_key: flags.merge_key,
        default: flags.default,
        enum_values: Text::Borrowed(flags.enum_values),
        node,
        number: number_of(number),
        patch: flags.patch,
        required: flags.required,
        pointer: flags.pointer,
        always: flags.always,
    }
}

fn number_of(text: &str) -> Number {
    let (outer, inner) = text.split_once('.').unwrap_or(("0", text));
    Number { outer: outer.parse().unwrap_or(0), inner: inner.parse().unwrap_or(0) }
}

fn flags(text: &'static str) -> Flags {
    let mut flags = Flags::default();
    for word in text.split(' ') {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "req" => flags.required = true,
            "ptr" => flags.pointer = true,
            "always" => flags.always = true,
            "list" => flags.list = Some(list(value)),
            "map" => flags.map_atomic = Some(value == "atomic"),
            "patch" => (flags.patch, flags.merge_key) = patch(value),
            "default" => flags.default = Some(Text::Borrowed(value)),
            "enum" => flags.enum_values = value,
            _ => debug_assert!(word.is_empty(), "flag {word}"),
        }
    }
    flags
}

fn list(value: &'static str) -> (ListKind, Box<[Text]>) {
    let (kind, keys) = value.split_once(':').unwrap_or((value, ""));
    let kind = match kind {
        "map" => ListKind::Map,
        "set" => ListKind::Set,
        _ => ListKind::Atomic,
    };
    (kind, keys.split(',').filter(|key| !key.is_empty()).map(Text::Borrowed).collect())
}

fn patch(value: &'static str) -> (PatchStrategy, Option<Text>) {
    let (strategy, key) =
        value.split_once(':').map_or((value, None), |(strategy, key)| (strategy, Some(Text::Borrowed(key))));
    let strategy = match strategy {
        "merge" => PatchStrategy::Merge,
        "retainKeys" => PatchStrategy::RetainKeys,
        "merge,retainKeys" => PatchStrategy::MergeRetainKeys,
        _ => PatchStrategy::Replace,
    };
    (strategy, key)
}

fn expression(
    table: &mut Table,
    expr: &'static str,
    list: Option<(ListKind, Box<[Text]>)>,
    atomic: Option<bool>,
) -> NodeId {
    let (expr, wrapped) = expr.strip_prefix('~').map_or((expr, false), |rest| (rest, true));
    if let Some(item) = expr.strip_prefix("[]") {
        let item = expression(table, item, None, None);
        let (kind, keys) = list.unwrap_or((ListKind::Atomic, Box::default()));
        return table.push_node(Node::plain(NodeShape::List { item, kind, keys, wrapped }));
    }
    if let Some(value) = expr.strip_prefix("{}") {
        let value = expression(table, value, None, None);
        return table.push_node(Node::plain(NodeShape::Map { value, atomic: atomic == Some(true) }));
    }
    if let Some(scalar) = scalar(expr) {
        return table.scalar(expr, scalar);
    }
    let id = table.reserve(Text::Borrowed(expr));
    if atomic.is_none() {
        table.object(id).root
    } else {
        table.push_node(Node::plain(NodeShape::Object { id, atomic }))
    }
}

fn scalar(word: &str) -> Option<Scalar> {
    Some(match word {
        "string" => Scalar::String,
        "int32" => Scalar::Int32,
        "int64" => Scalar::Int64,
        "bool" => Scalar::Bool,
        "double" => Scalar::Double,
        "bytes" => Scalar::Bytes,
        "quantity" => Scalar::Quantity,
        "int-or-string" => Scalar::IntOrString,
        "time" => Scalar::Time,
        "microtime" => Scalar::MicroTime,
        "duration" => Scalar::Duration,
        "raw" => Scalar::Raw,
        "json" => Scalar::Json,
        "fields" => Scalar::Fields,
        "props-or-array" => Scalar::PropsOrArray,
        "props-or-bool" => Scalar::PropsOrBool,
        "props-or-strings" => Scalar::PropsOrStrings,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{MapKind, Shape};

    fn pod() -> Schema<'static> {
        schema("io.k8s.api.core.v1.Pod").unwrap()
    }

    #[test]
    fn every_reference_is_defined() {
        let table = table();
        for name in table.names() {
            let object = table.object(table.named(name).unwrap());
            assert!(!object.fields.is_empty() || object.description.len() > 1, "{name} is referred to but not defined");
        }
    }

    #[test]
    fn lists_know_their_keys() {
        let ports = pod().at_path(&["spec", "containers", "ports"]).unwrap();
        assert_eq!(ports.list_kind(), ListKind::Map);
        assert_eq!(ports.list_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        let protocol = ports.item().unwrap().field("protocol").unwrap();
        assert_eq!(protocol.default().unwrap().as_ref(), "TCP");
        assert_eq!(protocol.enum_values().collect::<Vec<_>>(), ["SCTP", "TCP", "UDP"]);
        let containers = pod().field("spec").unwrap().schema().field("containers").unwrap();
        assert_eq!((containers.patch_strategy(), containers.merge_key()), (PatchStrategy::Merge, Some("name")));
        let volumes = pod().field("spec").unwrap().schema().field("volumes").unwrap();
        assert_eq!(volumes.patch_strategy(), PatchStrategy::MergeRetainKeys);
    }

    #[test]
    fn atomic_maps_are_told_from_granular_ones() {
        let spec = pod().field("spec").unwrap().schema();
        assert_eq!(spec.child("nodeSelector").unwrap().map_kind(), MapKind::Atomic);
        assert_eq!(spec.at_path(&["containers", "resources", "limits"]).unwrap().map_kind(), MapKind::Granular);
        assert_eq!(
            spec.at_path(&["containers", "env", "valueFrom", "secretKeyRef"]).unwrap().map_kind(),
            MapKind::Atomic
        );
        let claim = schema("io.k8s.api.core.v1.PersistentVolumeSpec").unwrap().child("claimRef").unwrap();
        assert_eq!(claim.map_kind(), MapKind::Granular, "the field overrides its type");
    }

    #[test]
    fn go_types_read_as_go_prints_them() {
        let spec = pod().child("spec").unwrap();
        assert_eq!(spec.child("containers").unwrap().go_type(), "[]v1.Container");
        assert_eq!(spec.child("nodeSelector").unwrap().go_type(), "map[string]string");
        assert!(matches!(spec.at_path(&["containers", "resources", "limits"]).unwrap().shape(), Shape::Map(_)));
    }

    #[test]
    fn descriptions_are_unescaped() {
        let field = schema("io.k8s.api.core.v1.ServicePort").unwrap().field("appProtocol").unwrap();
        assert!(field.description().contains("\n\n* Un-prefixed protocol names"));
    }
}
