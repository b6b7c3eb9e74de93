//! Who is at the other end.
use crate::pods::Pod;
use crate::shared::Shared;
use std::sync::Arc;
use tokio::net::UnixStream;

/// The pod that the process at the other end is in.
///
/// # Errors
/// Why it is in none, for the log.
pub fn pod(shared: &Shared, stream: &UnixStream) -> Result<Arc<Pod>, String> {
    let credentials = stream.peer_cred().map_err(|error| error.to_string())?;
    let process = credentials.pid().ok_or("the kernel does not say which process it is")?;
    let path = format!("/proc/{process}/cgroup");
    let groups = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let uid = pod_uid(&groups).ok_or_else(|| format!("process {process} is in no pod's control group"))?;
    shared.pods.get(uid).ok_or_else(|| format!("pod {uid} of process {process} is not in the mesh"))
}

/// The pod of control groups as `/proc/PID/cgroup` shows them: the first part of a path that is `podUID`, as the node agent names the groups. A
/// container may make groups of its own below its pod's only, so what comes later says nothing.
fn pod_uid(groups: &str) -> Option<&str> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut parts = paths.flat_map(|path| path.split('/'));
    parts.find_map(|part| part.strip_prefix("pod")).filter(|uid| !uid.is_empty())
}

#[cfg(test)]
mod tests {
    use super::pod_uid;

    #[test]
    fn the_outermost_pod_of_a_path_is_the_node_agents() {
        for (groups, expect) in [
            ("0::/diolkos/besteffort/pod12-ab/c0ffee\n", Some("12-ab")),
            ("0::/diolkos/pod12-ab\n", Some("12-ab")),
            ("12:cpu:/diolkos/burstable/pod7/x\n0::/\n", Some("7")),
            // A group that a process made below its own does not make it another pod.
            ("0::/diolkos/pod1/c/podother\n", Some("1")),
            ("0::/user.slice\n", None),
            ("0::/diolkos/pod/x\n", None),
            ("", None),
        ] {
            assert_eq!(pod_uid(groups), expect, "{groups}");
        }
    }
}
