//! A CustomResourceDefinition as a whole: names, versions and the resources that it adds.

use super::{CustomVersion, compile_version};
use crate::registry::bundled::{self, Lazy};
use crate::registry::{CustomForm, CustomParts, Registry, Resource};
use crate::status::Cause;
use serde_json::{Value, json};
use std::sync::Arc;

/// Reason of the `NamesAccepted` and `Established` conditions when another resource has the name.
pub const NAMES_CONFLICT: &str = "NameConflict";

/// A definition that is sound by itself. Whether its names are free is [`names_conflict`]'s answer.
#[derive(Clone, Debug)]
pub struct CustomResource {
    group: String,
    names: Names,
    namespaced: bool,
    versions: Vec<(String, Served, Form)>,
    stored_version: String,
}

#[derive(Clone, Debug)]
struct Names {
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
    short_names: Vec<String>,
    categories: Vec<String>,
}

/// Whether a version is served; one that is not may still be the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Served(bool);

/// Where a version's schema is.
#[derive(Clone, Debug)]
enum Form {
    Compiled(Arc<CustomVersion>),
    /// The definition is one of those that come with the program: compiled when it is first used, and found sound by a test.
    Bundled(Lazy),
}

impl Form {
    fn has_status(&self) -> bool {
        match self {
            Form::Compiled(version) => version.has_status(),
            Form::Bundled(lazy) => lazy.has_status(),
        }
    }

    fn has_scale(&self) -> bool {
        match self {
            Form::Compiled(version) => version.scale().is_some(),
            Form::Bundled(lazy) => lazy.has_scale(),
        }
    }

    fn custom(&self) -> CustomForm {
        match self {
            Form::Compiled(version) => CustomForm::Ready(Arc::clone(version)),
            Form::Bundled(lazy) => CustomForm::Lazy(lazy.clone()),
        }
    }
}

/// Conditions of a definition, to be merged into its `status.conditions`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// `NamesAccepted`: status, reason, message.
    pub names_accepted: (bool, &'static str, String),
    /// `Established`: status, reason, message.
    pub established: (bool, &'static str, String),
}

impl CustomResource {
    /// Reads a stored or submitted CustomResourceDefinition.
    ///
    /// # Errors
    /// The definition is at fault, with one cause for each field, worded as kube-apiserver words them.
    pub fn from_object(object: &Value) -> Result<Self, Vec<Cause>> {
        let spec = &object["spec"];
        let mut causes = Vec::new();
        let names = names(object, &mut causes);
        let scope = spec["scope"].as_str().unwrap_or_default();
        if !matches!(scope, "Namespaced" | "Cluster") {
            causes.push(match scope {
                "" => Cause::required("spec.scope", ""),
                _ => Cause::not_supported("spec.scope", &scope.into(), ["Cluster", "Namespaced"]),
            });
        }
        check_conversion(spec, &mut causes);
        let group = spec["group"].as_str().unwrap_or_default().to_owned();
        let mut versions = Vec::new();
        let listed = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        check_versions(listed, &mut causes);
        let own = bundled::twins(spec);
        for (at, version) in listed.iter().enumerate() {
            if !version["schema"]["openAPIV3Schema"].is_object() {
                causes.push(Cause::required(
                    format!("spec.versions[{at}].schema.openAPIV3Schema"),
                    "schemas are required",
                ));
                continue;
            }
            check_subresources(version, at, &mut causes);
            check_columns(version, at, &mut causes);
            let name = version["name"].as_str().unwrap_or_default().to_owned();
            let served = Served(version["served"] == true);
            if let Some(lazy) = own.as_ref().and_then(|own| own.get(at)) {
                versions.push((name, served, Form::Bundled(lazy.clone())));
                continue;
            }
            match compile_version(spec, version) {
                Ok(compiled) => versions.push((name, served, Form::Compiled(Arc::new(compiled)))),
                Err(faults) => causes.extend(faults.into_iter().map(|mut fault| {
                    fault.field = fault.field.replacen("spec.validation", &format!("spec.versions[{at}].schema"), 1);
                    fault
                })),
            }
        }
        let stored = listed.iter().find(|version| version["storage"] == true);
        let stored_version = stored.and_then(|version| version["name"].as_str()).unwrap_or_default().to_owned();
        let found = CustomResource { group, names, namespaced: scope == "Namespaced", versions, stored_version };
        if causes.is_empty() { Ok(found) } else { Err(causes) }
    }

    /// API group.
    pub fn group(&self) -> &str {
        &self.group
    }
    /// Plural name.
    pub fn plural(&self) -> &str {
        &self.names.plural
    }
    /// Kind.
    pub fn kind(&self) -> &str {
        &self.names.kind
    }
    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.namespaced
    }
    /// The version in which objects are stored.
    pub fn stored_version(&self) -> &str {
        &self.stored_version
    }
    /// Resources to be served, one for each served version.
    pub fn resources(&self) -> impl Iterator<Item = Arc<Resource>> {
        self.versions.iter().filter(|(_, served, _)| served.0).map(|(name, _, version)| {
            let parts = CustomParts {
                group: self.group.clone(),
                version: name.clone(),
                plural: self.names.plural.clone(),
                singular: self.names.singular.clone(),
                kind: self.names.kind.clone(),
                list_kind: self.names.list_kind.clone(),
                short_names: self.names.short_names.clone(),
                categories: self.names.categories.clone(),
                namespaced: self.namespaced,
                status: version.has_status(),
                scale: version.has_scale(),
                stored_version: self.stored_version.clone(),
            };
            Arc::new(Resource::custom_version(&parts, version.custom()))
        })
    }

    /// Texts of the `Warning` headers that the writer of the definition gets: what is stored but has no effect.
    pub fn warnings(&self) -> Vec<String> {
        let told = self.versions.iter().filter_map(|(name, _, form)| match form {
            Form::Compiled(version) => version.expression_warning().map(|warning| format!("version {name}: {warning}")),
            Form::Bundled(_) => None,
        });
        told.collect()
    }

    /// `status.acceptedNames`: the names with the defaults filled in.
    pub fn accepted_names(&self) -> Value {
        let mut out = json!({
            "plural": self.names.plural, "singular": self.names.singular, "kind": self.names.kind, "listKind": self.names.list_kind,
        });
        if !self.names.short_names.is_empty() {
            out["shortNames"] = json!(self.names.short_names);
        }
        if !self.names.categories.is_empty() {
            out["categories"] = json!(self.names.categories);
        }
        out
    }

    /// The conditions that a definition gets, given what [`names_conflict`] found.
    pub fn conditions(conflict: Option<String>) -> Conditions {
        match conflict {
            None => Conditions {
                names_accepted: (true, "NoConflicts", "no conflicts found".to_owned()),
                established: (true, "InitialNamesAccepted", "the initial names have been accepted".to_owned()),
            },
            Some(message) => Conditions {
                names_accepted: (false, NAMES_CONFLICT, message),
                established: (false, "NotAccepted", "not all names are accepted".to_owned()),
            },
        }
    }
}

/// Whether another resource of the group has one of the names; the answer says which, for the `NamesAccepted` condition.
/// A bundled resource gives way to a definition of the same name.
pub fn names_conflict(registry: &Registry, custom: &CustomResource) -> Option<String> {
    let names = &custom.names;
    let others = registry.iter().filter(|r| r.group() == custom.group && r.plural() != names.plural);
    for other in others {
        for name in [&names.plural, &names.singular].into_iter().chain(&names.short_names) {
            if other.plural() == name || other.singular() == name || other.short_names().any(|short| short == name) {
                return Some(format!("{name:?} is already in use"));
            }
        }
        if other.kind() == names.kind || other.kind() == names.list_kind || other.list_kind() == names.list_kind {
            return Some(format!("{:?} is already in use", names.kind));
        }
    }
    let own = registry.resource(&custom.group, &custom.stored_version, &names.plural);
    let reserved = own.is_some_and(|resource| resource.is_kubernetes_own());
    reserved.then(|| format!("{:?} is already in use", names.plural))
}

fn names(object: &Value, causes: &mut Vec<Cause>) -> Names {
    let spec = &object["spec"];
    let text = |key: &str| spec["names"][key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| {
        let items = spec["names"][key].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let (plural, kind, group) = (text("plural"), text("kind"), spec["group"].as_str().unwrap_or_default());
    for (field, value) in [("spec.names.plural", &*plural), ("spec.names.kind", &kind), ("spec.group", group)] {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    for (field, value) in [("spec.names.plural", &plural), ("spec.names.kind", &kind.to_lowercase())] {
        if !value.is_empty() && !is_dns_label(value) {
            causes.push(Cause::invalid(field, &value.clone().into(), DNS_LABEL));
        }
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if !plural.is_empty() && !group.is_empty() && name != format!("{plural}.{group}") {
        causes.push(Cause::invalid("metadata.name", &name.into(), "must be spec.names.plural+\".\"+spec.group"));
    }
    if !group.is_empty() && !group.contains('.') {
        causes.push(Cause::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    let protected = [".k8s.io", ".kubernetes.io"].iter().any(|suffix| group.ends_with(suffix));
    if protected && object["metadata"]["annotations"][APPROVED].as_str().is_none_or(str::is_empty) {
        let detail = format!("protected groups must have approval annotation {APPROVED:?}");
        causes.push(Cause::required(format!("metadata.annotations[{APPROVED}]"), detail));
    }
    let or = |value: String, default: String| if value.is_empty() { default } else { value };
    Names {
        singular: or(text("singular"), kind.to_lowercase()),
        list_kind: or(text("listKind"), format!("{kind}List")),
        plural,
        kind,
        short_names: list("shortNames"),
        categories: list("categories"),
    }
}

/// Kubernetes' own groups are not for everyone to add to.
const APPROVED: &str = "api-approved.kubernetes.io";

const DNS_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, \
and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn is_dns_label(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.chars().all(ok)
}

fn check_conversion(spec: &Value, causes: &mut Vec<Cause>) {
    match spec["conversion"]["strategy"].as_str().unwrap_or("None") {
        "None" => {}
        other => {
            let mut cause = Cause::not_supported("spec.conversion.strategy", &other.into(), ["None"]);
            cause.message.push_str(": conversion webhooks are not supported");
            causes.push(cause);
        }
    }
}

fn check_versions(versions: &[Value], causes: &mut Vec<Cause>) {
    if versions.is_empty() {
        causes.push(Cause::required("spec.versions", "must specify at least one version"));
        return;
    }
    for (at, version) in versions.iter().enumerate() {
        let name = version["name"].as_str().unwrap_or_default();
        if !is_dns_label(name) {
            causes.push(Cause::invalid(format!("spec.versions[{at}].name"), &name.into(), DNS_LABEL));
        }
        if versions[..at].iter().any(|other| other["name"] == version["name"]) {
            causes.push(Cause::invalid("spec.versions", &name.into(), "must contain unique version names"));
        }
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        causes.push(Cause {
            message: "Invalid value: must have exactly one version marked as storage version".to_owned(),
            ..Cause::invalid("spec.versions", &Value::Null, "")
        });
    }
}

/// Why a definition cannot become another: what its stored objects hang on may not change.
pub fn update_faults(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let conditions = old["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let established = conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True");
    for (path, only_established) in
        [("/spec/group", false), ("/spec/names/plural", false), ("/spec/scope", true), ("/spec/names/kind", true)]
    {
        let (new, old) = (new.pointer(path).unwrap_or(&Value::Null), old.pointer(path).unwrap_or(&Value::Null));
        if new != old && (established || !only_established) {
            causes.push(Cause::invalid(path[1..].replace('/', "."), new, "field is immutable"));
        }
    }
    let versions = new["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (at, stored) in old["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let name = stored.as_str().unwrap_or_default();
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage \
                 migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            causes.push(Cause::invalid(format!("status.storedVersions[{at}]"), stored, detail));
        }
    }
    causes
}

fn check_columns(version: &Value, at: usize, causes: &mut Vec<Cause>) {
    const KINDS: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    let columns = version["additionalPrinterColumns"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (column, place) in columns.iter().zip(0..) {
        let place = format!("spec.versions[{at}].additionalPrinterColumns[{place}]");
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        if text("name").is_empty() {
            causes.push(Cause::required(format!("{place}.name"), ""));
        }
        if !KINDS.contains(&text("type")) {
            let detail = format!("must be one of {}", KINDS.join(","));
            causes.push(Cause::invalid(format!("{place}.type"), &text("type").into(), detail));
        }
        if text("jsonPath").is_empty() {
            causes.push(Cause::required(format!("{place}.JSONPath"), ""));
        } else if !text("jsonPath").starts_with('.') {
            causes.push(Cause::invalid(
                format!("{place}.JSONPath"),
                &column["jsonPath"],
                "must be a simple json path starting with .",
            ));
        }
    }
}

fn check_subresources(version: &Value, at: usize, causes: &mut Vec<Cause>) {
    let Some(scale) = version["subresources"].get("scale").filter(|scale| !scale.is_null()) else { return };
    for (key, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let field = format!("spec.versions[{at}].subresources.scale.{key}");
        match scale[key].as_str().unwrap_or_default() {
            "" => causes.push(Cause::required(field, "")),
            path if !path.starts_with(prefix) || path.contains('[') => {
                let detail = format!("should be a json path under {}", prefix.trim_end_matches('.'));
                causes.push(Cause::invalid(field, &path.into(), detail));
            }
            _ => {}
        }
    }
}
