//! What the node agent reads of a Pod. Unknown fields are left to others; the object itself stays bytes.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why bytes are no Pod that can run here.
#[derive(Debug, thiserror::Error)]
#[error("the Pod cannot be read: {0}")]
pub struct PodError(#[from] serde_json::Error);

impl Pod {
    /// Reads a Pod's JSON.
    ///
    /// # Errors
    /// Not JSON, or a field of another type than Kubernetes' schema says.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PodError> {
        let mut value: Value = serde_json::from_slice(bytes)?;
        drop_nulls(&mut value);
        Ok(serde_json::from_value(value)?)
    }

    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// `namespace/name`, for logs.
    pub fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Runs in the node's own network.
    pub fn host_network(&self) -> bool {
        self.spec.host_network
    }

    /// Every container: init containers first.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers)
    }
}

/// `null` means "not given" in Kubernetes' JSON.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

macro_rules! read {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),* }
    )*};
}

type Map = BTreeMap<String, String>;

read! {
    Pod { metadata: Metadata, spec: PodSpec, status: super::status::PodStatus }
    Metadata {
        name: String, namespace: String, uid: String, labels: Map, annotations: Map, generation: i64,
        resource_version: String, deletion_timestamp: Option<String>, deletion_grace_period_seconds: Option<i64>,
    }
    PodSpec {
        containers: Vec<Container>, init_containers: Vec<Container>, volumes: Vec<Volume>, restart_policy: RestartPolicy,
        termination_grace_period_seconds: Option<i64>, active_deadline_seconds: Option<i64>, dns_policy: String,
        dns_config: DnsConfig, service_account_name: String, node_name: String, host_network: bool,
        #[serde(rename = "hostPID")] host_pid: bool,
        #[serde(rename = "hostIPC")] host_ipc: bool,
        share_process_namespace: bool, security_context: PodSecurityContext, hostname: String, subdomain: String,
        #[serde(rename = "setHostnameAsFQDN")] set_hostname_as_fqdn: bool,
        host_aliases: Vec<HostAlias>, image_pull_secrets: Vec<LocalRef>, readiness_gates: Vec<ReadinessGate>,
        resources: Resources, runtime_class_name: String, overhead: BTreeMap<String, Text>,
    }
    LocalRef { name: String }
    ReadinessGate { condition_type: String }
    HostAlias { ip: String, hostnames: Vec<String> }
    DnsConfig { nameservers: Vec<String>, searches: Vec<String>, options: Vec<DnsOption> }
    DnsOption { name: String, value: Option<String> }
    Sysctl { name: String, value: String }
    PodSecurityContext {
        run_as_user: Option<i64>, run_as_group: Option<i64>, run_as_non_root: Option<bool>, fs_group: Option<i64>,
        supplemental_groups: Vec<i64>, sysctls: Vec<Sysctl>, seccomp_profile: Option<SeccompProfile>,
        fs_group_change_policy: String,
    }
    SeccompProfile {
        #[serde(rename = "type")] kind: String,
        localhost_profile: String,
    }
    SecurityContext {
        run_as_user: Option<i64>, run_as_group: Option<i64>, run_as_non_root: Option<bool>, privileged: bool,
        allow_privilege_escalation: Option<bool>, read_only_root_filesystem: bool, capabilities: Capabilities,
        seccomp_profile: Option<SeccompProfile>, proc_mount: String,
    }
    Capabilities { add: Vec<String>, drop: Vec<String> }
    Container {
        name: String, image: String, command: Vec<String>, args: Vec<String>, working_dir: String, ports: Vec<ContainerPort>,
        env_from: Vec<EnvFrom>, env: Vec<EnvVar>, resources: Resources, volume_mounts: Vec<VolumeMount>,
        liveness_probe: Option<Probe>, readiness_probe: Option<Probe>, startup_probe: Option<Probe>, lifecycle: Lifecycle,
        termination_message_path: String, termination_message_policy: String, image_pull_policy: String,
        security_context: SecurityContext, stdin: bool, stdin_once: bool, tty: bool,
        /// Only on init containers: `Always` makes a sidecar.
        restart_policy: String,
    }
    ContainerPort {
        name: String, container_port: u16, host_port: u16, protocol: String,
        #[serde(rename = "hostIP")] host_ip: String,
    }
    EnvVar { name: String, value: String, value_from: Option<EnvSource> }
    EnvSource {
        field_ref: Option<FieldRef>, resource_field_ref: Option<ResourceFieldRef>,
        config_map_key_ref: Option<KeyRef>, secret_key_ref: Option<KeyRef>,
    }
    FieldRef { field_path: String }
    ResourceFieldRef { container_name: String, resource: String, divisor: Option<Text> }
    KeyRef { name: String, key: String, optional: bool }
    EnvFrom { prefix: String, config_map_ref: Option<OptionalRef>, secret_ref: Option<OptionalRef> }
    OptionalRef { name: String, optional: bool }
    Resources { limits: BTreeMap<String, Text>, requests: BTreeMap<String, Text> }
    VolumeMount {
        name: String, mount_path: String, sub_path: String, sub_path_expr: String, read_only: bool, mount_propagation: String,
    }
    Lifecycle { post_start: Option<Handler>, pre_stop: Option<Handler>, stop_signal: String }
    /// A probe's or hook's way of asking. Exactly one is given.
    Handler {
        exec: Option<ExecAction>, http_get: Option<HttpGet>, tcp_socket: Option<TcpSocket>, grpc: Option<GrpcAction>,
        sleep: Option<SleepAction>,
    }
    ExecAction { command: Vec<String> }
    HttpGet { path: String, port: Port, host: String, scheme: String, http_headers: Vec<HttpHeader> }
    HttpHeader { name: String, value: String }
    TcpSocket { port: Port, host: String }
    GrpcAction { port: u16, service: String }
    SleepAction { seconds: i64 }
    Probe {
        #[serde(flatten)] handler: Handler,
        initial_delay_seconds: i64, timeout_seconds: i64, period_seconds: i64, success_threshold: i64, failure_threshold: i64,
        termination_grace_period_seconds: Option<i64>,
    }
    Volume {
        name: String, empty_dir: Option<EmptyDir>, host_path: Option<HostPath>, config_map: Option<ConfigMapSource>,
        secret: Option<SecretSource>, #[serde(rename = "downwardAPI")] downward_api: Option<DownwardSource>,
        projected: Option<ProjectedSource>, persistent_volume_claim: Option<ClaimSource>,
        /// Kinds of volume that are known by name only, to refuse them by name.
        #[serde(flatten)] other: BTreeMap<String, Value>,
    }
    EmptyDir { medium: String, size_limit: Option<Text> }
    HostPath {
        path: String,
        #[serde(rename = "type")] kind: String,
    }
    ClaimSource { claim_name: String, read_only: bool }
    KeyToPath { key: String, path: String, mode: Option<u32> }
    ConfigMapSource { name: String, items: Vec<KeyToPath>, default_mode: Option<u32>, optional: bool }
    SecretSource { secret_name: String, items: Vec<KeyToPath>, default_mode: Option<u32>, optional: bool }
    DownwardSource { items: Vec<DownwardItem>, default_mode: Option<u32> }
    DownwardItem {
        path: String, field_ref: Option<FieldRef>, resource_field_ref: Option<ResourceFieldRef>, mode: Option<u32>,
    }
    ProjectedSource { sources: Vec<Projection>, default_mode: Option<u32> }
    Projection {
        config_map: Option<ConfigMapSource>, secret: Option<ProjectedSecret>,
        #[serde(rename = "downwardAPI")] downward_api: Option<DownwardSource>,
        service_account_token: Option<TokenSource>,
    }
    /// A projected Secret names it `name`, a Secret volume `secretName`.
    ProjectedSecret { name: String, items: Vec<KeyToPath>, optional: bool }
    TokenSource { audience: String, expiration_seconds: Option<i64>, path: String }
}

impl Container {
    /// An init container that goes on running beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }

    /// The port of that name or number.
    pub fn port(&self, port: &Port) -> Option<u16> {
        match port {
            Port::Number(number) => Some(*number),
            Port::Name(name) => match self.ports.iter().find(|p| p.name == *name) {
                Some(port) => Some(port.container_port),
                None => name.parse().ok(),
            },
        }
    }
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

/// A port by number or by name (`intstr.IntOrString`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Port {
    Number(u16),
    Name(String),
}

impl Default for Port {
    fn default() -> Self {
        Port::Number(0)
    }
}

/// A quantity, which JSON may carry as a number too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Text(match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            other => other.to_string(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_pod_may_say() {
        let pod = Pod::from_json(
            br#"{"metadata":{"name":"p","creationTimestamp":null,"labels":null},
            "spec":{"restartPolicy":"OnFailure","hostPID":true,"containers":[{"name":"c","resources":{"limits":{"cpu":2}},
              "livenessProbe":{"httpGet":{"port":"web"},"periodSeconds":3},"ports":[{"name":"web","containerPort":80}]}],
              "volumes":[{"name":"v","nfs":{"server":"x"}},{"name":"d","downwardAPI":{"items":[]}}]}}"#,
        )
        .unwrap();
        let container = &pod.spec.containers[0];
        assert_eq!(container.resources.limits["cpu"].0, "2");
        let probe = container.liveness_probe.as_ref().unwrap();
        assert_eq!(container.port(&probe.handler.http_get.as_ref().unwrap().port), Some(80));
        assert_eq!(probe.period_seconds, 3);
        assert!(pod.spec.host_pid && pod.spec.restart_policy == RestartPolicy::OnFailure);
        assert!(pod.spec.volumes[0].other.contains_key("nfs"));
        assert!(pod.spec.volumes[1].downward_api.is_some());
        assert!(Pod::from_json(br#"{"spec":{"containers":7}}"#).is_err());
    }
}
