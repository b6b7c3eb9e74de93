use crate::pod::spec::HostPath;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Checks a hostPath against its type, making it where the type says so. The error is the text that the kubelet gives.
pub(super) fn check(host: &HostPath) -> Result<(), String> {
    let path = Path::new(&host.path);
    let found = std::fs::metadata(path).ok();
    let failed = |error: std::io::Error| format!("{}: {error}", host.path);
    let kind = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(format!("hostPath type check failed: {} is not a {what}", host.path)) }
    };
    let is = |test: fn(&std::fs::Metadata) -> bool| found.as_ref().is_some_and(test);
    match host.kind.as_str() {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_none() => std::fs::create_dir_all(path).map_err(failed),
        "FileOrCreate" if found.is_none() => std::fs::File::create_new(path).map(drop).map_err(failed),
        "Directory" | "DirectoryOrCreate" => kind(is(std::fs::Metadata::is_dir), "directory"),
        "File" | "FileOrCreate" => kind(is(std::fs::Metadata::is_file), "file"),
        "Socket" => kind(is(|meta| meta.file_type().is_socket()), "socket file"),
        "CharDevice" => kind(is(|meta| meta.file_type().is_char_device()), "character device"),
        "BlockDevice" => kind(is(|meta| meta.file_type().is_block_device()), "block device"),
        other => Err(format!("{other} is an invalid hostPath type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked() {
        let dir = std::env::temp_dir().join(format!("diolkos-hostpath-{}", std::process::id()));
        let text = dir.display().to_string();
        let host = |path: &str, kind: &str| HostPath { path: path.into(), kind: kind.into() };
        assert!(check(&host(&text, "Directory")).unwrap_err().contains("is not a directory"));
        check(&host(&text, "")).unwrap();
        check(&host(&text, "DirectoryOrCreate")).unwrap();
        check(&host(&text, "Directory")).unwrap();
        assert!(check(&host(&text, "File")).is_err());
        check(&host(&format!("{text}/f"), "FileOrCreate")).unwrap();
        check(&host(&format!("{text}/f"), "File")).unwrap();
        check(&host("/dev/null", "CharDevice")).unwrap();
        assert!(check(&host("/dev/null", "Pipe")).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
