//! The server as an [`ObjectApi`] for controllers in the same process: the same pipeline as HTTP, without HTTP.

use crate::core::Core;
use crate::form::{self, FieldValidation};
use crate::identity::{Identity, MASTERS};
use crate::ops::{self, Caller, EventType, ListRequest, Target, WatchRequest, WriteOptions};
use crate::select::Selection;
use crate::subresource;
use bytes::Bytes;
use client::{
    ApiError, BoxFuture, DeleteOptions, EventKind, ListOptions, ObjectApi, ObjectList, PatchKind, Resource, WatchEvent,
    WatchStream,
};
use futures_util::StreamExt;
use kube::Status;
use kube::codec::{Format, Kind};
use std::sync::Arc;

/// The name that the platform itself acts under.
pub const SYSTEM_NAME: &str = "system:diolkos-manager";

/// The platform itself.
pub fn system_identity() -> Identity {
    Identity::user(SYSTEM_NAME, [MASTERS.into()])
}

/// The platform itself, writing as a field manager.
pub fn system_caller(manager: &str) -> Caller {
    Caller { identity: system_identity(), manager: manager.to_owned() }
}

/// The handle.
pub(crate) struct InProcess {
    pub core: Arc<Core>,
    pub caller: Caller,
}

fn api_error(status: Status) -> ApiError {
    ApiError::new(status.code, status.reason, status.message)
}

impl InProcess {
    fn target(&self, of: Resource, namespace: &str, name: &str) -> Result<Target, Status> {
        let resource = self.core.resource(of.group, of.version, of.plural)?;
        Ok(Target { resource, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn selection(target: &Target, options: &ListOptions) -> Result<Selection, Status> {
        Selection::parse(options.label_selector.as_deref(), options.field_selector.as_deref(), &target.resource)
    }

    fn start_watch(&self, of: Resource, options: &ListOptions, revision: u64) -> Result<WatchStream, Status> {
        let target = self.target(of, options.namespace.as_deref().unwrap_or_default(), "")?;
        let selection = Self::selection(&target, options)?;
        let watching =
            ops::watch(&self.core, &target, WatchRequest { selection, from: Some(revision), mark_initial: false })?;
        let stream = futures_util::stream::unfold(Some(watching), |watching| async move {
            let mut watching = watching?;
            match watching.next().await? {
                Ok(event) => {
                    let kind = match event.kind {
                        EventType::Added => EventKind::Added,
                        EventType::Modified => EventKind::Modified,
                        EventType::Deleted => EventKind::Deleted,
                        EventType::InitialEnd => EventKind::Bookmark,
                    };
                    let event = WatchEvent { kind, revision: event.revision, object: event.object };
                    Some((Ok(event), Some(watching)))
                }
                Err(status) => Some((Err(api_error(status)), None)),
            }
        });
        Ok(stream.boxed())
    }

    async fn do_create(
        &self,
        of: Resource,
        namespace: &str,
        at: Option<(&str, &str)>,
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let Some((name, sub)) = at else {
            let target = self.target(of, namespace, "")?;
            let (object, _) = form::decode(&Kind::of(&target.resource), Format::Json, &body, FieldValidation::Ignore)?;
            return Ok(ops::create(&self.core, &self.caller, &target, object, WriteOptions::default()).await?.object);
        };
        let target = self.target(of, namespace, name)?;
        let value = serde_json::from_slice(&body).map_err(|error| Status::bad_request(error.to_string()))?;
        let answer =
            subresource::create(&self.core, &self.caller, &target, sub, value, WriteOptions::default()).await?;
        Ok(serde_json::to_vec(&answer.1).map_err(Status::internal)?.into())
    }

    async fn do_update(
        &self,
        of: Resource,
        (namespace, name): (&str, &str),
        sub: Option<&str>,
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let target = self.target(of, namespace, name)?;
        let options = WriteOptions::default();
        subresource::update(
            &self.core,
            &self.caller,
            &target,
            sub.unwrap_or_default(),
            Format::Json,
            &body,
            FieldValidation::Ignore,
            options,
        )
        .await
        .map(|written| written.object)
    }

    async fn do_patch(
        &self,
        of: Resource,
        (namespace, name): (&str, &str),
        sub: Option<&str>,
        kind: PatchKind,
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let target = self.target(of, namespace, name)?;
        let (kind, caller, force) = match kind {
            PatchKind::Json => (ops::PatchKind::Json, self.caller.clone(), false),
            PatchKind::Merge => (ops::PatchKind::Merge, self.caller.clone(), false),
            PatchKind::Strategic => (ops::PatchKind::Strategic, self.caller.clone(), false),
            PatchKind::Apply(manager) => {
                let caller = Caller { manager: manager.to_owned(), ..self.caller.clone() };
                (ops::PatchKind::Apply, caller, true)
            }
        };
        let options = WriteOptions { dry_run: false, force };
        subresource::patch(
            &self.core,
            &caller,
            &target,
            sub.unwrap_or_default(),
            kind,
            &body,
            FieldValidation::Ignore,
            options,
        )
        .await
        .map(|written| written.object)
    }
}

impl ObjectApi for InProcess {
    fn get<'a>(&'a self, of: Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        let got = self.target(of, namespace, name).and_then(|target| ops::get(&self.core, &target));
        Box::pin(std::future::ready(got.map_err(api_error)))
    }

    fn list<'a>(&'a self, of: Resource, options: ListOptions) -> BoxFuture<'a, Result<ObjectList, ApiError>> {
        let run = || {
            let target = self.target(of, options.namespace.as_deref().unwrap_or_default(), "")?;
            let request = ListRequest { selection: Self::selection(&target, &options)?, ..ListRequest::default() };
            let listed = ops::list(&self.core, &target, &request)?;
            Ok(ObjectList { revision: listed.revision, items: listed.items })
        };
        Box::pin(std::future::ready(run().map_err(api_error)))
    }

    fn watch<'a>(
        &'a self,
        of: Resource,
        options: ListOptions,
        revision: u64,
    ) -> BoxFuture<'a, Result<WatchStream, ApiError>> {
        Box::pin(std::future::ready(self.start_watch(of, &options, revision).map_err(api_error)))
    }

    fn create<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        at: Option<(&'a str, &'a str)>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move { self.do_create(of, namespace, at, body).await.map_err(api_error) })
    }

    fn update<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move { self.do_update(of, (namespace, name), subresource, body).await.map_err(api_error) })
    }

    fn patch<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        kind: PatchKind,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move { self.do_patch(of, (namespace, name), subresource, kind, body).await.map_err(api_error) })
    }

    fn delete<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        options: DeleteOptions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let options = ops::DeleteOptions {
            grace_s: options.grace_s,
            uid: options.uid,
            revision: options.revision.map(|revision| revision.to_string()),
            propagation: options.propagation.map(str::to_owned),
            dry_run: false,
        };
        Box::pin(async move {
            let target = self.target(of, namespace, name).map_err(api_error)?;
            ops::delete(&self.core, &self.caller, &target, &options).await.map_err(api_error)?;
            Ok(())
        })
    }
}
