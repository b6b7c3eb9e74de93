use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const NOW_S: u64 = 1_800_000_000;
const DAY_S: u64 = 24 * 3600;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("diolkos-pki-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_second_start_finds_everything_again() {
    let dir = Dir::new("again");
    let config = Config::new(&dir.0);
    let first = Pki::open(&config, NOW_S).unwrap();
    let second = Pki::open(&config, NOW_S + DAY_S).unwrap();
    assert_eq!(first.authority.certificate_pem(), second.authority.certificate_pem());
    assert_eq!(first.server.certificate_pem, second.server.certificate_pem);
    assert_eq!(first.sa_key, second.sa_key);
    let mode = fs::metadata(dir.0.join("pki/ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn leaves_are_renewed_near_their_end_and_the_ca_is_not() {
    let dir = Dir::new("renew");
    let config = Config::new(&dir.0);
    let first = Pki::open(&config, NOW_S).unwrap();
    let later = Pki::open(&config, NOW_S + 340 * DAY_S).unwrap();
    assert_eq!(first.authority.certificate_pem(), later.authority.certificate_pem());
    assert_ne!(first.server.certificate_pem, later.server.certificate_pem);
}

#[test]
fn a_new_address_gets_a_new_server_certificate() {
    let dir = Dir::new("names");
    let mut config = Config::new(&dir.0);
    let first = Pki::open(&config, NOW_S).unwrap();
    config.node_addresses.push([192, 168, 1, 7].into());
    let second = Pki::open(&config, NOW_S).unwrap();
    assert_ne!(first.server.certificate_pem, second.server.certificate_pem);
    assert_eq!(first.admin.certificate_pem, second.admin.certificate_pem);
}

#[test]
fn a_broken_key_is_named() {
    let dir = Dir::new("broken");
    let config = Config::new(&dir.0);
    drop(Pki::open(&config, NOW_S).unwrap());
    fs::write(dir.0.join("pki/sa.key"), "nonsense").unwrap();
    let error = Pki::open(&config, NOW_S).err().unwrap().to_string();
    assert!(error.contains("pki/sa.key is not a usable key"), "{error}");
}
