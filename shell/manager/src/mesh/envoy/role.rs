//! What an Envoy or gRPC client is for.
use model::Key;
use xds::discovery::Node;
use xds::envoy::types;

/// By what a client says of itself in its first request: metadata `gateway: NAMESPACE/NAME`, or its user agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// In front of a Gateway's listeners.
    Gateway(Key),
    /// Beside a process.
    Sidecar,
    /// In the process.
    Grpc,
}

impl Role {
    /// See [`Role`].
    pub fn of(node: Option<&Node>) -> Self {
        let Some(node) = node else { return Role::Sidecar };
        let gateway = node.metadata.as_ref().and_then(|metadata| metadata.text("gateway"));
        match gateway.and_then(|name| name.split_once('/')) {
            Some((namespace, name)) => Role::Gateway(Key::new(namespace, name)),
            None if node.user_agent_name.to_ascii_lowercase().starts_with("grpc") => Role::Grpc,
            None => Role::Sidecar,
        }
    }

    /// Whether a resource is for it.
    pub fn sees(&self, type_url: &str, name: &str) -> bool {
        if type_url != types::LISTENER {
            return true;
        }
        match self {
            Role::Gateway(key) => name
                .strip_prefix("gateway/")
                .and_then(|rest| rest.rsplit_once('/'))
                .is_some_and(|(of, _)| of == key.to_string()),
            Role::Sidecar => name.starts_with("sidecar/"),
            Role::Grpc => !name.contains('/'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sees_its_own_listeners() {
        let gateway = Role::Gateway(Key::new("a", "b"));
        for (name, expect) in [
            ("gateway/a/b/80", [true, false, false]),
            ("gateway/a/bc/80", [false, false, false]),
            ("sidecar/capture", [false, true, false]),
            ("web.default:80", [false, false, true]),
        ] {
            let roles = [&gateway, &Role::Sidecar, &Role::Grpc];
            assert_eq!(roles.map(|role| role.sees(types::LISTENER, name)), expect, "{name}");
            assert!(roles.iter().all(|role| role.sees(types::CLUSTER, name)));
        }
    }
}
