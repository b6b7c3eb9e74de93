//! The gRPC health protocol (`grpc.health.v1`).

use std::net::SocketAddr;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// UNKNOWN 0, SERVING 1, NOT_SERVING 2, SERVICE_UNKNOWN 3.
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Whether `service` (empty: the server as a whole) is serving.
pub(super) async fn check(address: SocketAddr, service: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|_| format!("timeout: failed to connect service \"{address}\" within the probe's time"))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    match grpc.unary(request, path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(answer) => {
            let words = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let word = usize::try_from(answer.get_ref().status).ok().and_then(|at| words.get(at)).unwrap_or(&"UNKNOWN");
            Err(format!("service unhealthy (responded with \"{word}\")"))
        }
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned())
        }
        Err(status) => {
            let (code, message) = (status.code(), status.message());
            Err(format!("error: health rpc failed: rpc error: code = {code:?} desc = {message}"))
        }
    }
}
