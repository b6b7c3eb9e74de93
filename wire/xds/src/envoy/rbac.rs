//! Role-based access control, as an HTTP filter.
use super::message::{Message, extension};
use super::route::{Text, string_matcher};
use bytes::Bytes;

const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

/// Who.
#[derive(Clone, Debug)]
pub enum Principal {
    /// The URI of the client's certificate.
    Identity(Text),
    /// The address that the connection comes from: address and prefix length.
    Address(String, u32),
    /// Anybody.
    Any,
    /// Not this one.
    Not(Box<Principal>),
}

/// A rule of a policy: any of `who` doing what all of the groups allow, each with any of its entries.
#[derive(Clone, Debug, Default)]
pub struct RbacRule {
    /// Its name.
    pub name: String,
    /// Groups: in each any.
    pub who: Vec<Vec<Principal>>,
    /// Headers (`:method`, `:authority` among them): in each group any.
    pub headers: Vec<Vec<(String, Text)>>,
    /// Paths: any. None: all.
    pub paths: Vec<Text>,
    /// Ports: any. None: all.
    pub ports: Vec<u16>,
}

fn principal(of: &Principal) -> Message {
    match of {
        // authenticated { principal_name }, direct_remote_ip { address_prefix, prefix_len }, any, not_id
        Principal::Identity(text) => Message::new().child(4, Message::new().child(2, string_matcher(text))),
        Principal::Address(address, length) => {
            Message::new().child(10, Message::new().text(1, address).wrapped(2, u64::from(*length)))
        }
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
    let header = |(name, text): &(String, Text)| {
        Message::new().child(4, Message::new().text(1, name).child(13, string_matcher(text)))
    };
    let mut what: Vec<Message> = rule.headers.iter().map(|group| any_of(group.iter().map(header))).collect();
    if !rule.paths.is_empty() {
        // url_path { path }
        let path = |text: &Text| Message::new().child(10, Message::new().child(1, string_matcher(text)));
        what.push(any_of(rule.paths.iter().map(path)));
    }
    if !rule.ports.is_empty() {
        what.push(any_of(rule.ports.iter().map(|port| Message::new().number(6, u64::from(*port)))));
    }
    let who = rule.who.iter().map(|group| any_of(group.iter().map(principal))).collect();
    Message::new().child(1, all_of(what)).child(2, all_of(who))
}

/// An `envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter`. `deny`: what matches is refused; else only what matches is
/// taken.
pub fn rbac_filter(name: &str, deny: bool, rules: &[RbacRule]) -> Bytes {
    // action ALLOW 0, DENY 1; policies by name
    let policies = rules.iter().map(|rule| Message::new().text(1, &rule.name).child(2, policy(rule)));
    let rbac = Message::new().number(1, u64::from(deny)).children(2, policies);
    extension(name, 4, FILTER, Message::new().child(1, rbac)).finish()
}
