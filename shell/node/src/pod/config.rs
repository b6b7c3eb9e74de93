//! A Pod in the runtime's words: the configuration of its sandbox and of each container.

use super::env::{ConfigError, expand};
use super::observe::label;
use super::plan::container_hash;
use super::resources;
use super::spec::{Container, Pod, SeccompProfile};
use crate::Config;
use cri::*;
use std::collections::BTreeMap;
use std::path::Path;

/// The annotation that keeps a pod out of the mesh.
pub const MESH_ANNOTATION: &str = "diolkos.io/mesh";

/// The annotation by which a pod asks for the SPIFFE Workload API (`true`).
pub const WORKLOAD_API_ANNOTATION: &str = "diolkos.io/workload-api";
/// Where its socket's directory is in such a pod.
pub const WORKLOAD_API_DIR: &str = "/run/spiffe/workload";
/// Where SPIFFE's libraries look for the address.
pub const WORKLOAD_API_VARIABLE: (&str, &str) = ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/spiffe/workload/api.sock");

/// Whether a pod asks for the SPIFFE Workload API.
pub fn wants_workload_api(pod: &Pod) -> bool {
    in_mesh(pod) && pod.metadata.annotations.get(WORKLOAD_API_ANNOTATION).is_some_and(|value| value == "true")
}

/// Whether the proxy takes part in this pod's traffic.
pub fn in_mesh(pod: &Pod) -> bool {
    !pod.host_network() && pod.metadata.annotations.get(MESH_ANNOTATION).is_none_or(|value| value != "disabled")
}

/// The hostname that the pod's processes see.
pub fn hostname(pod: &Pod, config: &Config) -> String {
    if pod.host_network() {
        return config.node_name.clone();
    }
    let name = if pod.spec.hostname.is_empty() { &pod.metadata.name } else { &pod.spec.hostname };
    // A label of DNS has at most 63 characters.
    let name = name[..name.len().min(63)].trim_end_matches(['-', '.']);
    match fqdn(pod, config) {
        Some(full) if pod.spec.set_hostname_as_fqdn && full.len() <= 64 => full,
        _ => name.to_owned(),
    }
}

fn fqdn(pod: &Pod, config: &Config) -> Option<String> {
    let (spec, meta) = (&pod.spec, &pod.metadata);
    let name = if spec.hostname.is_empty() { &meta.name } else { &spec.hostname };
    (!spec.subdomain.is_empty())
        .then(|| format!("{name}.{}.{}.svc.{}", spec.subdomain, meta.namespace, config.cluster_domain))
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let meta = &pod.metadata;
    let mut labels = meta.labels.clone();
    labels.insert(label::POD_NAME.into(), meta.name.clone());
    labels.insert(label::POD_NAMESPACE.into(), meta.namespace.clone());
    labels.insert(label::POD_UID.into(), meta.uid.clone());
    labels
}

/// The sandbox of a pod. `host_resolv` is the node's `/etc/resolv.conf`.
pub fn sandbox(pod: &Pod, attempt: u32, config: &Config, cgroup_parent: String, host_resolv: &str) -> PodSandboxConfig {
    let meta = &pod.metadata;
    let security = &pod.spec.security_context;
    let privileged = pod.all_containers().any(|c| c.security_context.privileged);
    let ports =
        pod.spec.containers.iter().flat_map(|c| &c.ports).filter(|port| port.host_port != 0 && !pod.host_network());
    let port_mappings = ports
        .map(|port| PortMapping {
            protocol: protocol(&port.protocol) as i32,
            container_port: i32::from(port.container_port),
            host_port: i32::from(port.host_port),
            host_ip: port.host_ip.clone(),
        })
        .collect();
    let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
    let mut annotations = meta.annotations.clone();
    annotations.insert(label::GRACE.into(), grace.to_string());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            namespace: meta.namespace.clone(),
            attempt,
        }),
        hostname: hostname(pod, config),
        log_directory: config.log_dir(&meta.namespace, &meta.name, &meta.uid).display().to_string(),
        dns_config: Some(dns(pod, config, host_resolv)),
        port_mappings,
        labels: pod_labels(pod),
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod)),
                supplemental_groups: groups(pod),
                privileged,
                seccomp: seccomp(security.seccomp_profile.as_ref()),
                ..LinuxSandboxSecurityContext::default()
            }),
            sysctls: security.sysctls.iter().map(|s| (s.name.clone(), s.value.clone())).collect(),
            resources: None,
        }),
    }
}

fn protocol(name: &str) -> Protocol {
    match name {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn namespaces(pod: &Pod) -> NamespaceOption {
    let node_or = |node: bool, other: NamespaceMode| if node { NamespaceMode::Node } else { other } as i32;
    let pid = if pod.spec.share_process_namespace { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: node_or(pod.host_network(), NamespaceMode::Pod),
        pid: node_or(pod.spec.host_pid, pid),
        ipc: node_or(pod.spec.host_ipc, NamespaceMode::Pod),
        target_id: String::new(),
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let security = &pod.spec.security_context;
    security.supplemental_groups.iter().copied().chain(security.fs_group).collect()
}

fn seccomp(profile: Option<&SeccompProfile>) -> Option<SecurityProfile> {
    let (kind, file) = match profile.map(|p| (p.kind.as_str(), p.localhost_profile.clone())) {
        Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", file)) => (ProfileType::Localhost, file),
        _ => (ProfileType::Unconfined, String::new()),
    };
    Some(SecurityProfile { profile_type: kind as i32, localhost_ref: file })
}

const MAX_SEARCHES: usize = 32;

/// How the pod's processes resolve names. Cluster DNS is served inside the mesh; a pod outside of it uses the node's.
fn dns(pod: &Pod, config: &Config, host_resolv: &str) -> DnsConfig {
    let host = |key: &str| -> Vec<String> {
        let lines = host_resolv.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.filter(|rest| rest.starts_with([' ', '\t'])).flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let cluster = match pod.spec.dns_policy.as_str() {
        "Default" | "None" => false,
        "ClusterFirstWithHostNet" => true,
        _ => !pod.host_network(),
    };
    let cluster = cluster && !config.cluster_dns.is_empty() && in_mesh(pod);
    let mut out = match pod.spec.dns_policy.as_str() {
        "None" => DnsConfig::default(),
        _ if cluster => {
            let (namespace, domain) = (&pod.metadata.namespace, &config.cluster_domain);
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(host("search").into_iter().filter(|search| search != "."));
            DnsConfig {
                servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => DnsConfig { servers: host("nameserver"), searches: host("search"), options: host("options") },
    };
    let own = &pod.spec.dns_config;
    out.servers.extend(own.nameservers.iter().cloned());
    out.searches.extend(own.searches.iter().cloned());
    for option in &own.options {
        let name = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
        out.options.retain(|old| name(old) != option.name);
        out.options.push(match &option.value {
            Some(value) => format!("{}:{value}", option.name),
            None => option.name.clone(),
        });
    }
    let mut seen = std::collections::BTreeSet::new();
    out.servers.retain(|server| seen.insert(server.clone()));
    out.servers.truncate(3);
    let mut seen = std::collections::BTreeSet::new();
    out.searches.retain(|search| seen.insert(search.clone()));
    out.searches.truncate(MAX_SEARCHES);
    out
}

/// `/etc/hosts` of a pod with a network of its own.
pub fn hosts_file(pod: &Pod, config: &Config, ips: &[std::net::IpAddr]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         fe00::\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod, config);
    for ip in ips {
        match fqdn(pod, config) {
            Some(full) if full != name => out.push_str(&format!("{ip}\t{full}\t{name}\n")),
            _ => out.push_str(&format!("{ip}\t{name}\n")),
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    out
}

/// Kernel files that tell or change too much; the same list that every container engine hides.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container is made from besides its pod.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    pub attempt: u32,
    pub image: &'a Image,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// Bytes of memory of the node.
    pub node_memory: i64,
}

/// The configuration of one container.
///
/// # Errors
/// It says that it must not run as root, and it would.
pub fn container(pod: &Pod, container: &Container, inputs: Inputs<'_>) -> Result<ContainerConfig, ConfigError> {
    let mut annotations = BTreeMap::from([(label::CONTAINER_HASH.to_owned(), container_hash(container))]);
    annotations.insert(label::MESSAGE_PATH.into(), message_path(container).to_owned());
    annotations.insert(label::MESSAGE_POLICY.into(), container.termination_message_policy.clone());
    let mut labels = pod_labels(pod);
    labels.insert(label::CONTAINER_NAME.into(), container.name.clone());
    let expanded = |words: &[String]| words.iter().map(|word| expand(word, &inputs.env)).collect();
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: inputs.attempt }),
        image: Some(ImageSpec {
            image: inputs.image.id.clone(),
            user_specified_image: container.image.clone(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone(),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::linux(pod, container, inputs.node_memory)),
            security_context: Some(security(pod, container, inputs.image)?),
        }),
        envs: inputs.env.into_iter().map(|(key, value)| KeyValue { key, value: value.into_bytes() }).collect(),
        mounts: inputs.mounts,
        labels,
        annotations,
        log_path: log_path(&container.name, inputs.attempt),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
    })
}

/// Where in the container its last words are looked for.
pub fn message_path(container: &Container) -> &str {
    if container.termination_message_path.is_empty() {
        "/dev/termination-log"
    } else {
        &container.termination_message_path
    }
}

/// A run's log file below the pod's log directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn security(pod: &Pod, container: &Container, image: &Image) -> Result<LinuxContainerSecurityContext, ConfigError> {
    let (own, shared) = (&container.security_context, &pod.spec.security_context);
    let user = own.run_as_user.or(shared.run_as_user);
    let effective = user.or(image.uid.map(|uid| uid.value));
    if own.run_as_non_root.or(shared.run_as_non_root) == Some(true) {
        let meta = &pod.metadata;
        let place = format!("(pod: \"{}_{}({})\", container: {})", meta.name, meta.namespace, meta.uid, container.name);
        let root = match effective {
            Some(0) if user.is_some() => Some("container's runAsUser breaks non-root policy".to_owned()),
            Some(0) => Some("container has runAsNonRoot and image will run as root".to_owned()),
            None if image.username.is_empty() => {
                Some("container has runAsNonRoot and image will run as root".to_owned())
            }
            None => Some(format!(
                "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
                image.username
            )),
            Some(_) => None,
        };
        if let Some(why) = root {
            return Err(ConfigError::Other(format!("{why} {place}")));
        }
    }
    let int = |value: i64| Int64Value { value };
    // What the image asks for is only passed on when the pod does not say: the runtime resolves names in the image's own files.
    let username = match (effective, image.username.as_str()) {
        (None, name) if !name.is_empty() => name.to_owned(),
        _ => String::new(),
    };
    let unmasked = own.privileged || own.proc_mount == "Unmasked";
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|&path| path.to_owned()).collect() };
    let group = own.run_as_group.or(shared.run_as_group);
    Ok(LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: own.capabilities.add.clone(),
            drop_capabilities: own.capabilities.drop.clone(),
        }),
        privileged: own.privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: effective.map(int),
        // A group without a user is refused by runtimes; then root is meant.
        run_as_group: group.filter(|_| effective.is_some() || !username.is_empty()).map(int),
        run_as_username: username,
        readonly_rootfs: own.read_only_root_filesystem,
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !own.privileged,
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: if own.privileged {
            seccomp(None)
        } else {
            seccomp(own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref()))
        },
    })
}

/// The names of the API server's Service, which client libraries look for in the environment.
pub fn service_env(host: &str, port: u16) -> Vec<(String, String)> {
    [
        ("KUBERNETES_SERVICE_HOST", host.to_owned()),
        ("KUBERNETES_SERVICE_PORT", port.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", port.to_string()),
        ("KUBERNETES_PORT", format!("tcp://{host}:{port}")),
        ("KUBERNETES_PORT_443_TCP", format!("tcp://{host}:{port}")),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".to_owned()),
        ("KUBERNETES_PORT_443_TCP_PORT", port.to_string()),
        ("KUBERNETES_PORT_443_TCP_ADDR", host.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// A file or directory of the node, mounted.
pub fn mount(container_path: &str, host_path: &Path, readonly: bool, propagation: &str) -> Mount {
    let propagation = match propagation {
        "HostToContainer" => MountPropagation::HostToContainer,
        "Bidirectional" => MountPropagation::Bidirectional,
        _ => MountPropagation::Private,
    };
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        readonly,
        propagation: propagation as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: &Value) -> Pod {
        let metadata = json!({"name": "web-0", "namespace": "shop", "uid": "u"});
        Pod::from_json(json!({"metadata": metadata, "spec": spec}).to_string().as_bytes()).unwrap()
    }

    fn config() -> Config {
        Config::new("node-1", [10, 0, 0, 1].into(), Path::new("/d"), Path::new("/r"))
    }

    const RESOLV: &str = "nameserver 1.1.1.1\nsearch corp.example\noptions edns0 timeout:2\n";

    #[test]
    fn dns_follows_the_policy() {
        let resolve = |spec: &Value| dns(&pod(spec), &config(), RESOLV);
        let cluster = resolve(&json!({}));
        assert_eq!(cluster.servers, ["10.96.0.10"]);
        assert_eq!(cluster.searches, ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        assert_eq!(cluster.options, ["ndots:5"]);
        let host = resolve(&json!({"hostNetwork": true}));
        assert_eq!(
            (host.servers, host.options),
            (vec!["1.1.1.1".to_owned()], vec!["edns0".to_owned(), "timeout:2".to_owned()])
        );
        let own = resolve(
            &json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]}}),
        );
        assert_eq!((own.servers, own.options), (vec!["9.9.9.9".to_owned()], vec!["ndots:2".to_owned()]));
        let fewer = resolve(&json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}));
        assert_eq!(fewer.options, ["ndots:1"]);
    }

    #[test]
    fn a_pod_with_a_subdomain_has_a_full_name() {
        let pod = pod(
            &json!({"hostname": "db", "subdomain": "pg", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}),
        );
        let hosts = hosts_file(&pod, &config(), &[[10, 244, 0, 9].into()]);
        assert!(hosts.contains("10.244.0.9\tdb.pg.shop.svc.cluster.local\tdb\n"), "{hosts}");
        assert!(hosts.ends_with("1.2.3.4\ta\tb\n"), "{hosts}");
    }

    #[test]
    fn nobody_runs_as_root_who_must_not() {
        let check = |spec: &Value, image: &Image| {
            let pod = pod(spec);
            security(&pod, &pod.spec.containers[0], image)
        };
        let spec = |own: Value| json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c", "securityContext": own}]});
        let by_uid = |value| Image { uid: Some(Int64Value { value }), ..Image::default() };
        let named = Image { username: "app".into(), ..Image::default() };
        assert!(
            check(&spec(json!({})), &Image::default())
                .unwrap_err()
                .to_string()
                .contains("image will run as root (pod: \"web-0_shop(u)\", container: c)")
        );
        assert!(check(&spec(json!({})), &by_uid(0)).is_err());
        assert!(check(&spec(json!({})), &named).unwrap_err().to_string().contains("non-numeric user (app)"));
        assert_eq!(check(&spec(json!({})), &by_uid(7)).unwrap().run_as_user, Some(Int64Value { value: 7 }));
        assert_eq!(
            check(&spec(json!({"runAsUser": 9})), &by_uid(0)).unwrap().run_as_user,
            Some(Int64Value { value: 9 })
        );
        assert!(
            check(&spec(json!({"runAsUser": 0})), &by_uid(7))
                .unwrap_err()
                .to_string()
                .starts_with("container's runAsUser breaks")
        );
        assert_eq!(check(&json!({"containers": [{"name": "c"}]}), &named).unwrap().run_as_username, "app");
    }
}
