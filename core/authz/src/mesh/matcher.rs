//! Rules compiled: each a conjunction of parts, each part a list of alternatives.

use super::path::{Template, is_template};
use super::{Call, HttpCall, Jwt};
use model::Key;
use model::mesh::{Action, AuthorizationPolicy, Condition, Operation, PolicyRule, Source, Subnet};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// A compiled policy.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) key: Key,
    pub(super) action: Action,
    pub(super) dry_run: bool,
    pub(super) provider: Arc<str>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    from: Vec<Conjunction>,
    to: Vec<Conjunction>,
    when: Conjunction,
}

/// All must hold.
type Conjunction = Vec<Check>;

/// One field: some of `any` (if there are values) and none of `none`.
#[derive(Clone, Debug)]
struct Check {
    attribute: Attribute,
    any: Option<Vec<Pattern>>,
    none: Vec<Pattern>,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    SourceIp,
    RemoteIp,
    DestinationIp,
    DestinationPort,
    Sni,
    Host,
    Method,
    Path,
    Header(Arc<str>),
    /// `ISSUER/SUBJECT` of the verified token.
    RequestPrincipal,
    /// `aud` of it.
    Audience,
    /// `azp` of it.
    Presenter,
    /// A claim of it.
    Claim(Arc<str>),
    /// Not known, or without any value: cannot be decided.
    Unknown,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(Arc<str>),
    ExactIgnoreCase(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Present,
    Template(Template),
    Block(Subnet),
    Port(u16),
    /// Not valid: matches nothing.
    Never,
}

/// How a text's patterns are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    TextIgnoreCase,
    Exact,
    Path,
    Block,
    Port,
}

impl Policy {
    pub(super) fn compile(policy: &AuthorizationPolicy) -> Self {
        Policy {
            key: policy.key.clone(),
            action: policy.action,
            dry_run: policy.dry_run,
            provider: policy.provider.clone(),
            rules: policy.rules.iter().map(Rule::compile).collect(),
        }
    }

    /// How many rules it has.
    pub(super) fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Whether one of its rules matches.
    pub(super) fn rule_matches(&self, rule: usize, call: &Call<'_>) -> bool {
        // What cannot be decided must not widen what is allowed, and may widen what is refused.
        self.rules[rule].matches(call, self.action != Action::Allow)
    }

    /// What one of its rules needs of an attribute; none: it can match whatever that is.
    pub(super) fn needs(&self, rule: usize, attribute: &Attribute) -> Option<Needs<'_>> {
        self.rules[rule].needs(attribute)
    }
}

/// The texts of which a call must have one, or begin with one, for a rule to match.
#[derive(Debug, Default)]
pub(super) struct Needs<'a> {
    pub(super) equal: Vec<&'a str>,
    pub(super) begins: Vec<Cow<'a, str>>,
}

impl Rule {
    fn compile(rule: &PolicyRule) -> Self {
        Rule {
            from: rule.from.iter().map(source).collect(),
            to: rule.to.iter().map(operation).collect(),
            when: rule.when.iter().map(condition).collect(),
        }
    }

    fn matches(&self, call: &Call<'_>, undecided: bool) -> bool {
        let all = |checks: &Conjunction| checks.iter().all(|check| check.holds(call).unwrap_or(undecided));
        let some = |alternatives: &[Conjunction]| alternatives.is_empty() || alternatives.iter().any(all);
        some(&self.from) && some(&self.to) && all(&self.when)
    }

    fn needs(&self, attribute: &Attribute) -> Option<Needs<'_>> {
        of_each(&self.from, attribute)
            .or_else(|| of_each(&self.to, attribute))
            .or_else(|| of_each(std::slice::from_ref(&self.when), attribute))
    }
}

/// What alternatives need of an attribute, if each of them needs something.
fn of_each<'a>(alternatives: &'a [Conjunction], attribute: &Attribute) -> Option<Needs<'a>> {
    let mut needs = Needs::default();
    for checks in alternatives {
        checks.iter().find(|check| check.attribute == *attribute)?.needs(&mut needs)?;
    }
    (!alternatives.is_empty()).then_some(needs)
}

fn source(source: &Source) -> Conjunction {
    let checks = [
        check(Attribute::Principal, Form::Text, &source.principals, &source.not_principals),
        check(Attribute::RequestPrincipal, Form::Text, &source.request_principals, &source.not_request_principals),
        check(Attribute::Namespace, Form::Text, &source.namespaces, &source.not_namespaces),
        check(Attribute::ServiceAccount, Form::Exact, &source.service_accounts, &source.not_service_accounts),
        check(Attribute::TrustDomain, Form::Text, &source.trust_domains, &source.not_trust_domains),
        check(Attribute::SourceIp, Form::Block, &source.ip_blocks, &source.not_ip_blocks),
        check(Attribute::RemoteIp, Form::Block, &source.remote_ip_blocks, &source.not_remote_ip_blocks),
    ];
    filled(checks)
}

fn operation(operation: &Operation) -> Conjunction {
    let checks = [
        check(Attribute::Host, Form::TextIgnoreCase, &operation.hosts, &operation.not_hosts),
        check(Attribute::DestinationPort, Form::Port, &operation.ports, &operation.not_ports),
        check(Attribute::Method, Form::Text, &operation.methods, &operation.not_methods),
        check(Attribute::Path, Form::Path, &operation.paths, &operation.not_paths),
    ];
    filled(checks)
}

fn condition(condition: &Condition) -> Check {
    let bracketed = |name: &str| {
        condition.key.strip_prefix(name).and_then(|rest| rest.strip_prefix('[')).and_then(|rest| rest.strip_suffix(']'))
    };
    let (attribute, form) = match &*condition.key {
        "source.ip" => (Attribute::SourceIp, Form::Block),
        "remote.ip" => (Attribute::RemoteIp, Form::Block),
        "source.namespace" => (Attribute::Namespace, Form::Text),
        "source.principal" => (Attribute::Principal, Form::Text),
        "source.serviceAccount" => (Attribute::ServiceAccount, Form::Exact),
        "destination.ip" => (Attribute::DestinationIp, Form::Block),
        "destination.port" => (Attribute::DestinationPort, Form::Port),
        "connection.sni" => (Attribute::Sni, Form::Text),
        "request.auth.principal" => (Attribute::RequestPrincipal, Form::Text),
        "request.auth.audiences" => (Attribute::Audience, Form::Text),
        "request.auth.presenter" => (Attribute::Presenter, Form::Text),
        _ => match (bracketed("request.headers"), bracketed("request.auth.claims")) {
            (Some(name), _) => (Attribute::Header(name.to_ascii_lowercase().into()), Form::Text),
            (None, Some(claim)) => (Attribute::Claim(claim.into()), Form::Text),
            (None, None) => (Attribute::Unknown, Form::Text),
        },
    };
    check(attribute, form, &condition.values, &condition.not_values).unwrap_or_else(Check::unknown)
}

/// None when the field is not there.
fn check(attribute: Attribute, form: Form, any: &[Arc<str>], none: &[Arc<str>]) -> Option<Check> {
    let patterns = |texts: &[Arc<str>]| texts.iter().map(|text| pattern(form, text)).collect::<Vec<_>>();
    (!any.is_empty() || !none.is_empty()).then(|| Check {
        attribute,
        any: (!any.is_empty()).then(|| patterns(any)),
        none: patterns(none),
    })
}

/// The fields that are there; a source or operation without any says nothing that can be decided.
fn filled<const N: usize>(checks: [Option<Check>; N]) -> Conjunction {
    let checks: Conjunction = checks.into_iter().flatten().collect();
    if checks.is_empty() { vec![Check::unknown()] } else { checks }
}

fn pattern(form: Form, text: &Arc<str>) -> Pattern {
    match form {
        Form::Exact => Pattern::Exact(text.clone()),
        Form::Port => text.parse().map_or(Pattern::Never, Pattern::Port),
        Form::Block => Subnet::parse(text).map_or(Pattern::Never, Pattern::Block),
        Form::Path if is_template(text) => Template::parse(text).map_or(Pattern::Never, Pattern::Template),
        Form::Text | Form::TextIgnoreCase | Form::Path => {
            let text: Arc<str> =
                if form == Form::TextIgnoreCase { text.to_ascii_lowercase().into() } else { text.clone() };
            if &*text == "*" {
                Pattern::Present
            } else if let Some(prefix) = text.strip_suffix('*') {
                Pattern::Prefix(prefix.into())
            } else if let Some(suffix) = text.strip_prefix('*') {
                Pattern::Suffix(suffix.into())
            } else if form == Form::TextIgnoreCase {
                Pattern::ExactIgnoreCase(text)
            } else {
                Pattern::Exact(text)
            }
        }
    }
}

impl Attribute {
    /// A call's value of an attribute that is one text: none when it has none. None at all: it cannot be decided.
    pub(super) fn of_call<'a>(&self, call: &Call<'a>) -> Option<Option<&'a str>> {
        match self {
            Attribute::Principal => Some(call.peer.map(|peer| peer.principal())),
            Attribute::Namespace => Some(call.peer.map(|peer| peer.namespace())),
            Attribute::Method => call.http.map(|http| Some(http.method)),
            Attribute::Path => call.http.map(|http| Some(http.path)),
            _ => None,
        }
    }
}

impl Check {
    fn unknown() -> Self {
        Check { attribute: Attribute::Unknown, any: None, none: Vec::new() }
    }

    /// What it needs of its attribute, in addition; none: any value may do.
    fn needs<'a>(&'a self, needs: &mut Needs<'a>) -> Option<()> {
        for pattern in self.any.as_ref()? {
            match pattern {
                Pattern::Exact(text) => needs.equal.push(text),
                Pattern::Prefix(text) => needs.begins.push(Cow::Borrowed(&**text)),
                Pattern::Template(template) => needs.begins.push(Cow::Owned(template.beginning())),
                Pattern::Never => {}
                _ => return None,
            }
        }
        Some(())
    }

    /// None: it cannot be decided.
    fn holds(&self, call: &Call<'_>) -> Option<bool> {
        let http = |read: &dyn Fn(&HttpCall<'_>) -> bool| call.http.as_ref().map(read);
        match &self.attribute {
            Attribute::Principal | Attribute::Namespace | Attribute::Method | Attribute::Path => {
                self.attribute.of_call(call).map(|value| self.text(value))
            }
            Attribute::ServiceAccount => {
                let name = call.peer.map(|peer| format!("{}/{}", peer.namespace(), peer.service_account()));
                Some(self.text(name.as_deref()))
            }
            Attribute::TrustDomain => Some(self.text(call.peer.map(|peer| peer.trust_domain()))),
            Attribute::SourceIp => Some(self.address(call.source_ip)),
            Attribute::RemoteIp => Some(self.address(call.remote_ip)),
            Attribute::DestinationIp => Some(self.address(call.destination_ip)),
            Attribute::DestinationPort => {
                Some(self.by(|pattern| matches!(pattern, Pattern::Port(port) if *port == call.destination_port)))
            }
            Attribute::Sni => Some(self.text(call.sni)),
            Attribute::Host => http(&|http| self.text(Some(&http.authority.to_ascii_lowercase()))),
            Attribute::Header(name) => http(&|http| self.text(http.headers.value(name).as_deref())),
            Attribute::RequestPrincipal => http(&|http| self.text(http.jwt.and_then(Jwt::principal).as_deref())),
            Attribute::Presenter => {
                http(&|http| self.text(http.jwt.map(|jwt| &*jwt.presenter).filter(|presenter| !presenter.is_empty())))
            }
            Attribute::Audience => http(&|http| self.list(http.jwt.map_or(&[], |jwt| &jwt.audiences))),
            Attribute::Claim(name) => {
                let values = |jwt: &Jwt| jwt.claims.get(name).cloned().unwrap_or_default();
                http(&|http| self.list(&http.jwt.map(values).unwrap_or_default()))
            }
            Attribute::Unknown => None,
        }
    }

    fn by(&self, matches: impl Fn(&Pattern) -> bool) -> bool {
        self.any.as_ref().is_none_or(|any| any.iter().any(&matches)) && !self.none.iter().any(&matches)
    }

    fn text(&self, value: Option<&str>) -> bool {
        self.by(|pattern| value.is_some_and(|value| pattern.matches_text(value)))
    }

    /// Any of several values.
    fn list(&self, values: &[Arc<str>]) -> bool {
        self.by(|pattern| values.iter().any(|value| pattern.matches_text(value)))
    }

    fn address(&self, address: IpAddr) -> bool {
        self.by(|pattern| matches!(pattern, Pattern::Block(block) if block.contains(address)))
    }
}

impl Pattern {
    fn matches_text(&self, value: &str) -> bool {
        match self {
            Pattern::Exact(text) => &**text == value,
            Pattern::ExactIgnoreCase(text) => text.eq_ignore_ascii_case(value),
            Pattern::Prefix(text) => value.starts_with(&**text),
            Pattern::Suffix(text) => value.ends_with(&**text),
            Pattern::Present => !value.is_empty(),
            Pattern::Template(template) => template.matches(value),
            Pattern::Block(_) | Pattern::Port(_) | Pattern::Never => false,
        }
    }
}
