//! `application/vnd.kubernetes.protobuf` -> value, by the field numbers of the schema table.
//!
//! The body is `k8s\0`, then a `runtime.Unknown` message with the object's `apiVersion` and `kind` and its bytes. The bytes are
//! hostile until read: every length is checked, nesting is bounded, and unknown fields are skipped as Go skips them.

use super::conform::{fill, is_printed, props_schema, zero};
use super::{DecodeError, Kind, canonical_quantity, time};
use crate::schema::table::{FieldDef, Number};
use crate::schema::{Field, NodeShape, Scalar, Schema, Shape};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What a body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages nested deeper than this are refused. Kubernetes' deepest kind without recursion has a dozen levels.
const MAX_DEPTH: usize = 100;

/// Decodes an envelope with an object of a kind into a JSON value.
///
/// # Errors
/// The bytes are no envelope or no message of the kind, or hold another kind.
pub fn decode(kind: &Kind<'_>, bytes: &[u8]) -> Result<Value, DecodeError> {
    let body =
        bytes.strip_prefix(MAGIC).ok_or_else(|| malformed("provided data does not appear to be a protobuf message"))?;
    let unknown = Unknown::read(body).map_err(malformed)?;
    let mut value = if kind.custom.is_some() {
        // Custom resources have no protobuf form; clients send them as JSON inside the envelope at most.
        serde_json::from_slice(unknown.raw).map_err(|error| malformed(error.to_string()))?
    } else {
        message(kind.schema, unknown.raw, 0).map_err(malformed)?
    };
    if let Some(map) = value.as_object_mut() {
        for (key, text) in [("apiVersion", unknown.api_version), ("kind", unknown.kind)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), text.into());
            }
        }
    }
    Ok(value)
}

fn malformed(detail: impl Into<String>) -> DecodeError {
    DecodeError::Malformed(detail.into())
}

/// The parts of `runtime.Unknown` that matter.
#[derive(Default)]
struct Unknown<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
}

impl<'b> Unknown<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, &'static str> {
        let mut out = Unknown::default();
        let mut reader = Reader { bytes };
        while let Some((number, part)) = reader.next()? {
            match (number, part) {
                (1, Part::Bytes(meta)) => {
                    let mut reader = Reader { bytes: meta };
                    while let Some((number, part)) = reader.next()? {
                        match (number, part) {
                            (1, Part::Bytes(text)) => out.api_version = lossy(text),
                            (2, Part::Bytes(text)) => out.kind = lossy(text),
                            _ => {}
                        }
                    }
                }
                (2, Part::Bytes(raw)) => out.raw = raw,
                (3, Part::Bytes(encoding)) if !encoding.is_empty() => return Err("encoded contents are not supported"),
                _ => {}
            }
        }
        Ok(out)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One field's contents by wire type.
#[derive(Clone, Copy, Debug)]
enum Part<'b> {
    Varint(u64),
    Fixed64(u64),
    /// No Kubernetes field has four fixed bytes; an unknown one is skipped.
    Fixed32,
    Bytes(&'b [u8]),
}

struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    fn next(&mut self) -> Result<Option<(u32, Part<'b>)>, &'static str> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| "proto: illegal tag")?;
        if number == 0 {
            return Err("proto: illegal tag 0");
        }
        let part = match key & 7 {
            0 => Part::Varint(self.varint()?),
            1 => Part::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| "proto: negative length found during unmarshaling")?;
                Part::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Part::Fixed32)?,
            // Groups went out of use before Kubernetes began.
            _ => return Err("proto: wrong wireType"),
        };
        Ok(Some((number, part)))
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for at in 0..10 {
            let byte = *self.bytes.get(at).ok_or("unexpected EOF")?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.bytes = &self.bytes[at + 1..];
                return Ok(value);
            }
        }
        Err("proto: integer overflow")
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], &'static str> {
        if length > self.bytes.len() {
            return Err("unexpected EOF");
        }
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| "unexpected EOF")
    }
}

type Decoded = Result<Value, String>;

/// An object with named fields, complete with what Go prints for fields that were not sent.
fn message(schema: Schema<'_>, bytes: &[u8], depth: usize) -> Decoded {
    let mut map = Map::new();
    fields(schema, bytes, 0, depth, &mut map)?;
    for field in schema.fields() {
        if map.get(field.name()).is_some_and(|value| !is_printed(field, value)) {
            map.remove(field.name());
        }
    }
    fill(schema, &mut map);
    Ok(Value::Object(map))
}

/// Reads the fields of a message, or of one inlined at `outer`, into the object.
fn fields(
    schema: Schema<'_>,
    bytes: &[u8],
    outer: u16,
    depth: usize,
    map: &mut Map<String, Value>,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("exceeded max nesting depth".to_owned());
    }
    let Some(object) = schema.table.object_of(schema.node) else { return Ok(()) };
    let mut reader = Reader { bytes };
    while let Some((number, part)) = reader.next()? {
        let Ok(number) = u16::try_from(number) else { continue };
        let found = if outer == 0 { Number { outer: 0, inner: number } } else { Number { outer, inner: number } };
        if let Some(raw) = object.numbered(found) {
            let field = Field { table: schema.table, raw };
            one_field(field, raw, part, depth, map).map_err(|error| format!("{}: {error}", field.name()))?;
        } else if outer == 0
            && object.inlines(number)
            && let Part::Bytes(inlined) = part
        {
            fields(schema, inlined, number, depth + 1, map)?;
        }
    }
    Ok(())
}

fn one_field(
    field: Field<'_>,
    raw: &FieldDef,
    part: Part<'_>,
    depth: usize,
    map: &mut Map<String, Value>,
) -> Result<(), String> {
    let schema = Schema { table: field.table, node: raw.node };
    match schema.shape() {
        Shape::List(item) => {
            let wrapped = matches!(schema.raw().shape, NodeShape::List { wrapped: true, .. });
            if wrapped {
                map.insert(field.name().to_owned(), wrapped_list(item, part, depth)?);
            } else {
                let list = map.entry(field.name()).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    items_of(item, part, depth, items)?;
                }
            }
        }
        Shape::Map(value) => {
            let entries = map.entry(field.name()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = entries {
                let (key, value) = entry(value, part, depth)?;
                entries.insert(key, value);
            }
        }
        _ => drop(map.insert(field.name().to_owned(), value(schema, part, depth)?)),
    }
    Ok(())
}

/// One repeated item, or several packed numbers.
fn items_of(item: Schema<'_>, part: Part<'_>, depth: usize, items: &mut Vec<Value>) -> Result<(), String> {
    match (item.scalar(), part) {
        (Some(Scalar::Int32 | Scalar::Int64 | Scalar::Bool), Part::Bytes(packed)) => {
            let mut reader = Reader { bytes: packed };
            while !reader.bytes.is_empty() {
                items.push(value(item, Part::Varint(reader.varint()?), depth)?);
            }
        }
        _ => items.push(value(item, part, depth)?),
    }
    Ok(())
}

fn wrapped_list(item: Schema<'_>, part: Part<'_>, depth: usize) -> Decoded {
    let Part::Bytes(bytes) = part else { return Err(wrong_wire_type()) };
    let mut items = Vec::new();
    let mut reader = Reader { bytes };
    while let Some((number, part)) = reader.next()? {
        if number == 1 {
            items_of(item, part, depth, &mut items)?;
        }
    }
    Ok(Value::Array(items))
}

fn entry(form: Schema<'_>, part: Part<'_>, depth: usize) -> Result<(String, Value), String> {
    let Part::Bytes(bytes) = part else { return Err(wrong_wire_type()) };
    let mut reader = Reader { bytes };
    let (mut key, mut found) = (String::new(), None);
    while let Some((number, part)) = reader.next()? {
        match (number, part) {
            (1, Part::Bytes(text)) => key = lossy(text),
            (2, part) => found = Some(value(form, part, depth)?),
            _ => {}
        }
    }
    // An empty message in a map is a value, and so are empty bytes.
    let value = match (found, form.scalar()) {
        (Some(value), _) => value,
        (None, Some(Scalar::Bytes)) => "".into(),
        (None, _) => zero(form),
    };
    Ok((key, value))
}

fn wrong_wire_type() -> String {
    "proto: wrong wireType".to_owned()
}

fn value(schema: Schema<'_>, part: Part<'_>, depth: usize) -> Decoded {
    if let Shape::List(item) = schema.shape() {
        return wrapped_list(item, part, depth);
    }
    let Some(scalar) = schema.scalar() else {
        let Part::Bytes(bytes) = part else { return Err(wrong_wire_type()) };
        return message(schema, bytes, depth + 1);
    };
    match (scalar, part) {
        (Scalar::String, Part::Bytes(text)) => Ok(lossy(text).into()),
        // The wire has ten bytes for a negative number of 32 bits too; Go keeps the low half.
        (Scalar::Int32, Part::Varint(number)) => Ok((number as i32).into()),
        (Scalar::Int64, Part::Varint(number)) => Ok((number as i64).into()),
        (Scalar::Bool, Part::Varint(number)) => Ok((number != 0).into()),
        (Scalar::Double, Part::Fixed64(bits)) => Ok(double(f64::from_bits(bits))),
        (Scalar::Bytes, Part::Bytes(bytes)) => Ok(STANDARD.encode(bytes).into()),
        (scalar, Part::Bytes(bytes)) => special(schema, scalar, bytes, depth),
        _ => Err(wrong_wire_type()),
    }
}

/// Go prints whole doubles without a fraction.
fn double(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { (value as i64).into() } else { value.into() }
}

/// Types whose message is not what their JSON is.
fn special(schema: Schema<'_>, scalar: Scalar, bytes: &[u8], depth: usize) -> Decoded {
    match scalar {
        Scalar::Quantity => {
            let text = first_bytes(bytes)?;
            let text = if text.is_empty() { b"0" } else { text };
            canonical_quantity(&lossy(text)).map(Value::String).map_err(|error| error.to_string())
        }
        Scalar::IntOrString => int_or_string(bytes),
        Scalar::Time | Scalar::MicroTime => instant(scalar, bytes),
        Scalar::Duration => Ok(time::format_duration(numbers(bytes)?[0] as i64).into()),
        Scalar::Raw | Scalar::Json | Scalar::Fields => {
            let raw = first_bytes(bytes)?;
            if raw.is_empty() {
                Ok(Value::Null)
            } else {
                serde_json::from_slice(raw).map_err(|error| error.to_string())
            }
        }
        Scalar::PropsOrArray | Scalar::PropsOrBool | Scalar::PropsOrStrings => props(schema, scalar, bytes, depth + 1),
        _ => Err(wrong_wire_type()),
    }
}

/// Contents of field 1 of a message.
fn first_bytes(bytes: &[u8]) -> Result<&[u8], String> {
    let mut reader = Reader { bytes };
    let mut found: &[u8] = &[];
    while let Some((number, part)) = reader.next()? {
        if let (1, Part::Bytes(bytes)) = (number, part) {
            found = bytes;
        }
    }
    Ok(found)
}

/// Numbers of fields 1 and 2 of a message.
fn numbers(bytes: &[u8]) -> Result<[u64; 2], String> {
    let mut reader = Reader { bytes };
    let mut found = [0; 2];
    while let Some((number, part)) = reader.next()? {
        if let (1 | 2, Part::Varint(value)) = (number, part) {
            found[number as usize - 1] = value;
        }
    }
    Ok(found)
}

fn int_or_string(bytes: &[u8]) -> Decoded {
    let [kind, number] = numbers(bytes)?;
    if kind == 0 {
        return Ok((number as i32).into());
    }
    let mut reader = Reader { bytes };
    let mut text = String::new();
    while let Some((number, part)) = reader.next()? {
        if let (3, Part::Bytes(bytes)) = (number, part) {
            text = lossy(bytes);
        }
    }
    Ok(text.into())
}

/// An empty message is Go's zero time, which prints as null.
fn instant(scalar: Scalar, bytes: &[u8]) -> Decoded {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanos] = numbers(bytes)?;
    let seconds = seconds as i64;
    // Years 1 to 9999, outside of which RFC 3339 has no text.
    if !(-62_135_596_800..=253_402_300_799).contains(&seconds) {
        return Err("Time.MarshalJSON: year outside of range [0,9999]".to_owned());
    }
    let nanos = (nanos as u32).min(999_999_999);
    Ok(if scalar == Scalar::Time { time::format(seconds) } else { time::format_micro(seconds, nanos) }.into())
}

fn props(schema: Schema<'_>, scalar: Scalar, bytes: &[u8], depth: usize) -> Decoded {
    let form = props_schema(schema);
    let (mut single, mut list, mut allows) = (None, Vec::new(), false);
    let mut reader = Reader { bytes };
    while let Some((number, part)) = reader.next()? {
        match (scalar, number, part) {
            (Scalar::PropsOrBool, 1, Part::Varint(value)) => allows = value != 0,
            (Scalar::PropsOrBool, 2, Part::Bytes(bytes))
            | (Scalar::PropsOrArray | Scalar::PropsOrStrings, 1, Part::Bytes(bytes)) => {
                single = Some(message(form, bytes, depth)?);
            }
            (Scalar::PropsOrArray, 2, Part::Bytes(bytes)) => list.push(message(form, bytes, depth)?),
            (Scalar::PropsOrStrings, 2, Part::Bytes(text)) => list.push(lossy(text).into()),
            _ => {}
        }
    }
    Ok(match (single, scalar) {
        _ if !list.is_empty() => Value::Array(list),
        (Some(schema), _) => schema,
        (None, Scalar::PropsOrBool) => allows.into(),
        (None, _) => Value::Null,
    })
}

#[cfg(test)]
mod tests;
