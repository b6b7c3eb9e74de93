//! `metadata.managedFields`: who said which field, and when.

use crate::fields::{FieldsError, Set};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// More entries of updates than this are merged, oldest first.
const MOST_UPDATERS: usize = 10;
/// The manager into which they are merged.
const ANCIENT: &str = "ancient-changes";

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply: what it leaves out next time is removed.
    Apply,
    /// By create, update or any other patch.
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who wrote. One name is several managers: by operation, by subresource and, for updates, by version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    /// Empty for appliers, which are the same manager in every version.
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

impl Manager {
    pub(crate) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Manager {
        Manager {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { api_version.to_owned() },
            subresource: subresource.to_owned(),
        }
    }
    pub(crate) fn is_apply(&self) -> bool {
        self.operation == Operation::Apply
    }
}

/// What a manager has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) fields: Set,
    pub(crate) api_version: String,
    pub(crate) time: Option<String>,
}

/// Why `managedFields` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagedFieldsError {
    /// `operation` is neither.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// `apiVersion` is missing.
    #[error("apiVersion must not be empty")]
    ApiVersion,
    /// `fieldsType` is missing or unknown.
    #[error("invalid fieldsType {1:?} in managed fields entry {0}")]
    FieldsType(usize, String),
    /// `fieldsV1` is malformed.
    #[error("error decoding fields of managed fields entry {0}: {1}")]
    Fields(usize, FieldsError),
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    pub(crate) entries: BTreeMap<Manager, Entry>,
}

impl ManagedFields {
    /// Reads `metadata.managedFields` of an object.
    ///
    /// # Errors
    /// An entry is malformed.
    pub fn of(object: &Value) -> Result<ManagedFields, ManagedFieldsError> {
        let mut entries = BTreeMap::new();
        let list = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
        for (index, entry) in list.iter().enumerate() {
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagedFieldsError::Operation),
            };
            if text("apiVersion").is_empty() {
                return Err(ManagedFieldsError::ApiVersion);
            }
            if text("fieldsType") != "FieldsV1" {
                return Err(ManagedFieldsError::FieldsType(index, text("fieldsType").to_owned()));
            }
            let fields = match &entry["fieldsV1"] {
                Value::Null => Set::default(),
                fields => Set::from_json(fields).map_err(|wrong| ManagedFieldsError::Fields(index, wrong))?,
            };
            let mut manager = Manager::new(text("manager"), operation, text("apiVersion"), text("subresource"));
            manager.name = text("manager").to_owned();
            let time = entry["time"].as_str().map(str::to_owned);
            entries.insert(manager, Entry { fields, api_version: text("apiVersion").to_owned(), time });
        }
        Ok(ManagedFields { entries })
    }

    /// Writes them into an object; without entries the member is removed.
    pub fn write(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let meta = map.entry("metadata").or_insert_with(|| json!({}));
        let Some(meta) = meta.as_object_mut() else { return };
        if self.entries.is_empty() {
            meta.remove("managedFields");
            return;
        }
        let mut sorted: Vec<(&Manager, &Entry)> = self.entries.iter().collect();
        sorted.sort_by(|(a, x), (b, y)| {
            (a.operation, &x.time, &a.name, &x.api_version, &a.subresource).cmp(&(
                b.operation,
                &y.time,
                &b.name,
                &y.api_version,
                &b.subresource,
            ))
        });
        let list = sorted.into_iter().map(|(manager, entry)| {
            let mut json = json!({"manager": manager.name, "operation": manager.operation.text(),
                "apiVersion": entry.api_version, "fieldsType": "FieldsV1", "fieldsV1": entry.fields.to_json()});
            if let Some(time) = &entry.time {
                json["time"] = Value::from(time.as_str());
            }
            if !manager.subresource.is_empty() {
                json["subresource"] = Value::from(manager.subresource.as_str());
            }
            json
        });
        meta.insert("managedFields".into(), list.collect());
    }

    /// Whether nobody has said anything that is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn drop_empty(&mut self) {
        self.entries.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Keeps the number of updaters bounded: the oldest are merged, version by version.
    pub(crate) fn cap_updaters(&mut self) {
        let mut updaters: Vec<(Option<String>, Manager)> = self
            .entries
            .iter()
            .filter(|(manager, _)| !manager.is_apply())
            .map(|(manager, entry)| (entry.time.clone(), manager.clone()))
            .collect();
        let mut count = updaters.len();
        updaters.sort();
        let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if count <= MOST_UPDATERS {
                return;
            }
            let version = manager.api_version.clone();
            let bucket = Manager::new(ANCIENT, Operation::Update, &version, "");
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, manager);
                continue;
            };
            if !self.entries.contains_key(&bucket)
                && let Some(entry) = self.entries.remove(first)
            {
                self.entries.insert(bucket.clone(), entry);
            }
            if let Some(entry) = self.entries.remove(&manager)
                && let Some(ancient) = self.entries.get_mut(&bucket)
            {
                ancient.fields = ancient.fields.union(&entry.fields);
                // The younger time of the two.
                ancient.time = entry.time;
                count -= 1;
            }
        }
    }
}
