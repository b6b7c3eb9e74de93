//! Who on a joined host may have its identity.
use crate::cli::CommandError;
use nix::unistd::{Group, User, geteuid};
use proxy::Callers;
use std::collections::BTreeSet;
use std::path::Path;

/// Users and groups by name or number. Root and the user that runs this are always among them: they can read its memory and its files anyway.
///
/// # Errors
/// Nobody here has that name.
pub fn resolve(users: &[String], groups: &[String]) -> Result<Callers, CommandError> {
    let unknown = |what: &str, name: &str| CommandError::Usage(format!("there is no {what} {name:?} on this machine"));
    let mut allowed = BTreeSet::from([0, geteuid().as_raw()]);
    for name in users.iter().map(|name| name.trim()) {
        let found = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        allowed.insert(name.parse().ok().or_else(found).ok_or_else(|| unknown("user", name))?);
    }
    let mut of_groups = BTreeSet::new();
    for name in groups.iter().map(|name| name.trim()) {
        let found = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        of_groups.insert(name.parse().ok().or_else(found).ok_or_else(|| unknown("group", name))?);
    }
    Ok(Callers::Users { users: allowed.into_iter().collect(), groups: of_groups.into_iter().collect() })
}

/// What is said at start: where applications ask, and whose do not ask in vain.
pub fn sentence(callers: &Callers, socket: &Path) -> String {
    let Callers::Users { users, groups } = callers else { return String::new() };
    let user = |id: &u32| User::from_uid((*id).into()).ok().flatten().map_or_else(|| id.to_string(), |it| it.name);
    let group = |id: &u32| Group::from_gid((*id).into()).ok().flatten().map_or_else(|| id.to_string(), |it| it.name);
    let mut who = format!("users: {}", users.iter().map(user).collect::<Vec<_>>().join(", "));
    if !groups.is_empty() {
        who += &format!("; groups: {}", groups.iter().map(group).collect::<Vec<_>>().join(", "));
    }
    format!("SPIFFE Workload API at unix://{} ({who})", socket.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let own = geteuid().as_raw();
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let Callers::Users { users, groups } = resolve(&[], &[]).unwrap() else { panic!() };
        assert!(users.contains(&0) && users.contains(&own) && groups.is_empty());
        let resolved = resolve(&list(&["root", "4711", " 4712"]), &list(&["root", "4713"])).unwrap();
        let Callers::Users { users, groups } = resolved else { panic!() };
        assert!([0, 4711, 4712].iter().all(|id| users.contains(id)), "{users:?}");
        assert_eq!(groups, [0, 4713]);
        for (users, groups) in
            [(&["nobody-has-this-name"][..], &[][..]), (&[], &["no-such-group"]), (&["-1"], &[]), (&[""], &[])]
        {
            let error = resolve(&list(users), &list(groups)).unwrap_err();
            assert!(matches!(error, CommandError::Usage(_)), "{error}");
        }
    }

    #[test]
    fn what_is_said() {
        let callers = Callers::Users { users: vec![0, 999_999], groups: vec![999_998] };
        assert_eq!(
            sentence(&callers, Path::new("/run/x/api.sock")),
            "SPIFFE Workload API at unix:///run/x/api.sock (users: root, 999999; groups: 999998)"
        );
    }
}
