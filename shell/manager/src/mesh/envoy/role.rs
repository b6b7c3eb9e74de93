//! What an Envoy or gRPC client is for.
use crate::mesh::identity::Caller;
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
    /// Beside the process of a joined host, also for what comes in.
    Host {
        /// The host's WorkloadEntry.
        entry: Key,
        /// Connections come to one port, for iptables sends them there; else to the process's own ports.
        captured: bool,
    },
    /// In the process.
    Grpc,
}

impl Role {
    /// See [`Role`].
    pub fn of(caller: &Caller, node: Option<&Node>) -> Self {
        let Some(node) = node else { return Role::Sidecar };
        let said = |name: &str| node.metadata.as_ref().and_then(|metadata| metadata.text(name));
        if let Some((namespace, name)) = said("gateway").and_then(|name| name.split_once('/')) {
            return Role::Gateway(Key::new(namespace, name));
        }
        match (caller, said("inbound")) {
            _ if node.user_agent_name.to_ascii_lowercase().starts_with("grpc") => Role::Grpc,
            (Caller::Host { namespace, name, .. }, Some(how @ ("listen" | "capture"))) => {
                Role::Host { entry: Key::new(namespace.as_str(), name.as_str()), captured: how == "capture" }
            }
            _ => Role::Sidecar,
        }
    }

    /// Whether a resource is for it.
    pub fn sees(&self, type_url: &str, name: &str) -> bool {
        if type_url == types::CLUSTER && name.starts_with("inbound|") {
            return matches!(self, Role::Host { entry, .. } if name.ends_with(&format!("||{entry}")));
        }
        if type_url != types::LISTENER {
            return true;
        }
        match self {
            Role::Gateway(key) => name
                .strip_prefix("gateway/")
                .and_then(|rest| rest.rsplit_once('/'))
                .is_some_and(|(of, _)| of == key.to_string()),
            Role::Sidecar => name.starts_with("sidecar/"),
            Role::Host { entry, captured } => {
                let own = name.strip_prefix("inbound/").and_then(|rest| rest.strip_prefix(&entry.to_string()));
                match own.and_then(|rest| rest.strip_prefix('/')) {
                    Some("tunnel" | "inner") => true,
                    Some(what) => what.starts_with("captured") == *captured,
                    None => name.starts_with("sidecar/"),
                }
            }
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
        let host = |captured| Role::Host { entry: Key::new("a", "b"), captured };
        let (listens, captures) = (host(false), host(true));
        for (name, expect) in [
            ("gateway/a/b/80", [true, false, false, false, false]),
            ("gateway/a/bc/80", [false, false, false, false, false]),
            ("sidecar/capture", [false, true, false, true, true]),
            ("web.default:80", [false, false, true, false, false]),
            ("inbound/a/b/tunnel", [false, false, false, true, true]),
            ("inbound/a/b/own/80", [false, false, false, true, false]),
            ("inbound/a/b/captured/80", [false, false, false, false, true]),
            ("inbound/a/b/captured", [false, false, false, false, true]),
            ("inbound/a/bc/tunnel", [false, false, false, false, false]),
        ] {
            let roles = [&gateway, &Role::Sidecar, &Role::Grpc, &listens, &captures];
            assert_eq!(roles.map(|role| role.sees(types::LISTENER, name)), expect, "{name}");
            assert!(roles.iter().all(|role| role.sees(types::CLUSTER, name)));
        }
        for (name, expect) in [("inbound|80||a/b", [false, true]), ("inbound|80||a/bc", [false, false])] {
            assert_eq!([&Role::Sidecar, &listens].map(|role| role.sees(types::CLUSTER, name)), expect, "{name}");
        }
    }
}
