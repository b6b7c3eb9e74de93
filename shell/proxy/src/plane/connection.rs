//! A gRPC connection to the control plane.
use crate::config::ControlPlane;
use crate::grpc::Channel;
use rustls::pki_types::ServerName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::Status;
use tonic_prost::ProstCodec;

/// The control plane cannot be reached or refuses. Trying again later helps unless a file is at fault.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// Key material cannot be read. The operator's to mend.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Key material cannot be used. The operator's to mend.
    #[error(transparent)]
    Tls(#[from] client::TlsError),
    /// No connection.
    #[error("{address}: {why}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// It answered with an error.
    #[error("the control plane answers {code}: {message}")]
    Refused {
        /// gRPC code.
        code: tonic::Code,
        /// Its words.
        message: String,
    },
}

impl PlaneError {
    /// Whether what was asked may have been done although no answer says so.
    pub fn may_be_done(&self) -> bool {
        use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
        matches!(self, PlaneError::Refused { code: Cancelled | DeadlineExceeded | Unavailable | Unknown, .. })
    }
}

impl From<Status> for PlaneError {
    fn from(status: Status) -> Self {
        PlaneError::Refused { code: status.code(), message: status.message().to_owned() }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A control plane whose machine went away is noticed within these.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Configuration of a large pool comes in large messages.
const MAX_MESSAGE: usize = 256 << 20;

/// A connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
}

fn read(path: &Path) -> Result<Vec<u8>, PlaneError> {
    std::fs::read(path).map_err(|source| PlaneError::File { path: path.to_owned(), source })
}

impl Connection {
    /// Connects with the certificate that is in the files now.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub async fn open(plane: &ControlPlane) -> Result<Self, PlaneError> {
        let (ca, chain, key) = (read(&plane.ca)?, read(&plane.certificate)?, read(&plane.key)?);
        let tls = client::client_tls(Some(&ca), Some((&chain, &key)), &[b"h2"])?;
        Self::connect(&plane.address, &plane.server_name, tls).await
    }

    /// Connects with a given TLS configuration.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub async fn connect(address: &str, server_name: &str, tls: rustls::ClientConfig) -> Result<Self, PlaneError> {
        let broken = |why: String| PlaneError::Connect { address: address.to_owned(), why };
        let name = ServerName::try_from(server_name.to_owned()).map_err(|error| broken(error.to_string()))?;
        let work = async {
            let tcp = TcpStream::connect(address).await.map_err(|error| broken(error.to_string()))?;
            tcp.set_nodelay(true).map_err(|error| broken(error.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
            let stream = connector.connect(name, tcp).await.map_err(|error| broken(error.to_string()))?;
            let mut builder = Channel::builder(KEEP_ALIVE);
            builder.initial_stream_window_size(8 << 20).initial_connection_window_size(16 << 20);
            Channel::open(&builder, stream, "control plane").await.map_err(|error| broken(error.to_string()))
        };
        let timed_out = || Err(broken("connecting timed out".into()));
        let channel = tokio::time::timeout(CONNECT_TIMEOUT, work).await.unwrap_or_else(|_| timed_out())?;
        Ok(Self { channel })
    }

    /// Whether calls on it can only fail.
    pub fn is_closed(&self) -> bool {
        self.channel.is_closed()
    }

    /// For streams.
    pub(super) fn grpc(&self) -> tonic::client::Grpc<Channel> {
        let origin = http::Uri::from_static("https://control-plane");
        tonic::client::Grpc::with_origin(self.channel.clone(), origin).max_decoding_message_size(MAX_MESSAGE)
    }

    /// One call.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub async fn unary<Q, R>(&self, path: &'static str, request: Q) -> Result<R, PlaneError>
    where
        Q: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        let path = http::uri::PathAndQuery::from_static(path);
        let call = async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, R>::default()).await
        };
        let late = || Err(Status::deadline_exceeded("no answer in time"));
        Ok(tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| late())?.into_inner())
    }
}
