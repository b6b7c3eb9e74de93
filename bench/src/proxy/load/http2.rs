//! HTTP/2 without TLS.

use super::{Shared, note};
use bytes::Bytes;
use std::time::Instant;
use tokio::net::TcpStream;

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;

pub async fn saturate(address: &str, path: &str, tally: &Shared) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, path, tally) = (address.to_owned(), path.to_owned(), tally.clone());
        tasks.spawn_local(async move {
            if let Err(error) = connection(&address, &path, &tally).await {
                eprintln!("client: {error}");
                tally.borrow_mut().errors += 1;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn connection(address: &str, path: &str, tally: &Shared) -> Result<(), h2::Error> {
    let stream = TcpStream::connect(address).await.map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::task::spawn_local(async move { connection.await.ok() });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let (sender, tally, uri) = (sender.clone(), tally.clone(), format!("http://bench{path}"));
        tasks.spawn_local(async move {
            while Instant::now() < tally.borrow().until {
                let began = Instant::now();
                let good = request(&sender, &uri).await.unwrap_or(false);
                note(&tally, began, good);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn request(sender: &h2::client::SendRequest<Bytes>, uri: &str) -> Result<bool, h2::Error> {
    let request = http::Request::get(uri).body(()).map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
    let (response, _) = sender.clone().ready().await?.send_request(request, true)?;
    let response = response.await?;
    let good = response.status() == 200;
    let mut body = response.into_body();
    while let Some(bytes) = body.data().await {
        let _ = body.flow_control().release_capacity(bytes?.len());
    }
    Ok(good)
}
