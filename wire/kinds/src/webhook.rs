//! Webhook configurations: kept for the tools that bring them, and for the day when admission calls out.

use crate::behaviour::{Facts, Generation, Kind};
use crate::cause::{Causes, Path};
use crate::json::{child, each_object, existing, fill, fill_text, list, text};
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::{Value, json};

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "ValidatingWebhookConfiguration" => &Webhooks { kind: "ValidatingWebhookConfiguration" },
        "MutatingWebhookConfiguration" => &Webhooks { kind: "MutatingWebhookConfiguration" },
        _ => return None,
    })
}

struct Webhooks {
    kind: &'static str,
}

impl Kind for Webhooks {
    fn facts(&self) -> Facts {
        Facts::plain("admissionregistration.k8s.io", self.kind).counting(Generation::Content)
    }
    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let mutating = self.kind.starts_with("Mutating");
        for webhook in each_object(map, "webhooks") {
            fill_text(webhook, "failurePolicy", "Fail");
            fill_text(webhook, "matchPolicy", "Equivalent");
            fill(webhook, "namespaceSelector", json!({}));
            fill(webhook, "objectSelector", json!({}));
            fill(webhook, "timeoutSeconds", 10);
            if mutating {
                fill_text(webhook, "reinvocationPolicy", "Never");
            }
            if let Some(service) = child(webhook, "clientConfig").and_then(|config| existing(config, "service")) {
                fill(service, "port", 443);
            }
            for rule in each_object(webhook, "rules") {
                fill_text(rule, "scope", "*");
            }
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let path = Path::root("webhooks");
        for (index, webhook) in list(&object["webhooks"]).iter().enumerate() {
            let at = path.index(index);
            let name = text(&webhook["name"]);
            if name.is_empty() {
                causes.required(&at.child("name"), "");
            } else if name.split('.').count() < 3 {
                causes.invalid(
                    &at.child("name"),
                    name,
                    "should be a domain with at least three segments separated by dots",
                );
            }
            let config = &webhook["clientConfig"];
            match (config["url"].is_null(), config["service"].is_null()) {
                (false, true) | (true, false) => {}
                _ => causes.required(&at.child("clientConfig"), "exactly one of url or service is required"),
            }
            if list(&webhook["admissionReviewVersions"]).is_empty() {
                causes.required(&at.child("admissionReviewVersions"), "must specify one of v1, v1beta1");
            }
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::WEBHOOKS
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::webhooks_row(object, now)
    }
}
