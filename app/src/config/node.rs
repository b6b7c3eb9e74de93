//! Labels and taints that a node registers with, in the words of the kubelet's flags.

use super::ConfigError;

/// Key, value, effect.
pub type Taint = (String, String, String);

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Reads `topology.kubernetes.io/zone=a,disk=fast`.
///
/// # Errors
/// A part that is no label, and why.
pub fn labels(text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    parts(text).map(|part| pair("node-labels", part)).collect()
}

/// Reads `dedicated=batch:NoSchedule,gpu:NoExecute`.
///
/// # Errors
/// A part that is no taint, and why.
pub fn taints(text: &str) -> Result<Vec<Taint>, ConfigError> {
    parts(text).map(taint).collect()
}

/// What [`labels`] reads.
pub fn labels_text(labels: &[(String, String)]) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What [`taints`] reads.
pub fn taints_text(taints: &[Taint]) -> String {
    taints.iter().map(|(key, value, effect)| format!("{key}={value}:{effect}")).collect::<Vec<_>>().join(",")
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn taint(part: &str) -> Result<Taint, ConfigError> {
    let (label, effect) = part.rsplit_once(':').unwrap_or((part, ""));
    if !EFFECTS.contains(&effect) {
        return Err(fault(
            "node-taints",
            part,
            &format!("{effect:?} is no effect"),
            "key=value:NoSchedule, PreferNoSchedule or NoExecute",
        ));
    }
    let (key, value) = pair("node-taints", label)?;
    Ok((key, value, effect.to_owned()))
}

fn pair(place: &'static str, part: &str) -> Result<(String, String), ConfigError> {
    let (key, value) = part.split_once('=').unwrap_or((part, ""));
    let faults: Vec<String> =
        kinds::names::qualified(key).into_iter().chain(kinds::names::label_value(value)).collect();
    match faults.first() {
        None => Ok((key.to_owned(), value.to_owned())),
        Some(why) => Err(fault(place, part, why, "key=value, several parted by commas")),
    }
}

fn fault(place: &'static str, part: &str, why: &str, mend: &str) -> ConfigError {
    ConfigError::Value { place, what: format!("{part:?}: {why}"), mend: mend.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let text = "topology.kubernetes.io/zone=a,node-role.kubernetes.io/control-plane=";
        assert_eq!(labels_text(&labels(text).unwrap()), text);
        assert_eq!(labels("a, b=c,").unwrap(), [("a".into(), String::new()), ("b".into(), "c".into())]);
        let text = "dedicated=batch:NoSchedule,gpu=:NoExecute";
        assert_eq!(taints_text(&taints(text).unwrap()), text);
        assert_eq!(taints("gpu:NoExecute").unwrap(), [("gpu".into(), String::new(), "NoExecute".into())]);
    }

    #[test]
    fn a_mistake_is_named() {
        for (text, expect) in [("=a", "\"=a\""), ("a/b/c=d", "\"a/b/c=d\""), ("a=b c", "\"a=b c\"")] {
            let error = labels(text).unwrap_err().to_string();
            assert!(error.contains(expect) && error.contains("mend: key=value"), "{error}");
        }
        for (text, expect) in
            [("a=b", "\"\" is no effect"), ("a=b:Never", "\"Never\" is no effect"), ("=:NoExecute", "\"=\"")]
        {
            let error = taints(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
}
