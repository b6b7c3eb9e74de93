//! Who is at the other end of a connection.

use x509_parser::prelude::{FromDer, X509Certificate};

/// A verified caller of mesh control.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The proxy of a node (`CN=system:node:NAME`, by the cluster CA).
    Node(String),
    /// The proxy of a joined host (`CN=system:host:NAMESPACE:NAME:ID`, by the mesh CA). Names come again: a host is only who joined as `ID`.
    Host {
        /// Namespace of its WorkloadEntry.
        namespace: String,
        /// Name of its WorkloadEntry.
        name: String,
        /// Which joining it is of; empty: of one before they were told apart.
        id: String,
    },
    /// Anybody without a certificate: may only join.
    Anonymous,
}

impl Caller {
    /// From the first certificate of a verified chain.
    pub fn of_certificate(der: &[u8]) -> Caller {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Caller::Anonymous };
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        name.map_or(Caller::Anonymous, Caller::of_common_name)
    }

    fn of_common_name(name: &str) -> Caller {
        if let Some(node) = name.strip_prefix("system:node:").filter(|node| !node.is_empty()) {
            return Caller::Node(node.to_owned());
        }
        let parts: Vec<&str> = name.strip_prefix("system:host:").unwrap_or_default().split(':').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Caller::Anonymous;
        }
        match parts[..] {
            [namespace, name] => Caller::host(namespace, name, ""),
            [namespace, name, id] => Caller::host(namespace, name, id),
            _ => Caller::Anonymous,
        }
    }

    /// The proxy of a joined host.
    pub fn host(namespace: &str, name: &str, id: &str) -> Caller {
        Caller::Host { namespace: namespace.to_owned(), name: name.to_owned(), id: id.to_owned() }
    }

    /// Name of the proxy, for reports: the node's name, or `host/NAMESPACE/NAME`.
    pub fn proxy(&self) -> String {
        match self {
            Caller::Node(name) => name.clone(),
            Caller::Host { namespace, name, .. } => format!("host/{namespace}/{name}"),
            Caller::Anonymous => String::new(),
        }
    }

    /// The common name that a joined host has, if that is what it asks for: by the name of its entry, for it keeps no more.
    pub fn renewed(&self, asked: &str) -> Option<String> {
        let Caller::Host { namespace, name, id } = self else { return None };
        (asked == Caller::host_common_name(namespace, name, "")).then(|| Caller::host_common_name(namespace, name, id))
    }

    /// Common name of a host's certificate.
    pub fn host_common_name(namespace: &str, name: &str, id: &str) -> String {
        let before_id = if id.is_empty() { "" } else { ":" };
        format!("system:host:{namespace}:{name}{before_id}{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names() {
        for (name, expect) in [
            ("system:node:n1", Caller::Node("n1".into())),
            ("system:node:", Caller::Anonymous),
            ("kubernetes-admin", Caller::Anonymous),
            ("system:host:a:b:1f", Caller::host("a", "b", "1f")),
            ("system:host:a:b", Caller::host("a", "b", "")),
            ("system:host:a:b:", Caller::Anonymous),
            ("system:host:a:b:1f:2", Caller::Anonymous),
            ("system:host:a::1f", Caller::Anonymous),
            ("system:host::b", Caller::Anonymous),
            ("system:host:a:", Caller::Anonymous),
            ("system:host:ab", Caller::Anonymous),
            ("system:host:", Caller::Anonymous),
        ] {
            assert_eq!(Caller::of_common_name(name), expect, "{name}");
        }
        for name in ["system:host:a:b:1f", "system:host:a:b"] {
            let host = Caller::of_common_name(name);
            assert_eq!(host.proxy(), "host/a/b");
            assert_eq!(host.renewed("system:host:a:b").as_deref(), Some(name), "it stays who it is");
            assert_eq!(host.renewed("system:host:a:c"), None);
            assert_eq!(host.renewed("system:host:a:b:2"), None, "and becomes nobody else");
        }
        assert_eq!(Caller::Node("n1".into()).renewed("system:host:a:b"), None);
    }
}
