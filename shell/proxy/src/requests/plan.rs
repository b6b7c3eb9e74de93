//! What is to be done with a request: asked of `traffic` and `authz`, then carried out elsewhere.
use super::guard::{Ground, Guarded};
use super::reply::{Reply, is_grpc};
use super::session::{self, Held};
use super::{Place, Site};
use crate::origin::Origin;
use crate::random;
use crate::telemetry::Flag;
use crate::upstream::{Asker, Port};
use crate::worker::Worker;
use bytes::Bytes;
use http1::{Fields, RequestHead, ResponseHead};
use model::mesh::attached::{Hedging, PolicyTarget};
use model::mesh::{
    Abort, AppProtocol, BackendTarget, BackendTls, Fault, Filter, HeaderModifier, Headers, Mirror, Retry, Rewrite,
    Route, RouteKind, Rule, Timeouts,
};
use model::{Key, Labels};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use traffic::cors::CorsVerdict;
use traffic::meant::{Asks, Meant};
use traffic::request::{Came, host_without_port};
use traffic::{GatewayEntry, RequestView, RouteTable};

/// Where a request goes and what happens on its way.
#[derive(Debug)]
pub struct Plan {
    /// On whose behalf.
    pub origin: Arc<Origin>,
    /// Where to.
    pub target: Target,
    /// The rule that said so, if any did.
    pub chosen: Option<Chosen>,
    /// The gateway through which it came.
    pub gateway: Option<Arc<GatewayEntry>>,
    /// Headers for the answer that depend on the request (CORS, limits).
    pub answer_headers: Vec<(Cow<'static, str>, String)>,
    /// A delay that the rule makes on purpose.
    pub delay_ms: u64,
    /// When it is slow it is sent again.
    pub hedging: Option<Hedging>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// To an endpoint of a service's port.
    Port(Arc<Port>),
    /// To the local process.
    Process(SocketAddr),
}

impl Target {
    /// The service's port.
    pub fn port(&self) -> Option<u16> {
        match self {
            Target::Port(port) => Some(port.entry().port.port),
            Target::Process(_) => None,
        }
    }
}

/// A rule and what was chosen in it. Indices, so that it can outlive the table.
#[derive(Clone, Debug)]
pub struct Chosen {
    route: Arc<Route>,
    rule: usize,
    matched: usize,
    backend: Option<usize>,
    /// What keeps the client's requests together.
    session: Option<Arc<Held>>,
}

/// Header fields for those who decide, those included that the codec reads itself.
pub struct View<'a>(pub &'a RequestHead);

impl Headers for View<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.0.fields.get_all(name);
        let Some(first) = values.next().map(String::from_utf8_lossy) else { return self.0.read_here(name) };
        Some(values.fold(first, |joined, value| Cow::Owned(format!("{joined},{}", String::from_utf8_lossy(value)))))
    }
}

impl Chosen {
    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.route.rules[self.rule]
    }

    /// Whether failures are told in gRPC's way whatever the request looks like.
    pub fn is_grpc(&self) -> bool {
        self.route.kind == RouteKind::Grpc
    }

    fn filters(&self) -> impl Iterator<Item = &Filter> {
        let of_backend = self.backend.map_or(&[][..], |index| &self.rule().backends[index].filters);
        self.rule().filters.iter().chain(of_backend)
    }

    fn prefix(&self) -> Option<&str> {
        match &self.rule().matches.get(self.matched)?.path {
            model::mesh::PathMatch::Prefix(prefix) | model::mesh::PathMatch::Text(prefix) => Some(prefix),
            _ => None,
        }
    }

    /// What keeps the client's requests together.
    pub fn session(&self) -> Option<&Held> {
        self.session.as_deref()
    }

    /// Name of the route, for logs.
    pub fn name(&self) -> &str {
        &self.route.name
    }
}

impl Plan {
    /// Without a rule.
    pub fn new(origin: Arc<Origin>, target: Target) -> Self {
        Self { origin, target, chosen: None, gateway: None, answer_headers: Vec::new(), delay_ms: 0, hedging: None }
    }

    /// Retries that the rule asks for.
    pub fn retry(&self) -> Option<&Retry> {
        self.chosen.as_ref().and_then(|chosen| chosen.rule().retry.as_ref())
    }

    /// Limits on time.
    pub fn timeouts(&self) -> Timeouts {
        self.chosen.as_ref().map(|chosen| chosen.rule().timeouts).unwrap_or_default()
    }

    /// What policies name that hang on its route, and the name of the rule.
    pub fn on_route(&self) -> Option<(PolicyTarget, &str)> {
        let chosen = self.chosen.as_ref()?;
        Some((PolicyTarget::Route { route: chosen.name().into(), rule: "".into() }, &chosen.rule().name))
    }

    /// What policies name that hang on its gateway, and the name of the listener that took the request. `came`: its head as it came.
    pub fn on_gateway(&self, site: &Site, came: &RequestHead) -> Option<(PolicyTarget, String)> {
        let (Place::Gateway(door, _), Some(gateway)) = (&site.place, &self.gateway) else { return None };
        let listener = door.listener(&host_of(came.authority()));
        let section = listener.map(|found| found.listener().listener.name.to_string()).unwrap_or_default();
        Some((PolicyTarget::Gateway { gateway: gateway.gateway.key.clone(), listener: "".into() }, section))
    }

    /// The service, for telemetry.
    pub fn service(&self) -> Option<&Key> {
        match &self.target {
            Target::Port(port) => Some(port.service().service.known_as()),
            Target::Process(_) => None,
        }
    }

    /// The TLS that the service is called under, beside the mesh's own: as a BackendTLSPolicy says for gateways, else a DestinationRule.
    pub fn backend_tls(&self) -> Option<&Arc<BackendTls>> {
        let Target::Port(port) = &self.target else { return None };
        port.tls(self.gateway.is_some())
    }

    /// Whether the endpoint is spoken to in HTTP/2.
    pub fn http2(&self, site: &Site, came_in_http2: bool) -> bool {
        let as_it_came = match (&self.target, &site.place) {
            // A gateway ends its clients' connections: what they speak says nothing about what the service speaks.
            (Target::Port(_), Place::Gateway(..)) => false,
            (Target::Port(port), _) => came_in_http2 && port.app_protocol() != AppProtocol::Tls,
            (Target::Process(_), _) => false,
        };
        as_it_came || self.is_said_to_speak_http2(came_in_http2)
    }

    /// Whether somebody who knows the endpoint says that it speaks HTTP/2: its port, a policy, or, of the local process, the caller's proxy.
    pub fn is_said_to_speak_http2(&self, came_in_http2: bool) -> bool {
        match &self.target {
            Target::Port(port) => {
                port.app_protocol().is_http2() || port.policy().is_some_and(|policy| policy.pool.upgrade_to_http2)
            }
            Target::Process(_) => came_in_http2,
        }
    }

    /// Mirrors that this request goes to as well.
    pub fn mirrors(&self) -> impl Iterator<Item = &Mirror> {
        self.chosen.iter().flat_map(Chosen::filters).filter_map(|filter| match filter {
            Filter::Mirror(mirror) if mirror.fraction.holds(random::u32()) => Some(mirror),
            _ => None,
        })
    }

    /// Does to an answer what the rule says.
    pub fn finish(&self, head: &mut ResponseHead) {
        for filter in self.chosen.iter().flat_map(Chosen::filters) {
            if let Filter::ResponseHeaders(modifier) = filter {
                modify(&mut head.fields, modifier);
            }
        }
        for (name, value) in &self.answer_headers {
            // Cookies of others stay, and what the answer varies by otherwise.
            let _ = match &**name {
                "set-cookie" | "vary" => head.fields.append(name, value.as_bytes()),
                _ => head.fields.set(name, value.as_bytes()),
            };
        }
    }
}

/// Decides about a request and changes its head as the rule says.
pub fn plan(
    worker: &Worker,
    site: &Site,
    head: &mut RequestHead,
    ground: &Ground,
    guarded: &Guarded,
) -> Result<Plan, Reply> {
    match &site.place {
        Place::Process { pod, to, caller } => {
            if !ground.admits(site, head, guarded) {
                return Err(Reply::denied());
            }
            vouch(head, pod.origin.identity.name.as_ref(), caller.identity.as_ref());
            Ok(Plan::new(pod.origin.clone(), Target::Process(pod.local_address(*to))))
        }
        Place::Service { service, to } => {
            let port = called(worker, site, head, service.as_ref(), *to);
            let port = port.ok_or_else(|| Reply::new(503, "the service is gone").flagged(Flag::NoCluster))?;
            let table = port.entry().table_for(&site.origin.namespace);
            if table.is_empty() {
                return Ok(Plan::new(site.origin.clone(), Target::Port(port)));
            }
            let came = ("http", port.entry().port.port);
            let caller = table.asks_labels().then(|| worker.shared.mesh.workload_of(&site.origin)).flatten();
            let labels = caller.as_ref().map(|caller| &caller.labels);
            let chosen = choose(table, head, came, (&site.origin.namespace, labels))?;
            carry_out(worker, (site.origin.clone(), None, *to), chosen, head, came)
        }
        Place::Gateway(door, name) => {
            let found = ground.found.as_ref();
            let found = found.ok_or_else(|| Reply::new(404, "no listener for the host").flagged(Flag::NoRoute))?;
            let came_to = name.as_ref().map(|name| door.listener(name));
            if came_to.is_some_and(|came_to| came_to.is_none_or(|came_to| !came_to.is_same(found))) {
                // The connection was opened to another listener, whose certificate and rules on clients are its own.
                return Err(Reply::new(421, "misdirected request").flagged(Flag::NoRoute));
            }
            if !ground.admits(site, head, guarded) {
                return Err(Reply::denied());
            }
            let proto = if door.is_tls() { "https" } else { "http" };
            let chosen = choose(&found.listener().table, head, (proto, door.port()), ("", None))?;
            forwarded(head, site.client, proto);
            let through = (found.origin().clone(), Some(found.gateway().clone()), None);
            carry_out(worker, through, chosen, head, (proto, door.port()))
        }
    }
}

/// The port that a pod calls: the one that its connection is for, else the one that the request's host names; what it names that no service
/// has goes where it was meant to go.
fn called(
    worker: &Worker,
    site: &Site,
    head: &RequestHead,
    service: Option<&(Key, u16)>,
    to: Option<SocketAddr>,
) -> Option<Arc<Port>> {
    let asker = Asker { origin: &site.origin, to };
    if let Some((service, port)) = service {
        return worker.ports.get(&worker.shared, service, *port, asker);
    }
    let to = to?;
    let meant = worker.shared.mesh.known().directory.meant(to, &site.origin.namespace);
    let named = match meant {
        Meant::Nobody => None,
        Meant::One(entry) => Some(entry),
        Meant::ByName(choice) => choice.asking(Asks::Host(&host_of(head.authority()))).cloned(),
    };
    let named = named.and_then(|entry| worker.ports.get(&worker.shared, &entry.service.key, to.port(), asker));
    Some(named.unwrap_or_else(|| worker.ports.nobodys(&worker.shared, to)))
}

/// The identity that was proved, and nothing that the caller says of itself.
fn vouch(head: &mut RequestHead, own: &str, caller: Option<&authz::mesh::Identity>) {
    const FIELD: &str = "x-forwarded-client-cert";
    match caller {
        Some(caller) => drop(head.fields.set(FIELD, format!("By={own};URI={caller}").as_bytes())),
        None => head.fields.remove(FIELD),
    }
}

fn forwarded(head: &mut RequestHead, client: SocketAddr, proto: &str) {
    let mut chain = String::new();
    // A proxy before us may have added a line of its own: each is as good as another, and theirs is the last.
    for line in head.fields.get_all("x-forwarded-for").filter(|line| !line.is_empty()) {
        chain.push_str(&String::from_utf8_lossy(line));
        chain.push_str(", ");
    }
    push_address(client.ip(), &mut chain);
    let _ = head.fields.set("x-forwarded-for", chain.as_bytes());
    let _ = head.fields.set("x-forwarded-proto", proto.as_bytes());
    head.fields.remove("x-forwarded-client-cert");
}

/// As `Display` writes it, which takes its time.
fn push_address(address: IpAddr, out: &mut String) {
    let IpAddr::V4(v4) = address else { return out.push_str(&address.to_string()) };
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.push('.');
        }
        for unit in [100, 10, 1] {
            if octet >= unit || unit == 1 {
                out.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
}

pub(super) fn host_of(authority: &str) -> Cow<'_, str> {
    let host = host_without_port(authority);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

fn choose(
    table: &RouteTable,
    head: &RequestHead,
    (scheme, port): (&str, u16),
    (namespace, labels): (&str, Option<&Labels>),
) -> Result<Chosen, Reply> {
    let authority = head.authority();
    let host = host_of(authority);
    let view = View(head);
    let came = Came { scheme, authority, port, namespace, labels };
    let request = RequestView::new(&host, head.target(), head.method(), &view).by(came);
    let hit = table.find(&request).ok_or_else(|| Reply::new(404, "no route").flagged(Flag::NoRoute))?;
    let session = hit.rule().session.as_ref().map(|session| Arc::new(session::held(session, head)));
    let draw = session.as_ref().map_or_else(random::u32, |held| held.draw());
    let backend = traffic::balance::weighted(&hit.rule().backends, draw);
    Ok(Chosen { route: hit.route.clone(), rule: hit.rule_index, matched: hit.match_index, backend, session })
}

/// Filters, then the backend. `came_by`: scheme and port that the request came by.
fn carry_out(
    worker: &Worker,
    (origin, gateway, to): (Arc<Origin>, Option<Arc<GatewayEntry>>, Option<SocketAddr>),
    chosen: Chosen,
    head: &mut RequestHead,
    came_by: (&str, u16),
) -> Result<Plan, Reply> {
    let mut answer_headers = Vec::new();
    let mut delay_ms = 0;
    for filter in chosen.filters() {
        match filter {
            Filter::RequestHeaders(modifier) => modify_request(head, modifier),
            Filter::Rewrite(rewrite) => apply_rewrite(head, rewrite, chosen.prefix()),
            Filter::Redirect(redirect) => {
                let host = host_of(head.authority());
                let view = View(head);
                let request = RequestView::new(&host, head.target(), head.method(), &view);
                let location = traffic::rewrite::location(redirect, &request, chosen.prefix(), came_by.0, came_by.1);
                return Err(Reply::new(redirect.status, "redirect").with("location", location));
            }
            Filter::Cors(cors) => {
                let Some(asker) = head.fields.get_str("origin") else { continue };
                let asked = |name: &str| head.fields.get_str(name);
                let method = asked("access-control-request-method");
                let headers = asked("access-control-request-headers");
                match traffic::cors::decide(cors, asker, head.method(), method, headers) {
                    CorsVerdict::Answer(headers) => {
                        let reply = Reply::new(204, "preflight");
                        return Err(headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value)));
                    }
                    CorsVerdict::Pass(headers) => {
                        answer_headers.extend(headers.into_iter().map(|(name, value)| (name.into(), value)));
                    }
                }
            }
            Filter::Fault(fault) => delay_ms = made_fault(fault, head)?,
            Filter::Respond(response) => {
                let body = Bytes::copy_from_slice(&response.body);
                return Err(Reply::new(response.status, "direct response").after(delay_ms).saying(body));
            }
            Filter::ResponseHeaders(_) | Filter::Mirror(_) => {}
        }
    }
    let failed = |why| Reply::new(if chosen.is_grpc() { 503 } else { 500 }, why).flagged(Flag::NoCluster);
    let backend = chosen.backend.ok_or_else(|| failed("the rule has no backend"))?;
    let target = match &chosen.rule().backends[backend].target {
        BackendTarget::Invalid { .. } => return Err(failed("the backend is not valid")),
        BackendTarget::Service { service, port } => {
            let port = if *port == 0 { came_by.1 } else { *port };
            let port = worker.ports.get(&worker.shared, service, port, Asker { origin: &origin, to });
            Target::Port(port.ok_or_else(|| failed("the backend does not exist"))?)
        }
    };
    Ok(Plan { chosen: Some(chosen), gateway, answer_headers, delay_ms, ..Plan::new(origin, target) })
}

/// The delay that a request gets, or the answer that it gets in place of the service's.
fn made_fault(fault: &Fault, head: &RequestHead) -> Result<u64, Reply> {
    let delay_ms = fault.delay.filter(|(_, share)| share.holds(random::u32())).map_or(0, |(ms, _)| ms);
    let made = |status| Reply::new(status, "fault filter abort").flagged(Flag::FaultInjected);
    match fault.abort.filter(|(_, share)| share.holds(random::u32())) {
        None => Ok(delay_ms),
        Some((Abort::Http(status), _)) => Err(made(status).after(delay_ms)),
        Some((Abort::Grpc(status), _)) if is_grpc(&head.fields) => {
            let reply = made(200).with("grpc-status", status.to_string());
            Err(reply.with("content-type", "application/grpc".into()).after(delay_ms))
        }
        Some((Abort::Grpc(status), _)) => Err(made(http_of_grpc(status)).after(delay_ms)),
    }
}

/// The HTTP status that stands for gRPC's, as its own table has it.
fn http_of_grpc(status: u16) -> u16 {
    match status {
        0 => 200,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

fn apply_rewrite(head: &mut RequestHead, rewrite: &Rewrite, prefix: Option<&str>) {
    if let Some(hostname) = &rewrite.hostname {
        head.set_authority(hostname);
    }
    if let Some(modifier) = &rewrite.path {
        let path = traffic::rewrite::path(modifier, head.path(), prefix);
        let target = head.query().map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
        if target.bytes().all(|byte| byte > b' ' && byte != 0x7f) {
            head.set_target(&target);
        }
    }
}

/// `Host` is a header to who writes a route, and not one of the fields here.
fn modify_request(head: &mut RequestHead, modifier: &HeaderModifier) {
    for (name, value) in modifier.set.iter().filter(|(name, _)| &**name == "host") {
        debug_assert_eq!(&**name, "host");
        if !value.is_empty() && value.bytes().all(|byte| byte > b' ' && byte != 0x7f) {
            head.set_authority(value);
        }
    }
    modify(&mut head.fields, modifier);
}

/// Whether a field, in small letters, is the codec's: framing, host and what holds for one hop. Neither a route nor a service that is asked
/// about a request can set it.
pub(super) fn is_codecs(name: &str) -> bool {
    matches!(name, "host" | "connection" | "content-length" | "transfer-encoding" | "upgrade" | "te")
}

fn modify(fields: &mut Fields, modifier: &HeaderModifier) {
    for (name, value) in modifier.set.iter().filter(|(name, _)| !is_codecs(name)) {
        let _ = fields.set(name, value.as_bytes());
    }
    for (name, value) in modifier.add.iter().filter(|(name, _)| !is_codecs(name)) {
        let _ = fields.append(name, value.as_bytes());
    }
    for name in &modifier.remove {
        fields.remove(name);
    }
}
