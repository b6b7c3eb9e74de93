//! One view of the form of objects, for Kubernetes' own kinds and for custom resources.
//!
//! A [`Schema`] is a cursor into a table that a [`crate::Resource`] holds: copying it costs two words, walking it allocates nothing.

pub(crate) mod builtin;
pub(crate) mod rules;
pub(crate) mod table;
pub(crate) mod text;

use rules::Rules;
use serde_json::Value;
use std::borrow::Cow;
pub(crate) use table::{Node, NodeId, NodeShape, Table};

/// Form of one value: a scalar, an object with named fields, a map or a list.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    pub(crate) table: &'a Table,
    pub(crate) node: NodeId,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A value without parts that anyone but itself merges.
    Scalar(Scalar),
    /// An object with named fields ([`Schema::field`]).
    Object,
    /// A map from any string to values of one form.
    Map(Schema<'a>),
    /// A list of values of one form.
    List(Schema<'a>),
}

/// Forms of values that have no schema of their parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Any text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A boolean.
    Bool,
    /// A floating-point number.
    Double,
    /// Base64 text of bytes.
    Bytes,
    /// A resource quantity: text or number in, canonical text out.
    Quantity,
    /// A whole number of 32 bits, or text.
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Go's duration text (`1m30s`).
    Duration,
    /// An embedded object of any kind (`runtime.RawExtension`).
    Raw,
    /// Any JSON value.
    Json,
    /// `metadata.managedFields[].fieldsV1`: an object that is kept as it is.
    Fields,
    /// A JSON schema or a list of them (`items` of a custom resource's schema).
    PropsOrArray,
    /// A JSON schema or a boolean (`additionalProperties`).
    PropsOrBool,
    /// A JSON schema or a list of strings (`dependencies`).
    PropsOrStrings,
}

/// How server-side apply and strategic merge see a list (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Owned and replaced as a whole. Also what a list without a declared type is.
    Atomic,
    /// Each scalar item is owned on its own.
    Set,
    /// Items are objects told apart by [`Schema::list_keys`].
    Map,
}

/// How server-side apply sees a map or an object (`x-kubernetes-map-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Each key is owned on its own.
    Granular,
    /// Owned and replaced as a whole.
    Atomic,
}

/// `x-kubernetes-patch-strategy` of a field, for strategic merge patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PatchStrategy {
    /// A list replaces the old list; a map merges (the default).
    #[default]
    Replace,
    /// A list merges by the merge key, or as a set.
    Merge,
    /// Keys that the patch does not name are dropped (`retainKeys`).
    RetainKeys,
    /// Both.
    MergeRetainKeys,
}

/// A named field of an object.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub(crate) table: &'a Table,
    pub(crate) raw: &'a table::FieldDef,
}

impl std::fmt::Debug for Schema<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.go_type())
    }
}

impl<'a> Schema<'a> {
    pub(crate) fn at(table: &'a Table, node: NodeId) -> Self {
        Schema { table, node }
    }

    pub(crate) fn raw(self) -> &'a Node {
        self.table.node(self.node)
    }

    /// What the value looks like.
    pub fn shape(self) -> Shape<'a> {
        match &self.raw().shape {
            NodeShape::Scalar(scalar) => Shape::Scalar(*scalar),
            NodeShape::Object { .. } => Shape::Object,
            NodeShape::Map { value, .. } => Shape::Map(Schema::at(self.table, *value)),
            NodeShape::List { item, .. } => Shape::List(Schema::at(self.table, *item)),
        }
    }

    /// The scalar form, when the value is one.
    pub fn scalar(self) -> Option<Scalar> {
        if let NodeShape::Scalar(scalar) = self.raw().shape { Some(scalar) } else { None }
    }

    /// Whether the value is an object with named fields.
    pub fn is_object(self) -> bool {
        matches!(self.raw().shape, NodeShape::Object { .. })
    }

    /// A field of an object by its JSON name.
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        let object = self.table.object_of(self.node)?;
        let at = object.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?;
        Some(Field { table: self.table, raw: &object.fields[at] })
    }

    /// All fields of an object in the order of their names; none for other shapes.
    pub fn fields(self) -> impl Iterator<Item = Field<'a>> {
        let fields = self.table.object_of(self.node).map_or(&[][..], |object| &object.fields[..]);
        fields.iter().map(move |raw| Field { table: self.table, raw })
    }

    /// Form of what is under a key: of a named field, or of a map's values.
    pub fn child(self, key: &str) -> Option<Schema<'a>> {
        match self.shape() {
            Shape::Map(value) => Some(value),
            Shape::Object => self.field(key).map(Field::schema),
            _ => None,
        }
    }

    /// Form of a list's items.
    pub fn item(self) -> Option<Schema<'a>> {
        if let Shape::List(item) = self.shape() { Some(item) } else { None }
    }

    /// Form of a map's values.
    pub fn value(self) -> Option<Schema<'a>> {
        if let Shape::Map(value) = self.shape() { Some(value) } else { None }
    }

    /// Walks field names and map keys; steps into the items of lists on the way. `spec.containers` from a Pod is the list.
    pub fn at_path(self, path: &[&str]) -> Option<Schema<'a>> {
        path.iter().try_fold(self, |at, key| {
            let mut at = at;
            while let Some(item) = at.item() {
                at = item;
            }
            at.child(key)
        })
    }

    /// How the list is owned and merged; `Atomic` for what is no list.
    pub fn list_kind(self) -> ListKind {
        if let NodeShape::List { kind, .. } = self.raw().shape { kind } else { ListKind::Atomic }
    }

    /// Keys that tell the items of a `Map` list apart.
    pub fn list_keys(self) -> impl ExactSizeIterator<Item = &'a str> {
        let keys = if let NodeShape::List { keys, .. } = &self.raw().shape { &keys[..] } else { &[] };
        keys.iter().map(AsRef::as_ref)
    }

    /// How the object or map is owned.
    pub fn map_kind(self) -> MapKind {
        let atomic = match &self.raw().shape {
            NodeShape::Map { atomic, .. } => *atomic,
            NodeShape::Object { id, atomic } => atomic.unwrap_or(self.table.object(*id).atomic),
            _ => false,
        };
        if atomic { MapKind::Atomic } else { MapKind::Granular }
    }

    /// Whether fields that are not in the schema are kept (`x-kubernetes-preserve-unknown-fields`).
    pub fn preserves_unknown(self) -> bool {
        self.raw().preserve || matches!(self.scalar(), Some(Scalar::Json | Scalar::Raw | Scalar::Fields))
    }

    /// Whether the value is an object with `apiVersion`, `kind` and `metadata` of its own (`x-kubernetes-embedded-resource`).
    pub fn is_embedded_resource(self) -> bool {
        self.raw().embedded
    }

    /// Whether an explicit null is a value of its own.
    pub fn is_nullable(self) -> bool {
        self.raw().nullable
    }

    /// Name of the type in OpenAPI (`io.k8s.api.core.v1.PodSpec`); empty for what has none.
    pub fn type_name(self) -> &'a str {
        self.table.object_of(self.node).map_or("", |object| object.name.as_ref())
    }

    /// Description of the type.
    pub fn description(self) -> Cow<'a, str> {
        let own = &self.raw().description;
        let text =
            if own.is_empty() { self.table.object_of(self.node).map_or("", |o| o.description.as_ref()) } else { own };
        text::unescape(text)
    }

    /// Default of the value, when the schema declares one.
    pub fn default(self) -> Option<&'a Value> {
        self.raw().default.as_deref()
    }

    /// Validation of a custom resource's value; `None` for Kubernetes' own types, whose kinds check more than a schema can say.
    pub(crate) fn rules(self) -> Option<&'a Rules> {
        if !self.table.custom {
            return None;
        }
        Some(self.raw().rules.as_deref().unwrap_or_else(|| {
            rules::plain(match &self.raw().shape {
                NodeShape::Object { .. } | NodeShape::Map { .. } | NodeShape::Scalar(Scalar::Raw) => "object",
                NodeShape::List { .. } => "array",
                NodeShape::Scalar(Scalar::String) => "string",
                NodeShape::Scalar(Scalar::Int32 | Scalar::Int64) => "integer",
                NodeShape::Scalar(Scalar::Bool) => "boolean",
                NodeShape::Scalar(Scalar::Double) => "number",
                NodeShape::Scalar(_) => "",
            })
        }))
    }

    /// Name of the value's type as Go's decoder words it: `int32`, `v1.Container`, `[]v1.Container`, `map[string]string`.
    pub fn go_type(self) -> String {
        match self.shape() {
            Shape::Scalar(scalar) => scalar.go_type().to_owned(),
            Shape::List(item) => format!("[]{}", item.go_type()),
            Shape::Map(value) => format!("map[string]{}", value.go_type()),
            Shape::Object => {
                let mut parts = self.type_name().rsplitn(3, '.');
                let (name, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                if package.is_empty() { name.to_owned() } else { format!("{package}.{name}") }
            }
        }
    }
}

impl Scalar {
    fn go_type(self) -> &'static str {
        match self {
            Scalar::String => "string",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Bool => "bool",
            Scalar::Double => "float64",
            Scalar::Bytes => "[]uint8",
            Scalar::Quantity => "resource.Quantity",
            Scalar::IntOrString => "intstr.IntOrString",
            Scalar::Time => "v1.Time",
            Scalar::MicroTime => "v1.MicroTime",
            Scalar::Duration => "v1.Duration",
            Scalar::Raw => "runtime.RawExtension",
            Scalar::Json => "v1.JSON",
            Scalar::Fields => "v1.FieldsV1",
            Scalar::PropsOrArray => "v1.JSONSchemaPropsOrArray",
            Scalar::PropsOrBool => "v1.JSONSchemaPropsOrBool",
            Scalar::PropsOrStrings => "v1.JSONSchemaPropsOrStringArray",
        }
    }
}

impl<'a> Field<'a> {
    /// JSON name.
    pub fn name(self) -> &'a str {
        self.raw.name.as_ref()
    }
    /// Form of the value.
    pub fn schema(self) -> Schema<'a> {
        Schema::at(self.table, self.raw.node)
    }
    /// Whether the schema says that it must be there. Only custom resources are refused for it by form alone.
    pub fn is_required(self) -> bool {
        self.raw.required
    }
    /// Whether the Go type is a pointer, so that a zero value is not the same as absence.
    pub fn is_pointer(self) -> bool {
        self.raw.pointer
    }
    /// Whether Kubernetes prints the field even when it is zero.
    pub fn is_always_printed(self) -> bool {
        self.raw.always
    }
    /// What a strategic merge patch does with it.
    pub fn patch_strategy(self) -> PatchStrategy {
        self.raw.patch
    }
    /// Key by which a strategic merge patch tells the items of the list apart.
    pub fn merge_key(self) -> Option<&'a str> {
        self.raw.merge_key.as_deref()
    }
    /// Values that the type's declaration lists; empty when it lists none.
    pub fn enum_values(self) -> impl Iterator<Item = &'a str> {
        self.raw.enum_values.split('|').filter(|value| !value.is_empty())
    }
    /// Default that the schema declares (`protocol: TCP` of a port): server-side apply needs it to tell items apart.
    pub fn default(self) -> Option<Cow<'a, Value>> {
        if let Some(value) = self.schema().default() {
            return Some(Cow::Borrowed(value));
        }
        let text = self.raw.default.as_deref()?;
        serde_json::from_str(text).ok().map(Cow::Owned)
    }
    /// What it means.
    pub fn description(self) -> Cow<'a, str> {
        if self.raw.description.is_empty() {
            self.schema().description()
        } else {
            text::unescape(&self.raw.description)
        }
    }
}
