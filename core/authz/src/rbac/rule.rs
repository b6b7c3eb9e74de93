use super::Target;
use std::sync::Arc;

/// A PolicyRule. Either `resources` or `non_resource_urls` is filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<Arc<str>>,
    /// API groups, `*` for all, `""` for core.
    pub api_groups: Vec<Arc<str>>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<Arc<str>>,
    /// Only these objects; empty for all.
    pub resource_names: Vec<Arc<str>>,
    /// `/healthz`, `/healthz/*`, `*`.
    pub non_resource_urls: Vec<Arc<str>>,
}

impl Rule {
    /// Whether the rule grants `verb` on `target`.
    pub fn allows(&self, verb: &str, target: Target<'_>) -> bool {
        if !has(&self.verbs, verb) {
            return false;
        }
        match target {
            Target::Path(path) => self.allows_path(path),
            Target::Resource { group, resource, subresource, name, .. } => {
                has(&self.api_groups, group)
                    && self.allows_resource(resource, subresource)
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|only| &**only == name))
            }
        }
    }

    fn allows_path(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
            // The star is a wildcard only at the end, and matches the rest of the path, slashes and all.
            Some(prefix) => path.starts_with(prefix),
            None => &**url == path,
        })
    }

    fn allows_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|rule| resource_matches(rule, resource, subresource))
    }
}

/// Whether a rule's resource text covers a resource and subresource (`""`: none).
pub(super) fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        // `*/scale` is the one wildcard form with a subresource.
        Some((left, right)) => !subresource.is_empty() && right == subresource && (left == "*" || left == resource),
    }
}

/// Whether a list names `value` or everything.
pub(super) fn has(list: &[Arc<str>], value: &str) -> bool {
    list.iter().any(|entry| &**entry == "*" || &**entry == value)
}
