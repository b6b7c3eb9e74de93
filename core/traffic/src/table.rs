//! Route tables: which rule takes a request.
//!
//! One table for each place where routes hang (a listener, a service's port). Precedence is Gateway API's, over all rules of all
//! routes of the place:
//! 1. the hostname: more characters of one without wildcard, then more characters;
//! 2. the path: exact, then the longest prefix, then a regular expression, then the prefix `/` (so that a catch-all never hides an
//!    expression; the specification leaves the place of expressions to us);
//! 3. a method; 4. more headers; 5. more query parameters;
//! 6. the older route; 7. the first by `namespace/name`; 8. the first rule, the first match in it.
//!
//! A request that no rule of the most specific hostname takes is offered to those of less specific ones.
//!
//! Rules of a route that is [`ordered`](Route::ordered) come after those, in the order in which they are written.

mod ordered;

use crate::pattern::{Text, whole};
use crate::request::RequestView;
use model::map::HashMap;
use model::mesh::{Hostname, Match, PathMatch, Route, Rule, ValueMatch};
use regex::Regex;
use std::cmp::Reverse;
use std::sync::Arc;

/// The rules of one place, ready for requests.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    exact: HashMap<Arc<str>, Paths>,
    /// By what stands after the `*` of a hostname.
    wildcard: HashMap<Arc<str>, Paths>,
    any: Paths,
    asks_labels: bool,
}

/// Rules of one hostname by path.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: HashMap<Arc<str>, Vec<Candidate>>,
    /// By prefix without its final slash; the prefix `/` is in `rest`.
    prefix: HashMap<Arc<str>, Vec<Candidate>>,
    longest_prefix: usize,
    regex: Vec<(Regex, Candidate)>,
    rest: Vec<Candidate>,
    /// Of routes whose rules are tried in turn.
    ordered: Vec<ordered::Step>,
}

/// What remains to be checked once host and path match.
#[derive(Clone, Debug)]
struct Candidate {
    rank: Rank,
    method: Option<Arc<str>>,
    headers: Vec<(Arc<str>, Text)>,
    query: Vec<(Arc<str>, Text)>,
}

/// Order among candidates of equal host and path; less goes first.
type Rank = (Reverse<(bool, usize, usize)>, u32, u32, u32);

/// The rule that takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// Index of the rule in it.
    pub rule_index: usize,
    /// Index of the match in the rule.
    pub match_index: usize,
}

impl<'a> Hit<'a> {
    /// The rule.
    pub fn rule(&self) -> &'a Rule {
        &self.route.rules[self.rule_index]
    }
    /// The prefix that matched, for rewriting it; none when the path matched otherwise.
    pub fn prefix(&self) -> Option<&'a str> {
        match &self.rule().matches[self.match_index].path {
            PathMatch::Prefix(prefix) | PathMatch::Text(prefix) => Some(prefix),
            _ => None,
        }
    }
}

impl RouteTable {
    /// A table of routes, each with the hostnames for which it holds in this place (none: all).
    pub fn build<'a>(routes: impl IntoIterator<Item = (&'a Arc<Route>, &'a [Hostname])>) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by(|(a, _), (b, _)| (a.created, &a.key, a.kind).cmp(&(b.created, &b.key, b.kind)));
        let mut table = RouteTable::default();
        for (index, (route, hostnames)) in routes.into_iter().enumerate() {
            table.routes.push(route.clone());
            table.asks_labels |= asks_labels(route);
            if hostnames.is_empty() {
                table.any.add(route, index as u32);
            }
            for hostname in hostnames {
                match hostname.wildcard_suffix() {
                    Some(suffix) => table.wildcard.entry(suffix.into()).or_default().add(route, index as u32),
                    None => table.exact.entry(hostname.as_str().into()).or_default().add(route, index as u32),
                }
            }
        }
        table.exact.values_mut().chain(table.wildcard.values_mut()).for_each(Paths::sort);
        table.any.sort();
        table
    }

    /// Whether it has no route: then its place works as if routes did not exist.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Its routes, in order of precedence among equals.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Whether a rule asks for the caller's labels: who looks for a rule says them then.
    pub fn asks_labels(&self) -> bool {
        self.asks_labels
    }

    /// The rule that takes the request. None: answer 404.
    pub fn find(&self, request: &RequestView<'_>) -> Option<Hit<'_>> {
        if let Some(hit) = self.exact.get(request.host).and_then(|paths| paths.find(request)) {
            return Some(self.hit(hit));
        }
        if !self.wildcard.is_empty() {
            // `*.a.b` is kept as `.a.b`, so the suffixes to try begin at each dot, the longest first. A name of dots alone is cut off by
            // the limit that DNS puts on labels.
            let dots = request.host.bytes().enumerate().filter(|(at, byte)| *byte == b'.' && *at > 0).take(128);
            for (at, _) in dots {
                if let Some(hit) = self.wildcard.get(&request.host[at..]).and_then(|paths| paths.find(request)) {
                    return Some(self.hit(hit));
                }
            }
        }
        self.any.find(request).map(|hit| self.hit(hit))
    }

    fn hit(&self, (_, route, rule, matched): Rank) -> Hit<'_> {
        Hit { route: &self.routes[route as usize], rule_index: rule as usize, match_index: matched as usize }
    }
}

fn asks_labels(route: &Route) -> bool {
    let asks = |matched: &Match| matched.more.as_ref().is_some_and(|more| !more.source_labels.is_empty());
    route.rules.iter().any(|rule| rule.matches.iter().any(asks))
}

impl Paths {
    fn add(&mut self, route: &Route, route_index: u32) {
        if route.ordered {
            return self.ordered.extend(ordered::steps(route, route_index));
        }
        for (rule_index, rule) in route.rules.iter().enumerate() {
            for (match_index, matched) in rule.matches.iter().enumerate() {
                let candidate = Candidate::new(matched, (route_index, rule_index as u32, match_index as u32));
                match &matched.path {
                    PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(candidate),
                    PathMatch::Prefix(prefix) => match prefix.strip_suffix('/').unwrap_or(prefix) {
                        "" => self.rest.push(candidate),
                        prefix => {
                            self.longest_prefix = self.longest_prefix.max(prefix.len());
                            self.prefix.entry(prefix.into()).or_default().push(candidate);
                        }
                    },
                    // An expression that cannot be used matches nothing.
                    PathMatch::Regex(pattern) => self.regex.extend(whole(pattern).ok().map(|regex| (regex, candidate))),
                    // Only routes in order have it.
                    PathMatch::Text(_) => {}
                }
            }
        }
    }

    fn sort(&mut self) {
        for candidates in self.exact.values_mut().chain(self.prefix.values_mut()).chain([&mut self.rest]) {
            candidates.sort_by_key(|candidate| candidate.rank);
        }
        self.regex.sort_by_key(|(_, candidate)| candidate.rank);
    }

    fn find(&self, request: &RequestView<'_>) -> Option<Rank> {
        let first = |candidates: &[Candidate]| {
            candidates.iter().find(|candidate| candidate.matches(request)).map(|candidate| candidate.rank)
        };
        if let Some(rank) = self.exact.get(request.path).and_then(|candidates| first(candidates)) {
            return Some(rank);
        }
        if !self.prefix.is_empty() {
            // Element boundaries, the longest first: the whole path, then what stands before each slash.
            let path = request.path;
            let slashes = path.bytes().enumerate().rev().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
            for end in std::iter::once(path.len()).chain(slashes) {
                if end > self.longest_prefix {
                    continue;
                }
                if let Some(rank) = self.prefix.get(&path[..end]).and_then(|candidates| first(candidates)) {
                    return Some(rank);
                }
            }
        }
        self.regex
            .iter()
            .find(|(regex, candidate)| regex.is_match(request.path) && candidate.matches(request))
            .map(|(_, candidate)| candidate.rank)
            .or_else(|| first(&self.rest))
            .or_else(|| self.ordered.iter().find_map(|step| step.takes(request)))
    }
}

impl Candidate {
    fn new(matched: &Match, (route, rule, index): (u32, u32, u32)) -> Self {
        let compile = |values: &[ValueMatch]| {
            values.iter().map(|value| (value.name.clone(), Text::new(&value.value))).collect::<Vec<_>>()
        };
        let specific = (matched.method.is_some(), matched.headers.len(), matched.query.len());
        Candidate {
            rank: (Reverse(specific), route, rule, index),
            method: matched.method.clone(),
            headers: compile(&matched.headers),
            query: compile(&matched.query),
        }
    }

    fn matches(&self, request: &RequestView<'_>) -> bool {
        self.method.as_deref().is_none_or(|method| method == request.method)
            && self
                .headers
                .iter()
                .all(|(name, text)| request.headers.value(name).is_some_and(|value| text.matches(&value)))
            && self.query.iter().all(|(name, text)| request.query_value(name).is_some_and(|value| text.matches(&value)))
    }
}

#[cfg(test)]
mod tests;
