//! ConfigMaps, Secrets, ServiceAccounts.

use crate::behaviour::{Facts, Field, Kind, METADATA};
use crate::cause::{Causes, Path};
use crate::json::{child, fill_text, members, same, text};
use crate::names;
use crate::table::{self, Column, Row};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::Timestamp;
use serde_json::Value;

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "ConfigMap" => &ConfigMap,
        "Secret" => &Secret,
        "ServiceAccount" => &ServiceAccount,
        _ => return None,
    })
}

/// What the values of a ConfigMap or Secret may add up to.
const SIZE_LIMIT_BYTES: usize = 1024 * 1024;

const DATA: Path<'static> = Path::root("data");

fn check_immutable(new: &Value, old: &Value, keys: &[&'static str], causes: &mut Causes) {
    if old["immutable"] != true {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        causes.forbidden(&Path::root("immutable"), detail);
    }
    for key in keys {
        if !same(&new[*key], &old[*key]) {
            causes.forbidden(&Path::root(key), detail);
        }
    }
}

pub struct ConfigMap;

impl Kind for ConfigMap {
    fn facts(&self) -> Facts {
        Facts::plain("", "ConfigMap")
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let mut size = 0;
        for (key, value) in members(&object["data"]) {
            causes.invalid_each(&DATA.key(key), key, names::config_key(key));
            if !object["binaryData"][key].is_null() {
                causes.invalid(&DATA.key(key), key.as_str(), "duplicate of key present in binaryData");
            }
            size += text(value).len();
        }
        for (key, value) in members(&object["binaryData"]) {
            let path = Path::root("binaryData");
            causes.invalid_each(&path.key(key), key, names::config_key(key));
            size += text(value).len() / 4 * 3;
        }
        if size > SIZE_LIMIT_BYTES {
            causes.too_long(&Path::root(""), SIZE_LIMIT_BYTES);
        }
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        check_immutable(new, old, &["data", "binaryData"], causes);
    }
    fn columns(&self) -> &'static [Column] {
        table::CONFIG_MAP
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::config_map_row(object, now)
    }
}

pub struct Secret;

impl Kind for Secret {
    fn facts(&self) -> Facts {
        Facts::plain("", "Secret")
    }

    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        fill_text(map, "type", "Opaque");
        // `stringData` is for writing only: its values win over those of `data` and are never shown.
        let Some(Value::Object(plain)) = map.remove("stringData") else { return };
        if let Some(data) = child(map, "data") {
            for (key, value) in plain {
                data.insert(key, Value::from(STANDARD.encode(text(&value))));
            }
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let mut size = 0;
        for (key, value) in members(&object["data"]) {
            causes.invalid_each(&DATA.key(key), key, names::config_key(key));
            size += text(value).len() / 4 * 3;
        }
        if size > SIZE_LIMIT_BYTES {
            causes.too_long(&DATA, SIZE_LIMIT_BYTES);
        }
        let data = &object["data"];
        let need = |key: &str, causes: &mut Causes| {
            if data[key].is_null() {
                causes.required(&DATA.key(key), "");
            }
        };
        match text(&object["type"]) {
            "kubernetes.io/service-account-token" => {
                let account = "kubernetes.io/service-account.name";
                if text(&object["metadata"]["annotations"][account]).is_empty() {
                    causes.required(&METADATA.child("annotations").key(account), "");
                }
            }
            "kubernetes.io/dockercfg" => check_json(data, ".dockercfg", causes),
            "kubernetes.io/dockerconfigjson" => check_json(data, ".dockerconfigjson", causes),
            "kubernetes.io/basic-auth" if data["username"].is_null() && data["password"].is_null() => {
                need("username", causes);
                need("password", causes);
            }
            "kubernetes.io/ssh-auth" if text(&data["ssh-privatekey"]).is_empty() => {
                causes.required(&DATA.key("ssh-privatekey"), "");
            }
            "kubernetes.io/tls" => {
                need("tls.crt", causes);
                need("tls.key", causes);
            }
            _ => {}
        }
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&Path::root("type"), &new["type"], &old["type"]);
        check_immutable(new, old, &["data"], causes);
    }
    fn columns(&self) -> &'static [Column] {
        table::SECRET
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::secret_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        const { &[Field::text("type")] }
    }
}

fn check_json(data: &Value, key: &str, causes: &mut Causes) {
    if data[key].is_null() {
        causes.required(&DATA.key(key), "");
        return;
    }
    let readable = STANDARD
        .decode(text(&data[key]))
        .is_ok_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok());
    if !readable {
        causes.invalid(&DATA.key(key), "<secret contents redacted>", "invalid character in a JSON document");
    }
}

pub struct ServiceAccount;

impl Kind for ServiceAccount {
    fn facts(&self) -> Facts {
        Facts::plain("", "ServiceAccount")
    }
    fn columns(&self) -> &'static [Column] {
        table::SERVICE_ACCOUNT
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::service_account_row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(causes: Vec<kube::Cause>) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        Secret.defaults(&mut secret);
        assert_eq!(secret, json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "eQ==", "b": "eg=="}}));
        assert_eq!(texts(Secret.validate_create(&secret)), [""; 0]);
    }

    #[test]
    fn typed_secrets_need_their_keys() {
        let secret = |kind: &str, data: Value| {
            texts(Secret.validate_create(&json!({"metadata": {"name": "s"}, "type": kind, "data": data})))
        };
        assert_eq!(
            secret("kubernetes.io/tls", json!({})),
            ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
        );
        assert_eq!(secret("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "e30="})), [""; 0]);
        assert_eq!(secret("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "e30"})).len(), 1);
        assert_eq!(secret("Opaque", json!({"a/b": ""})).len(), 1);
    }

    #[test]
    fn immutable_means_immutable() {
        let old = json!({"metadata": {"name": "c", "uid": "1"}, "immutable": true, "data": {"a": "1"}});
        let mut new = old.clone();
        new["data"]["a"] = json!("2");
        assert_eq!(
            texts(ConfigMap.validate_update(&new, &old)),
            ["data: Forbidden: field is immutable when `immutable` is set"]
        );
        let retyped = |kind: &str| json!({"metadata": {"name": "s", "uid": "1"}, "type": kind});
        assert_eq!(
            texts(Secret.validate_update(&retyped("b"), &retyped("a"))),
            ["type: Invalid value: \"b\": field is immutable"]
        );
    }

    #[test]
    fn size_is_limited() {
        let object = json!({"metadata": {"name": "c"}, "data": {"a": "x".repeat(SIZE_LIMIT_BYTES + 1)}});
        assert_eq!(texts(ConfigMap.validate_create(&object)), ["Too long: may not be more than 1048576 bytes"]);
    }
}
