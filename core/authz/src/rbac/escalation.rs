//! Nobody may grant what they do not have.

use super::Rule;
use super::rule::{has, resource_matches};
use std::sync::Arc;

/// Whether `held` together grant everything that `wanted` grants.
pub fn covers(held: &[&Rule], wanted: &[Rule]) -> bool {
    uncovered(held, wanted).is_empty()
}

/// The parts of `wanted` that `held` do not grant, one verb, group and resource each, as Kubernetes names them in its refusal.
pub fn uncovered(held: &[&Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(atoms).filter(|atom| !held.iter().any(|rule| rule_covers(rule, atom))).collect()
}

/// A rule as the product of its lists: every element has one of each.
fn atoms(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.non_resource_urls {
            out.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let atom =
                    Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.resource_names.is_empty() {
                    out.push(atom.clone());
                }
                out.extend(rule.resource_names.iter().map(|name| Rule { resource_names: one(name), ..atom.clone() }));
            }
        }
    }
    out
}

fn one(text: &Arc<str>) -> Vec<Arc<str>> {
    vec![text.clone()]
}

fn rule_covers(held: &Rule, atom: &Rule) -> bool {
    if !has(&held.verbs, &atom.verbs[0]) {
        return false;
    }
    if let Some(url) = atom.non_resource_urls.first() {
        return held.non_resource_urls.iter().any(|have| match have.strip_suffix('*') {
            Some(prefix) => url.starts_with(prefix),
            None => have == url,
        });
    }
    let (resource, subresource) = match atom.resources[0].split_once('/') {
        Some(parts) => parts,
        None => (&*atom.resources[0], ""),
    };
    has(&held.api_groups, &atom.api_groups[0])
        && held.resources.iter().any(|have| resource_matches(have, resource, subresource))
        && (held.resource_names.is_empty()
            || atom.resource_names.first().is_some_and(|name| held.resource_names.contains(name)))
}
