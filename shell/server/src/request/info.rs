//! What a URL means, as Kubernetes' RequestInfo resolves it, before anything is looked up.

use http::Method;

/// A resolved request line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path lies in the resource tree.
    pub is_resource: bool,
    /// The whole path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the lower-case method off the tree.
    pub verb: &'static str,
    /// `""` for core.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// `status`, or empty.
    pub subresource: String,
    /// Or empty.
    pub namespace: String,
    /// Or empty.
    pub name: String,
    /// What follows the subresource: a proxy's path.
    pub rest: String,
}

/// Resolves a method, path and the few query parameters that change the verb.
pub fn resolve(method: &Method, path: &str, query: &super::Query) -> RequestInfo {
    let mut info = RequestInfo { path: path.to_owned(), verb: plain_verb(method), ..RequestInfo::default() };
    let mut parts = path.split('/').filter(|part| !part.is_empty()).map(percent_decode);
    match parts.next().as_deref() {
        Some("api") => {}
        Some("apis") => match parts.next() {
            Some(group) => info.group = group,
            None => return info,
        },
        _ => return info,
    }
    let Some(version) = parts.next() else { return RequestInfo { group: String::new(), ..info } };
    info.version = version;
    let rest: Vec<String> = parts.collect();
    if rest.is_empty() {
        return info;
    }
    info.is_resource = true;
    info.verb = verb(method);
    place(&mut info, rest);
    if info.name.is_empty() {
        info.verb = match info.verb {
            "get" if query.flag("watch") => "watch",
            "get" => "list",
            "delete" => "deletecollection",
            other => other,
        };
    }
    if matches!(info.verb, "list" | "watch" | "deletecollection")
        && let Some(name) = named_by_field(query)
    {
        // So that a role with resourceNames can allow a watch of that one object.
        info.name = name;
    }
    info
}

fn place(info: &mut RequestInfo, rest: Vec<String>) {
    let mut rest = rest.into_iter().peekable();
    let Some(first) = rest.next() else { return };
    if first == "namespaces" {
        let Some(namespace) = rest.next() else {
            info.resource = first;
            return;
        };
        let of_namespace = matches!(rest.peek().map(String::as_str), None | Some("status" | "finalize"));
        info.namespace = namespace.clone();
        if of_namespace {
            info.resource = first;
            info.name = namespace;
            info.subresource = rest.next().unwrap_or_default();
            return;
        }
        info.resource = rest.next().unwrap_or_default();
    } else {
        info.resource = first;
    }
    info.name = rest.next().unwrap_or_default();
    info.subresource = rest.next().unwrap_or_default();
    info.rest = rest.collect::<Vec<_>>().join("/");
}

fn named_by_field(query: &super::Query) -> Option<String> {
    let selector = query.get("fieldSelector")?;
    selector.split(',').find_map(|term| {
        let (key, value) = term.split_once('=')?;
        (key == "metadata.name" && !value.is_empty()).then(|| value.trim_start_matches('=').to_owned())
    })
}

fn plain_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// `%2F` and friends; malformed escapes stay as they are. Names with a decoded slash are refused by name validation.
pub fn percent_decode(text: impl AsRef<str>) -> String {
    decode(text.as_ref(), false)
}

pub(super) fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) if plus_is_space => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Query;
    use super::*;

    /// `check("GET /api/v1/pods", "list  pods")`: verb, group, version, namespace, resource, name, subresource.
    fn check(line: &str, expect: [&str; 7]) {
        let (method, url) = line.split_once(' ').unwrap();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let info = resolve(&method.parse().unwrap(), path, &Query::parse(query));
        let got =
            [info.verb, &info.group, &info.version, &info.namespace, &info.resource, &info.name, &info.subresource];
        assert_eq!(got, expect, "{line}");
    }

    #[test]
    fn resolves() {
        check("GET /api/v1/pods", ["list", "", "v1", "", "pods", "", ""]);
        check("GET /api/v1/pods?watch=true", ["watch", "", "v1", "", "pods", "", ""]);
        check("GET /api/v1/pods?watch=1", ["watch", "", "v1", "", "pods", "", ""]);
        check("GET /api/v1/pods?watch=false", ["list", "", "v1", "", "pods", "", ""]);
        check("GET /api/v1/watch/pods", ["get", "", "v1", "", "watch", "pods", ""]);
        check("GET /api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]);
        check("GET /api/v1/namespaces/a", ["get", "", "v1", "a", "namespaces", "a", ""]);
        check("PUT /api/v1/namespaces/a/finalize", ["update", "", "v1", "a", "namespaces", "a", "finalize"]);
        check("POST /api/v1/namespaces/a/pods", ["create", "", "v1", "a", "pods", "", ""]);
        check("GET /api/v1/namespaces/a/pods/p/log", ["get", "", "v1", "a", "pods", "p", "log"]);
        check("DELETE /api/v1/namespaces/a/pods", ["deletecollection", "", "v1", "a", "pods", "", ""]);
        check(
            "PATCH /apis/apps/v1/namespaces/a/deployments/d/scale",
            ["patch", "apps", "v1", "a", "deployments", "d", "scale"],
        );
        check(
            "GET /apis/apps/v1/namespaces/a/deployments?fieldSelector=metadata.name%3Dd&watch=1",
            ["watch", "apps", "v1", "a", "deployments", "d", ""],
        );
        check("GET /apis/apps/v1", ["get", "apps", "v1", "", "", "", ""]);
        check("GET /apis", ["get", "", "", "", "", "", ""]);
        check("GET /healthz", ["get", "", "", "", "", "", ""]);
        check("POST /healthz", ["post", "", "", "", "", "", ""]);
        check("GET /api/v1/nodes/n%20x", ["get", "", "v1", "", "nodes", "n x", ""]);
    }
}
