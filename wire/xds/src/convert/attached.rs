//! Policies that hang on gateways, routes and services.

use super::route::{match_in, match_out};
use super::{DecodeError, key_in, key_out, port_in};
use crate::resources::Match as WireMatch;
use crate::resources::attached as wire;
use model::mesh::Match;
use model::mesh::attached::{
    AttachedPolicy, Descriptor, GlobalLimit, GrpcCodes, Hedging, Part, PolicyTarget, RateLimit,
};

impl From<&AttachedPolicy> for wire::AttachedPolicy {
    fn from(it: &AttachedPolicy) -> Self {
        wire::AttachedPolicy {
            key: Some(key_out(&it.key)),
            targets: it.targets.iter().map(target_out).collect(),
            limits: it.limits.iter().map(limit_out).collect(),
            global: it.global.as_ref().map(global_out),
            hedging: it.hedging.map(hedging_out),
        }
    }
}

impl TryFrom<wire::AttachedPolicy> for AttachedPolicy {
    type Error = DecodeError;
    fn try_from(it: wire::AttachedPolicy) -> Result<Self, DecodeError> {
        Ok(AttachedPolicy {
            key: key_in(it.key, "key")?,
            targets: it.targets.into_iter().map(target_in).collect::<Result<_, _>>()?,
            limits: it.limits.into_iter().map(limit_in).collect::<Result<_, _>>()?,
            global: it.global.map(global_in).transpose()?,
            hedging: it.hedging.map(hedging_in).transpose()?,
        })
    }
}

fn hedging_out(it: Hedging) -> wire::Hedging {
    wire::Hedging { after_ms: it.after_ms, most: it.most, grpc: it.grpc.map(GrpcCodes::bits) }
}

fn hedging_in(it: wire::Hedging) -> Result<Hedging, DecodeError> {
    if it.most == 0 || it.after_ms == Some(0) {
        return Err(DecodeError::Missing("after_ms or most"));
    }
    Ok(Hedging { after_ms: it.after_ms, most: it.most, grpc: it.grpc.map(GrpcCodes::from_bits) })
}

fn target_out(it: &PolicyTarget) -> wire::Target {
    match it {
        PolicyTarget::Gateway { gateway, listener } => {
            wire::Target { kind: 1, key: Some(key_out(gateway)), section: listener.to_string(), ..Default::default() }
        }
        PolicyTarget::Route { route, rule } => {
            wire::Target { kind: 2, route: route.to_string(), section: rule.to_string(), ..Default::default() }
        }
        PolicyTarget::Service { service, port } => {
            wire::Target { kind: 3, key: Some(key_out(service)), section: port.to_string(), ..Default::default() }
        }
    }
}

fn target_in(it: wire::Target) -> Result<PolicyTarget, DecodeError> {
    let section = it.section.into();
    match it.kind {
        1 => Ok(PolicyTarget::Gateway { gateway: key_in(it.key, "gateway")?, listener: section }),
        2 => Ok(PolicyTarget::Route { route: it.route.into(), rule: section }),
        3 => Ok(PolicyTarget::Service { service: key_in(it.key, "service")?, port: section }),
        other => Err(DecodeError::Unknown { field: "target", value: other.to_string() }),
    }
}

fn matches_out(matches: &[Match]) -> Vec<WireMatch> {
    matches.iter().map(match_out).collect()
}

fn matches_in(matches: Vec<WireMatch>) -> Result<Vec<Match>, DecodeError> {
    matches.into_iter().map(match_in).collect()
}

fn limit_out(it: &RateLimit) -> wire::RateLimit {
    wire::RateLimit {
        name: it.name.to_string(),
        matches: matches_out(&it.matches),
        per: it.per.iter().map(part_out).collect(),
        requests: it.requests,
        interval_ms: it.interval_ms,
        burst: it.burst,
    }
}

fn limit_in(it: wire::RateLimit) -> Result<RateLimit, DecodeError> {
    if it.requests == 0 || it.interval_ms == 0 || it.burst == 0 {
        return Err(DecodeError::Missing("requests, interval_ms or burst"));
    }
    Ok(RateLimit {
        name: it.name.into(),
        matches: matches_in(it.matches)?,
        per: it.per.into_iter().map(part_in).collect::<Result<_, _>>()?,
        requests: it.requests,
        interval_ms: it.interval_ms,
        burst: it.burst,
    })
}

fn global_out(it: &GlobalLimit) -> wire::GlobalLimit {
    let entries = |it: &Descriptor| {
        it.entries.iter().map(|(key, part)| wire::Entry { key: key.to_string(), part: Some(part_out(part)) }).collect()
    };
    let descriptor = |it: &Descriptor| wire::Descriptor { matches: matches_out(&it.matches), entries: entries(it) };
    wire::GlobalLimit {
        domain: it.domain.to_string(),
        service: Some(key_out(&it.service)),
        port: it.port.into(),
        timeout_ms: it.timeout_ms,
        fail_open: it.fail_open,
        descriptors: it.descriptors.iter().map(descriptor).collect(),
    }
}

fn global_in(it: wire::GlobalLimit) -> Result<GlobalLimit, DecodeError> {
    let entry = |it: wire::Entry| {
        let part = part_in(it.part.ok_or(DecodeError::Missing("part"))?)?;
        Ok((it.key.into(), part))
    };
    let descriptor = |it: wire::Descriptor| {
        Ok(Descriptor {
            matches: matches_in(it.matches)?,
            entries: it.entries.into_iter().map(entry).collect::<Result<_, DecodeError>>()?,
        })
    };
    Ok(GlobalLimit {
        domain: it.domain.into(),
        service: key_in(it.service, "service")?,
        port: port_in(it.port, "port")?,
        timeout_ms: it.timeout_ms,
        fail_open: it.fail_open,
        descriptors: it.descriptors.into_iter().map(descriptor).collect::<Result<_, DecodeError>>()?,
    })
}

fn part_out(it: &Part) -> wire::Part {
    let (kind, text) = match it {
        Part::Header(name) => (1, name.to_string()),
        Part::Query(name) => (2, name.to_string()),
        Part::ClientAddress => (3, String::new()),
        Part::Principal => (4, String::new()),
        Part::Namespace => (5, String::new()),
        Part::Method => (6, String::new()),
        Part::Path => (7, String::new()),
        Part::Host => (8, String::new()),
        Part::Fixed(value) => (9, value.to_string()),
    };
    wire::Part { kind, text }
}

fn part_in(it: wire::Part) -> Result<Part, DecodeError> {
    Ok(match it.kind {
        1 => Part::Header(it.text.into()),
        2 => Part::Query(it.text.into()),
        3 => Part::ClientAddress,
        4 => Part::Principal,
        5 => Part::Namespace,
        6 => Part::Method,
        7 => Part::Path,
        8 => Part::Host,
        9 => Part::Fixed(it.text.into()),
        other => return Err(DecodeError::Unknown { field: "part", value: other.to_string() }),
    })
}
