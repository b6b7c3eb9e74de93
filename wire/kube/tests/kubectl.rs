//! What real clients send, decoded. The fixtures are bodies captured from kubectl; the snapshot is what kube-apiserver stores.

use diolkos_kube::codec::{self, Format, Kind};
use diolkos_kube::registry::split_api_version;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn bodies_of_kubectl_decode_to_what_was_meant() {
    let mut out = String::new();
    for line in include_str!("fixtures/kubectl.txt").lines().filter(|line| !line.starts_with('#')) {
        let [name, api_version, kind, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (group, version) = split_api_version(api_version);
        let kind = Kind::builtin(group, version, kind).unwrap();
        let decoded = codec::decode(&kind, Format::Protobuf, &unhex(hex)).unwrap();
        let again = codec::decode(&kind, Format::Json, decoded.value.to_string().as_bytes()).unwrap();
        assert_eq!(again.value, decoded.value, "{name}: JSON and protobuf have one canonical form");
        assert_eq!(again.problems, Vec::<String>::new());
        out.push_str(&format!("{name} {}\n", decoded.value));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/kubectl.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &out).unwrap();
    }
    assert_eq!(out, std::fs::read_to_string(path).unwrap(), "UPDATE_SNAPSHOTS=1 accepts a change");
}
