use super::Target;
use super::read::Versions;
use crate::core::Core;
use crate::form;
use crate::select::Selection;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use kube::Status;
use serde_json::{Value, json};
use storage::{Entry, Page};

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Selectors.
    pub selection: Selection,
    /// `limit`; `None` for all.
    pub limit: Option<usize>,
    /// `continue`.
    pub continue_token: Option<String>,
    /// `resourceVersion`; 0 and absent mean "whatever is newest", which costs nothing here.
    pub revision: u64,
    /// `resourceVersionMatch=Exact`.
    pub exact: bool,
}

/// A list.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// All items are as of this revision.
    pub revision: u64,
    /// Encoded, in the version of the request.
    pub items: Vec<Bytes>,
    /// Where the next page begins; empty at the end.
    pub continue_token: String,
    /// How many follow, when that is known.
    pub remaining: Option<usize>,
}

/// Lists. Stored bytes are passed on as they are; only selectors and version conversion look into them, one object at a time.
///
/// # Errors
/// A malformed or expired continue token, a revision that is not there any more or not yet.
pub fn list(core: &Core, target: &Target, request: &ListRequest) -> Result<Listed, Status> {
    let start = Start::of(core, request)?;
    let behaviour = form::behaviour(&target.resource);
    let versions = Versions::of(core, &target.resource);
    let namespace = namespace_of(target, &request.selection);
    if let Some(name) = request.selection.name().filter(|_| start.at.is_none() && start.after.is_none()) {
        return Ok(one(core, target, request, namespace, name));
    }
    let mut listed = Listed::default();
    let mut after = start.after;
    let wanted = request.limit.unwrap_or(usize::MAX);
    let mut at = start.at;
    loop {
        let page = page(core, target.key(), namespace, after.as_ref(), request.limit, at)?;
        listed.revision = page.revision;
        // Later pages of this very request are read as of the first one.
        at = Some(page.revision);
        let mut taken = 0;
        for entry in &page.items {
            if listed.items.len() == wanted {
                break;
            }
            taken += 1;
            if request.selection.is_everything() || request.selection.matches(&entry.record.bytes, behaviour) {
                listed.items.push(versions.encoded(entry.record.bytes.clone())?);
            }
        }
        let more = page.more || taken < page.items.len();
        let last = taken.checked_sub(1).map(|at| &page.items[at]);
        match last {
            Some(last) if more && listed.items.len() < wanted => after = Some(place(last)),
            Some(last) if more => {
                listed.continue_token = token(page.revision, last);
                if request.selection.is_everything() {
                    listed.remaining = page.remaining.map(|remaining| remaining + page.items.len() - taken);
                }
                return Ok(listed);
            }
            _ => return Ok(listed),
        }
    }
}

/// The one object that a field selector names, without going through all.
fn one(core: &Core, target: &Target, request: &ListRequest, namespace: Option<&str>, name: &str) -> Listed {
    let behaviour = form::behaviour(&target.resource);
    let versions = Versions::of(core, &target.resource);
    let revision = core.store.revision();
    let found: Vec<Bytes> = match namespace {
        None if target.resource.namespaced() => {
            let items = core.store.list(target.key(), None, None, None).items;
            items.into_iter().filter(|entry| &*entry.name == name).map(|entry| entry.record.bytes).collect()
        }
        namespace => core
            .store
            .get(target.key(), namespace.unwrap_or_default(), name)
            .map(|record| record.bytes)
            .into_iter()
            .collect(),
    };
    let items = found.into_iter().filter(|bytes| request.selection.matches(bytes, behaviour));
    let items = items.filter_map(|bytes| versions.encoded(bytes).ok()).collect();
    Listed { revision, items, ..Listed::default() }
}

/// The namespace to look into: the path's, or the one that a field selector pins.
pub(super) fn namespace_of<'a>(target: &'a Target, selection: &'a Selection) -> Option<&'a str> {
    if !target.resource.namespaced() {
        return None;
    }
    Some(target.namespace.as_str()).filter(|namespace| !namespace.is_empty()).or_else(|| selection.namespace())
}

type Place = (String, String);

fn place(entry: &Entry) -> Place {
    (entry.namespace.to_string(), entry.name.to_string())
}

fn page(
    core: &Core,
    key: &str,
    namespace: Option<&str>,
    after: Option<&Place>,
    limit: Option<usize>,
    at: Option<u64>,
) -> Result<Page, Status> {
    let after = after.map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    match at {
        None => Ok(core.store.list(key, namespace, after, limit)),
        Some(revision) => core.store.list_at(key, namespace, after, limit, revision).map_err(|_| {
            Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list \
                 without the continue parameter.",
            )
        }),
    }
}

struct Start {
    at: Option<u64>,
    after: Option<Place>,
}

impl Start {
    fn of(core: &Core, request: &ListRequest) -> Result<Start, Status> {
        if let Some(text) = &request.continue_token {
            return parse_token(text)
                .ok_or_else(|| Status::bad_request("continue key is not valid: it was not made by this server"));
        }
        let newest = core.store.revision();
        if request.revision > newest {
            let mut status =
                Status::timeout(format!("Too large resource version: {}, current: {newest}", request.revision));
            status.details.retry_after_s = 1;
            let message = "Too large resource version".to_owned();
            return Err(status.with_cause(kube::Cause {
                reason: "ResourceVersionTooLarge",
                field: String::new(),
                message,
            }));
        }
        Ok(Start { at: request.exact.then_some(request.revision), after: None })
    }
}

fn token(revision: u64, last: &Entry) -> String {
    BASE64.encode(json!({"v": 1, "rv": revision, "ns": &*last.namespace, "name": &*last.name}).to_string())
}

fn parse_token(text: &str) -> Option<Start> {
    let value: Value = serde_json::from_slice(&BASE64.decode(text).ok()?).ok()?;
    let part = |key: &str| value[key].as_str().map(str::to_owned);
    (value["v"] == 1).then_some(())?;
    Some(Start { at: Some(value["rv"].as_u64()?), after: Some((part("ns")?, part("name")?)) })
}
