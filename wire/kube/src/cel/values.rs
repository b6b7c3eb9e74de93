//! Values of expressions. Parts of the object under validation are borrowed until something is computed from them.

use super::Fault;
use crate::codec::time;
use crate::schema::{Scalar, Schema};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

#[derive(Clone, Debug)]
pub(crate) enum Val<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'v, str>),
    Bytes(Rc<[u8]>),
    /// A list of the object.
    Items(&'v [Value], Option<Schema<'v>>),
    /// A map or an object of the object.
    Fields(&'v Map<String, Value>, Option<Schema<'v>>),
    List(Rc<Vec<Val<'v>>>),
    Map(Rc<Vec<(Val<'v>, Val<'v>)>>),
    /// Nanoseconds.
    Duration(i64),
    /// Seconds since 1970 and nanoseconds.
    Timestamp(i64, u32),
    Type(&'static str),
    Optional(Option<Rc<Val<'v>>>),
    Url(Rc<Url>),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    /// Billionths.
    Quantity(i128),
}

/// Parts of a URL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: String,
}

impl<'v> Val<'v> {
    /// A value of the object, in the type that its schema gives it.
    pub(crate) fn of(value: &'v Value, schema: Option<Schema<'v>>) -> Self {
        match value {
            Value::Null => Val::Null,
            Value::Bool(value) => Val::Bool(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) if schema.and_then(Schema::scalar) == Some(Scalar::Double) => Val::Double(whole as f64),
                Some(whole) => Val::Int(whole),
                None => Val::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Val::formatted(text, schema),
            Value::Array(items) => Val::Items(items, schema.and_then(Schema::item)),
            Value::Object(map) => Val::Fields(map, schema),
        }
    }

    fn formatted(text: &'v str, schema: Option<Schema<'v>>) -> Self {
        let format = schema.and_then(Schema::rules).map_or("", |rules| rules.format.as_str());
        let typed = match format {
            "date-time" | "datetime" => time::instant(text).map(|(seconds, nanos)| Val::Timestamp(seconds, nanos)),
            "date" => {
                time::instant(&format!("{text}T00:00:00Z")).map(|(seconds, nanos)| Val::Timestamp(seconds, nanos))
            }
            "duration" => time::parse_duration(text).map(Val::Duration),
            _ => None,
        };
        typed.unwrap_or(Val::Text(Cow::Borrowed(text)))
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Val::Text(Cow::Owned(text.into()))
    }

    pub(super) fn list(items: Vec<Val<'v>>) -> Self {
        Val::List(Rc::new(items))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Text(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Items(..) | Val::List(_) => "list",
            Val::Fields(..) | Val::Map(_) => "map",
            Val::Duration(_) => "duration",
            Val::Timestamp(..) => "timestamp",
            Val::Type(_) => "type",
            Val::Optional(_) => "optional_type",
            Val::Url(_) => "kubernetes.URL",
            Val::Ip(_) => "net.IP",
            Val::Cidr(..) => "net.CIDR",
            Val::Quantity(_) => "kubernetes.Quantity",
        }
    }

    /// Items of a list.
    pub(super) fn items(&self) -> Option<Vec<Val<'v>>> {
        match self {
            Val::Items(items, schema) => Some(items.iter().map(|item| Val::of(item, *schema)).collect()),
            Val::List(items) => Some(items.to_vec()),
            _ => None,
        }
    }

    /// Keys and values of a map. Fields that are null count as absent.
    pub(super) fn entries(&self) -> Option<Vec<(Val<'v>, Val<'v>)>> {
        match self {
            Val::Fields(map, schema) => {
                let child = |key: &String| schema.and_then(|schema| schema.child(key));
                let present = map.iter().filter(|(_, value)| !value.is_null());
                Some(
                    present
                        .map(|(key, value)| (Val::Text(Cow::Borrowed(key.as_str())), Val::of(value, child(key))))
                        .collect(),
                )
            }
            Val::Map(entries) => Some(entries.to_vec()),
            _ => None,
        }
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Val::Text(text) => Some(text.chars().count()),
            Val::Bytes(bytes) => Some(bytes.len()),
            Val::Items(items, _) => Some(items.len()),
            Val::List(items) => Some(items.len()),
            Val::Fields(map, _) => Some(map.len()),
            Val::Map(entries) => Some(entries.len()),
            _ => None,
        }
    }

    /// What is under a key of a map; `None` when nothing is, or when this is no map.
    pub(super) fn get(&self, key: &Val<'v>) -> Option<Val<'v>> {
        match (self, key) {
            (Val::Fields(map, schema), Val::Text(name)) => {
                let value = map.get(name.as_ref()).filter(|value| !value.is_null())?;
                Some(Val::of(value, schema.and_then(|schema| schema.child(name))))
            }
            (Val::Map(entries), key) => entries.iter().find(|(own, _)| own.equals(key)).map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    /// Equality over types, as the language has it: numbers by value, everything else only with its like.
    pub(super) fn equals(&self, other: &Val<'v>) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Text(a), Val::Text(b)) => a == b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Type(a), Val::Type(b)) => a == b,
            (Val::Url(a), Val::Url(b)) => a == b,
            (Val::Cidr(a, n), Val::Cidr(b, m)) => a == b && n == m,
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (a, b) if a.items().is_some() && b.items().is_some() => {
                let (a, b) = (a.items().unwrap_or_default(), b.items().unwrap_or_default());
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.equals(b))
            }
            (a, b) if a.entries().is_some() && b.entries().is_some() => {
                let (a, b_entries) = (a.entries().unwrap_or_default(), b.entries().unwrap_or_default());
                a.len() == b_entries.len()
                    && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| value.equals(&other)))
            }
            (a, b) => a.order(b) == Some(Ordering::Equal),
        }
    }

    /// Order of two values, when they have one.
    pub(super) fn order(&self, other: &Val<'v>) -> Option<Ordering> {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Text(a), Val::Text(b)) => Some(a.cmp(b)),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            (Val::Timestamp(a, m), Val::Timestamp(b, n)) => Some((a, m).cmp(&(b, n))),
            (Val::Quantity(a), Val::Quantity(b)) => Some(a.cmp(b)),
            (Val::Ip(a), Val::Ip(b)) => Some(a.cmp(b)),
            (Val::Double(a), b) => a.partial_cmp(&b.double()?),
            (a, Val::Double(b)) => a.double()?.partial_cmp(b),
            (a, b) => Some(a.whole()?.cmp(&b.whole()?)),
        }
    }

    fn double(&self) -> Option<f64> {
        match self {
            Val::Double(value) => Some(*value),
            other => other.whole().map(|value| value as f64),
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Val::Int(value) => Some(i128::from(*value)),
            Val::Uint(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Result<&str, Fault> {
        if let Val::Text(text) = self { Ok(text) } else { Err(no_overload()) }
    }

    pub(super) fn as_int(&self) -> Result<i64, Fault> {
        match self {
            Val::Int(value) => Ok(*value),
            Val::Uint(value) => i64::try_from(*value).map_err(|_| Fault::Failed("integer overflow".to_owned())),
            _ => Err(no_overload()),
        }
    }
}

/// What is said of operands that an operator or function does not take.
pub(super) fn no_overload() -> Fault {
    Fault::Failed("no such overload".to_owned())
}

pub(super) fn failed<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Failed(text.into()))
}
