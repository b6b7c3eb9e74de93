//! Role-based access control, as an HTTP filter.
use super::message::{Message, extension};
use super::route::{Text, string_matcher};
use bytes::Bytes;

/// Under which name the token filter leaves a verified token's claims.
pub(super) const PAYLOAD: &str = "payload";
const NETWORK_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

/// Who.
#[derive(Clone, Debug)]
pub enum Principal {
    /// The URI of the client's certificate.
    Identity(Text),
    /// The address that the connection comes from: address and prefix length.
    Address(String, u32),
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

fn permission(of: &Permission) -> Message {
    match of {
        // header { name, string_match }, url_path { path }, destination_port, destination_ip, requested_server_name, not_rule
        Permission::Header(name, text) => Message::new().child(4, header(name, text)),
        Permission::Path(text) => Message::new().child(10, Message::new().child(1, string_matcher(text))),
        Permission::Port(port) => Message::new().number(6, u64::from(*port)),
        Permission::Address(address, length) => Message::new().child(5, block(address, *length)),
        Permission::ServerName(text) => Message::new().child(9, string_matcher(text)),
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
        Principal::Address(address, length) => Message::new().child(10, block(address, *length)),
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
pub(super) fn policies(deny: bool, rules: &[RbacRule]) -> Message {
    // action ALLOW 0, DENY 1; policies by name
    let policies = rules.iter().map(|rule| Message::new().text(1, &rule.name).child(2, policy(rule)));
    Message::new().number(1, u64::from(deny)).children(2, policies)
}

/// An `envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter`. `deny`: what matches is refused; else only what matches is
/// taken.
pub fn rbac_filter(name: &str, deny: bool, rules: &[RbacRule]) -> Bytes {
    extension(name, 4, FILTER, Message::new().child(1, policies(deny, rules))).finish()
}

/// The same for connections that are passed whole: an `envoy.config.listener.v3.Filter`.
pub fn rbac_network_filter(name: &str, deny: bool, rules: &[RbacRule]) -> Bytes {
    // rules, stat_prefix
    extension(name, 4, NETWORK_FILTER, Message::new().child(1, policies(deny, rules)).text(3, name)).finish()
}
