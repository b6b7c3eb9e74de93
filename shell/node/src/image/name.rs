//! Image references, normalised as every container tool does: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    /// Host, with its port.
    pub registry: String,
    /// Path, lower case.
    pub repository: String,
    /// `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:...`.
    pub digest: Option<String>,
}

/// Why a text is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name \"{0}\": invalid reference format")]
pub struct NameError(pub String);

const MAX_LEN: usize = 512;

impl ImageName {
    /// Reads a reference as a pod or a person writes it.
    ///
    /// # Errors
    /// Not a reference; the message is the one that kubectl users know.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fail = || NameError(text.to_owned());
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(fail());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; before it, it is the registry's port.
        let (path, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') => (&rest[..colon], Some(&rest[colon + 1..])),
            _ => (rest, None),
        };
        // The first part is a host only if it looks like one: that is what makes `library/nginx` no host.
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            _ => ("docker.io", path.to_owned()),
        };
        let repository = match registry {
            "docker.io" | "index.docker.io" if !repository.contains('/') => format!("library/{repository}"),
            _ => repository,
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let valid = is_host(registry)
            && repository.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !valid {
            return Err(fail());
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(ImageName { registry: registry.to_owned(), repository, tag, digest: digest.map(str::to_owned) })
    }

    /// Whether `imagePullPolicy` is `Always` when a pod does not say.
    pub fn defaults_to_always(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref() == Some("latest")
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(is_label) && (!host.contains(':') || port.parse::<u16>().is_ok())
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().is_some_and(|b| inner(*b)) && bytes.last().is_some_and(|b| inner(*b));
    ends && bytes.iter().all(|b| inner(*b) || matches!(b, b'.' | b'_' | b'-'))
        && ["..", "._", "_.", "-.", ".-", "-_", "_-", "___"].iter().all(|bad| !component.contains(bad))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().enumerate().all(|(at, b)| word(b) || (at > 0 && matches!(b, b'.' | b'-')))
}

fn is_digest(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_container_tools_do() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, expect) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("team/app", "docker.io/team/app:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app:v1", "localhost/app:v1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x"),
            (&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}")),
            (&format!("nginx:1@{digest}"), &format!("docker.io/library/nginx:1@{digest}")),
        ] {
            assert_eq!(ImageName::parse(text).unwrap().to_string(), expect);
        }
    }

    #[test]
    fn refuses_what_is_no_reference() {
        for text in [
            "",
            "Nginx",
            "nginx:",
            "nginx:a b",
            "a//b",
            "nginx@sha256:12",
            "-a",
            "a..b",
            "/nginx",
            "host:99999/a",
            ":tag",
        ] {
            assert_eq!(ImageName::parse(text), Err(NameError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn only_the_latest_tag_is_pulled_always() {
        assert!(ImageName::parse("nginx").unwrap().defaults_to_always());
        assert!(!ImageName::parse("nginx:1").unwrap().defaults_to_always());
    }
}
