//! Who is at the other end.
use super::groups::supplementary;
use crate::config::Callers;
use crate::pods::Pod;
use crate::shared::Shared;
use std::sync::Arc;
use tokio::net::UnixStream;

/// Whose identity the process at the other end may have.
///
/// # Errors
/// Why it may have none, for the log.
pub fn pod(shared: &Shared, stream: &UnixStream) -> Result<Arc<Pod>, String> {
    match shared.config.workload_api.as_ref().map(|api| &api.callers) {
        Some(Callers::Users { users, groups }) => {
            allowed(stream, users, groups)?;
            let pods = shared.pods.list();
            pods.into_iter().next().ok_or_else(|| "the joined process is not served yet".to_owned())
        }
        _ => in_group(shared, stream),
    }
}

/// The pod that the process is in.
fn in_group(shared: &Shared, stream: &UnixStream) -> Result<Arc<Pod>, String> {
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

/// Whether the process's user or one of its groups is named. The kernel noted both when it connected: what becomes of the process, or of its
/// number, changes nothing.
fn allowed(stream: &UnixStream, users: &[u32], groups: &[u32]) -> Result<(), String> {
    let credentials = stream.peer_cred().map_err(|error| error.to_string())?;
    let (user, group) = (credentials.uid(), credentials.gid());
    if users.contains(&user) || groups.contains(&group) {
        return Ok(());
    }
    let more = supplementary(stream).map_err(|error| format!("groups of user {user}: {error}"))?;
    if more.iter().any(|group| groups.contains(group)) {
        return Ok(());
    }
    Err(format!(
        "user {user} (group {group}) may not have this host's identity (workload-api-users, workload-api-groups)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn users_and_groups() {
        let (here, _there) = UnixStream::pair().unwrap();
        let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let own = nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw);
        let mut told = supplementary(&here).unwrap();
        told.sort_unstable();
        let mut own: Vec<u32> = own.collect();
        own.sort_unstable();
        assert_eq!(told, own);
        assert!(allowed(&here, &[user], &[]).is_ok());
        assert!(allowed(&here, &[], &[7, group]).is_ok());
        let strangers: Vec<u32> = (1..).filter(|id| *id != user && *id != group && !own.contains(id)).take(2).collect();
        assert!(allowed(&here, &strangers, &strangers).is_err());
        assert!(allowed(&here, &[], &[]).is_err());
    }
}
