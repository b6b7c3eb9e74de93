//! Precedence as Gateway API words it, by table and against a twin that compares every pair of matches.

use super::*;
use model::mesh::{RouteKind, TextMatch};
use model::{Key, Timestamp};

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}
fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}
fn regex(path: &str) -> PathMatch {
    PathMatch::Regex(path.into())
}

fn on(path: PathMatch) -> Match {
    Match { path, ..Match::default() }
}

fn values(pairs: &[(&str, &str)]) -> Vec<ValueMatch> {
    pairs
        .iter()
        .map(|(name, value)| ValueMatch { name: (*name).into(), value: TextMatch::Exact((*value).into()) })
        .collect()
}

fn route(name: &str, created: i64, rules: Vec<Vec<Match>>) -> Arc<Route> {
    Arc::new(Route {
        name: name.into(),
        key: Key::new("default", name),
        kind: RouteKind::Http,
        created: Timestamp(created),
        parents: vec![],
        rules: rules.into_iter().map(|matches| Rule { matches, ..Rule::default() }).collect(),
        ordered: false,
    })
}

fn names(hostnames: &[&str]) -> Vec<Hostname> {
    hostnames.iter().map(|it| Hostname::new(it).unwrap()).collect()
}

/// `METHOD HOST TARGET [HEADER=VALUE ...]` -> `ROUTE/RULE/MATCH`.
fn find(table: &RouteTable, request: &str) -> String {
    let mut words = request.split(' ');
    let (method, host, target) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let headers: Vec<(&str, &str)> = words.map(|pair| pair.split_once('=').unwrap()).collect();
    let headers = Pairs(&headers);
    let view = RequestView::new(host, target, method, &headers);
    match table.find(&view) {
        Some(hit) => format!("{}/{}/{}", hit.route.name, hit.rule_index, hit.match_index),
        None => "-".into(),
    }
}

struct Pairs<'a>(&'a [(&'a str, &'a str)]);

impl crate::request::Headers for Pairs<'_> {
    fn value(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.0.value(name)
    }
}

fn check(routes: &[(Arc<Route>, &[&str])], cases: &[(&str, &str)]) {
    let hostnames: Vec<Vec<Hostname>> = routes.iter().map(|(_, hosts)| names(hosts)).collect();
    let table = RouteTable::build(routes.iter().zip(&hostnames).map(|((route, _), hosts)| (route, &hosts[..])));
    for (request, expect) in cases {
        assert_eq!(find(&table, request), *expect, "{request}");
    }
}

#[test]
fn the_most_specific_hostname_goes_first() {
    let any = || vec![vec![Match::default()]];
    check(
        &[
            (route("all", 0, any()), &[]),
            (route("wild", 0, any()), &["*.example.com"]),
            (route("deeper", 0, any()), &["*.a.example.com"]),
            (route("exact", 9, vec![vec![on(prefix("/only"))]]), &["b.a.example.com"]),
        ],
        &[
            ("GET x.test /", "all/0/0"),
            ("GET example.com /", "all/0/0"),
            ("GET x.example.com /", "wild/0/0"),
            ("GET x.y.example.com /", "wild/0/0"),
            ("GET x.a.example.com /", "deeper/0/0"),
            ("GET b.a.example.com /only/this", "exact/0/0"),
            ("GET b.a.example.com /other", "deeper/0/0"),
        ],
    );
}

#[test]
fn paths_match_by_element() {
    check(
        &[(
            route(
                "r",
                0,
                vec![
                    vec![on(prefix("/"))],
                    vec![on(prefix("/a"))],
                    vec![on(prefix("/a/b/"))],
                    vec![on(exact("/a/b"))],
                    vec![on(regex("/v[0-9]+/.*"))],
                    vec![on(exact("/slash/"))],
                ],
            ),
            &[],
        )],
        &[
            ("GET h /", "r/0/0"),
            ("GET h /ab", "r/0/0"),
            ("GET h /a", "r/1/0"),
            ("GET h /a/", "r/1/0"),
            ("GET h /a?q=/a/b", "r/1/0"),
            ("GET h /a/b", "r/3/0"),
            ("GET h /a/b/", "r/2/0"),
            ("GET h /a/b/c", "r/2/0"),
            ("GET h /a/bc", "r/1/0"),
            ("GET h /v2/x", "r/4/0"),
            ("GET h /x/v2/x", "r/0/0"),
            ("GET h /slash", "r/0/0"),
            ("GET h /slash/", "r/5/0"),
            ("GET h //a", "r/0/0"),
        ],
    );
}

#[test]
fn ties_go_to_method_headers_query_age_name_and_order() {
    let with = |method: Option<&str>, headers: &[(&str, &str)], query: &[(&str, &str)]| Match {
        path: prefix("/"),
        method: method.map(Into::into),
        headers: values(headers),
        query: values(query),
        more: None,
    };
    check(
        &[
            (
                route(
                    "a",
                    5,
                    vec![
                        vec![with(None, &[], &[])],
                        vec![with(None, &[("x", "1")], &[])],
                        vec![with(None, &[], &[("q", "1"), ("p", "1")])],
                        vec![with(None, &[("x", "1"), ("y", "1")], &[])],
                        vec![with(Some("POST"), &[], &[])],
                        vec![with(Some("PUT"), &[], &[]), with(Some("PUT"), &[], &[])],
                    ],
                ),
                &[],
            ),
            (route("b", 5, vec![vec![with(None, &[], &[])], vec![with(None, &[("z", "1")], &[])]]), &[]),
            (route("old", 1, vec![vec![with(Some("PUT"), &[], &[])]]), &[]),
        ],
        &[
            ("GET h /", "a/0/0"),
            ("GET h / x=1", "a/1/0"),
            ("GET h /?q=1&p=1 x=1", "a/1/0"),
            ("GET h /?q=1&p=1", "a/2/0"),
            ("GET h /?q=1", "a/0/0"),
            ("GET h / x=1 y=1", "a/3/0"),
            ("GET h / x=2 y=1", "a/0/0"),
            ("POST h / x=1 y=1", "a/4/0"),
            ("GET h / z=1", "b/1/0"),
            ("PUT h /", "old/0/0"),
        ],
    );
}

#[test]
fn what_cannot_be_used_matches_nothing() {
    let bad = Match {
        headers: vec![ValueMatch { name: "x".into(), value: TextMatch::Regex("(".into()) }],
        ..Match::default()
    };
    check(&[(route("r", 0, vec![vec![on(regex("("))], vec![bad]]), &[])], &[("GET h /(", "-"), ("GET h / x=(", "-")]);
    assert!(RouteTable::default().find(&RequestView::new("h", "/", "GET", &())).is_none());
}

#[test]
fn a_hit_knows_its_prefix() {
    let route = route("r", 0, vec![vec![on(prefix("/a/"))]]);
    let table = RouteTable::build([(&route, &[][..])]);
    let hit = table.find(&RequestView::new("h", "/a/b", "GET", &())).unwrap();
    assert_eq!((hit.prefix(), hit.rule().matches.len()), (Some("/a/"), 1));
}

/// The twin: every match that fits, the best by the order that the specification words.
mod twin {
    use super::*;

    fn path_fits(matcher: &PathMatch, path: &str) -> Option<(u8, usize)> {
        match matcher {
            PathMatch::Exact(text) => (&**text == path).then_some((3, 0)),
            PathMatch::Prefix(text) => {
                let text = text.trim_end_matches('/');
                let rest = path.strip_prefix(text)?;
                let rank = if text.is_empty() { 0 } else { 2 };
                (rest.is_empty() || rest.starts_with('/') || text.is_empty()).then_some((rank, text.len()))
            }
            // The generator's expressions are all of the form `TEXT.*`.
            PathMatch::Regex(text) => path.starts_with(text.strip_suffix(".*")?).then_some((1, 0)),
            PathMatch::Text(_) => unreachable!("not generated here"),
        }
    }

    pub fn find(routes: &[(Arc<Route>, Vec<Hostname>)], view: &RequestView<'_>) -> String {
        let mut best: Option<(_, String)> = None;
        for (route, hostnames) in routes {
            let all = hostnames.is_empty().then_some((0, 0));
            let fits = hostnames.iter().filter(|it| it.matches(view.host)).map(Hostname::specificity).max();
            let Some(host) = all.or(fits) else { continue };
            for (rule_index, rule) in route.rules.iter().enumerate() {
                for (index, matched) in rule.matches.iter().enumerate() {
                    let Some(path) = path_fits(&matched.path, view.path) else { continue };
                    let pairs = |values: &[ValueMatch], get: &dyn Fn(&str) -> Option<String>| {
                        values.iter().all(|it| match &it.value {
                            TextMatch::Exact(text) => get(&it.name).as_deref() == Some(text),
                            _ => false,
                        })
                    };
                    let fits = matched.method.as_deref().is_none_or(|method| method == view.method)
                        && pairs(&matched.headers, &|name| view.headers.value(name).map(Into::into))
                        && pairs(&matched.query, &|name| view.query_value(name).map(Into::into));
                    if !fits {
                        continue;
                    }
                    let specific = (matched.method.is_some(), matched.headers.len(), matched.query.len());
                    let order = (route.created, route.key.clone(), rule_index, index);
                    let rank = (Reverse((host, path, specific)), order);
                    if best.as_ref().is_none_or(|(have, _)| rank < *have) {
                        best = Some((rank, format!("{}/{rule_index}/{index}", route.name)));
                    }
                }
            }
        }
        best.map_or("-".into(), |(_, name)| name)
    }
}

#[test]
fn the_table_finds_what_its_twin_finds() {
    const HOSTS: &[&str] = &["a.x", "b.x", "*.x", "*.a.x", "c.a.x"];
    const PATHS: &[&str] = &["/", "/p", "/p/", "/p/q", "/q", "/p/q/r"];
    let mut state = 7u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut hits = 0;
    for round in 0..600 {
        let mut routes = Vec::new();
        for index in 0..1 + below(4) {
            let mut rules = Vec::new();
            for _ in 0..1 + below(3) {
                let mut matches = Vec::new();
                for _ in 0..1 + below(2) {
                    let path = PATHS[below(PATHS.len())];
                    matches.push(Match {
                        path: match below(4) {
                            0 => exact(path),
                            1 => regex(&format!("{path}.*")),
                            _ => prefix(path),
                        },
                        method: (below(3) == 0).then(|| "GET".into()),
                        headers: if below(3) == 0 { values(&[("x", ["1", "2"][below(2)])]) } else { vec![] },
                        query: if below(3) == 0 { values(&[("q", "1")]) } else { vec![] },
                        more: None,
                    });
                }
                rules.push(matches);
            }
            let hosts: Vec<&str> = (0..below(3)).map(|_| HOSTS[below(HOSTS.len())]).collect();
            routes.push((route(&format!("r{index}"), below(2) as i64, rules), names(&hosts)));
        }
        let table = RouteTable::build(routes.iter().map(|(route, hosts)| (route, &hosts[..])));
        for _ in 0..10 {
            let host = ["a.x", "b.x", "c.a.x", "d.c.a.x", "y"][below(5)];
            let target = ["/", "/p", "/p/", "/p/q?q=1", "/q?q=2", "/pq", "/p/q/r/s?q=1"][below(7)];
            let headers = [("x", ["1", "2", "3"][below(3)])];
            let headers = Pairs(&headers);
            let view = RequestView::new(host, target, ["GET", "POST"][below(2)], &headers);
            let found = table
                .find(&view)
                .map_or("-".into(), |hit| format!("{}/{}/{}", hit.route.name, hit.rule_index, hit.match_index));
            hits += usize::from(found != "-");
            assert_eq!(found, twin::find(&routes, &view), "round {round}: {host} {target}: {routes:#?}");
        }
    }
    assert!(hits > 1_500, "most requests hit something: {hits}");
}
