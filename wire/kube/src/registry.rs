//! Which resources exist: Kubernetes' own, those bundled (Gateway API, Istio) and those that CustomResourceDefinitions add.
//!
//! A [`Registry`] is a snapshot: the server keeps one behind an `Arc`, makes the next with [`Registry::with_custom`] or
//! [`Registry::without`] and swaps it in. Resources are shared between snapshots, so that is cheap.

mod builtin;
pub(crate) mod bundled;

use crate::crd::{CustomResource, CustomVersion};
use crate::schema::table::Text;
use crate::schema::{Schema, builtin as tables};
use std::borrow::Cow;
use std::sync::Arc;

/// Verbs of a resource, in discovery's order.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One resource in one version.
#[derive(Debug)]
pub struct Resource {
    group: Text,
    version: Text,
    plural: Text,
    singular: Text,
    kind: Text,
    list_kind: Text,
    short_names: Vec<Text>,
    categories: Vec<Text>,
    namespaced: bool,
    verbs: &'static [&'static str],
    subresources: Vec<Subresource>,
    stored: Stored,
    form: Form,
}

/// A path below an object: `status`, `scale`, `log`, ...
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Last part of the path.
    pub name: &'static str,
    /// Group of the kind that it takes and gives; it need not be the parent's.
    pub group: Text,
    /// Version of that kind.
    pub version: Text,
    /// That kind.
    pub kind: Text,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// Where and in which version objects of a resource are kept. Two resources may share one place: core and `events.k8s.io`
/// Events, `v1` and `v2` of HorizontalPodAutoscaler. `crate::convert` goes between their versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// `pods`, `apps/deployments`: the store's resource key.
    pub key: Text,
    /// Group of the stored form.
    pub group: Text,
    /// Version of the stored form.
    pub version: Text,
}

/// Where the schema comes from.
#[derive(Debug)]
enum Form {
    /// A type of the compiled-in Kubernetes table.
    BuiltIn(&'static str),
    /// A version of a compiled-in custom resource, read when it is first used.
    Bundled(bundled::Lazy),
    /// A version of a CustomResourceDefinition of this cluster.
    Custom(Arc<CustomVersion>),
}

impl Resource {
    /// API group; empty for core.
    pub fn group(&self) -> &str {
        &self.group
    }
    /// Version.
    pub fn version(&self) -> &str {
        &self.version
    }
    /// Plural name, as in paths.
    pub fn plural(&self) -> &str {
        &self.plural
    }
    /// Singular name.
    pub fn singular(&self) -> &str {
        &self.singular
    }
    /// Kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }
    /// Kind of a list.
    pub fn list_kind(&self) -> &str {
        &self.list_kind
    }
    /// Short names (`po`).
    pub fn short_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.short_names.iter().map(AsRef::as_ref)
    }
    /// Categories (`all`).
    pub fn categories(&self) -> impl ExactSizeIterator<Item = &str> {
        self.categories.iter().map(AsRef::as_ref)
    }
    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.namespaced
    }
    /// Verbs that are served.
    pub fn verbs(&self) -> &'static [&'static str] {
        self.verbs
    }
    /// Whether a verb is served.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
    /// Subresources, sorted by name.
    pub fn subresources(&self) -> &[Subresource] {
        &self.subresources
    }
    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
    /// Where objects are kept.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }
    /// `apps/v1`, or `v1` for core.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
    /// Form of the objects.
    pub fn schema(&self) -> Schema<'_> {
        match &self.form {
            Form::BuiltIn(name) => tables::schema(name).expect("a test looks every built-in type up"),
            Form::Bundled(lazy) => lazy.version().schema(),
            Form::Custom(version) => version.schema(),
        }
    }
    /// What a CustomResourceDefinition says about it (defaulting, validation, columns, scale paths); `None` for Kubernetes' own.
    pub fn custom(&self) -> Option<&CustomVersion> {
        match &self.form {
            Form::BuiltIn(_) => None,
            Form::Bundled(lazy) => Some(lazy.version()),
            Form::Custom(version) => Some(version),
        }
    }
    /// Whether it is one of Kubernetes' own, which no CustomResourceDefinition can replace.
    pub fn is_kubernetes_own(&self) -> bool {
        matches!(self.form, Form::BuiltIn(_))
    }
    /// Text of the `Warning` header that users of a deprecated version get.
    pub fn deprecation_warning(&self) -> Option<Cow<'_, str>> {
        match &self.form {
            Form::BuiltIn(_) => None,
            // Asked at every request: a list of nothing should not cost the schema.
            Form::Bundled(lazy) => lazy.deprecation_warning().map(Cow::Owned),
            Form::Custom(version) => version.deprecation_warning().map(Cow::Borrowed),
        }
    }
    /// Changes when the schema does, and is the same on every machine that has the same one.
    pub(crate) fn fingerprint(&self) -> u64 {
        match &self.form {
            Form::BuiltIn(_) => tables::fingerprint(),
            Form::Bundled(lazy) => lazy.fingerprint(),
            Form::Custom(version) => version.fingerprint,
        }
    }
    /// Whether it comes from a CustomResourceDefinition of this cluster rather than with the program.
    pub fn is_dynamic(&self) -> bool {
        matches!(self.form, Form::Custom(_))
    }
}

/// `apps/v1`, or `v1` for core.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits `apps/v1` into group and version; `v1` is core.
pub fn split_api_version(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("", text))
}

/// Versions and resources of one API group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Name; empty for core.
    pub name: Text,
    /// Versions, preferred first.
    pub versions: Vec<Version>,
}

/// Resources of one version of a group.
#[derive(Clone, Debug)]
pub struct Version {
    /// Name.
    pub name: Text,
    /// Resources, sorted by plural.
    pub resources: Vec<Arc<Resource>>,
}

/// A snapshot of everything that is served.
#[derive(Clone, Debug)]
pub struct Registry {
    groups: Vec<Group>,
}

impl Registry {
    /// Kubernetes' own resources and the bundled ones.
    pub fn builtin() -> Self {
        Registry::from_resources(builtin::resources().chain(bundled::resources()).map(Arc::new).collect())
    }

    fn from_resources(resources: Vec<Arc<Resource>>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for resource in resources {
            let at = groups.iter().position(|group| group.name == resource.group).unwrap_or_else(|| {
                groups.push(Group { name: resource.group.clone(), versions: Vec::new() });
                groups.len() - 1
            });
            let versions = &mut groups[at].versions;
            let at = versions.iter().position(|version| version.name == resource.version).unwrap_or_else(|| {
                versions.push(Version { name: resource.version.clone(), resources: Vec::new() });
                versions.len() - 1
            });
            versions[at].resources.push(resource);
        }
        for group in &mut groups {
            group.versions.sort_by_key(|version| std::cmp::Reverse(version_order(&version.name)));
            for version in &mut group.versions {
                version.resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            }
        }
        // Groups of custom resources come after Kubernetes' own, alphabetically, as the aggregator sorts them.
        groups.sort_by_key(|group| (builtin::group_rank(&group.name), group.name.clone()));
        Registry { groups }
    }

    /// The bundled definitions of a group as CustomResourceDefinition objects: who looks for those finds them. `annotations` say of
    /// which release they are.
    pub fn bundled_definitions(group: &str, annotations: &[(&str, &str)]) -> Vec<serde_json::Value> {
        bundled::objects(group, annotations)
    }

    /// The snapshot with a custom resource added, in place of one of the same name that was there (a bundled one included).
    #[must_use]
    pub fn with_custom(&self, custom: &CustomResource) -> Self {
        let kept = self.iter().filter(|r| r.group != custom.group() || r.plural != custom.plural()).cloned();
        Registry::from_resources(kept.chain(custom.resources()).collect())
    }

    /// The snapshot without a custom resource. A bundled resource that it replaced comes back.
    #[must_use]
    pub fn without(&self, group: &str, plural: &str) -> Self {
        let is_it = |r: &Resource| r.group == group && r.plural == plural;
        let kept = self.iter().filter(|r| !(is_it(r) && r.is_dynamic())).cloned();
        let returning = bundled::resources().filter(is_it).map(Arc::new);
        let mut resources: Vec<_> = kept.collect();
        if !resources.iter().any(|r| is_it(r)) {
            resources.extend(returning);
        }
        Registry::from_resources(resources)
    }

    /// All groups; core first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// A group by name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// All resources in the order of their groups, versions and plurals.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.groups.iter().flat_map(|group| &group.versions).flat_map(|version| &version.resources)
    }

    fn version(&self, group: &str, version: &str) -> &[Arc<Resource>] {
        let versions = self.group(group).map(|group| &group.versions[..]).unwrap_or_default();
        versions.iter().find(|found| found.name == version).map(|found| &found.resources[..]).unwrap_or_default()
    }

    /// The resource that a path names.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let resources = self.version(group, version);
        resources.binary_search_by(|resource| resource.plural().cmp(plural)).ok().map(|at| &resources[at])
    }

    /// The resource that an object's `apiVersion` and `kind` name.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.version(group, version).iter().find(|resource| resource.kind == kind)
    }

    /// The resource of a group in its preferred version.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        let versions = &self.group(group)?.versions;
        versions.iter().flat_map(|version| &version.resources).find(|resource| resource.plural == plural)
    }

    /// The resource in the version that its objects are stored in.
    pub fn storage(&self, resource: &Resource) -> Option<&Arc<Resource>> {
        let plural = resource.stored.key.rsplit('/').next().unwrap_or_default();
        self.resource(&resource.stored.group, &resource.stored.version, plural)
    }

    /// Resources that have a place of their own in the store, each once and in its stored version: what the server opens
    /// watches for, what garbage collection and namespace deletion go through.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.iter().filter(|r| r.allows("list") && r.stored.group == r.group && r.stored.version == r.version)
    }
}

/// Kubernetes' order of version names: GA before beta before alpha, higher numbers first; others last, by name reversed.
pub(crate) fn version_order(name: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let parsed = (|| {
        let rest = name.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let (stage, minor) = match &rest[digits..] {
            "" => (3, 0),
            tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                (Some(minor), _) => (2, minor.parse().ok()?),
                (_, Some(minor)) => (1, minor.parse().ok()?),
                _ => return None,
            },
        };
        Some((stage, major, minor, std::cmp::Reverse(String::new())))
    })();
    parsed.unwrap_or((0, 0, 0, std::cmp::Reverse(name.to_owned())))
}

/// What [`Resource::custom_version`] needs of a definition.
pub(crate) struct CustomParts {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) scale: bool,
    pub(crate) stored_version: String,
}

impl Resource {
    pub(crate) fn custom_version(parts: &CustomParts, form: CustomForm) -> Self {
        let subresource = |name, group: &str, version: &str, kind: &str| Subresource {
            name,
            group: Text::Owned(group.to_owned()),
            version: Text::Owned(version.to_owned()),
            kind: Text::Owned(kind.to_owned()),
            verbs: &["get", "patch", "update"],
        };
        let mut subresources = Vec::new();
        if parts.scale {
            subresources.push(subresource("scale", "autoscaling", "v1", "Scale"));
        }
        if parts.status {
            subresources.push(subresource("status", &parts.group, &parts.version, &parts.kind));
        }
        let texts = |list: &[String]| list.iter().cloned().map(Text::Owned).collect();
        Resource {
            group: Text::Owned(parts.group.clone()),
            version: Text::Owned(parts.version.clone()),
            plural: Text::Owned(parts.plural.clone()),
            singular: Text::Owned(parts.singular.clone()),
            kind: Text::Owned(parts.kind.clone()),
            list_kind: Text::Owned(parts.list_kind.clone()),
            short_names: texts(&parts.short_names),
            categories: texts(&parts.categories),
            namespaced: parts.namespaced,
            verbs: ALL_VERBS,
            subresources,
            stored: Stored {
                key: Text::Owned(format!("{}/{}", parts.group, parts.plural)),
                group: Text::Owned(parts.group.clone()),
                version: Text::Owned(parts.stored_version.clone()),
            },
            form: match form {
                CustomForm::Ready(version) => Form::Custom(version),
                CustomForm::Lazy(lazy) => Form::Bundled(lazy),
            },
        }
    }
}

/// Whether a custom resource's schema is compiled already.
pub(crate) enum CustomForm {
    Ready(Arc<CustomVersion>),
    Lazy(bundled::Lazy),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_a_schema_with_metadata() {
        let registry = Registry::builtin();
        for resource in registry.iter() {
            let schema = resource.schema();
            if resource.allows("list") {
                assert!(
                    schema.at_path(&["metadata", "name"]).is_some(),
                    "{}/{}",
                    resource.api_version(),
                    resource.plural()
                );
            }
            for sub in resource.subresources() {
                assert!(!sub.verbs.is_empty(), "{}/{}", resource.plural(), sub.name);
            }
        }
    }

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut names =
            ["v1alpha1", "v10", "foo1", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "foo10", "v11alpha2"];
        names.sort_by_key(|name| std::cmp::Reverse(version_order(name)));
        assert_eq!(
            names,
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v11alpha2", "v1alpha1", "foo1", "foo10"]
        );
    }

    #[test]
    fn lookups_go_by_path_by_kind_and_by_preference() {
        let registry = Registry::builtin();
        assert_eq!(registry.resource("apps", "v1", "deployments").unwrap().kind(), "Deployment");
        assert_eq!(registry.by_kind("", "v1", "Pod").unwrap().plural(), "pods");
        assert_eq!(registry.preferred("autoscaling", "horizontalpodautoscalers").unwrap().version(), "v2");
        let event = registry.resource("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(registry.storage(event).unwrap().api_version(), "v1");
        assert!(registry.resource("apps", "v1beta1", "deployments").is_none());
        let pods = registry.stored().filter(|r| r.stored().key == "events").count();
        assert_eq!(pods, 1, "events are stored once");
    }
}
