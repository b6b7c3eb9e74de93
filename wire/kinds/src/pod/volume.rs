//! Checks of a pod's volumes.

use crate::cause::{Causes, Path};
use crate::json::{list, members, text};
use crate::{names, quantity};
use serde_json::Value;

/// Checks `volumes` and returns the names of those that are in order.
pub fn check_all<'a>(spec: &'a Value, path: &Path<'_>, causes: &mut Causes) -> Vec<&'a str> {
    let mut sound: Vec<&str> = Vec::new();
    for (index, volume) in list(&spec["volumes"]).iter().enumerate() {
        let at = path.index(index);
        let before = causes.len();
        check_source(volume, &at, causes);
        let name = text(&volume["name"]);
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else {
            causes.invalid_each(&at.child("name"), name, names::label(name));
        }
        if sound.contains(&name) {
            causes.duplicate(&at.child("name"), name);
        }
        // As Kubernetes does: a volume that is refused is none that could be mounted.
        if causes.len() == before {
            sound.push(name);
        }
    }
    sound
}

fn check_source(volume: &Value, path: &Path<'_>, causes: &mut Causes) {
    let mut sources = members(volume).iter().filter(|(key, value)| *key != "name" && !value.is_null());
    let Some((kind, source)) = sources.next() else {
        causes.required(path, "must specify a volume type");
        return;
    };
    for (second, _) in sources {
        causes.forbidden(&path.child(second), "may not specify more than 1 volume type");
    }
    let at = path.child(kind);
    let required = |key: &'static str, causes: &mut Causes| {
        if text(&source[key]).is_empty() {
            causes.required(&at.child(key), "");
        }
    };
    match kind.as_str() {
        "emptyDir" => {
            let limit = text(&source["sizeLimit"]);
            if !limit.is_empty() && (!quantity::is_valid(limit) || limit.starts_with('-')) {
                causes.forbidden(&at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => {
            required("path", causes);
            check_backsteps(text(&source["path"]), &at.child("path"), causes);
            let known =
                ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
            causes.one_of(&at.child("type"), text(&source["type"]), &known);
        }
        "secret" => {
            required("secretName", causes);
            check_mode(&source["defaultMode"], &at.child("defaultMode"), causes);
            check_items(&source["items"], &at.child("items"), causes);
        }
        "configMap" => {
            required("name", causes);
            check_mode(&source["defaultMode"], &at.child("defaultMode"), causes);
            check_items(&source["items"], &at.child("items"), causes);
        }
        "downwardAPI" => check_downward(source, &at, causes),
        "persistentVolumeClaim" => required("claimName", causes),
        "projected" => check_projected(source, &at, causes),
        "nfs" => {
            required("server", causes);
            required("path", causes);
            if !text(&source["path"]).starts_with('/') && !text(&source["path"]).is_empty() {
                causes.invalid(&at.child("path"), text(&source["path"]), "must be an absolute path");
            }
        }
        "csi" => required("driver", causes),
        _ => {}
    }
}

fn check_mode(mode: &Value, path: &Path<'_>, causes: &mut Causes) {
    if let Some(mode) = mode.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        causes.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn check_items(items: &Value, path: &Path<'_>, causes: &mut Causes) {
    for (index, item) in list(items).iter().enumerate() {
        let at = path.index(index);
        if text(&item["key"]).is_empty() {
            causes.required(&at.child("key"), "");
        }
        if text(&item["path"]).is_empty() {
            causes.required(&at.child("path"), "");
        }
        check_local_path(text(&item["path"]), &at.child("path"), causes);
        check_mode(&item["mode"], &at.child("mode"), causes);
    }
}

fn check_downward(source: &Value, path: &Path<'_>, causes: &mut Causes) {
    check_mode(&source["defaultMode"], &path.child("defaultMode"), causes);
    for item in list(&source["items"]) {
        if text(&item["path"]).is_empty() {
            causes.required(&path.child("path"), "");
        }
        check_local_path(text(&item["path"]), &path.child("path"), causes);
        if item["fieldRef"].is_null() && item["resourceFieldRef"].is_null() {
            causes.required(path, "one of fieldRef and resourceFieldRef is required");
        }
    }
}

fn check_projected(source: &Value, path: &Path<'_>, causes: &mut Causes) {
    check_mode(&source["defaultMode"], &path.child("defaultMode"), causes);
    for (index, entry) in list(&source["sources"]).iter().enumerate() {
        let sources = path.child("sources");
        let at = sources.index(index);
        let kinds: Vec<&str> =
            members(entry).iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str()).collect();
        match kinds.as_slice() {
            [] | [_] => {}
            [_, second, ..] => {
                causes.forbidden(&at.child(second), "may not specify more than 1 volume type per source")
            }
        }
        for key in ["secret", "configMap"] {
            if !entry[key].is_null() {
                if text(&entry[key]["name"]).is_empty() {
                    causes.required(&at.child(key).child("name"), "");
                }
                check_items(&entry[key]["items"], &at.child(key).child("items"), causes);
            }
        }
        if !entry["downwardAPI"].is_null() {
            check_downward(&entry["downwardAPI"], &at.child("downwardAPI"), causes);
        }
        let token = &entry["serviceAccountToken"];
        if !token.is_null() {
            let token_path = at.child("serviceAccountToken");
            if token["expirationSeconds"].as_i64().is_some_and(|s| s < 600) {
                let seconds = token["expirationSeconds"].clone();
                causes.invalid(
                    &token_path.child("expirationSeconds"),
                    seconds,
                    "may not specify a duration less than 10 minutes",
                );
            }
            // The whole projection is named for a token's path.
            if text(&token["path"]).is_empty() {
                causes.required(&path.child("path"), "");
            } else {
                check_local_path(text(&token["path"]), &path.child("path"), causes);
            }
        }
    }
}

/// A path that stays inside the volume.
fn check_local_path(local: &str, path: &Path<'_>, causes: &mut Causes) {
    if local.starts_with('/') {
        causes.invalid(path, local, "must be a relative path");
    }
    check_backsteps(local, path, causes);
    if local.starts_with("..") && !local.starts_with("../") && local != ".." {
        causes.invalid(path, local, "must not start with '..'");
    }
}

/// No element is `..`.
pub(super) fn check_backsteps(target: &str, path: &Path<'_>, causes: &mut Causes) {
    if target.split('/').any(|part| part == "..") {
        causes.invalid(path, target, "must not contain '..'");
    }
}
