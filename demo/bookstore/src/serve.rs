//! The HTTP server around a service: keep-alive, and an orderly end on SIGTERM.

use crate::call::Caller;
use crate::services::{Role, Settings, answer};
use crate::{echo, health};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Requests that are being answered when SIGTERM comes get this long.
const GRACE: Duration = Duration::from_secs(10);

struct Service {
    role: Role,
    settings: Settings,
    caller: Caller,
}

pub async fn run(role: Role) -> Result<(), String> {
    let settings = Settings::from_environment()?;
    let address = (settings.bind, settings.port);
    let listener = TcpListener::bind(address).await.map_err(|error| format!("port {}: {error}", settings.port))?;
    println!("{role:?} {} on port {}", settings.version, settings.port);
    let service = Arc::new(Service { role, settings, caller: Caller::new() });
    let graceful = GracefulShutdown::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
        };
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        let handler = service_fn(move |request| handle(service.clone(), request));
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), handler).into_owned());
        tokio::spawn(async move {
            // A peer that goes away is its own affair.
            let _ = connection.await;
        });
    }
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn handle(service: Arc<Service>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let Service { role, settings, caller } = &*service;
    if request.uri().path() == health::PATH {
        return Ok(health::check(role.name(), request.into_body()).await);
    }
    if request.uri().path() == echo::PATH {
        return Ok(echo::stream(request.into_body()));
    }
    let (status, body) = answer(*role, settings, caller, request.uri().path(), request.headers()).await;
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(body.to_string())).boxed()).expect("status and header are valid"))
}
