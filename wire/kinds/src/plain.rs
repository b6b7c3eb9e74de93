//! Kinds with little behaviour: leases, events, quotas, definitions of custom resources, certificate requests.

use crate::behaviour::{Facts, Field, Generation, Kind, METADATA, SPEC};
use crate::cause::{Causes, Path};
use crate::json::{Members, child, each_object, existing, fill, fill_text, list, members, text};
use crate::names::NameRule;
use crate::pod::{check_resources, check_tolerations, runtime_class};
use crate::quantity;
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::{Value, json};

pub fn find(group: &str, kind: &str) -> Option<&'static dyn Kind> {
    Some(match (group, kind) {
        ("coordination.k8s.io", "Lease") => &Lease,
        ("", "Event") => &Event { group: "" },
        ("events.k8s.io", "Event") => &Event { group: "events.k8s.io" },
        ("", "ResourceQuota") => &ResourceQuota,
        ("", "LimitRange") => &LimitRange,
        ("node.k8s.io", "RuntimeClass") => &RuntimeClass,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &CustomResourceDefinition,
        ("apiregistration.k8s.io", "APIService") => &ApiService,
        ("certificates.k8s.io", "CertificateSigningRequest") => &CertificateSigningRequest,
        _ => return None,
    })
}

struct Lease;

impl Kind for Lease {
    fn facts(&self) -> Facts {
        Facts::plain("coordination.k8s.io", "Lease")
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|s| *s <= 0) {
            causes.invalid(&SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        causes.non_negative(&SPEC.child("leaseTransitions"), &spec["leaseTransitions"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::LEASE
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::lease_row(object, now)
    }
}

struct Event {
    group: &'static str,
}

impl Kind for Event {
    fn facts(&self) -> Facts {
        Facts::plain(self.group, "Event")
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let about = if self.group.is_empty() { "involvedObject" } else { "regarding" };
        let (of, own) = (text(&object[about]["namespace"]), text(&object["metadata"]["namespace"]));
        // Events about what has no namespace live in `default`.
        let fits = if of.is_empty() { own == "default" || own == "kube-system" || own.is_empty() } else { of == own };
        if !fits {
            let path = Path::root(about);
            causes.invalid(&path.child("namespace"), of, "does not match event.namespace");
        }
        for key in ["message", "note"] {
            if text(&object[key]).len() > 64 * 1024 {
                causes.too_long(&Path::root(key), 64 * 1024);
            }
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::EVENT
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::event_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        const CORE: &[Field] = &[
            Field::text("involvedObject.kind"),
            Field::text("involvedObject.namespace"),
            Field::text("involvedObject.name"),
            Field::text("involvedObject.uid"),
            Field::text("involvedObject.apiVersion"),
            Field::text("involvedObject.resourceVersion"),
            Field::text("involvedObject.fieldPath"),
            Field::text("reason"),
            Field::text("reportingComponent"),
            Field::text("source.component"),
            Field::text("type"),
        ];
        const NEW: &[Field] = &[
            Field::text("regarding.kind"),
            Field::text("regarding.namespace"),
            Field::text("regarding.name"),
            Field::text("regarding.uid"),
            Field::text("regarding.apiVersion"),
            Field::text("regarding.resourceVersion"),
            Field::text("regarding.fieldPath"),
            Field::text("reason"),
            Field::text("reportingController"),
            Field::text("type"),
        ];
        if self.group.is_empty() { CORE } else { NEW }
    }
    fn field<'a>(&self, object: &'a Value, path: &str) -> Option<std::borrow::Cow<'a, str>> {
        let meta = &object["metadata"];
        match path {
            "metadata.name" => return Some(text(&meta["name"]).into()),
            "metadata.namespace" => return Some(text(&meta["namespace"]).into()),
            "source" => {
                let component = text(&object["source"]["component"]);
                let reporter = text(&object["reportingComponent"]);
                return Some(if component.is_empty() { reporter } else { component }.into());
            }
            _ => {}
        }
        self.fields().iter().find(|field| field.path == path)?;
        Some(text(path.split('.').fold(object, |value, key| &value[key])).into())
    }
}

struct ResourceQuota;

impl Kind for ResourceQuota {
    fn facts(&self) -> Facts {
        Facts::plain("", "ResourceQuota").with_status()
    }
    fn defaults(&self, object: &mut Value) {
        if let Some(spec) = object.as_object_mut().and_then(|map| child(map, "spec")) {
            quantity::canonicalise_list(spec, "hard");
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let hard = SPEC.child("hard");
        for (name, amount) in members(&object["spec"]["hard"]) {
            if !quantity::is_valid(text(amount)) {
                causes.invalid(&hard.key(name), amount.clone(), model::quantity::ParseQuantityError);
            }
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::RESOURCE_QUOTA
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::resource_quota_row(object, now)
    }
}

struct LimitRange;

impl Kind for LimitRange {
    fn facts(&self) -> Facts {
        Facts::plain("", "LimitRange")
    }
    fn defaults(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|map| child(map, "spec")) else { return };
        for item in each_object(spec, "limits") {
            for key in ["max", "min", "default", "defaultRequest"] {
                quantity::canonicalise_list(item, key);
            }
            if item.get("type").is_some_and(|kind| kind == "Container") {
                // Each falls back on the next broader one.
                for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                    inherit(item, target, source);
                }
            }
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::NAME_AND_CREATED_AT
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::created_at_row(object, now)
    }
}

fn inherit(item: &mut Members, target: &str, source: &str) {
    let Some(from) = item.get(source).and_then(Value::as_object).cloned() else { return };
    if let Some(to) = child(item, target) {
        for (key, value) in from {
            to.entry(key).or_insert(value);
        }
    }
}

struct RuntimeClass;

impl Kind for RuntimeClass {
    fn facts(&self) -> Facts {
        Facts::plain("node.k8s.io", "RuntimeClass")
    }
    fn defaults(&self, object: &mut Value) {
        if let Some(overhead) = object.as_object_mut().and_then(|class| existing(class, "overhead")) {
            quantity::canonicalise_list(overhead, "podFixed");
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let handler = text(&object["handler"]);
        match handler {
            "" => causes.required(&Path::root("handler"), ""),
            handler => causes.invalid_each(&Path::root("handler"), handler, crate::names::label(handler)),
        }
        let overhead = &object["overhead"];
        if !overhead.is_null() {
            let limits = runtime_class::as_limits(&overhead["podFixed"]);
            check_resources(&limits, &Path::root("overhead"), causes);
        }
        let (scheduling, path) = (&object["scheduling"], Path::root("scheduling"));
        crate::meta::labels(&scheduling["nodeSelector"], &path.child("nodeSelector"), causes);
        let tolerations = path.child("tolerations");
        check_tolerations(scheduling, &tolerations, causes);
        let all = list(&scheduling["tolerations"]);
        for at in runtime_class::repeated(all) {
            causes.duplicate(&tolerations.index(at), all[at].clone());
        }
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&Path::root("handler"), &new["handler"], &old["handler"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::RUNTIME_CLASS
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::runtime_class_row(object, now)
    }
}

/// Definitions of custom resources. Their schemas are compiled and checked by `kube::crd`.
struct CustomResourceDefinition;

impl Kind for CustomResourceDefinition {
    fn facts(&self) -> Facts {
        Facts::reconciled("apiextensions.k8s.io", "CustomResourceDefinition")
    }

    fn defaults(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|map| child(map, "spec")) else { return };
        if let Some(names) = child(spec, "names") {
            let kind = names.get("kind").map_or("", text).to_owned();
            if !kind.is_empty() {
                fill_text(names, "singular", &kind.to_lowercase());
                fill_text(names, "listKind", &format!("{kind}List"));
            }
        }
        fill(spec, "conversion", json!({"strategy": "None"}));
    }

    fn adjust_create(&self, object: &mut Members, _context: &crate::behaviour::Context<'_>) {
        let stored = stored_versions(object);
        object.insert("status".into(), json!({"storedVersions": stored}));
    }

    fn adjust_update(&self, new: &mut Members, _old: &Value, _context: &crate::behaviour::Context<'_>) {
        // A version that ever was stored is listed until someone has migrated the objects.
        let stored = stored_versions(new);
        if let Some(versions) =
            child(new, "status").map(|status| status.entry("storedVersions").or_insert_with(|| json!([])))
            && let Some(versions) = versions.as_array_mut()
        {
            versions.extend(stored.into_iter().map(Value::from).filter(|v| !versions.contains(v)).collect::<Vec<_>>());
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
        let name = text(&object["metadata"]["name"]);
        if name != expected {
            causes.invalid(&METADATA.child("name"), name, "must be spec.names.plural+\".\"+spec.group");
        }
        if text(&spec["group"]).is_empty() {
            causes.required(&SPEC.child("group"), "");
        }
        for key in ["plural", "kind"] {
            if text(&spec["names"][key]).is_empty() {
                causes.required(&SPEC.child("names").child(key), "");
            }
        }
        causes.one_of(&SPEC.child("scope"), text(&spec["scope"]), &["Cluster", "Namespaced"]);
        let versions = list(&spec["versions"]);
        let path = SPEC.child("versions");
        if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
            causes.invalid(&path, spec["versions"].clone(), "must have exactly one version marked as storage version");
        }
        for (index, version) in versions.iter().enumerate() {
            if version["schema"]["openAPIV3Schema"].is_null() {
                causes.required(&path.index(index).child("schema").child("openAPIV3Schema"), "schemas are required");
            }
        }
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        for (path, key) in [(SPEC.child("group"), "group"), (SPEC.child("scope"), "scope")] {
            causes.immutable(&path, &new["spec"][key], &old["spec"][key]);
        }
        let names = SPEC.child("names");
        for key in ["kind", "plural"] {
            causes.immutable(&names.child(key), &new["spec"]["names"][key], &old["spec"]["names"][key]);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::NAME_AND_CREATED_AT
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::created_at_row(object, now)
    }
}

fn stored_versions(object: &Members) -> Vec<String> {
    let versions = object.get("spec").map_or(&Value::Null, |spec| &spec["versions"]);
    list(versions)
        .iter()
        .filter(|version| version["storage"] == true)
        .map(|version| text(&version["name"]).to_owned())
        .collect()
}

struct ApiService;

impl Kind for ApiService {
    fn facts(&self) -> Facts {
        Facts::plain("apiregistration.k8s.io", "APIService").with_status()
    }
    fn columns(&self) -> &'static [Column] {
        table::API_SERVICE
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::api_service_row(object, now)
    }
}

struct CertificateSigningRequest;

impl Kind for CertificateSigningRequest {
    fn facts(&self) -> Facts {
        Facts::plain("certificates.k8s.io", "CertificateSigningRequest")
            .named(NameRule::Subdomain)
            .counting(Generation::None)
            .with_status()
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&SPEC, &new["spec"], &old["spec"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::SIGNING_REQUEST
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::signing_request_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        const { &[Field::text("spec.signerName")] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Context;

    #[test]
    fn definitions() {
        let context = Context { now: Timestamp::from_secs(0), uid: "u" };
        let mut object = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        CustomResourceDefinition.defaults(&mut object);
        CustomResourceDefinition.prepare_create(&mut object, &context);
        assert_eq!(
            object["spec"]["names"],
            json!({"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"})
        );
        assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(CustomResourceDefinition.validate_create(&object), []);
        let mut new = object.clone();
        new["spec"]["versions"] = json!([{"name": "v2", "storage": true, "schema": {"openAPIV3Schema": {}}}]);
        CustomResourceDefinition.prepare_update(&mut new, &object, &context);
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    }

    #[test]
    fn limits_inherit() {
        let mut object = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2000m"}}]}});
        LimitRange.defaults(&mut object);
        assert_eq!(
            object["spec"]["limits"][0],
            json!({"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2"}})
        );
    }

    #[test]
    fn events_are_found_by_what_they_are_about() {
        let event = json!({"involvedObject": {"name": "p"}, "source": {"component": "kubelet"}, "type": "Normal"});
        let kind = Event { group: "" };
        assert_eq!(kind.field(&event, "involvedObject.name").as_deref(), Some("p"));
        assert_eq!(kind.field(&event, "source").as_deref(), Some("kubelet"));
        assert_eq!(kind.field(&event, "reason").as_deref(), Some(""));
        assert_eq!(kind.field(&event, "message"), None);
    }
}
