//! Envoys that know nothing but where to ask.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// What one is started with.
pub struct Bootstrap<'a> {
    /// How it is called.
    pub id: &'a str,
    /// Which protocol it speaks with mesh control: `DELTA_GRPC` or `GRPC`.
    pub kind: &'a str,
    /// What it says of itself.
    pub metadata: &'a Value,
    /// Address and port of mesh control.
    pub control: (&'a str, u16),
    /// The port of loopback where it shows what it has.
    pub admin: u16,
    /// The certificate that it shows to mesh control, and its key.
    pub certificate: (&'a Path, &'a Path),
    /// Who signed mesh control's.
    pub ca: &'a Path,
}

impl Bootstrap<'_> {
    /// The text of its file.
    pub fn text(&self) -> String {
        let file = |path: &Path| json!({ "filename": path });
        let (certificate, key) = self.certificate;
        let tls = json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [{ "certificate_chain": file(certificate), "private_key": file(key) }],
                "validation_context": { "trusted_ca": file(self.ca) } } } });
        let http2 = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} } } });
        let at = |address: &str, port: u16| json!({ "address": { "socket_address": { "address": address, "port_value": port } } });
        let endpoint = json!({ "endpoint": at(self.control.0, self.control.1) });
        json!({
            "admin": at("127.0.0.1", self.admin),
            "node": { "id": self.id, "cluster": "test", "metadata": self.metadata },
            "dynamic_resources": {
                "ads_config": { "api_type": self.kind, "transport_api_version": "V3",
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": "diolkos" } }] },
                "lds_config": { "ads": {}, "resource_api_version": "V3" },
                "cds_config": { "ads": {}, "resource_api_version": "V3" } },
            "static_resources": { "clusters": [{ "name": "diolkos", "type": "STATIC", "connect_timeout": "2s",
                "typed_extension_protocol_options": http2, "transport_socket": tls,
                "load_assignment": { "cluster_name": "diolkos", "endpoints": [{ "lb_endpoints": [endpoint] }] } }] } })
        .to_string()
    }
}

/// The arguments of an Envoy that shares a machine with others: its file is `bootstrap`.
pub fn arguments(command: &mut Command, bootstrap: &Path) {
    command.arg("-c").arg(bootstrap).args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"]);
    command.args(["--file-flush-interval-msec", "100"]);
}
