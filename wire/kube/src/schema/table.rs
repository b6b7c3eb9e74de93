//! Storage behind [`super::Schema`]: types and nodes in two vectors, referring to each other by index.

use super::rules::Rules;
use super::{ListKind, PatchStrategy, Scalar};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;

/// Slices of the compiled-in files for built-in types, owned text for custom resources.
pub(crate) type Text = Cow<'static, str>;

/// Index of a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(pub(crate) u32);

/// Index of an [`ObjectDef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectId(pub(crate) u32);

#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Whether it is a custom resource's, so that its nodes are validated by form.
    pub(crate) custom: bool,
    objects: Vec<ObjectDef>,
    nodes: Vec<Node>,
    by_name: HashMap<Text, ObjectId>,
    /// One node for each scalar without anything of its own, which are most of them.
    plain: HashMap<&'static str, NodeId>,
}

/// A form with what is particular to one place that uses it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shape: NodeShape,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(crate) nullable: bool,
    pub(crate) description: Text,
    pub(crate) default: Option<Box<Value>>,
    pub(crate) rules: Option<Box<Rules>>,
}

#[derive(Debug)]
pub(crate) enum NodeShape {
    Scalar(Scalar),
    /// `atomic` overrides what the type says.
    Object {
        id: ObjectId,
        atomic: Option<bool>,
    },
    Map {
        value: NodeId,
        atomic: bool,
    },
    /// `wrapped`: protobuf has a message around the items (`Verbs`, `ExtraValue`).
    List {
        item: NodeId,
        kind: ListKind,
        keys: Box<[Text]>,
        wrapped: bool,
    },
}

#[derive(Debug)]
pub(crate) struct ObjectDef {
    pub(crate) name: Text,
    pub(crate) description: Text,
    pub(crate) atomic: bool,
    /// The node that everyone shares who adds nothing to the type.
    pub(crate) root: NodeId,
    /// Sorted by name.
    pub(crate) fields: Vec<FieldDef>,
    /// Indexes into `fields` with a protobuf number, sorted by that number.
    pub(crate) by_number: Vec<u16>,
}

/// Protobuf field number: of the field, and of the message inlined around it (0: none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    pub(crate) outer: u16,
    pub(crate) inner: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct FieldDef {
    pub(crate) name: Text,
    pub(crate) description: Text,
    pub(crate) merge_key: Option<Text>,
    pub(crate) default: Option<Text>,
    pub(crate) enum_values: Text,
    pub(crate) node: NodeId,
    pub(crate) number: Number,
    pub(crate) patch: PatchStrategy,
    pub(crate) required: bool,
    pub(crate) pointer: bool,
    pub(crate) always: bool,
}

impl FieldDef {
    /// A field of a custom resource.
    pub(crate) fn custom(name: Text, node: NodeId, required: bool) -> Self {
        FieldDef {
            name,
            description: Text::Borrowed(""),
            merge_key: None,
            default: None,
            enum_values: Text::Borrowed(""),
            node,
            number: Number::default(),
            patch: PatchStrategy::Replace,
            required,
            pointer: true,
            always: false,
        }
    }
}

impl Node {
    pub(crate) fn plain(shape: NodeShape) -> Self {
        Node {
            shape,
            preserve: false,
            embedded: false,
            nullable: false,
            description: Text::Borrowed(""),
            default: None,
            rules: None,
        }
    }
}

impl Table {
    /// An empty table for a custom resource.
    pub(crate) fn custom() -> Self {
        Table { custom: true, ..Table::default() }
    }
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
    pub(crate) fn object(&self, id: ObjectId) -> &ObjectDef {
        &self.objects[id.0 as usize]
    }
    pub(crate) fn object_of(&self, id: NodeId) -> Option<&ObjectDef> {
        if let NodeShape::Object { id, .. } = self.node(id).shape { Some(self.object(id)) } else { None }
    }
    pub(crate) fn named(&self, name: &str) -> Option<ObjectId> {
        self.by_name.get(name).copied()
    }
    pub(crate) fn push_node(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }
    /// The shared node of a bare scalar.
    pub(crate) fn scalar(&mut self, word: &'static str, scalar: Scalar) -> NodeId {
        if let Some(id) = self.plain.get(word) {
            return *id;
        }
        let id = self.push_node(Node::plain(NodeShape::Scalar(scalar)));
        self.plain.insert(word, id);
        id
    }
    /// Reserves a type, so that others can refer to it before its fields are known.
    pub(crate) fn reserve(&mut self, name: Text) -> ObjectId {
        if let Some(id) = self.by_name.get(&name) {
            return *id;
        }
        let id = ObjectId(self.objects.len() as u32);
        if !name.is_empty() {
            self.by_name.insert(name.clone(), id);
        }
        let (description, fields, by_number) = (Text::Borrowed(""), Vec::new(), Vec::new());
        let root = self.push_node(Node::plain(NodeShape::Object { id, atomic: None }));
        self.objects.push(ObjectDef { name, description, atomic: false, root, fields, by_number });
        id
    }
    /// Fills a reserved type. The fields need not be sorted.
    pub(crate) fn define(&mut self, id: ObjectId, description: Text, atomic: bool, mut fields: Vec<FieldDef>) {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let mut by_number: Vec<u16> =
            (0..fields.len() as u16).filter(|at| fields[*at as usize].number.inner != 0).collect();
        by_number.sort_by_key(|at| fields[*at as usize].number);
        let object = &mut self.objects[id.0 as usize];
        object.description = description;
        object.atomic = atomic;
        object.fields = fields;
        object.by_number = by_number;
    }
    /// Copies a type and all that it refers to from another table, so that the custom resources' `metadata` is Kubernetes' own.
    pub(crate) fn import(&mut self, from: &'static Table, id: ObjectId) -> ObjectId {
        let source = from.object(id);
        if let Some(known) = self.named(&source.name) {
            return known;
        }
        let own = self.reserve(source.name.clone());
        let fields = source
            .fields
            .iter()
            .map(|field| FieldDef { node: self.import_node(from, field.node), ..field.clone() })
            .collect();
        self.define(own, source.description.clone(), source.atomic, fields);
        own
    }

    fn import_node(&mut self, from: &'static Table, id: NodeId) -> NodeId {
        let shape = match &from.node(id).shape {
            NodeShape::Scalar(scalar) => NodeShape::Scalar(*scalar),
            NodeShape::Object { id, atomic } => NodeShape::Object { id: self.import(from, *id), atomic: *atomic },
            NodeShape::Map { value, atomic } => {
                NodeShape::Map { value: self.import_node(from, *value), atomic: *atomic }
            }
            NodeShape::List { item, kind, keys, wrapped } => {
                let item = self.import_node(from, *item);
                NodeShape::List { item, kind: *kind, keys: keys.clone(), wrapped: *wrapped }
            }
        };
        self.push_node(Node::plain(shape))
    }

    /// Gives back spare capacity: tables live as long as the process.
    pub(crate) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.objects.shrink_to_fit();
    }
    /// Names of all types, sorted.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names
    }
}

impl ObjectDef {
    /// The field with a protobuf number.
    pub(crate) fn numbered(&self, number: Number) -> Option<&FieldDef> {
        let at = self.by_number.binary_search_by_key(&number, |at| self.fields[*at as usize].number).ok()?;
        Some(&self.fields[self.by_number[at] as usize])
    }
    /// Whether a protobuf number holds a message whose fields are inlined here.
    pub(crate) fn inlines(&self, outer: u16) -> bool {
        let at = self.by_number.partition_point(|at| self.fields[*at as usize].number < Number { outer, inner: 0 });
        outer != 0 && self.by_number.get(at).is_some_and(|at| self.fields[*at as usize].number.outer == outer)
    }
}
