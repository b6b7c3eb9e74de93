//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ControllerRevisions, and what came before them.

use crate::behaviour::{Context, Facts, Field, Generation, Kind, METADATA, SPEC};
use crate::cause::{Causes, Path};
use crate::json::{Members, child, each_object, existing, fill, fill_text, is_empty, members, same, text};
use crate::names::{self, NameRule};
use crate::pod::{Owner, check_template, defaults};
use crate::table::{self, Column, Row};
use crate::{meta, storage};
use model::Timestamp;
use serde_json::{Value, json};

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "Deployment" => &Deployment,
        "ReplicaSet" => &ReplicaSet,
        "StatefulSet" => &StatefulSet,
        "DaemonSet" => &DaemonSet,
        "ControllerRevision" => &ControllerRevision,
        "ReplicationController" => &ReplicationController,
        "PodTemplate" => &PodTemplate,
        _ => return None,
    })
}

fn spec_of(object: &mut Value) -> Option<&mut Members> {
    child(object.as_object_mut()?, "spec")
}

/// The selector that owns pods: there, not empty, well-formed.
fn check_selector(spec: &Value, what: &str, causes: &mut Causes) {
    let path = SPEC.child("selector");
    let selector = &spec["selector"];
    if selector.is_null() {
        // Required by its type, so that only the selection itself is found wanting for DaemonSets.
        if what != "daemonset" {
            causes.required(&path, "");
        }
        return;
    }
    meta::label_selector(selector, &path, causes);
    if is_empty(&selector["matchLabels"]) && is_empty(&selector["matchExpressions"]) {
        causes.invalid(&path, selector.clone(), format!("empty selector is invalid for {what}"));
    }
}

fn check_counts(spec: &Value, keys: &[&str], causes: &mut Causes) {
    for key in keys {
        causes.non_negative(&SPEC.child(key), &spec[*key]);
    }
}

/// A number of pods or a share of them, and its value as a share of 100 where 0 can be told.
fn check_amount(value: &Value, path: &Path<'_>, causes: &mut Causes) {
    match value {
        Value::String(text) => causes.invalid_each(path, text, names::percent(text)),
        Value::Number(_) => causes.non_negative(path, value),
        Value::Null => {}
        other => causes.invalid(path, other.clone(), "must be an integer or percentage (e.g '5%%')"),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        // What is no share counts as none; it is refused besides.
        Value::String(text) => !text.trim_end_matches('%').parse::<u64>().is_ok_and(|share| share > 0),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => true,
    }
}

fn over_all(value: &Value) -> bool {
    value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok()).is_some_and(|share| share > 100)
}

pub struct Deployment;

impl Kind for Deployment {
    fn facts(&self) -> Facts {
        Facts::reconciled("apps", "Deployment").counting(Generation::SpecAndAnnotations)
    }

    fn defaults(&self, object: &mut Value) {
        let Some(spec) = spec_of(object) else { return };
        fill(spec, "replicas", 1);
        if let Some(strategy) = child(spec, "strategy") {
            fill_text(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                fill(rolling, "maxUnavailable", "25%");
                fill(rolling, "maxSurge", "25%");
            }
        }
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        defaults::template(spec, "template");
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        check_counts(spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], causes);
        check_selector(spec, "deployment", causes);
        check_template(spec, &SPEC, Owner::Service("ReplicaSet"), causes);
        check_strategy(&spec["strategy"], &SPEC.child("strategy"), causes);
        if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64() {
            let path = SPEC.child("progressDeadlineSeconds");
            causes.non_negative(&path, &spec["progressDeadlineSeconds"]);
            if deadline <= spec["minReadySeconds"].as_i64().unwrap_or(0) {
                causes.invalid(&path, deadline, "must be greater than minReadySeconds");
            }
        }
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&SPEC.child("selector"), &new["spec"]["selector"], &old["spec"]["selector"]);
    }

    fn columns(&self) -> &'static [Column] {
        table::DEPLOYMENT
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::deployment_row(object, now)
    }
}

fn check_strategy(strategy: &Value, path: &Path<'_>, causes: &mut Causes) {
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "Recreate" => {
            if !rolling.is_null() {
                causes
                    .forbidden(&path.child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" if rolling.is_null() => {
            causes.required(&path.child("rollingUpdate"), "this should be defaulted and never be nil")
        }
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            check_amount(unavailable, &at.child("maxUnavailable"), causes);
            check_amount(surge, &at.child("maxSurge"), causes);
            if is_zero(unavailable) && is_zero(surge) {
                causes.invalid(&at.child("maxUnavailable"), unavailable.clone(), "may not be 0 when `maxSurge` is 0");
            }
            if over_all(unavailable) {
                causes.invalid(&at.child("maxUnavailable"), unavailable.clone(), "must not be greater than 100%");
            }
        }
        _ => causes.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

pub struct ReplicaSet;

impl Kind for ReplicaSet {
    fn facts(&self) -> Facts {
        Facts::reconciled("apps", "ReplicaSet")
    }
    fn defaults(&self, object: &mut Value) {
        let Some(spec) = spec_of(object) else { return };
        fill(spec, "replicas", 1);
        defaults::template(spec, "template");
    }
    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"replicas": 0}));
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        check_counts(spec, &["replicas", "minReadySeconds"], causes);
        check_selector(spec, "deployment", causes);
        check_template(spec, &SPEC, Owner::Service("ReplicaSet"), causes);
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&SPEC.child("selector"), &new["spec"]["selector"], &old["spec"]["selector"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::REPLICA_SET
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::replica_set_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        &[Field { path: "status.replicas", zero: "0" }]
    }
}

pub struct StatefulSet;

impl Kind for StatefulSet {
    fn facts(&self) -> Facts {
        Facts::reconciled("apps", "StatefulSet").named(NameRule::Label)
    }

    fn defaults(&self, object: &mut Value) {
        let Some(spec) = spec_of(object) else { return };
        fill_text(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = child(spec, "updateStrategy") {
            fill_text(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                fill(rolling, "partition", 0);
            }
        }
        if let Some(retention) = child(spec, "persistentVolumeClaimRetentionPolicy") {
            fill_text(retention, "whenDeleted", "Retain");
            fill_text(retention, "whenScaled", "Retain");
        }
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        for claim in each_object(spec, "volumeClaimTemplates") {
            fill_text(claim, "apiVersion", "v1");
            fill_text(claim, "kind", "PersistentVolumeClaim");
            storage::claim_defaults(claim);
        }
        defaults::template(spec, "template");
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"availableReplicas": 0, "replicas": 0}));
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        check_counts(spec, &["replicas", "minReadySeconds"], causes);
        match text(&spec["podManagementPolicy"]) {
            "" => causes.required(&SPEC.child("podManagementPolicy"), ""),
            "OrderedReady" | "Parallel" => {}
            other => {
                let path = SPEC.child("podManagementPolicy");
                causes.invalid(&path, other, "must be 'OrderedReady' or 'Parallel'");
            }
        }
        let strategy = &spec["updateStrategy"];
        let path = SPEC.child("updateStrategy");
        match text(&strategy["type"]) {
            "" => causes.required(&path, ""),
            "OnDelete" if !strategy["rollingUpdate"].is_null() => {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                causes.invalid(&path.child("rollingUpdate"), strategy["rollingUpdate"].clone(), detail);
            }
            "OnDelete" => {}
            "RollingUpdate" => {
                let at = path.child("rollingUpdate");
                causes.non_negative(&at.child("partition"), &strategy["rollingUpdate"]["partition"]);
                check_amount(&strategy["rollingUpdate"]["maxUnavailable"], &at.child("maxUnavailable"), causes);
            }
            _ => causes.invalid(&path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
        }
        check_selector(spec, "statefulset", causes);
        check_template(spec, &SPEC, Owner::Service("StatefulSet"), causes);
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        const FREE: [&str; 7] = [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ];
        let fixed = |spec: &Value| -> Value {
            let kept = members(spec).iter().filter(|(key, _)| !FREE.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
        };
        if !same(&fixed(&new["spec"]), &fixed(&old["spec"])) {
            causes.forbidden(
                &SPEC,
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::STATEFUL_SET
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::stateful_set_row(object, now)
    }
}

pub struct DaemonSet;

/// Counts the versions of a DaemonSet's template; old clients read it from this annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn set_template_generation(object: &mut Members, number: i64) {
    if let Some(annotations) = child(object, "metadata").and_then(|meta| child(meta, "annotations")) {
        annotations.insert(TEMPLATE_GENERATION.into(), Value::from(number.to_string()));
    }
}

impl Kind for DaemonSet {
    fn facts(&self) -> Facts {
        Facts::reconciled("apps", "DaemonSet")
    }

    fn defaults(&self, object: &mut Value) {
        let Some(spec) = spec_of(object) else { return };
        if let Some(strategy) = child(spec, "updateStrategy") {
            fill_text(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                fill(rolling, "maxUnavailable", 1);
                fill(rolling, "maxSurge", 0);
            }
        }
        fill(spec, "revisionHistoryLimit", 10);
        defaults::template(spec, "template");
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        set_template_generation(object, 1);
        let status = json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
        object.insert("status".into(), status);
    }

    fn adjust_update(&self, new: &mut Members, old: &Value, _context: &Context<'_>) {
        let before: i64 = text(&old["metadata"]["annotations"][TEMPLATE_GENERATION]).parse().unwrap_or(1);
        let template = new.get("spec").map_or(&Value::Null, |spec| &spec["template"]);
        let changed = !same(template, &old["spec"]["template"]);
        set_template_generation(new, before + i64::from(changed));
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        check_counts(spec, &["minReadySeconds", "revisionHistoryLimit"], causes);
        check_selector(spec, "daemonset", causes);
        check_template(spec, &SPEC, Owner::Service("DaemonSet"), causes);
        let strategy = &spec["updateStrategy"];
        let path = SPEC.child("updateStrategy");
        match text(&strategy["type"]) {
            "OnDelete" => {}
            "RollingUpdate" => {
                let at = path.child("rollingUpdate");
                let rolling = &strategy["rollingUpdate"];
                check_amount(&rolling["maxUnavailable"], &at.child("maxUnavailable"), causes);
                check_amount(&rolling["maxSurge"], &at.child("maxSurge"), causes);
                match (is_zero(&rolling["maxUnavailable"]), is_zero(&rolling["maxSurge"])) {
                    (false, false) => {
                        let detail = "may not be set when maxUnavailable is non-zero";
                        causes.invalid(&at.child("maxSurge"), rolling["maxSurge"].clone(), detail);
                    }
                    (true, true) => causes.required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
                    _ => {}
                }
            }
            _ => causes.not_supported(&path, strategy.clone(), &["RollingUpdate", "OnDelete"]),
        }
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&SPEC.child("selector"), &new["spec"]["selector"], &old["spec"]["selector"]);
    }

    fn columns(&self) -> &'static [Column] {
        table::DAEMON_SET
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::daemon_set_row(object, now)
    }
}

pub struct ControllerRevision;

impl Kind for ControllerRevision {
    fn facts(&self) -> Facts {
        Facts::plain("apps", "ControllerRevision")
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        if object["data"].is_null() {
            causes.required(&Path::root("data"), "data is mandatory");
        }
        causes.non_negative(&Path::root("revision"), &object["revision"]);
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&Path::root("data"), &new["data"], &old["data"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::CONTROLLER_REVISION
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::controller_revision_row(object, now)
    }
}

pub struct ReplicationController;

impl Kind for ReplicationController {
    fn facts(&self) -> Facts {
        Facts::reconciled("", "ReplicationController")
    }
    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let labels = map.get("spec").map_or(Value::Null, |spec| spec["template"]["metadata"]["labels"].clone());
        if let Some(spec) = child(map, "spec") {
            fill(spec, "replicas", 1);
            defaults::template(spec, "template");
            if !is_empty(&labels) && spec.get("selector").is_none_or(is_empty) {
                spec.insert("selector".into(), labels.clone());
            }
        }
        if let Some(meta) = child(map, "metadata")
            && !is_empty(&labels)
            && meta.get("labels").is_none_or(is_empty)
        {
            meta.insert("labels".into(), labels);
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        check_counts(spec, &["replicas", "minReadySeconds"], causes);
        if is_empty(&spec["selector"]) {
            causes.required(&SPEC.child("selector"), "");
        }
        let template = json!({"template": spec["template"], "selector": {"matchLabels": spec["selector"]}});
        check_template(&template, &SPEC, Owner::Service("ReplicationController"), causes);
    }
    fn columns(&self) -> &'static [Column] {
        table::REPLICA_SET
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        let mut row = table::replica_set_row(object, now);
        let selector: Vec<String> =
            members(&object["spec"]["selector"]).iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
        if let Some(last) = row.cells.last_mut() {
            *last = Value::from(if selector.is_empty() { "<none>".to_owned() } else { selector.join(",") });
        }
        row
    }
}

pub struct PodTemplate;

impl Kind for PodTemplate {
    fn facts(&self) -> Facts {
        Facts::plain("", "PodTemplate")
    }
    fn defaults(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            defaults::template(map, "template");
            if let Some(meta) = existing(map, "metadata") {
                meta.remove("generation");
            }
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        meta::labels(&object["template"]["metadata"]["labels"], &METADATA.child("labels"), causes);
    }
    fn columns(&self) -> &'static [Column] {
        table::POD_TEMPLATE
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::pod_template_row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        change(&mut object);
        Deployment.defaults(&mut object);
        object
    }

    fn found(object: &Value) -> Vec<String> {
        Deployment.validate_create(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn deployment_defaults() {
        let object = deployment(|_| {});
        let spec = &object["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!((&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]), (&json!(10), &json!(600)));
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert!(spec["template"]["spec"]["enableServiceLinks"].is_null(), "only pods get it");
        assert_eq!(found(&object), [""; 0]);
        let mut again = object.clone();
        Deployment.defaults(&mut again);
        assert_eq!(again, object);
    }

    #[test]
    fn deployment_faults() {
        assert_eq!(
            found(&deployment(|d| d["spec"]["template"]["metadata"]["labels"]["app"] = json!("x"))),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            found(&deployment(
                |d| d["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})
            )),
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"]
        );
        assert_eq!(
            found(&deployment(|d| d["spec"]["replicas"] = json!(-1))),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            found(&deployment(|d| d["spec"]["selector"] = json!({}))),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
        let old = deployment(|_| {});
        let new = deployment(|d| {
            d["spec"]["selector"]["matchLabels"]["b"] = json!("c");
            d["spec"]["template"]["metadata"]["labels"]["b"] = json!("c");
        });
        let causes: Vec<String> = Deployment.validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            causes,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"d\",\"b\":\"c\"}}: field is immutable"]
        );
    }

    #[test]
    fn stateful_set_allows_few_changes() {
        let mut old = json!({"metadata": {"name": "s"}, "spec": {"serviceName": "a", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1024Mi"}}}}]}});
        StatefulSet.defaults(&mut old);
        assert_eq!(old["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
        assert_eq!(old["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "1Gi");
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(3);
        assert_eq!(StatefulSet.validate_update(&new, &old), []);
        new["spec"]["serviceName"] = json!("b");
        let causes = StatefulSet.validate_update(&new, &old);
        assert!(
            causes[0]
                .to_string()
                .starts_with("spec: Forbidden: updates to statefulset spec for fields other than 'replicas'")
        );
    }

    #[test]
    fn daemon_set_counts_templates() {
        let context = Context { now: Timestamp::from_secs(0), uid: "u" };
        let mut old = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": []}}}});
        DaemonSet.prepare_create(&mut old, &context);
        assert_eq!(old["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        DaemonSet.prepare_update(&mut new, &old, &context);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
        assert_eq!(new["metadata"]["generation"], 2);
    }
}
