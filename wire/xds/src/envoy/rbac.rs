//! Role-based access control, as a filter of requests and of connections.
use super::filter::entry;
use super::message::{Message, extension};
use super::route::{Text, string_matcher};
use bytes::Bytes;

/// Under which name the token filter leaves a verified token's claims.
pub(super) const PAYLOAD: &str = "payload";
const NETWORK_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
/// What names of statistics and of metadata begin with that are of what is tried only.
pub(super) const TRIED: &str = "tried_";
const PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";

/// Who.
#[derive(Clone, Debug)]
pub enum Principal {
    /// The URI of the client's certificate.
    Identity(Text),
    /// The same, as the tunnel told it that the connection came through: its name in the filter state.
    Told(Text),
    /// The address that the connection comes from: address and prefix length.
    Address(String, u32),
    /// The same, as the tunnel told it.
    ToldAddress(String, u32),
    /// The address of the client as far as it is told (`x-forwarded-for`): address and prefix length.
    Remote(String, u32),
    /// A header.
    Header(String, Text),
    /// A claim of the verified token: the way to it, and its text or one of its texts.
    Claim(Vec<String>, Text),
    /// All of these.
    All(Vec<Principal>),
    /// One of these.
    OneOf(Vec<Principal>),
    /// Anybody.
    Any,
    /// Not this one.
    Not(Box<Principal>),
}

/// What is done.
#[derive(Clone, Debug)]
pub enum Permission {
    /// A header (`:method`, `:authority` among them).
    Header(String, Text),
    /// The path.
    Path(Text),
    /// The port of the listener.
    Port(u16),
    /// The address of the listener: address and prefix length.
    Address(String, u32),
    /// The server name that TLS was asked for.
    ServerName(Text),
    /// Anything, or nothing.
    Known(bool),
    /// Not this.
    Not(Box<Permission>),
}

/// A rule of a policy: who may do what.
#[derive(Clone, Debug, Default)]
pub struct RbacRule {
    /// Its name.
    pub name: String,
    /// Groups: all of them, in each any.
    pub who: Vec<Vec<Principal>>,
    /// Groups: all of them, in each any.
    pub what: Vec<Vec<Permission>>,
}

impl Principal {
    /// As it is seen behind a tunnel, whose end told who called.
    fn through_tunnel(&self) -> Principal {
        let all = |them: &[Principal]| them.iter().map(Principal::through_tunnel).collect();
        match self {
            Principal::Identity(text) => Principal::Told(text.clone()),
            Principal::Address(address, length) => Principal::ToldAddress(address.clone(), *length),
            Principal::All(them) => Principal::All(all(them)),
            Principal::OneOf(them) => Principal::OneOf(all(them)),
            Principal::Not(it) => Principal::Not(Box::new(it.through_tunnel())),
            other => other.clone(),
        }
    }
}

impl Permission {
    /// Where it is known to which port a call goes, whatever port the listener has.
    fn at(&self, port: u16) -> Permission {
        match self {
            Permission::Port(of) => Permission::Known(*of == port),
            Permission::Not(it) => Permission::Not(Box::new(it.at(port))),
            other => other.clone(),
        }
    }
}

impl RbacRule {
    /// For calls of a port of the process.
    pub fn at(&self, port: u16) -> RbacRule {
        let what = self.what.iter().map(|group| group.iter().map(|it| it.at(port)).collect()).collect();
        RbacRule { what, ..self.clone() }
    }

    /// For calls that come through a tunnel.
    pub fn through_tunnel(&self) -> RbacRule {
        let who = self.who.iter().map(|group| group.iter().map(Principal::through_tunnel).collect()).collect();
        RbacRule { who, ..self.clone() }
    }
}

/// What becomes of what matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken, and nothing else.
    Allow,
    /// It is refused.
    Deny,
    /// It is noted (metadata `envoy.common`, `access_log_hint`).
    Log,
}

impl Verdict {
    /// In the order in which they are asked.
    pub const ALL: [Verdict; 3] = [Verdict::Log, Verdict::Deny, Verdict::Allow];

    /// Name of the filter that carries it out, by which routes find it.
    pub fn filter(self) -> &'static str {
        match self {
            Verdict::Log => "diolkos.rbac.audit",
            Verdict::Deny => "diolkos.rbac.deny",
            Verdict::Allow => "diolkos.rbac.allow",
        }
    }
}

/// Rules with one verdict, and those that are tried only, whose outcome is counted and in the metadata.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Name of their filter.
    pub name: &'static str,
    /// What becomes of what they match.
    pub verdict: Verdict,
    /// In force; none: nothing is decided (no rules that allow: nothing is taken).
    pub rules: Option<Vec<RbacRule>>,
    /// Tried.
    pub tried: Option<Vec<RbacRule>>,
}

impl Rules {
    /// Each rule as it is elsewhere.
    pub fn map(&self, change: impl Fn(&RbacRule) -> RbacRule) -> Rules {
        let all = |rules: &Option<Vec<RbacRule>>| rules.as_ref().map(|rules| rules.iter().map(&change).collect());
        Rules { rules: all(&self.rules), tried: all(&self.tried), ..*self }
    }

    fn of(&self, rules: &Option<Vec<RbacRule>>) -> Option<Message> {
        rules.as_ref().map(|rules| decided(self.verdict, rules))
    }

    /// rules, shadow_rules, shadow_rules_stat_prefix
    fn message(&self) -> Message {
        Message::new().maybe(1, self.of(&self.rules)).maybe(2, self.of(&self.tried)).text(3, TRIED)
    }

    /// An `envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter`.
    pub fn filter(&self) -> Bytes {
        extension(self.name, 4, FILTER, self.message()).finish()
    }

    /// The same for connections that are passed whole: an `envoy.config.listener.v3.Filter`.
    pub fn network_filter(&self) -> Bytes {
        // rules, shadow_rules, stat_prefix, shadow_rules_stat_prefix
        let message = Message::new().maybe(1, self.of(&self.rules)).maybe(2, self.of(&self.tried));
        extension(self.name, 4, NETWORK_FILTER, message.text(3, self.name).text(5, TRIED)).finish()
    }

    /// A filter that decides nothing but what a route [says](Self::on_route).
    pub(super) fn inert(name: &str) -> Message {
        extension(name, 4, FILTER, Message::new().text(3, TRIED))
    }

    /// On a route, whose changes reach connections that are open.
    pub(super) fn on_route(&self) -> Message {
        entry(self.name, PER_ROUTE, Message::new().child(2, self.message()))
    }
}

fn permission(of: &Permission) -> Message {
    match of {
        // header { name, string_match }, url_path { path }, destination_port, destination_ip, requested_server_name, not_rule
        Permission::Header(name, text) => Message::new().child(4, header(name, text)),
        Permission::Path(text) => Message::new().child(10, Message::new().child(1, string_matcher(text))),
        Permission::Port(port) => Message::new().number(6, u64::from(*port)),
        Permission::Address(address, length) => Message::new().child(5, block(address, *length)),
        Permission::ServerName(text) => Message::new().child(9, string_matcher(text)),
        // any, not_rule { any }
        Permission::Known(true) => Message::new().number(3, 1),
        Permission::Known(false) => Message::new().child(8, Message::new().number(3, 1)),
        Permission::Not(inner) => Message::new().child(8, permission(inner)),
    }
}

fn header(name: &str, text: &Text) -> Message {
    match text {
        Text::Present => Message::new().text(1, name).number(7, 1),
        text => Message::new().text(1, name).child(13, string_matcher(text)),
    }
}

/// `type.matcher.v3.MetadataMatcher`: what the token filter left of the verified token.
fn claim(path: &[String], text: &Text) -> Message {
    let way = [PAYLOAD].into_iter().chain(path.iter().map(String::as_str));
    let segments = way.map(|segment| Message::new().text(1, segment));
    let value = || Message::new().child(3, string_matcher(text));
    // or_match { string_match, list_match { one_of } }
    let listed = Message::new().child(6, Message::new().child(1, value()));
    let either = Message::new().child(7, Message::new().children(1, [value(), listed]));
    Message::new().text(1, "envoy.filters.http.jwt_authn").children(2, segments).child(3, either)
}

/// `envoy.config.core.v3.CidrRange`.
fn block(address: &str, length: u32) -> Message {
    Message::new().text(1, address).wrapped(2, u64::from(length))
}

fn principal(of: &Principal) -> Message {
    match of {
        // authenticated { principal_name }, direct_remote_ip { address_prefix, prefix_len }, any, not_id
        Principal::Identity(text) => Message::new().child(4, Message::new().child(2, string_matcher(text))),
        // filter_state { key, string_match }
        Principal::Told(text) => {
            Message::new().child(12, Message::new().text(1, super::inbound::CALLER).child(2, string_matcher(text)))
        }
        Principal::Address(address, length) => Message::new().child(10, block(address, *length)),
        // filter_state { key, address_match { ranges } }: direct_remote_ip is the inner listener's own
        Principal::ToldAddress(address, length) => {
            let range = Message::new().child(1, block(address, *length));
            Message::new().child(12, Message::new().text(1, super::inbound::ADDRESS).child(3, range))
        }
        Principal::Remote(address, length) => Message::new().child(11, block(address, *length)),
        Principal::Header(name, text) => Message::new().child(6, header(name, text)),
        Principal::Claim(path, text) => Message::new().child(13, Message::new().child(1, claim(path, text))),
        Principal::All(all) => all_of(all.iter().map(principal).collect()),
        Principal::OneOf(any) => any_of(any.iter().map(principal)),
        Principal::Any => Message::new().number(3, 1),
        Principal::Not(inner) => Message::new().child(8, principal(inner)),
    }
}

fn all_of(mut groups: Vec<Message>) -> Message {
    match groups.len() {
        0 => Message::new().number(3, 1),
        1 => groups.remove(0),
        // and_rules, and_ids
        _ => Message::new().child(1, Message::new().children(1, groups)),
    }
}

fn any_of(entries: impl IntoIterator<Item = Message>) -> Message {
    // or_rules, or_ids
    Message::new().child(2, Message::new().children(1, entries))
}

fn policy(rule: &RbacRule) -> Message {
    let what = rule.what.iter().map(|group| any_of(group.iter().map(permission))).collect();
    let who = rule.who.iter().map(|group| any_of(group.iter().map(principal))).collect();
    Message::new().child(1, all_of(what)).child(2, all_of(who))
}

/// `envoy.config.rbac.v3.RBAC`.
pub(super) fn decided(verdict: Verdict, rules: &[RbacRule]) -> Message {
    // action ALLOW 0, DENY 1, LOG 2; policies by name
    let policies = rules.iter().map(|rule| Message::new().text(1, &rule.name).child(2, policy(rule)));
    Message::new().number(1, verdict as u64).children(2, policies)
}
