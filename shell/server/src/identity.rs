use std::collections::BTreeMap;
use std::sync::Arc;

/// Who sends a request, once authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub name: Arc<str>,
    /// Unique id, when the authenticator knows one (a ServiceAccount's uid).
    pub uid: String,
    /// Groups, with `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<Arc<str>>,
    /// What else the authenticator knows, such as the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// May do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";

impl Identity {
    /// An authenticated user.
    pub fn user(name: impl Into<Arc<str>>, groups: impl IntoIterator<Item = Arc<str>>) -> Identity {
        let mut groups: Vec<Arc<str>> = groups.into_iter().collect();
        groups.push(AUTHENTICATED.into());
        Identity { name: name.into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }
    /// Nobody in particular.
    pub fn anonymous() -> Identity {
        let groups = vec![UNAUTHENTICATED.into()];
        Identity { name: "system:anonymous".into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }
    /// Membership.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|have| &**have == group)
    }
    /// The node's name, for a node agent's identity.
    pub fn node(&self) -> Option<&str> {
        self.is_in("system:nodes").then(|| self.name.strip_prefix("system:node:")).flatten()
    }
}
