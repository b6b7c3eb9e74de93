//! What comes to pods in plain text: captured on port 15006.
use crate::connections::finish_broken;
use crate::copy;
use crate::declared::Spoken;
use crate::dial;
use crate::peer_tls::{self, Hello};
use crate::pods::Pod;
use crate::policy::{self, Admission, Caller};
use crate::requests::Site;
use crate::shared::Work;
use crate::stream::{Chunk, Stream};
use crate::telemetry::{Carries, Peers};
use crate::worker::Worker;
use crate::{netns, requests};
use bytes::Bytes;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Serves one captured connection.
pub async fn serve(worker: Arc<Worker>, pod: Arc<Pod>, stream: TcpStream, from: SocketAddr) {
    let _busy = worker.shared.busy(Work::Inbound);
    let to = match netns::original_destination(&stream) {
        Ok(to) => to,
        Err(error) => return tracing::debug!(%error, pod = %pod.attachment.name, "not a redirected connection"),
    };
    if pod.ports.contains(to.port()) {
        return tracing::debug!(pod = %pod.attachment.name, %to, "a connection to the proxy's own port is refused");
    }
    if let Err(error) = netns::ask_in_silence(&stream) {
        return tracing::debug!(%error, pod = %pod.attachment.name, "a caller is gone already");
    }
    let caller = Caller::in_plain_text(from);
    let mut stream = Stream::from(stream);
    if !policy::is_known(&worker, &pod).await {
        return stream.abort();
    }
    // Where nothing is taken in plain text, whatever is TLS is a peer's.
    if !policy::takes_plain_text(&worker, &pod, to.port()) && peer_tls::hello(&mut stream).await.is_some() {
        return peer_tls::serve(&worker, &pod, stream, from, to, None).await;
    }
    let admission = policy::admit(&worker, &pod, &caller, to);
    if matches!(admission, Admission::Refused) {
        return stream.abort();
    }
    match dial::process(&pod, to, from).await {
        Ok(process) => deliver(&worker, &pod, stream, process.into(), &caller, to, admission).await,
        Err(error) => {
            tracing::debug!(%error, pod = %pod.attachment.name, "the process does not answer");
            stream.abort();
        }
    }
}

/// Brings a connection, from whichever door, to its process.
pub async fn deliver(
    worker: &Arc<Worker>,
    pod: &Arc<Pod>,
    mut stream: Stream,
    mut process: Stream,
    caller: &Caller,
    to: SocketAddr,
    mut admission: Admission,
) {
    let spoken = worker.declared.at(&worker.shared.mesh, &pod.origin.namespace, to, worker.now_ms());
    let mut watch = policy::Watch::new(worker, pod, caller, to);
    let word = loop {
        let only_requests = matches!(admission, Admission::Requests(_));
        tokio::select! {
            biased;
            // Who has said nothing may wait for long.
            now = watch.not_open(), if !only_requests => admission = now,
            word = first_word(&mut stream, &mut process, only_requests, spoken) => break word,
        }
        if matches!(admission, Admission::Refused) {
            return stream.abort();
        }
    };
    match word {
        Word::Http => {
            let site = Site::process(pod, to, caller.clone(), process);
            return requests::serve(worker, site, stream).await;
        }
        Word::Tls if caller.identity.is_none() => {
            if peer_tls::hello(&mut stream).await == Some(Hello::Peer) {
                let from = caller.address;
                return peer_tls::serve(worker, pod, stream, from, to, Some(process)).await;
            }
        }
        Word::Tls | Word::Other => {}
        Word::Nothing => return,
    }
    if let Admission::Requests(rules) = admission {
        // Said with the policy's name, now that nothing but opaque bytes is left to decide about.
        rules.admits(None);
        return stream.abort();
    }
    let peers = Peers::inbound(worker, pod, caller, Carries::Bytes, None);
    let connection = worker.opaque.open(&worker.cells, &peers);
    let result = tokio::select! {
        biased;
        () = watch.revoked() => Err(std::io::ErrorKind::PermissionDenied.into()),
        result = copy::bidirectional(&mut stream, &mut process, connection.copied()) => result,
    };
    connection.close(&result);
    if let Err(error) = result {
        finish_broken(stream, process, &error);
    }
}

/// Who speaks first, and what.
enum Word {
    Http,
    /// The beginning of TLS.
    Tls,
    Other,
    Nothing,
}

/// How long a caller whose bytes are not allowed may take to send a request that is.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the first bytes of either side: a process that speaks first does not speak HTTP, but for HTTP/2, whose server may
/// send its settings at once. With `only_requests`, or where services say that it is requests that are `spoken`, the process is not asked, for
/// nothing but a request will reach it. May be given up and begun again: nothing is lost.
async fn first_word(stream: &mut Stream, process: &mut Stream, only_requests: bool, spoken: Spoken) -> Word {
    if only_requests {
        let first = timeout(REQUEST_PATIENCE, first_chunk(stream)).await;
        return first.ok().flatten().map_or(Word::Nothing, |first| of_caller(&first, spoken));
    }
    if spoken != Spoken::Requests {
        tokio::select! {
            biased;
            // An end or a failure is passed on like any bytes.
            first = first_chunk(stream) => return first.map_or(Word::Other, |first| of_caller(&first, spoken)),
            first = first_chunk(process) => match first {
                Some(first) if is_http2_settings(&first) => {}
                _ => return Word::Other,
            },
        }
    }
    first_chunk(stream).await.map_or(Word::Other, |first| of_caller(&first, spoken))
}

/// What is taken for bytes is looked at by nobody, and a process may read requests in more of them than HTTP knows methods for. So where
/// services do not say what is spoken all that may be a request is one, and where they say HTTP all but TLS is.
fn of_caller(first: &[u8], spoken: Spoken) -> Word {
    let is_request = match spoken {
        _ if peer_tls::begins(first) => return Word::Tls,
        Spoken::Requests => true,
        Spoken::Bytes => requests::has_known_method(first),
        Spoken::Unknown => requests::looks_like_http(first),
    };
    if is_request { Word::Http } else { Word::Other }
}

/// RFC 9113, 3.4: the server's preface is a SETTINGS frame (type 4, no flags, stream 0).
fn is_http2_settings(first: &[u8]) -> bool {
    matches!(first, [_, _, _, 4, 0, 0, 0, 0, 0, ..])
}

/// Waits for the first bytes and leaves them to be read. None: there are none.
async fn first_chunk(stream: &mut Stream) -> Option<Bytes> {
    let bytes = chunk(stream).await?;
    stream.unread(bytes.clone());
    Some(bytes)
}

/// The next bytes. None: the end, or a failure.
pub async fn chunk(stream: &mut Stream) -> Option<Bytes> {
    poll_fn(|cx| {
        // Not kept while it waits.
        let mut first = [0u8; 2048];
        match stream.poll_chunk(cx, &mut first) {
            Poll::Ready(Ok(Chunk::Bytes(bytes))) => Poll::Ready(Some(bytes)),
            Poll::Ready(Ok(Chunk::Scratch(length))) => Poll::Ready(Some(Bytes::copy_from_slice(&first[..length]))),
            Poll::Ready(Ok(Chunk::End) | Err(_)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
