//! Policies.

use super::{DecodeError, arcs, key_in, key_out, number, pick, port_in, strings};
use crate::resources as wire;
use model::Timestamp;
use model::mesh::{
    Action, AuthorizationPolicy, Condition, MtlsMode, Operation, PeerAuthentication, PolicyRule, Scope, Source,
};

pub(super) const SCOPE: &[(u32, Scope)] = &[(0, Scope::Mesh), (1, Scope::Namespace), (2, Scope::Workload)];
const ACTION: &[(u32, Action)] = &[(0, Action::Allow), (1, Action::Deny), (2, Action::Audit), (3, Action::Custom)];
const MODE: &[(u32, MtlsMode)] =
    &[(0, MtlsMode::Unset), (1, MtlsMode::Disable), (2, MtlsMode::Permissive), (3, MtlsMode::Strict)];

impl From<&AuthorizationPolicy> for wire::AuthorizationPolicy {
    fn from(it: &AuthorizationPolicy) -> Self {
        let rule = |rule: &PolicyRule| wire::PolicyRule {
            from: rule.from.iter().map(Into::into).collect(),
            to: rule.to.iter().map(Into::into).collect(),
            when: rule.when.iter().map(Into::into).collect(),
        };
        wire::AuthorizationPolicy {
            key: Some(key_out(&it.key)),
            scope: number(it.scope, SCOPE),
            action: number(it.action, ACTION),
            dry_run: it.dry_run,
            rules: it.rules.iter().map(rule).collect(),
            provider: it.provider.to_string(),
        }
    }
}

impl TryFrom<wire::AuthorizationPolicy> for AuthorizationPolicy {
    type Error = DecodeError;
    fn try_from(it: wire::AuthorizationPolicy) -> Result<Self, DecodeError> {
        let rule = |rule: wire::PolicyRule| PolicyRule {
            from: rule.from.into_iter().map(Into::into).collect(),
            to: rule.to.into_iter().map(Into::into).collect(),
            when: rule.when.into_iter().map(Into::into).collect(),
        };
        Ok(AuthorizationPolicy {
            key: key_in(it.key, "key")?,
            scope: pick(it.scope, "scope", SCOPE)?,
            action: pick(it.action, "action", ACTION)?,
            dry_run: it.dry_run,
            provider: it.provider.into(),
            rules: it.rules.into_iter().map(rule).collect(),
        })
    }
}

impl From<&Source> for wire::Source {
    fn from(it: &Source) -> Self {
        wire::Source {
            principals: strings(&it.principals),
            not_principals: strings(&it.not_principals),
            request_principals: strings(&it.request_principals),
            not_request_principals: strings(&it.not_request_principals),
            namespaces: strings(&it.namespaces),
            not_namespaces: strings(&it.not_namespaces),
            service_accounts: strings(&it.service_accounts),
            not_service_accounts: strings(&it.not_service_accounts),
            ip_blocks: strings(&it.ip_blocks),
            not_ip_blocks: strings(&it.not_ip_blocks),
            remote_ip_blocks: strings(&it.remote_ip_blocks),
            not_remote_ip_blocks: strings(&it.not_remote_ip_blocks),
            trust_domains: strings(&it.trust_domains),
            not_trust_domains: strings(&it.not_trust_domains),
        }
    }
}

impl From<wire::Source> for Source {
    fn from(it: wire::Source) -> Self {
        Source {
            principals: arcs(it.principals),
            not_principals: arcs(it.not_principals),
            request_principals: arcs(it.request_principals),
            not_request_principals: arcs(it.not_request_principals),
            namespaces: arcs(it.namespaces),
            not_namespaces: arcs(it.not_namespaces),
            service_accounts: arcs(it.service_accounts),
            not_service_accounts: arcs(it.not_service_accounts),
            ip_blocks: arcs(it.ip_blocks),
            not_ip_blocks: arcs(it.not_ip_blocks),
            remote_ip_blocks: arcs(it.remote_ip_blocks),
            not_remote_ip_blocks: arcs(it.not_remote_ip_blocks),
            trust_domains: arcs(it.trust_domains),
            not_trust_domains: arcs(it.not_trust_domains),
        }
    }
}

impl From<&Operation> for wire::Operation {
    fn from(it: &Operation) -> Self {
        wire::Operation {
            hosts: strings(&it.hosts),
            not_hosts: strings(&it.not_hosts),
            ports: strings(&it.ports),
            not_ports: strings(&it.not_ports),
            methods: strings(&it.methods),
            not_methods: strings(&it.not_methods),
            paths: strings(&it.paths),
            not_paths: strings(&it.not_paths),
        }
    }
}

impl From<wire::Operation> for Operation {
    fn from(it: wire::Operation) -> Self {
        Operation {
            hosts: arcs(it.hosts),
            not_hosts: arcs(it.not_hosts),
            ports: arcs(it.ports),
            not_ports: arcs(it.not_ports),
            methods: arcs(it.methods),
            not_methods: arcs(it.not_methods),
            paths: arcs(it.paths),
            not_paths: arcs(it.not_paths),
        }
    }
}

impl From<&Condition> for wire::Condition {
    fn from(it: &Condition) -> Self {
        wire::Condition { key: it.key.to_string(), values: strings(&it.values), not_values: strings(&it.not_values) }
    }
}

impl From<wire::Condition> for Condition {
    fn from(it: wire::Condition) -> Self {
        Condition { key: it.key.into(), values: arcs(it.values), not_values: arcs(it.not_values) }
    }
}

impl From<&PeerAuthentication> for wire::PeerAuthentication {
    fn from(it: &PeerAuthentication) -> Self {
        wire::PeerAuthentication {
            key: Some(key_out(&it.key)),
            scope: number(it.scope, SCOPE),
            mode: number(it.mode, MODE),
            ports: it
                .ports
                .iter()
                .map(|(port, mode)| wire::PortMode { port: u32::from(*port), mode: number(*mode, MODE) })
                .collect(),
            created: it.created.0,
        }
    }
}

impl TryFrom<wire::PeerAuthentication> for PeerAuthentication {
    type Error = DecodeError;
    fn try_from(it: wire::PeerAuthentication) -> Result<Self, DecodeError> {
        Ok(PeerAuthentication {
            key: key_in(it.key, "key")?,
            scope: pick(it.scope, "scope", SCOPE)?,
            mode: pick(it.mode, "mode", MODE)?,
            ports: it
                .ports
                .into_iter()
                .map(|port| Ok((port_in(port.port, "port")?, pick(port.mode, "mode", MODE)?)))
                .collect::<Result<_, DecodeError>>()?,
            created: Timestamp(it.created),
        })
    }
}
