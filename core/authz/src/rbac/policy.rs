use super::{Caller, Rule};
use model::map::HashMap;
use model::{Key, LabelSelector, Labels};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A user by name.
    User(Arc<str>),
    /// All members of a group.
    Group(Arc<str>),
    /// A ServiceAccount; its user name is `system:serviceaccount:<namespace>:<name>`.
    ServiceAccount {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(name) => write!(f, "User {:?}", &**name),
            Subject::Group(name) => write!(f, "Group {:?}", &**name),
            Subject::ServiceAccount { namespace, name } => {
                write!(f, "ServiceAccount {:?}", format!("{name}/{namespace}"))
            }
        }
    }
}

/// Which role a binding grants. A Role is one of the binding's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleRef {
    /// A ClusterRole rather than a Role.
    pub cluster: bool,
    /// Name.
    pub name: Arc<str>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Namespace (empty: a ClusterRoleBinding) and name.
    pub key: Key,
    /// To whom.
    pub subjects: Vec<Subject>,
    /// What.
    pub role: RoleRef,
}

/// A ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRole {
    /// Labels, which other roles' aggregation selects by.
    pub labels: Labels,
    /// Own rules. With aggregation they count for nothing.
    pub rules: Vec<Rule>,
    /// `aggregationRule.clusterRoleSelectors`, if the role is an aggregate.
    pub aggregation: Option<Vec<LabelSelector>>,
}

/// Everything that a policy is made from.
#[derive(Clone, Debug, Default)]
pub struct PolicyBuilder {
    /// By name.
    pub cluster_roles: BTreeMap<Arc<str>, ClusterRole>,
    /// By namespace and name.
    pub roles: BTreeMap<Key, Vec<Rule>>,
    /// Both kinds, in any order.
    pub bindings: Vec<Binding>,
}

impl PolicyBuilder {
    /// The rules that a ClusterRole stands for, aggregation resolved. Aggregates of aggregates do not nest further than one step
    /// at a time: an aggregate's rules are its members' resolved rules, and a cycle adds nothing.
    pub fn resolve(&self, name: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        self.collect(name, &mut rules, &mut Vec::new());
        rules
    }

    fn collect<'a>(&'a self, name: &'a str, rules: &mut Vec<Rule>, path: &mut Vec<&'a str>) {
        let Some(role) = self.cluster_roles.get(name) else { return };
        if path.contains(&name) {
            return;
        }
        let Some(selectors) = &role.aggregation else {
            rules.extend(role.rules.iter().filter(|rule| !rules.contains(rule)).cloned().collect::<Vec<_>>());
            return;
        };
        path.push(name);
        for (member, other) in &self.cluster_roles {
            if selectors.iter().any(|selector| selector.matches(&other.labels)) {
                self.collect(member, rules, path);
            }
        }
        path.pop();
    }

    /// Indexes it for decisions.
    pub fn build(self) -> Policy {
        let cluster_roles: BTreeMap<Arc<str>, Arc<[Rule]>> =
            self.cluster_roles.keys().map(|name| (name.clone(), self.resolve(name).into())).collect();
        let mut by_subject: HashMap<Arc<str>, Vec<Bound>> = HashMap::default();
        let mut by_group: HashMap<Arc<str>, Vec<Bound>> = HashMap::default();
        let mut bindings = self.bindings;
        bindings.sort_by(|a, b| a.key.cmp(&b.key));
        for binding in bindings {
            let rules = if binding.role.cluster {
                cluster_roles.get(&binding.role.name).cloned()
            } else {
                let key = Key { namespace: binding.key.namespace.clone(), name: binding.role.name.clone() };
                self.roles.get(&key).map(|rules| rules.clone().into())
            };
            for subject in binding.subjects {
                let (index, key) = match &subject {
                    Subject::User(name) => (&mut by_subject, name.clone()),
                    Subject::Group(name) => (&mut by_group, name.clone()),
                    Subject::ServiceAccount { namespace, name } => {
                        (&mut by_subject, format!("system:serviceaccount:{namespace}:{name}").into())
                    }
                };
                let (binding, role) = (binding.key.clone(), binding.role.clone());
                index.entry(key).or_default().push(Bound { binding, role, subject, rules: rules.clone() });
            }
        }
        Policy { by_subject, by_group, cluster_roles }
    }
}

#[derive(Clone, Debug)]
struct Bound {
    binding: Key,
    role: RoleRef,
    subject: Subject,
    rules: Option<Arc<[Rule]>>,
}

/// Roles and bindings, indexed by subject.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    by_subject: HashMap<Arc<str>, Vec<Bound>>,
    by_group: HashMap<Arc<str>, Vec<Bound>>,
    cluster_roles: BTreeMap<Arc<str>, Arc<[Rule]>>,
}

/// One binding that names the caller and holds in the namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant<'p> {
    bound: &'p Bound,
    pub role: &'p RoleRef,
    /// `None`: the role does not exist.
    pub rules: Option<&'p [Rule]>,
}

impl Policy {
    /// A ClusterRole's resolved rules.
    pub fn cluster_role(&self, name: &str) -> Option<&[Rule]> {
        self.cluster_roles.get(name).map(|rules| &**rules)
    }

    pub(super) fn grants<'p>(&'p self, caller: Caller<'p>, namespace: &'p str) -> impl Iterator<Item = Grant<'p>> {
        let own = self.by_subject.get(caller.name).into_iter().flatten();
        let groups = caller.groups.iter().filter_map(|group| self.by_group.get(group)).flatten();
        own.chain(groups)
            .filter(move |bound| bound.binding.namespace.is_empty() || *bound.binding.namespace == *namespace)
            .map(|bound| Grant { bound, role: &bound.role, rules: bound.rules.as_deref() })
    }
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bound { binding, role, subject, .. } = self.bound;
        let kind = if role.cluster { "ClusterRole" } else { "Role" };
        if binding.namespace.is_empty() {
            write!(f, "ClusterRoleBinding {:?} of {kind} {:?} to {subject}", &*binding.name, &*role.name)
        } else {
            let name = format!("{}/{}", binding.name, binding.namespace);
            write!(f, "RoleBinding {name:?} of {kind} {:?} to {subject}", &*role.name)
        }
    }
}
