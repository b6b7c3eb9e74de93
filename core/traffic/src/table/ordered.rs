//! Rules in the order in which they are written: a VirtualService's, of which the first that matches takes the request.

use super::{Candidate, Rank};
use crate::pattern::{Text, whole};
use crate::request::RequestView;
use model::Labels;
use model::mesh::{Match, MatchMore, PathMatch, Route, ValueMatch};
use regex::{Regex, RegexBuilder};
use std::sync::Arc;

/// A match with all its parts.
#[derive(Clone, Debug)]
pub(super) struct Step {
    path: Path,
    rest: Candidate,
    more: Option<Box<More>>,
}

#[derive(Clone, Debug)]
enum Path {
    Exact(Arc<str>),
    /// Any text that begins so.
    Text(Arc<str>),
    /// Path elements; without the final slash.
    Prefix(Arc<str>),
    Regex(Box<Regex>),
    /// From an expression that cannot be used.
    Never,
}

/// See [`MatchMore`].
#[derive(Clone, Debug)]
struct More {
    scheme: Option<Text>,
    method: Option<Text>,
    authority: Option<Text>,
    without: Vec<(Arc<str>, Text)>,
    port: Option<u16>,
    namespace: Option<Arc<str>>,
    labels: Labels,
}

/// The steps of a route.
pub(super) fn steps(route: &Route, route_index: u32) -> impl Iterator<Item = Step> + '_ {
    route.rules.iter().enumerate().flat_map(move |(rule_index, rule)| {
        let step = move |(match_index, matched): (usize, &Match)| {
            Step::new(matched, (route_index, rule_index as u32, match_index as u32))
        };
        rule.matches.iter().enumerate().map(step)
    })
}

impl Step {
    fn new(matched: &Match, place: (u32, u32, u32)) -> Self {
        let ignore_case = matched.more.as_ref().is_some_and(|more| more.ignore_case);
        Step {
            path: Path::new(&matched.path, ignore_case),
            rest: Candidate::new(matched, place),
            more: matched.more.as_ref().map(|more| Box::new(More::new(more))),
        }
    }

    /// Its place, if it takes the request.
    pub(super) fn takes(&self, request: &RequestView<'_>) -> Option<Rank> {
        let takes = self.path.matches(request.path)
            && self.rest.matches(request)
            && self.more.as_ref().is_none_or(|more| more.matches(request));
        takes.then_some(self.rest.rank)
    }
}

impl Path {
    fn new(path: &PathMatch, ignore_case: bool) -> Self {
        if ignore_case {
            return Path::without_case(path);
        }
        match path {
            PathMatch::Exact(text) => Path::Exact(text.clone()),
            PathMatch::Text(text) => Path::Text(text.clone()),
            PathMatch::Prefix(text) => Path::Prefix(text.strip_suffix('/').unwrap_or(text).into()),
            PathMatch::Regex(pattern) => whole(pattern).map_or(Path::Never, |regex| Path::Regex(Box::new(regex))),
        }
    }

    fn without_case(path: &PathMatch) -> Self {
        let pattern = match path {
            PathMatch::Exact(text) => format!("^{}$", regex::escape(text)),
            PathMatch::Text(text) => format!("^{}", regex::escape(text)),
            PathMatch::Prefix(text) => format!("^{}(/|$)", regex::escape(text.strip_suffix('/').unwrap_or(text))),
            // An expression says itself what it ignores.
            PathMatch::Regex(_) => return Path::new(path, false),
        };
        let built = RegexBuilder::new(&pattern).case_insensitive(true).build();
        built.map_or(Path::Never, |regex| Path::Regex(Box::new(regex)))
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Path::Exact(text) => &**text == path,
            Path::Text(text) => path.starts_with(&**text),
            Path::Prefix(text) => {
                path.strip_prefix(&**text).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Path::Regex(regex) => regex.is_match(path),
            Path::Never => false,
        }
    }
}

/// Whether a caller has all of these labels. Of whom none are known has none.
fn has_labels(caller: Option<&Labels>, wanted: &Labels) -> bool {
    wanted.iter().all(|(name, value)| caller.and_then(|labels| labels.get(name)) == Some(value))
}

impl More {
    fn new(more: &MatchMore) -> Self {
        More {
            scheme: more.scheme.as_ref().map(Text::new),
            method: more.method.as_ref().map(Text::new),
            authority: more.authority.as_ref().map(Text::new),
            without: more
                .without_headers
                .iter()
                .map(|it: &ValueMatch| (it.name.clone(), Text::new(&it.value)))
                .collect(),
            port: more.port,
            namespace: more.source_namespace.clone(),
            labels: more.source_labels.clone(),
        }
    }

    fn matches(&self, request: &RequestView<'_>) -> bool {
        let came = request.came;
        self.scheme.as_ref().is_none_or(|text| text.matches(came.scheme))
            && self.method.as_ref().is_none_or(|text| text.matches(request.method))
            && self.authority.as_ref().is_none_or(|text| text.matches(came.authority))
            && self.port.is_none_or(|port| port == came.port)
            && self.namespace.as_deref().is_none_or(|namespace| namespace == came.namespace)
            && has_labels(came.labels, &self.labels)
            && !self
                .without
                .iter()
                .any(|(name, text)| request.headers.value(name).is_some_and(|value| text.matches(&value)))
    }
}
