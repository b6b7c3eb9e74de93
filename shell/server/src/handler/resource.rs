//! Requests in the resource tree.

use super::Call;
use crate::body::Body;
use crate::core::Core;
use crate::form::{self, FieldValidation};
use crate::metrics::Gauge;
use crate::negotiate::{Accepted, View, accept, content_type};
use crate::ops::{
    self, Caller, DeleteOptions, Deleted, ListRequest, PatchKind, Target, WatchRequest, WriteOptions, Written,
};
use crate::request::RequestInfo;
use crate::select::Selection;
use crate::{respond, subresource, view, watching};
use bytes::Bytes;
use http::Response;
use hyper::upgrade::OnUpgrade;
use kube::codec::{Format, Kind, MEDIA_TYPES};
use kube::{Cause, Resource, Status};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Whether the connection itself is handed on.
pub(super) fn is_tunnel(info: &RequestInfo) -> bool {
    info.is_resource
        && info.group.is_empty()
        && info.resource == "pods"
        && matches!(info.subresource.as_str(), "exec" | "attach" | "portforward")
}

/// Whether the request lives on after its answer's head: it counts against another limit and has no deadline.
pub(super) fn is_stream(call: &Call) -> bool {
    let info = &call.info;
    info.verb == "watch"
        || is_tunnel(info)
        || (info.is_resource && info.resource == "pods" && info.subresource == "log")
}

/// Starts a stream.
pub(super) async fn stream(
    core: Arc<Core>,
    call: Call,
    upgrade: Option<OnUpgrade>,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Body>, Status> {
    let target = target(&core, &call)?;
    if call.info.verb == "watch" {
        if !target.resource.allows("watch") {
            return Err(Status::method_not_allowed(target.resource.group(), target.resource.plural(), "watch"));
        }
        return watch(core, &call, &target, permit);
    }
    let running = Running::new(core.clone(), permit);
    match upgrade {
        Some(upgrade) => {
            subresource::tunnel(&core, &target, &call.info, &call.query, &call.headers, call.method, upgrade, running)
                .await
        }
        None => subresource::logs(&core, &target, &call.query, running).await,
    }
}

/// A stream that counts until it ends.
pub struct Running {
    core: Arc<Core>,
    _permit: OwnedSemaphorePermit,
}

impl Running {
    pub fn new(core: Arc<Core>, permit: OwnedSemaphorePermit) -> Running {
        // The count is given back by Drop, which outlives the borrow that a Gauge holds.
        std::mem::forget(Gauge::enter(&core.metrics.streams));
        Running { core, _permit: permit }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.core.metrics.streams.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn target(core: &Core, call: &Call) -> Result<Target, Status> {
    let info = &call.info;
    let resource = core.resource(&info.group, &info.version, &info.resource)?;
    if !info.subresource.is_empty() && resource.subresource(&info.subresource).is_none() {
        return Err(Status::no_such_path());
    }
    // The namespace in the path of `namespaces/NAME` is the object's name, not its place.
    let namespace = if resource.namespaced() { info.namespace.clone() } else { String::new() };
    if !resource.namespaced() && !info.namespace.is_empty() && info.resource != "namespaces" {
        return Err(Status::no_such_path());
    }
    let named = matches!(info.verb, "get" | "update" | "patch" | "delete") || !info.subresource.is_empty();
    if named && resource.namespaced() && namespace.is_empty() {
        return Err(Status::no_such_path());
    }
    let name = if named { info.name.clone() } else { String::new() };
    Ok(Target { resource, namespace, name })
}

/// Answers a request that is no stream.
pub(super) async fn dispatch(core: &Arc<Core>, call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let target = target(core, call)?;
    let info = &call.info;
    // An object is created in its collection and changed at its own path.
    let misplaced = match info.verb {
        "create" => info.subresource.is_empty() && !info.name.is_empty(),
        "update" | "patch" => info.name.is_empty(),
        _ => false,
    };
    let allowed = match target.resource.subresource(&info.subresource) {
        Some(sub) => sub.verbs.contains(&info.verb),
        None => target.resource.allows(info.verb) && !misplaced,
    };
    if !allowed {
        return Err(Status::method_not_allowed(target.resource.group(), target.resource.plural(), info.verb));
    }
    let accepted = accept(&call.headers)?;
    let deprecated = target.resource.deprecation_warning().map(Cow::into_owned);
    let mut response = verb(core, call, target, body, accepted).await?;
    respond::warn(&mut response, deprecated.as_slice());
    Ok(response)
}

async fn verb(
    core: &Arc<Core>,
    call: &Call,
    target: Target,
    body: Bytes,
    accepted: Accepted,
) -> Result<Response<Body>, Status> {
    match call.info.verb {
        "get" => get(core, call, &target, accepted),
        "list" => list(core, call, target, accepted).await,
        "create" => create(core, call, &target, body, accepted).await,
        "update" => update(core, call, &target, body, accepted).await,
        "patch" => patch(core, call, &target, body, accepted).await,
        "delete" => delete(core, call, &target, body, accepted).await,
        "deletecollection" => delete_collection(core, call, &target, body).await,
        _ => Err(Status::method_not_allowed(target.resource.group(), target.resource.plural(), call.info.verb)),
    }
}

fn get(core: &Core, call: &Call, target: &Target, accepted: Accepted) -> Result<Response<Body>, Status> {
    if call.info.subresource == "scale" {
        return Ok(respond::value(200, accepted.encoding, &subresource::get_scale(core, target)?));
    }
    let object = ops::get(core, target)?;
    view::object(core, &target.resource, object, accepted, 200, &call.query)
}

fn selection(target: &Target, call: &Call) -> Result<Selection, Status> {
    Selection::parse(call.query.get("labelSelector"), call.query.get("fieldSelector"), &target.resource)
}

fn revision(call: &Call) -> Result<Option<u64>, Status> {
    let Some(text) = call.query.get("resourceVersion") else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

fn list_request(call: &Call, target: &Target) -> Result<ListRequest, Status> {
    let limit = call.query.number("limit").map_err(Status::bad_request)?;
    let matching = call.query.get("resourceVersionMatch");
    let revision = revision(call)?;
    let forbid = |detail: &str| {
        let cause = Cause::forbidden("resourceVersionMatch", detail);
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause]))
    };
    if matching.is_some() && revision.is_none() {
        return forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if matching.is_some_and(|text| !matches!(text, "Exact" | "NotOlderThan")) {
        let value = Value::from(matching.unwrap_or_default());
        let cause = Cause::not_supported("resourceVersionMatch", &value, ["Exact", "NotOlderThan", ""]);
        return Err(Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
    }
    Ok(ListRequest {
        selection: selection(target, call)?,
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
        continue_token: call.query.get("continue").map(str::to_owned),
        revision: revision.unwrap_or(0),
        exact: matching == Some("Exact"),
    })
}

/// Lists of more objects than this are made on a thread of their own: selectors and tables look into every object, and meanwhile
/// this thread would serve nobody.
const LARGE_LIST: usize = 1000;

async fn list(core: &Arc<Core>, call: &Call, target: Target, accepted: Accepted) -> Result<Response<Body>, Status> {
    let request = list_request(call, &target)?;
    let (shared, query) = (core.clone(), call.query.clone());
    let small = core.store.count(target.key()) <= LARGE_LIST;
    let work = move || {
        let listed = ops::list(&shared, &target, &request)?;
        view::list(&shared, &target.resource, listed, accepted, &query)
    };
    if small { work() } else { tokio::task::spawn_blocking(work).await.map_err(Status::internal)? }
}

fn watch(
    core: Arc<Core>,
    call: &Call,
    target: &Target,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Body>, Status> {
    let accepted = accept(&call.headers)?;
    let mark_initial = call.query.flag("sendInitialEvents");
    let revision = revision(call)?;
    let request = WatchRequest {
        selection: selection(target, call)?,
        // 0 means "from anywhere"; with initial events the list is as new as it gets, which satisfies NotOlderThan.
        from: revision.filter(|revision| *revision > 0 && !mark_initial),
        mark_initial,
    };
    if mark_initial && call.query.get("resourceVersionMatch") != Some("NotOlderThan") {
        let cause = Cause::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
        return Err(Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
    }
    let timeout_s = call.query.number("timeoutSeconds").map_err(Status::bad_request)?;
    let watch = ops::watch(&core, target, request)?;
    let settings = watching::Settings {
        view: accepted.view,
        bookmarks: call.query.flag("allowWatchBookmarks"),
        timeout_s: timeout_s.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0),
        include: view::include(&call.query),
    };
    let running = Running::new(core.clone(), permit);
    let stream = watching::stream(core, target.resource.clone(), watch, settings, running);
    Ok(respond::json(200, Body::stream(stream)))
}

fn caller(call: &Call) -> Result<Caller, Status> {
    const MAX: usize = 128;
    let manager = match call.query.get("fieldManager") {
        Some(manager) if manager.len() > MAX => {
            let cause = Cause::too_long("fieldManager", MAX);
            return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
        }
        Some(manager) => manager.to_owned(),
        None => {
            let agent =
                call.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
            let first = agent.split('/').next().unwrap_or_default();
            first.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX).collect()
        }
    };
    Ok(Caller { identity: call.identity.clone(), manager })
}

fn write_options(call: &Call) -> Result<WriteOptions, Status> {
    let dry_run = match call.query.get("dryRun") {
        None => false,
        Some("All") => true,
        Some(other) => {
            let cause = Cause::not_supported("dryRun", &other.into(), ["All"]);
            return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
        }
    };
    Ok(WriteOptions { dry_run, force: call.query.get("force").is_some() && call.query.flag("force") })
}

fn validation(call: &Call) -> Result<FieldValidation, Status> {
    match call.query.get("fieldValidation") {
        None | Some("Warn") => Ok(FieldValidation::Warn),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some(other) => {
            let cause = Cause::not_supported("fieldValidation", &other.into(), ["Ignore", "Strict", "Warn"]);
            Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]))
        }
    }
}

fn body_format(call: &Call) -> Result<Format, Status> {
    Format::of_content_type(&content_type(&call.headers)).ok_or_else(|| Status::unsupported_media_type(MEDIA_TYPES))
}

/// The kind of a subresource's body: its own, or the parent's.
fn body_kind<'a>(resource: &'a Resource, subresource: &str) -> Result<Kind<'a>, Status> {
    match resource.subresource(subresource) {
        Some(sub) if sub.kind != resource.kind() => Kind::builtin(&sub.group, &sub.version, &sub.kind)
            .ok_or_else(|| Status::internal("a subresource's kind has no schema")),
        _ => Ok(Kind::of(resource)),
    }
}

async fn create(
    core: &Core,
    call: &Call,
    target: &Target,
    body: Bytes,
    accepted: Accepted,
) -> Result<Response<Body>, Status> {
    let (caller, options) = (caller(call)?, write_options(call)?);
    let sub = call.info.subresource.as_str();
    let kind = body_kind(&target.resource, sub)?;
    let (mut object, mut warnings) = form::decode(&kind, body_format(call)?, &body, validation(call)?)?;
    if !sub.is_empty() {
        let (code, answer) = subresource::create(core, &caller, target, sub, object, options).await?;
        return Ok(respond::value(code, accepted.encoding, &answer));
    }
    if !target.resource.allows("get") {
        // Reviews: a question, answered and forgotten. A Binding posted to the collection is the older form of pods/binding.
        if target.resource.kind() == "Binding" {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let pod = Target { resource: core.resource("", "v1", "pods")?, namespace: target.namespace.clone(), name };
            let (code, answer) = subresource::create(core, &caller, &pod, "binding", object, options).await?;
            return Ok(respond::value(code, accepted.encoding, &answer));
        }
        object = subresource::review(core, &caller, target, object)?;
        return Ok(respond::value(201, accepted.encoding, &object));
    }
    let written = ops::create(core, &caller, target, object, options).await?;
    warnings.extend(written.warnings);
    let mut response = view::object(core, &target.resource, written.object, accepted, 201, &call.query)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

fn written(
    core: &Core,
    call: &Call,
    target: &Target,
    written: Written,
    accepted: Accepted,
) -> Result<Response<Body>, Status> {
    let code = if written.created { 201 } else { 200 };
    let mut response = if call.info.subresource == "scale" {
        respond::encoded(code, accepted.encoding, written.object)
    } else {
        view::object(core, &target.resource, written.object, accepted, code, &call.query)?
    };
    respond::warn(&mut response, &written.warnings);
    Ok(response)
}

async fn update(
    core: &Core,
    call: &Call,
    target: &Target,
    body: Bytes,
    accepted: Accepted,
) -> Result<Response<Body>, Status> {
    let (caller, options) = (caller(call)?, write_options(call)?);
    let (format, validation) = (body_format(call)?, validation(call)?);
    let result =
        subresource::update(core, &caller, target, &call.info.subresource, format, &body, validation, options).await?;
    written(core, call, target, result, accepted)
}

async fn patch(
    core: &Core,
    call: &Call,
    target: &Target,
    body: Bytes,
    accepted: Accepted,
) -> Result<Response<Body>, Status> {
    let (caller, options, validation) = (caller(call)?, write_options(call)?, validation(call)?);
    let media = content_type(&call.headers);
    let Some(kind) = PatchKind::of_content_type(&media) else {
        return Err(Status::unsupported_media_type(PatchKind::media_types(&target.resource)));
    };
    if kind == PatchKind::Apply && call.query.get("fieldManager").is_none() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
    }
    if kind != PatchKind::Apply && call.query.get("force").is_some() {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
    }
    let result =
        subresource::patch(core, &caller, target, &call.info.subresource, kind, &body, validation, options).await?;
    written(core, call, target, result, accepted)
}

fn delete_options(call: &Call, body: &Bytes) -> Result<DeleteOptions, Status> {
    let options = if body.is_empty() {
        DeleteOptions::default()
    } else {
        let (value, _) = form::decode(&Kind::delete_options(), body_format(call)?, body, FieldValidation::Ignore)?;
        DeleteOptions::from_value(&value)?
    };
    options.or_query(&call.query)
}

async fn delete(
    core: &Core,
    call: &Call,
    target: &Target,
    body: Bytes,
    accepted: Accepted,
) -> Result<Response<Body>, Status> {
    let options = delete_options(call, &body)?;
    match ops::delete(core, &caller(call)?, target, &options).await? {
        Deleted::Gone(status) => Ok(respond::json(200, status.to_bytes())),
        Deleted::Object(object) => {
            // Never a table: clients read the object's uid from it.
            let accepted = Accepted { view: View::Whole, ..accepted };
            view::object(core, &target.resource, object, accepted, 200, &call.query)
        }
    }
}

async fn delete_collection(core: &Core, call: &Call, target: &Target, body: Bytes) -> Result<Response<Body>, Status> {
    let options = delete_options(call, &body)?;
    let request = list_request(call, target)?;
    ops::delete_collection(core, &caller(call)?, target, &request, &options).await?;
    let status = Status::deleted(target.resource.group(), target.resource.plural(), "", "");
    Ok(respond::json(200, status.to_bytes()))
}
