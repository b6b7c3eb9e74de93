//! Who is at the other end of a connection.

use x509_parser::prelude::{FromDer, X509Certificate};

/// A verified caller of mesh control.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The proxy of a node (`CN=system:node:NAME`, by the cluster CA).
    Node(String),
    /// The proxy of a joined host (`CN=system:host:NAMESPACE:NAME`, by the mesh CA).
    Host {
        /// Namespace of its WorkloadEntry.
        namespace: String,
        /// Name of its WorkloadEntry.
        name: String,
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
        match name.strip_prefix("system:host:").and_then(|rest| rest.split_once(':')) {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Caller::Host { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            _ => Caller::Anonymous,
        }
    }

    /// Name of the proxy, for reports: the node's name, or `host/NAMESPACE/NAME`.
    pub fn proxy(&self) -> String {
        match self {
            Caller::Node(name) => name.clone(),
            Caller::Host { namespace, name } => format!("host/{namespace}/{name}"),
            Caller::Anonymous => String::new(),
        }
    }

    /// The common name that a joined host has; none for others.
    pub fn common_name(&self) -> Option<String> {
        match self {
            Caller::Host { namespace, name } => Some(Caller::host_common_name(namespace, name)),
            _ => None,
        }
    }

    /// Common name of a host's certificate.
    pub fn host_common_name(namespace: &str, name: &str) -> String {
        format!("system:host:{namespace}:{name}")
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
            ("system:host:a:b", Caller::Host { namespace: "a".into(), name: "b".into() }),
            ("system:host:a:", Caller::Anonymous),
            ("system:host:ab", Caller::Anonymous),
        ] {
            assert_eq!(Caller::of_common_name(name), expect, "{name}");
        }
        let host = Caller::of_common_name(&Caller::host_common_name("a", "b"));
        assert_eq!(host.proxy(), "host/a/b");
    }
}
