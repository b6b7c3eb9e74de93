//! VirtualServices: into the one route model, in order.
//!
//! Both families may want to route one service's requests. They do not mix: the oldest object that names the service decides which family
//! routes it (and of VirtualServices only the oldest one does), and both sides read of it in their status.

use super::gateway::Flaw;
use super::hosts::{delegate_key, entry_of, gateway_key};
use super::status::{Condition, IstioStatus};
use super::{Compiler, Output};
use crate::pattern;
use model::mesh::api::istio::{Destination, Instead, StreamMatch, VirtualMatch, VirtualRule, VirtualService};
use model::mesh::api::{self, ObjectKind, ParentRef};
use model::mesh::{
    Backend, BackendTarget, Filter, HeaderModifier, Hostname, Match, MatchMore, Mirror, Parent, ParentTarget,
    PathMatch, PathModifier, Redirect, Resource, ResourceKind, Rewrite, Route, RouteKind, Rule, Service, TextMatch,
    Timeouts,
};
use model::{Key, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where rules are for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    Mesh,
    Gateway(&'a Key),
}

/// What was found out about a VirtualService on the way.
#[derive(Default)]
struct Findings {
    /// The first place that does not take it.
    refused: Option<(&'static str, String)>,
    /// The first reference that leads nowhere.
    unresolved: Option<(&'static str, String)>,
    /// Rules that were left out.
    dropped: BTreeSet<String>,
}

/// Who routes a service's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Routes of Gateway API, the oldest of which this is.
    Routes(RouteKind, Key),
    /// This VirtualService.
    Virtual(Key),
}

impl Compiler {
    /// Who routes a service's requests, and who would like to as well but must not.
    pub(super) fn claim(&self, service: &Key) -> Option<(Claim, Vec<Claim>)> {
        let mut claims: Vec<(Timestamp, u8, Claim)> = Vec::new();
        for host in self.hosts_of_service(service) {
            for key in self.hosts.virtuals_of(&host) {
                let Some(it) = self.objects.virtuals.get(&key) else { continue };
                let for_mesh = it.gateways.is_empty() || it.gateways.iter().any(|name| &**name == "mesh");
                if for_mesh && !it.http.is_empty() && self.is_host_for(&key.namespace, &host, service) {
                    claims.push((it.meta.created, 1, Claim::Virtual(key)));
                }
            }
        }
        // Without a VirtualService there is nothing to be decided.
        if claims.is_empty() {
            return None;
        }
        for (kind, key) in self.index.routes_by_service.get(service).into_iter().flatten() {
            let Some(route) = self.objects.routes.get(&(*kind, key.clone())) else { continue };
            let parent =
                |it: &ParentRef| &*it.reference.kind == "Service" && it.reference.key(&key.namespace) == *service;
            if matches!(kind, RouteKind::Http | RouteKind::Grpc) && route.parents.iter().any(parent) {
                claims.push((route.meta.created, 0, Claim::Routes(*kind, key.clone())));
            }
        }
        claims.sort_by_key(|(created, family, claim)| match claim {
            Claim::Routes(kind, key) => (*created, *family, Some(*kind), key.clone()),
            Claim::Virtual(key) => (*created, *family, None, key.clone()),
        });
        let mut claims = claims.into_iter().map(|(.., claim)| claim);
        let first = claims.next()?;
        let others = claims.filter(|it| !matches!((&first, it), (Claim::Routes(..), Claim::Routes(..))));
        let others: Vec<Claim> = others.filter(|it| *it != first).collect();
        Some((first, others))
    }

    /// What a route of Gateway API on a service must be told of VirtualServices: an error, or a warning for its status.
    pub(super) fn rivals_of_route(&self, service: &Key) -> Result<Option<Condition>, (&'static str, String)> {
        match self.claim(service) {
            None => Ok(None),
            Some((Claim::Virtual(key), _)) => {
                Err(("Conflict", format!("VirtualService {key} is older and routes the requests of Service {service}")))
            }
            Some((Claim::Routes(..), others)) => Ok(others.first().map(|other| {
                let (Claim::Virtual(key) | Claim::Routes(_, key)) = other;
                let message = format!(
                    "VirtualService {key} wants to route Service {service} too; it is younger, and not in effect"
                );
                Condition::good("Conflicted", "OtherFamily", message)
            })),
        }
    }

    pub(super) fn compile_virtual(&mut self, key: &Key, output: &mut Output) {
        let Some(it) = self.objects.virtuals.get(key) else {
            self.tell_routes(key, Vec::new(), output);
            self.tell_status(ObjectKind::VirtualService, key, None, output);
            return;
        };
        let mut findings = Findings::default();
        let mut routes = Vec::new();
        if it.gateways.is_empty() || it.gateways.iter().any(|name| &**name == "mesh") {
            let parents = self.mesh_parents(it, &mut findings);
            routes.extend(self.http_route(it, Place::Mesh, parents, String::new(), &mut findings));
            routes.extend(self.stream_routes(it, Place::Mesh, "", &mut findings));
        }
        for gateway in super::hosts::gateways(it) {
            let (place, suffix) = (Place::Gateway(&gateway), format!("@{gateway}"));
            routes.extend(self.stream_routes(it, place, &suffix, &mut findings));
            if !it.http.is_empty() || it.streams.is_empty() {
                let asked = (RouteKind::Http, None, self.whole_hosts(it));
                let parents = self.gateway_parents(it, &gateway, asked).unwrap_or_else(|flaw| {
                    findings.refused.get_or_insert(flaw);
                    Vec::new()
                });
                routes.extend(self.http_route(it, place, parents, suffix, &mut findings));
            }
        }
        let status = self.virtual_status(it, &findings, routes.is_empty());
        self.tell_routes(key, routes, output);
        self.tell_status(ObjectKind::VirtualService, key, Some(status), output);
    }

    fn tell_routes(&mut self, key: &Key, routes: Vec<Route>, output: &mut Output) {
        let names: BTreeSet<String> = routes.iter().map(|route| route.name.to_string()).collect();
        for route in routes {
            let name = route.name.to_string();
            self.tell(ResourceKind::Route, name, Some(Resource::Route(Arc::new(route))), output);
        }
        let before = if names.is_empty() {
            self.virtual_routes.remove(key)
        } else {
            self.virtual_routes.insert(key.clone(), names.clone())
        };
        for old in before.into_iter().flatten().filter(|old| !names.contains(old)) {
            self.tell(ResourceKind::Route, old, None, output);
        }
    }

    /// The services that a VirtualService's hosts mean, as far as it is the one that routes them.
    fn mesh_parents(&self, it: &VirtualService, findings: &mut Findings) -> Vec<Parent> {
        let namespace = &it.meta.key.namespace;
        let mut parents = Vec::new();
        for host in &it.hosts {
            let host = self.whole_host(host, namespace);
            let services = self.services_of_host(&host, Some(namespace));
            if services.is_empty() {
                findings.refused.get_or_insert(("NoMatchingHost", format!("no service has the host {host}")));
            }
            for service in services {
                match self.claim(&service) {
                    Some((Claim::Virtual(first), _)) if first == it.meta.key => {}
                    Some((other, _)) if !it.http.is_empty() => {
                        let other = match other {
                            Claim::Virtual(key) => format!("VirtualService {key}"),
                            Claim::Routes(kind, key) => format!("{} {key}", super::gateway::route_kind_name(kind)),
                        };
                        let message = format!("{other} is older and routes the requests of {}", shown(&service));
                        findings.refused.get_or_insert(("Conflict", message));
                        continue;
                    }
                    _ => {}
                }
                parents.extend(exported(it).into_iter().map(|consumer| Parent {
                    target: ParentTarget::Service { service: service.clone(), port: None, consumer },
                    hostnames: Vec::new(),
                }));
            }
        }
        parents.sort();
        parents.dedup();
        parents
    }

    /// The listeners of one of Gateway API's Gateways that take what it routes: of a kind, on a port (none: any), for hosts.
    fn gateway_parents(
        &self,
        it: &VirtualService,
        gateway: &Key,
        (kind, port, hostnames): (RouteKind, Option<u16>, Vec<Arc<str>>),
    ) -> Result<Vec<Parent>, Flaw> {
        let Some(listeners) = self.listeners.get(gateway) else {
            return Err(("NoMatchingParent", format!("there is no Gateway {gateway} of ours")));
        };
        let asked = api::Route { kind, meta: it.meta.clone(), parents: Vec::new(), hostnames, rules: Vec::new() };
        let own = listeners.iter().filter(|it| it.set.is_none()).collect();
        let found =
            self.attach_to_listeners(&asked, &ParentRef { port, ..ParentRef::default() }, (gateway, gateway), own)?;
        Ok(found.into_iter().filter(|(_, usable)| *usable).map(|(parent, _)| parent).collect())
    }

    /// The listeners that take a match of `tls` or `tcp`. `tcp` takes, beside plain connections, those whose TLS the gateway ended.
    fn stream_listeners(
        &self,
        it: &VirtualService,
        gateway: &Key,
        (kind, matched): (RouteKind, &StreamMatch),
    ) -> Result<(RouteKind, Vec<Parent>), Flaw> {
        if !matched.labels.is_empty() || matched.namespace.as_ref().is_some_and(|it| *it != gateway.namespace) {
            return Ok((kind, Vec::new()));
        }
        if !matched.destinations.is_empty() {
            return Err(("UnsupportedValue", "match.destinationSubnets holds in the mesh, not on Gateways".into()));
        }
        let plain = self.gateway_parents(it, gateway, (kind, matched.port, matched.sni.clone()));
        if kind == RouteKind::Tls || plain.is_ok() {
            return plain.map(|parents| (kind, parents));
        }
        let terminates = |parent: &Parent| match &parent.target {
            ParentTarget::Listener { listener: name, .. } => {
                let mut listeners = self.listeners.get(gateway).into_iter().flatten();
                listeners.any(|it| it.name == *name && it.ends_tls())
            }
            ParentTarget::Service { .. } => false,
        };
        let mut secured =
            self.gateway_parents(it, gateway, (RouteKind::Tls, matched.port, Vec::new())).unwrap_or_default();
        secured.retain(terminates);
        if secured.is_empty() { plain.map(|parents| (kind, parents)) } else { Ok((RouteKind::Tls, secured)) }
    }

    fn whole_hosts(&self, it: &VirtualService) -> Vec<Arc<str>> {
        it.hosts.iter().map(|host| self.whole_host(host, &it.meta.key.namespace)).collect()
    }

    fn http_route(
        &self,
        it: &VirtualService,
        place: Place<'_>,
        parents: Vec<Parent>,
        suffix: String,
        findings: &mut Findings,
    ) -> Option<Route> {
        if it.http.is_empty() {
            return None;
        }
        let key = &it.meta.key;
        let mut rules = Vec::new();
        for (index, rule) in it.http.iter().enumerate() {
            let Some(Instead::Delegate { namespace, name }) = &rule.instead else {
                rules.extend(self.rule_of(it, rule, place, index, findings));
                continue;
            };
            let to = delegate_key(key, namespace, name);
            let Some(delegate) = self.objects.virtuals.get(&to).filter(|other| other.hosts.is_empty()) else {
                let message = format!("there is no VirtualService {to} without hosts to delegate to");
                findings.unresolved.get_or_insert(("DelegateNotFound", message));
                continue;
            };
            for inner in delegate.http.iter().filter(|inner| !matches!(inner.instead, Some(Instead::Delegate { .. }))) {
                let joined = VirtualRule { matches: join_matches(&rule.matches, &inner.matches), ..inner.clone() };
                if !(rule.matches.is_empty() && inner.matches.is_empty()) && joined.matches.is_empty() {
                    continue;
                }
                rules.extend(self.rule_of(delegate, &joined, place, index, findings));
            }
        }
        (!parents.is_empty()).then(|| Route {
            name: format!("VirtualService/{key}{suffix}").into(),
            key: key.clone(),
            kind: RouteKind::Http,
            created: it.meta.created,
            parents,
            rules,
            ordered: true,
        })
    }

    fn rule_of(
        &self,
        it: &VirtualService,
        rule: &VirtualRule,
        place: Place<'_>,
        index: usize,
        findings: &mut Findings,
    ) -> Option<Rule> {
        if let Some(why) = bad_rule(rule) {
            findings.dropped.insert(format!("Dropped Rule {index}: {why}"));
            return None;
        }
        let here = |matched: &VirtualMatch| is_for(&matched.gateways, &it.meta.key.namespace, place);
        let matches: Vec<Match> = rule.matches.iter().filter(|it| here(it)).map(|it| it.matched.clone()).collect();
        if matches.is_empty() && !rule.matches.is_empty() {
            return None;
        }
        let everything = || Match { path: PathMatch::Text("".into()), ..Match::default() };
        let single = rule.destinations.len() == 1;
        let backends = rule.destinations.iter().map(|destination| Backend {
            target: self.destination(it, destination, findings),
            weight: if single { 1 } else { destination.weight },
            filters: header_filters(&destination.headers).collect(),
        });
        let backends = backends.collect();
        Some(Rule {
            name: rule.name.clone(),
            matches: if matches.is_empty() { vec![everything()] } else { matches },
            filters: self.filters_of(it, rule, findings),
            backends,
            timeouts: Timeouts { ..rule.timeouts },
            retry: rule.retry.clone(),
            session: None,
        })
    }

    /// In the order in which they are carried out.
    fn filters_of(&self, it: &VirtualService, rule: &VirtualRule, findings: &mut Findings) -> Vec<Filter> {
        let mut filters: Vec<Filter> = Vec::new();
        filters.extend(rule.cors.clone().map(Filter::Cors));
        filters.extend(rule.fault.clone().map(Filter::Fault));
        match &rule.instead {
            Some(Instead::Redirect { path, authority, scheme, port, status }) => {
                filters.push(Filter::Redirect(redirect(path, authority, scheme, *port, *status)));
            }
            Some(Instead::Respond(response)) => filters.push(Filter::Respond(response.clone())),
            Some(Instead::Delegate { .. }) | None => {}
        }
        filters.extend(header_filters(&rule.headers));
        filters.extend(rule.rewrite.as_ref().map(|rewrite| {
            Filter::Rewrite(Rewrite { hostname: rewrite.authority.clone(), path: rewrite.path.clone() })
        }));
        for (to, fraction) in &rule.mirrors {
            let backend = self.destination(it, to, findings);
            if matches!(backend, BackendTarget::Service { .. }) {
                filters.push(Filter::Mirror(Mirror { backend, fraction: *fraction }));
            }
        }
        filters
    }

    fn destination(&self, it: &VirtualService, to: &Destination, findings: &mut Findings) -> BackendTarget {
        let mut invalid = |reason: &'static str, message: String| {
            findings.unresolved.get_or_insert((reason, message));
            BackendTarget::Invalid { reason: reason.into() }
        };
        let namespace = &it.meta.key.namespace;
        let host = self.whole_host(&to.host, namespace);
        let Some(service) = self.service_of_host(&host, Some(namespace)) else {
            return invalid("BackendNotFound", format!("no service has the host {host}"));
        };
        let ports = self.ports_of_service(&service);
        let port = match (to.port, &ports[..]) {
            (Some(port), ports) if ports.iter().any(|(have, _)| *have == port) => port,
            (Some(port), _) => return invalid("BackendNotFound", format!("{host} has no port {port}")),
            (None, [(only, _)]) => *only,
            (None, _) => 0,
        };
        if to.subset.is_empty() {
            return BackendTarget::Service { service, port };
        }
        if self.rules_of(&service).subset(&to.subset).is_none() {
            return invalid("SubsetNotFound", format!("no DestinationRule gives {host} a subset {}", to.subset));
        }
        BackendTarget::Service { service: Service::subset_key(&service, &to.subset), port }
    }

    /// `tls` and `tcp`: whole connections. The first match takes them, so each is a route of its own.
    fn stream_routes(
        &self,
        it: &VirtualService,
        place: Place<'_>,
        suffix: &str,
        findings: &mut Findings,
    ) -> Vec<Route> {
        let key = &it.meta.key;
        let mut routes = Vec::new();
        for (index, rule) in it.streams.iter().enumerate() {
            if !rule.flaw.is_empty() {
                findings.dropped.insert(format!("Dropped stream rule {index}: {}", rule.flaw));
                continue;
            }
            let single = rule.destinations.len() == 1;
            let backends = rule.destinations.iter().map(|destination| Backend {
                target: self.destination(it, destination, findings),
                weight: if single { 1 } else { destination.weight },
                filters: Vec::new(),
            });
            let backends: Vec<Backend> = backends.collect();
            let every = [StreamMatch::default()];
            let matches = if rule.matches.is_empty() { &every[..] } else { &rule.matches };
            let here = |matched: &&StreamMatch| is_for(&matched.gateways, &key.namespace, place);
            for (number, matched) in matches.iter().enumerate().filter(|(_, matched)| here(matched)) {
                let kind = if rule.tls { RouteKind::Tls } else { RouteKind::Tcp };
                let (kind, parents) = match place {
                    Place::Mesh => (kind, self.stream_services(it, matched)),
                    Place::Gateway(gateway) => match self.stream_listeners(it, gateway, (kind, matched)) {
                        Ok(found) => found,
                        Err(("UnsupportedValue", why)) => {
                            findings.dropped.insert(format!("Dropped stream rule {index}: {why}"));
                            continue;
                        }
                        Err(flaw) => {
                            findings.refused.get_or_insert(flaw);
                            continue;
                        }
                    },
                };
                if parents.is_empty() {
                    continue;
                }
                // A gateway's callers are nobody's, and the gateway itself was compared above.
                let asked = if place == Place::Mesh { callers(matched) } else { Vec::new() };
                routes.push(Route {
                    // Numbered with leading zeros: rules of one object are in the order of their names where all else is equal.
                    name: format!("VirtualService/{key}{suffix}#{index:04}.{number:04}").into(),
                    key: key.clone(),
                    kind,
                    created: it.meta.created,
                    parents,
                    rules: vec![Rule { backends: backends.clone(), matches: asked, ..Rule::default() }],
                    ordered: true,
                });
            }
        }
        routes
    }

    /// The services whose connections a match of `tls` or `tcp` takes.
    fn stream_services(&self, it: &VirtualService, matched: &StreamMatch) -> Vec<Parent> {
        let hosts = self.whole_hosts(it);
        let services: BTreeSet<Key> =
            hosts.iter().flat_map(|host| self.services_of_host(host, Some(&it.meta.key.namespace))).collect();
        let of = |service: Key| {
            exported(it).into_iter().map(move |consumer| Parent {
                target: ParentTarget::Service { service: service.clone(), port: matched.port, consumer },
                hostnames: matched.sni.iter().filter_map(|name| Hostname::new(name)).collect(),
            })
        };
        services.into_iter().flat_map(of).collect()
    }

    fn virtual_status(&self, it: &VirtualService, findings: &Findings, nowhere: bool) -> IstioStatus {
        let accepted = match &findings.refused {
            Some((reason, message)) => Condition::bad("Accepted", reason, message.clone()),
            None if it.hosts.is_empty() => {
                Condition::good("Accepted", "Delegate", "it is used by those that delegate to it")
            }
            None if nowhere => Condition::bad("Accepted", "UnsupportedValue", "it has no rule that could be used"),
            None => Condition::good("Accepted", "Accepted", "the route is in effect"),
        };
        let resolved = match &findings.unresolved {
            Some((reason, message)) => Condition::bad("ResolvedRefs", reason, message.clone()),
            None => Condition::good("ResolvedRefs", "ResolvedRefs", "all destinations are found"),
        };
        let mut conditions = vec![accepted, resolved];
        if !findings.dropped.is_empty() {
            let dropped: Vec<&str> = findings.dropped.iter().map(String::as_str).collect();
            conditions.push(Condition::good("PartiallyInvalid", "UnsupportedValue", dropped.join("; ")));
        }
        let rivals = it.hosts.iter().find_map(|host| {
            let host = self.whole_host(host, &it.meta.key.namespace);
            let service = self.service_of_host(&host, Some(&it.meta.key.namespace))?;
            let (first, others) = self.claim(&service)?;
            (first == Claim::Virtual(it.meta.key.clone())).then_some(())?;
            others.into_iter().next().map(|other| (other, service))
        });
        if let Some((other, service)) = rivals {
            let other = match other {
                Claim::Virtual(key) => format!("VirtualService {key}"),
                Claim::Routes(kind, key) => format!("{} {key}", super::gateway::route_kind_name(kind)),
            };
            let message = format!("{other} wants to route {} too; it is younger, and not in effect", shown(&service));
            conditions.push(Condition::good("Conflicted", "OtherFamily", message));
        }
        IstioStatus { generation: it.meta.generation, conditions }
    }
}

/// Whether what names these gateways (none: all of its VirtualService, which is of a namespace) is for a place.
fn is_for(gateways: &[Arc<str>], namespace: &Arc<str>, place: Place<'_>) -> bool {
    gateways.is_empty()
        || gateways.iter().any(|name| match place {
            Place::Mesh => &**name == "mesh",
            Place::Gateway(gateway) => gateway_key(namespace, name) == *gateway,
        })
}

/// Which connections a match takes beside its port and names: none, all.
fn callers(matched: &StreamMatch) -> Vec<Match> {
    let more = MatchMore {
        source_namespace: matched.namespace.clone(),
        source_labels: matched.labels.clone(),
        destinations: matched.destinations.clone(),
        ..MatchMore::default()
    };
    let some = (more != MatchMore::default()).then(|| Some(Box::new(more)));
    some.into_iter().map(|more| Match { path: PathMatch::Text("".into()), more, ..Match::default() }).collect()
}

fn shown(service: &Key) -> String {
    match entry_of(service) {
        Some(entry) => format!("ServiceEntry {entry}"),
        None => format!("Service {service}"),
    }
}

/// Whose callers it is for: none means all.
fn exported(it: &VirtualService) -> Vec<Option<Arc<str>>> {
    if it.export_to.is_empty() || it.export_to.iter().any(|to| &**to == "*") {
        return vec![None];
    }
    let own = |to: &Arc<str>| if &**to == "." { it.meta.key.namespace.clone() } else { to.clone() };
    it.export_to.iter().filter(|to| &***to != "~").map(|to| Some(own(to))).collect()
}

fn header_filters((request, response): &(HeaderModifier, HeaderModifier)) -> impl Iterator<Item = Filter> {
    let some = |it: &HeaderModifier| (*it != HeaderModifier::default()).then(|| it.clone());
    let request = some(request).map(Filter::RequestHeaders);
    request.into_iter().chain(some(response).map(Filter::ResponseHeaders))
}

fn redirect(
    path: &Option<PathModifier>,
    authority: &Option<Arc<str>>,
    scheme: &Option<Arc<str>>,
    port: Option<u16>,
    status: u16,
) -> Redirect {
    let (hostname, own_port) = match authority.as_deref().map(|it| it.rsplit_once(':')) {
        Some(Some((host, port))) if port.parse::<u16>().is_ok() => (Some(host.into()), port.parse().ok()),
        _ => (authority.clone(), None),
    };
    // Another host is asked on its scheme's own port unless one is named.
    let default = hostname.is_some().then_some(if scheme.as_deref() == Some("https") { 443 } else { 80 });
    let port = port.or(own_port).or(default.filter(|_| scheme.is_none()));
    Redirect { scheme: scheme.clone(), hostname, path: path.clone(), port, status }
}

/// Every match of a root with every match of its delegate: both must hold.
fn join_matches(root: &[VirtualMatch], inner: &[VirtualMatch]) -> Vec<VirtualMatch> {
    if root.is_empty() || inner.is_empty() {
        return root.iter().chain(inner).cloned().collect();
    }
    root.iter().flat_map(|outer| inner.iter().filter_map(move |inner| join(outer, inner))).collect()
}

fn join(outer: &VirtualMatch, inner: &VirtualMatch) -> Option<VirtualMatch> {
    let mut out = inner.clone();
    match (outer.has_path, inner.has_path) {
        (true, false) => {
            out.matched.path = outer.matched.path.clone();
            out.has_path = true;
        }
        // Of two paths the inner one must be the narrower, or nothing can match both that we could tell.
        (true, true) if !narrower(&inner.matched.path, &outer.matched.path) => return None,
        _ => {}
    }
    if out.gateways.is_empty() {
        out.gateways = outer.gateways.clone();
    }
    out.matched.headers.extend(outer.matched.headers.iter().cloned());
    out.matched.query.extend(outer.matched.query.iter().cloned());
    match (&out.matched.method, &outer.matched.method) {
        (Some(one), Some(other)) if one != other => return None,
        (None, Some(method)) => out.matched.method = Some(method.clone()),
        _ => {}
    }
    if let Some(more) = &outer.matched.more {
        let mut joined = out.matched.more.take().map(|it| *it).unwrap_or_default();
        let MatchMore {
            ignore_case,
            scheme,
            method,
            authority,
            without_headers,
            port,
            source_namespace,
            source_labels,
            destinations,
        } = &**more;
        joined.ignore_case |= ignore_case;
        joined.scheme = joined.scheme.or_else(|| scheme.clone());
        joined.method = joined.method.or_else(|| method.clone());
        joined.authority = joined.authority.or_else(|| authority.clone());
        joined.without_headers.extend(without_headers.iter().cloned());
        joined.port = joined.port.or(*port);
        // A caller is in one namespace and has one value for a label.
        let other = |have: &Option<Arc<str>>| source_namespace.as_ref().zip(have.as_ref()).is_some_and(|(a, b)| a != b);
        if other(&joined.source_namespace)
            || source_labels.iter().any(|(name, value)| joined.source_labels.get(name).is_some_and(|it| it != value))
        {
            return None;
        }
        joined.source_namespace = joined.source_namespace.or_else(|| source_namespace.clone());
        joined.source_labels.extend(source_labels.clone());
        // Requests are not asked for it: the fields of `http` have no such match.
        joined.destinations.extend(destinations);
        out.matched.more = Some(Box::new(joined));
    }
    Some(out)
}

/// Whether everything that the first matches the second matches too, as far as it can be told.
fn narrower(inner: &PathMatch, outer: &PathMatch) -> bool {
    match (inner, outer) {
        (PathMatch::Exact(inner) | PathMatch::Text(inner) | PathMatch::Prefix(inner), PathMatch::Text(outer)) => {
            inner.starts_with(&**outer)
        }
        (inner, outer) => inner == outer,
    }
}

/// Why a rule cannot be used.
fn bad_rule(rule: &VirtualRule) -> Option<String> {
    if !rule.flaw.is_empty() {
        return Some(rule.flaw.to_string());
    }
    let mut patterns: Vec<&Arc<str>> = Vec::new();
    fn of_text<'a>(text: &'a TextMatch, patterns: &mut Vec<&'a Arc<str>>) {
        if let TextMatch::Regex(pattern) = text {
            patterns.push(pattern);
        }
    }
    for VirtualMatch { matched, .. } in &rule.matches {
        if let PathMatch::Regex(pattern) = &matched.path {
            patterns.push(pattern);
        }
        matched.headers.iter().chain(&matched.query).for_each(|it| of_text(&it.value, &mut patterns));
        if let Some(more) = &matched.more {
            more.without_headers.iter().for_each(|it| of_text(&it.value, &mut patterns));
            [&more.scheme, &more.method, &more.authority]
                .into_iter()
                .flatten()
                .for_each(|it| of_text(it, &mut patterns));
        }
    }
    if let Some(PathModifier::ReplaceRegex { pattern, .. }) = rule.rewrite.as_ref().and_then(|it| it.path.as_ref()) {
        patterns.push(pattern);
    }
    for origin in rule.cors.iter().flat_map(|cors| &cors.allow_origin_patterns) {
        of_text(origin, &mut patterns);
    }
    let bad = patterns.into_iter().find_map(|text| pattern::whole(text).err());
    bad.map(|bad| bad.to_string())
        .or_else(|| (rule.destinations.is_empty() && rule.instead.is_none()).then(|| "it leads nowhere".to_owned()))
}
