//! A real nginx, with a directory of its own.
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Ends with the value.
pub struct Nginx(Child, PathBuf);

impl Nginx {
    /// Starts one with these servers, `within` a command that runs commands elsewhere (or none). None: it is not to be had.
    pub fn start(name: &str, within: &[&str], servers: &str) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("dkp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).ok()?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {}/{name};\n", dir.display()))
            .collect();
        let text = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\nevents {{}}\nhttp {{ access_log off;\n{temporary}{servers} }}\n",
            dir.display()
        );
        std::fs::write(dir.join("nginx.conf"), text).ok()?;
        let mut words = within.iter().chain(&["nginx"]);
        let mut command = Command::new(words.next()?);
        command.args(words).args(["-p", dir.to_str()?, "-c", "nginx.conf"]);
        Some(Self(command.stderr(Stdio::null()).spawn().ok()?, dir))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}
