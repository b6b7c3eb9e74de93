//! The authority's one file. Each change of it is one rename, so a crash leaves what was before or what is after.

use super::jwt::JwtKey;
use super::make::{Pair, Signer};
use super::{CaError, make};
use control::trust::Phase;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE: &str = "mesh-ca.json";

/// What signs and what is trusted.
pub struct Keys {
    pub phase: Phase,
    /// The one that signs first; then, while one follows another, the next (announced) or the old one (switched).
    pub roots: Vec<Signer>,
    pub intermediate: Signer,
    /// What signs tokens, one beside each root.
    pub jwt: Vec<JwtKey>,
}

impl Keys {
    /// The root that signs.
    pub fn root(&self) -> &Signer {
        &self.roots[0]
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    phase: KeptPhase,
    roots: Vec<KeptPair>,
    intermediate: KeptPair,
    /// An earlier version had none.
    #[serde(default)]
    jwt_keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "name")]
enum KeptPhase {
    Steady,
    #[serde(rename_all = "camelCase")]
    Announced {
        since_s: u64,
    },
    #[serde(rename_all = "camelCase")]
    Switched {
        since_s: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptPair {
    certificate: String,
    key: String,
}

impl From<&Signer> for KeptPair {
    fn from(signer: &Signer) -> Self {
        KeptPair { certificate: signer.pair.certificate.clone(), key: signer.pair.key.clone() }
    }
}

/// Reads the file, or makes it: of a root that an earlier version kept (`mesh-ca.crt` and `.key`), or anew.
pub fn open(dir: &Path, trust_domain: &str, leaf_ttl: Duration) -> Result<Keys, CaError> {
    let path = dir.join(FILE);
    let keys = match read(&path)? {
        Some(text) => {
            let mut keys = parse(&text).map_err(|what| CaError::Malformed { path, what })?;
            if keys.jwt.len() != keys.roots.len() {
                keys.jwt = keys.roots.iter().map(|_| JwtKey::make()).collect::<Result<_, _>>()?;
                write(dir, &keys)?;
            }
            keys
        }
        None => {
            let root = match earlier(dir)? {
                Some(root) => root,
                None => make::root(trust_domain)?,
            };
            let intermediate = make::intermediate(&root, trust_domain, leaf_ttl)?;
            let keys = Keys { phase: Phase::Steady, roots: vec![root], intermediate, jwt: vec![JwtKey::make()?] };
            write(dir, &keys)?;
            keys
        }
    };
    // Its content is in the file by now; two places for one key would be one too many.
    match fs::remove_file(dir.join("mesh-ca.key")) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(CaError::File { path: dir.join("mesh-ca.key"), source });
        }
        _ => {}
    }
    Ok(keys)
}

fn parse(text: &str) -> Result<Keys, String> {
    let kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let phase = match kept.phase {
        KeptPhase::Steady => Phase::Steady,
        KeptPhase::Announced { since_s } => Phase::Announced { since_s },
        KeptPhase::Switched { since_s } => Phase::Switched { since_s },
    };
    let wanted = if phase == Phase::Steady { 1 } else { 2 };
    if kept.roots.len() != wanted {
        return Err(format!("{} roots where {wanted} belong", kept.roots.len()));
    }
    let signer = |pair: KeptPair| Signer::read(Pair { certificate: pair.certificate, key: pair.key });
    let roots = kept.roots.into_iter().map(signer).collect::<Result<Vec<_>, _>>()?;
    let jwt = kept.jwt_keys.iter().map(|key| JwtKey::read(key)).collect::<Result<Vec<_>, _>>()?;
    Ok(Keys { phase, roots, intermediate: signer(kept.intermediate)?, jwt })
}

fn earlier(dir: &Path) -> Result<Option<Signer>, CaError> {
    let (certificate, key) = (dir.join("mesh-ca.crt"), dir.join("mesh-ca.key"));
    let missing = |path: PathBuf, other: &str| CaError::Malformed {
        path,
        what: format!("{other} is there without it; restore it, or remove both to begin anew"),
    };
    match (read(&certificate)?, read(&key)?) {
        (Some(root), Some(secret)) => {
            let read = Signer::read(Pair { certificate: root, key: secret });
            read.map(Some).map_err(|what| CaError::Malformed { path: key, what })
        }
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing(certificate, "mesh-ca.key")),
        (Some(_), None) => Err(missing(key, "mesh-ca.crt")),
    }
}

/// Writes the file, so that it is on disk when this returns, and then the roots for whoever wants to read them (`mesh-ca.crt`).
pub fn write(dir: &Path, keys: &Keys) -> Result<(), CaError> {
    let kept = Kept {
        phase: match keys.phase {
            Phase::Steady => KeptPhase::Steady,
            Phase::Announced { since_s } => KeptPhase::Announced { since_s },
            Phase::Switched { since_s } => KeptPhase::Switched { since_s },
        },
        roots: keys.roots.iter().map(KeptPair::from).collect(),
        intermediate: (&keys.intermediate).into(),
        jwt_keys: keys.jwt.iter().map(|key| key.kept.clone()).collect(),
    };
    let text = serde_json::to_vec_pretty(&kept).map_err(|error| CaError::Sign(error.to_string()))?;
    replace(&dir.join(FILE), &text, 0o600)?;
    let roots: String = keys.roots.iter().map(|root| root.pair.certificate.as_str()).collect();
    replace(&dir.join("mesh-ca.crt"), roots.as_bytes(), 0o644)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    let temporary = path.with_extension("new");
    let written = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::File::open(parent)?.sync_all()
    };
    written().map_err(|source| CaError::File { path: path.to_owned(), source })
}

/// A file's text; none: it is not there.
pub fn read(path: &Path) -> Result<Option<String>, CaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::File { path: path.to_owned(), source }),
    }
}
