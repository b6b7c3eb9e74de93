//! DefaultStorageClass.

use crate::core::Core;
use serde_json::Value;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// A claim that names no class gets the default one; of several, the newest.
pub(super) fn choose(core: &Core, claim: &mut Value) {
    let named = !claim["spec"]["storageClassName"].is_null()
        || !claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].is_null();
    if named || claim["spec"].is_null() {
        return;
    }
    let classes = core.store.list("storage.k8s.io/storageclasses", None, None, None).items;
    let classes = classes.iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.record.bytes).ok());
    let default = classes
        .filter(|class| class["metadata"]["annotations"][DEFAULT] == "true")
        .max_by_key(|class| class["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
    if let Some(class) = default {
        claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
}
