use super::gateway_api::parse_duration;
use super::status::Stamp;
use super::*;
use model::mesh::Subnet;
use model::mesh::api::{ParentRef, Reference};
use model::mesh::{Action, Filter, PathMatch, TextMatch};
use serde_json::json;

fn object(kind: ObjectKind, value: Value) -> Object {
    read(kind, &serde_json::to_vec(&value).unwrap()).unwrap().unwrap()
}

#[test]
fn durations() {
    for (text, ms) in [
        ("1h", Some(3_600_000)),
        ("1m30s", Some(90_000)),
        ("500ms", Some(500)),
        ("0s", Some(0)),
        ("1h2m3s4ms", Some(3_723_004)),
        ("", None),
        ("10", None),
        ("1.5s", None),
        ("123456s", None),
        ("-1s", None),
        ("1d", None),
    ] {
        assert_eq!(parse_duration(text), ms, "{text}");
    }
}

#[test]
fn protocols_of_ports() {
    use AppProtocol::{Grpc, Http, Http2, Tcp, Tls, Unspecified};
    for (said, name, expect) in [
        ("", "http", Http),
        ("", "http-api", Http),
        ("", "http2-api", Http2),
        ("", "grpc", Grpc),
        ("", "web", Unspecified),
        ("", "", Unspecified),
        ("", "tcp-x", Tcp),
        ("", "https", Tls),
        ("kubernetes.io/h2c", "http", Http2),
        ("HTTP", "tcp", Http),
        ("example.com/own", "http", Unspecified),
    ] {
        assert_eq!(app_protocol(said, name), expect, "{said:?} {name:?}");
    }
}

#[test]
fn a_pod() {
    let Object::Pod(pod) = object(
        ObjectKind::Pod,
        json!({
            "metadata": {
                "namespace": "default", "name": "web-1", "uid": "u", "labels": {"app": "web"},
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}],
            },
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }),
    ) else {
        panic!()
    };
    assert_eq!(pod.addresses.len(), 2);
    assert_eq!((&*pod.service_account, &*pod.node), ("default", "n1"));
    assert_eq!(pod.controller, ("ReplicaSet".into(), "web".into()));
    assert!(pod.deleting && !pod.ended && !pod.host_network && !pod.mesh_disabled);
}

#[test]
fn an_http_route() {
    let Object::Route(route) = object(
        ObjectKind::Route(RouteKind::Http),
        json!({
            "metadata": {"namespace": "a", "name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "parentRefs": [{"name": "gw", "sectionName": "web", "port": 80}, {"group": "", "kind": "Service", "name": "s"}],
                "hostnames": ["a.example"],
                "rules": [{
                    "matches": [
                        {"path": {"type": "Exact", "value": "/x"}, "method": "GET",
                         "headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
                         "queryParams": [{"name": "q", "type": "RegularExpression", "value": "a+"}]},
                        {},
                    ],
                    "filters": [
                        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-B", "value": "V"}], "remove": ["X-C"]}},
                        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}, "percent": 25}},
                    ],
                    "backendRefs": [{"name": "s1", "port": 80, "weight": 9}, {"name": "s2", "namespace": "b", "port": 81}],
                    "timeouts": {"request": "1s", "backendRequest": "0s"},
                    "retry": {"attempts": 3, "backoff": "100ms", "codes": [503]},
                }],
            },
        }),
    ) else {
        panic!()
    };
    assert_eq!(route.parents[0].reference.kind.as_ref(), "Gateway");
    assert_eq!((route.parents[0].section.as_ref(), route.parents[0].port), ("web", Some(80)));
    assert_eq!((&*route.parents[1].reference.group, &*route.parents[1].reference.kind), ("", "Service"));
    let rule = &route.rules[0];
    assert_eq!(rule.matches[0].path, PathMatch::Exact("/x".into()));
    assert_eq!(rule.matches[0].headers.len(), 1, "the first of one name counts");
    assert_eq!(rule.matches[0].query[0].value, TextMatch::Regex("a+".into()));
    assert_eq!(rule.matches[1].path, PathMatch::Prefix("/".into()));
    assert_eq!((rule.backends[0].weight, rule.backends[1].weight), (9, 1));
    assert_eq!((rule.timeouts.request_ms, rule.timeouts.backend_request_ms), (Some(1_000), None));
    assert_eq!(rule.retry.as_ref().unwrap().backoff_ms, Some(100));
    let model::mesh::api::FilterSpec::Plain(Filter::RequestHeaders(headers)) = &rule.filters[0] else { panic!() };
    assert_eq!(headers.set, [("x-b".into(), "V".into())]);
    assert_eq!(rule.flaw.as_ref(), "");
}

#[test]
fn grpc_matches_are_paths() {
    let path = |method: Value| {
        let Object::Route(route) = object(
            ObjectKind::Route(RouteKind::Grpc),
            json!({"metadata": {"name": "r"}, "spec": {"rules": [{"matches": [{"method": method}]}]}}),
        ) else {
            panic!()
        };
        route.rules[0].matches[0].path.clone()
    };
    assert_eq!(path(json!({"service": "a.B", "method": "C"})), PathMatch::Exact("/a.B/C".into()));
    assert_eq!(path(json!({"service": "a.B"})), PathMatch::Prefix("/a.B".into()));
    assert_eq!(path(json!({"method": "C.x"})), PathMatch::Regex(r"/[^/]+/C\.x".into()));
    assert_eq!(
        path(json!({"type": "RegularExpression", "service": "a.*", "method": "C|D"})),
        PathMatch::Regex("/(?:a.*)/(?:C|D)".into())
    );
    assert_eq!(path(json!({})), PathMatch::Prefix("/".into()));
}

#[test]
fn policies_refuse_what_they_do_not_understand() {
    let policy = |spec: Value| {
        let value = json!({"metadata": {"namespace": "a", "name": "p"}, "spec": spec});
        read(ObjectKind::AuthorizationPolicy, &serde_json::to_vec(&value).unwrap())
    };
    let Ok(Some(Object::AuthorizationPolicy(good))) = policy(json!({
        "action": "DENY",
        "rules": [{"from": [{"source": {"serviceAccounts": ["x", "b/y"]}}], "to": [{"operation": {"paths": ["/a"]}}]}],
    })) else {
        panic!()
    };
    assert_eq!(good.action, Action::Deny);
    assert_eq!(good.rules[0].from[0].service_accounts, ["a/x".into(), "b/y".into()]);
    assert!(matches!(policy(json!({"action": "PERHAPS"})), Err(MeshError::Field { .. })));
    for unknown in [
        json!({"rules": [{"fron": []}]}),
        json!({"rules": [{"from": [{"source": {"planets": ["x"], "principals": ["y"]}}]}]}),
    ] {
        let Ok(Some(Object::AuthorizationPolicy(policy))) = policy(unknown) else { panic!() };
        assert!(policy.rules[0].when[0].key.starts_with("unsupported."), "a condition that cannot be decided");
    }
}

#[test]
fn secrets_are_looked_into() {
    let secret = |kind: &str, crt: &str| {
        let value = json!({"metadata": {"name": "s"}, "type": kind, "data": {"tls.crt": crt, "tls.key": ""}});
        read(ObjectKind::TlsSecret, &serde_json::to_vec(&value).unwrap()).unwrap()
    };
    assert_eq!(secret("Opaque", ""), None);
    let Some(Object::TlsSecret(bad)) = secret("kubernetes.io/tls", "SGVsbG8gd29ybGQ=") else { panic!() };
    assert_eq!(&*bad.flaw, "tls.crt holds no certificate");
    assert_eq!(&*bad.certificate_chain, b"Hello world");
    for (text, bytes) in [("", Some(&b""[..])), ("YQ==", Some(b"a")), ("YWI=", Some(b"ab")), ("YWJj", Some(b"abc"))] {
        assert_eq!(decode_base64(text).as_deref(), bytes);
    }
    assert_eq!((decode_base64("YQ="), decode_base64("Y!=="), decode_base64("====")), (None, None, None));
}

#[test]
fn statuses_change_only_when_they_say_something_new() {
    let stamp = Stamp { generation: 2, now: "2026-01-02T00:00:00Z" };
    let parent = ParentRef {
        reference: Reference {
            group: "gateway.networking.k8s.io".into(),
            kind: "Gateway".into(),
            namespace: "".into(),
            name: "gw".into(),
        },
        section: "web".into(),
        port: None,
    };
    let good = vec![("Accepted", true, "Accepted", "fine")];
    let mut route = json!({
        "status": {"parents": [{"controllerName": "other", "parentRef": {"name": "x"}, "conditions": []}]},
    });
    let first = route_status(&route, stamp, "diolkos.io/g", &[(&parent, good.clone())]).unwrap();
    assert_eq!(first["parents"][0]["controllerName"], "other");
    assert_eq!(first["parents"][1]["parentRef"]["sectionName"], "web");
    assert_eq!(first["parents"][1]["conditions"][0]["lastTransitionTime"], "2026-01-02T00:00:00Z");
    route["status"] = first;
    let later = Stamp { now: "2026-01-03T00:00:00Z", ..stamp };
    assert_eq!(route_status(&route, later, "diolkos.io/g", &[(&parent, good)]), None);
    let bad = vec![("Accepted", false, "NoMatchingParent", "no")];
    let second = route_status(&route, later, "diolkos.io/g", &[(&parent, bad)]).unwrap();
    assert_eq!(second["parents"][1]["conditions"][0]["lastTransitionTime"], "2026-01-03T00:00:00Z");
    let none = route_status(&route, later, "diolkos.io/g", &[]).unwrap();
    assert_eq!(none["parents"].as_array().unwrap().len(), 1);
    assert_eq!(route_status(&json!({}), later, "diolkos.io/g", &[]), None);
}

#[test]
fn a_virtual_service() {
    use model::mesh::api::istio::Instead;
    use model::mesh::{Abort, PathModifier};
    let Object::VirtualService(read) = object(
        ObjectKind::VirtualService,
        json!({
            "metadata": {"namespace": "a", "name": "v"},
            "spec": {
                "hosts": ["Reviews"],
                "http": [
                    {
                        "match": [{"uri": {"prefix": "/x"}, "method": {"exact": "GET"}, "headers": {"End-User": {"regex": "j.*"}},
                                   "withoutHeaders": {"no": {}}, "port": 80, "ignoreUriCase": true}],
                        "fault": {"delay": {"fixedDelay": "1.5s", "percentage": {"value": 0.1}}, "abort": {"grpcStatus": "UNAVAILABLE"}},
                        "rewrite": {"uri": "/y", "authority": "b"},
                        "route": [{"destination": {"host": "reviews", "subset": "v2", "port": {"number": 80}}, "weight": 10,
                                   "headers": {"response": {"add": {"X-A": "1"}}}}],
                        "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "gateway-error,418,connect-failure,reset,internal",
                            "retryRemoteLocalities": true, "retryIgnorePreviousHosts": false},
                        "timeout": "10s",
                        "mirror": {"host": "m"}, "mirrorPercentage": {"value": 50.0},
                    },
                    {"redirect": {"uri": "/r", "authority": "c:8080", "redirectCode": 308}},
                    {"directResponse": {"status": 418, "body": {"string": "tea"}}},
                    {"match": [{"sourceLabels": {"app": "x"}}], "route": [{"destination": {"host": "reviews"}}]},
                ],
            },
        }),
    ) else {
        panic!()
    };
    assert_eq!(&*read.hosts[0], "reviews");
    let rule = &read.http[0];
    let matched = &rule.matches[0].matched;
    assert_eq!(matched.path, PathMatch::Text("/x".into()));
    assert_eq!((matched.method.as_deref(), &*matched.headers[0].name), (Some("GET"), "end-user"));
    let more = matched.more.as_deref().unwrap();
    assert!(more.ignore_case && more.port == Some(80));
    assert_eq!(more.without_headers[0].value, TextMatch::Present);
    let fault = rule.fault.as_ref().unwrap();
    let (ms, share) = fault.delay.unwrap();
    assert_eq!((ms, share.numerator * 1_000 == share.denominator), (1_500, true));
    assert_eq!(fault.abort.unwrap().0, Abort::Grpc(14));
    assert_eq!(rule.rewrite.as_ref().unwrap().path, Some(PathModifier::ReplaceMatched("/y".into())));
    let to = &rule.destinations[0];
    assert_eq!((&*to.subset, to.port, to.weight), ("v2", Some(80), 10));
    assert_eq!(to.headers.1.add, [("x-a".into(), "1".into())]);
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, &retry.codes[..]), (3, &[418, 502, 503, 504][..]));
    assert_eq!((&retry.grpc[..], retry.any_method), (&[13][..], true));
    assert!(retry.same_endpoints && retry.other_localities);
    assert_eq!((rule.timeouts.request_ms, rule.timeouts.backend_request_ms), (Some(10_000), Some(2_000)));
    assert_eq!(
        (&*rule.mirrors[0].0.host, rule.mirrors[0].1.holds(1 << 30), rule.mirrors[0].1.holds(3 << 30)),
        ("m", true, false)
    );
    assert!(matches!(&read.http[1].instead, Some(Instead::Redirect { status: 308, .. })));
    assert!(matches!(&read.http[2].instead, Some(Instead::Respond(it)) if &*it.body == b"tea"));
    let callers = &read.http[3].matches[0].matched.more.as_ref().unwrap().source_labels;
    assert_eq!((callers.len(), callers.get("app").map(|it| &**it)), (1, Some("x")));
}

#[test]
fn a_destination_rule() {
    use model::mesh::api::istio::TlsOrigination;
    use model::mesh::traffic::{Balancer, HashKey, HashTable};
    let Object::DestinationRule(rule) = object(
        ObjectKind::DestinationRule,
        json!({
            "metadata": {"namespace": "a", "name": "d"},
            "spec": {
                "host": "reviews",
                "trafficPolicy": {
                    "loadBalancer": {"consistentHash": {"httpCookie": {"name": "u", "ttl": "60s"}, "maglev": {}},
                                     "warmup": {"duration": "30s"}},
                    "connectionPool": {"tcp": {"maxConnections": 7, "connectTimeout": "30ms"}, "http": {"http1MaxPendingRequests": 2}},
                    "outlierDetection": {"consecutive5xxErrors": 1, "interval": "1s", "baseEjectionTime": "3m", "maxEjectionPercent": 100},
                    "tls": {"mode": "ISTIO_MUTUAL"},
                    "portLevelSettings": [{"port": {"number": 81}, "loadBalancer": {"simple": "ROUND_ROBIN"}}],
                },
                "subsets": [{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"},
                    "tls": {"mode": "MUTUAL", "credentialName": "c", "sni": "s", "subjectAltNames": ["a"], "clientCertificate": "/a.pem"},
                    "outlierDetection": {"outlierDetectionHttpErrorCodes": [429, 503]},
                    "connectionPool": {"tcp": {"idleTimeout": "1m", "tcpKeepalive": {"probes": 3, "time": "1500ms"}}, "http": {"idleTimeout": "2s", "maxRetries": 4, "maxConcurrentStreams": 5, "http2KeepAlive": {"interval": "3s", "timeout": "1s"}}}}}],
            },
        }),
    ) else {
        panic!()
    };
    let policy = &rule.policy;
    let key = HashKey::Cookie { name: "u".into(), path: "".into(), ttl_s: Some(60) };
    assert_eq!(policy.balancer, Some(Balancer::Hash { key, table: HashTable::Maglev { entries: 65_537 } }));
    let warmup = policy.warmup.unwrap();
    assert_eq!((warmup.duration_ms, warmup.minimum_percent, warmup.aggression_percent), (30_000, 10, 100));
    let pool = policy.pool.unwrap();
    assert_eq!((pool.max_connections, pool.connect_timeout_ms, pool.max_pending), (7, 30, 2));
    let outlier = policy.outlier.as_ref().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.base_ejection_ms, outlier.max_ejection_percent), (1, 180_000, 100));
    assert_eq!(policy.tls.as_ref().map(|tls| tls.mode), Some(TlsOrigination::Mesh), "the mesh's own");
    assert_eq!((policy.ports[0].0, &policy.ports[0].1.balancer), (81, &Some(Balancer::RoundRobin)));
    let subset = &rule.subsets[0].policy;
    assert_eq!(subset.balancer, Some(Balancer::Random));
    let tls = subset.tls.as_ref().unwrap();
    assert_eq!((tls.mode, &*tls.credential, &*tls.sni), (TlsOrigination::Mutual, "c", "s"));
    assert_eq!(&*tls.file, "clientCertificate", "there is no such file anywhere");
    assert_eq!(subset.outlier.as_ref().unwrap().statuses, [429, 503]);
    let pool = subset.pool.unwrap();
    assert_eq!((pool.idle_timeout_ms, pool.tcp_idle_timeout_ms, pool.max_retries), (2_000, 60_000, 4));
    assert_eq!(pool.pings.map(|it| (it.interval_ms, it.timeout_ms)), Some((3_000, 1_000)));
    assert!(rule.ignored.is_empty());
}

#[test]
fn what_a_destination_rule_says_in_vain() {
    use model::mesh::traffic::Balancer;
    let policy = json!({"loadBalancer": {"simple": "PASSTHROUGH", "zoneAwareLbSetting": {"enabled": true}},
        "connectionPool": {"http": {"http2KeepAlive": {"interval": "3s"}}}});
    let spec = json!({"host": "web", "trafficPolicy": policy, "workloadSelector": {"matchLabels": {"app": "x"}}});
    let value = json!({"metadata": {"name": "dr", "namespace": "shop"}, "spec": spec});
    let Object::DestinationRule(rule) = object(ObjectKind::DestinationRule, value) else { panic!() };
    assert_eq!(rule.callers.as_ref().and_then(|labels| labels.get("app")).map(|it| &**it), Some("x"));
    assert_eq!(rule.policy.balancer, Some(Balancer::PassThrough));
    assert_eq!(rule.policy.pool.unwrap().pings, None);
    assert_eq!(rule.ignored.len(), 2, "{:?}", rule.ignored);
}

#[test]
fn traffic_policies() {
    use model::mesh::attached::{GrpcCodes, Hedging, Part};
    let read = |rate_limit: Value| {
        let target = json!({"kind": "Service", "group": "core", "name": "web", "sectionName": "http"});
        let spec = json!({"targetRefs": [target], "rateLimit": rate_limit});
        let object =
            object(ObjectKind::TrafficPolicy, json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}));
        let Object::TrafficPolicy(policy) = object else { panic!("{object:?}") };
        *policy
    };
    let policy = read(json!({
        "local": [
            {"requests": 5, "unit": "Minute", "burst": 9, "per": [{"type": "Header", "name": "X-User"}, {"type": "ClientAddress"}]},
            {"requests": 1, "interval": "10s", "matches": [{"method": "POST"}]},
        ],
        "global": {
            "backendRef": {"name": "rls", "port": 8081}, "domain": "d", "timeout": "20ms", "failOpen": false,
            "descriptors": [{"entries": [{"type": "SourcePrincipal"}, {"type": "Generic", "key": "k", "value": "v"}]}],
        },
    }));
    assert_eq!(&*policy.flaw, "");
    assert_eq!((&*policy.targets[0].0.group, &*policy.targets[0].1), ("", "http"));
    let numbers: Vec<_> = policy.limits.iter().map(|it| (it.requests, it.interval_ms, it.burst)).collect();
    assert_eq!(numbers, [(5, 60_000, 9), (1, 10_000, 1)]);
    assert_eq!(policy.limits[0].per, [Part::Header("x-user".into()), Part::ClientAddress]);
    let global = policy.global.unwrap();
    assert_eq!((global.timeout_ms, global.fail_open, global.backend.port), (20, false, Some(8081)));
    let expect = [("source_principal".into(), Part::Principal), ("k".into(), Part::Fixed("v".into()))];
    assert_eq!(global.descriptors[0].entries, expect);
    let hedging = |spec: Value| {
        let spec = json!({"targetRefs": [{"kind": "Service", "name": "web"}], "hedging": spec});
        let policy =
            object(ObjectKind::TrafficPolicy, json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}));
        let Object::TrafficPolicy(policy) = policy else { panic!("{policy:?}") };
        (policy.hedging, policy.flaw.is_empty())
    };
    let expect = |after_ms, most| (Some(Hedging { after_ms, most, grpc: None }), true);
    assert_eq!(hedging(json!({})), expect(None, 1));
    assert_eq!(hedging(json!({"after": "50ms", "attempts": 3})), expect(Some(50), 3));
    assert!(!hedging(json!({"after": "0s"})).1 && !hedging(json!({"attempts": 0})).1);
    let grpc = |codes: Value| {
        let (hedging, sound) = hedging(json!({"grpc": {"nonFatalStatusCodes": codes}}));
        sound.then(|| hedging.unwrap().grpc.unwrap())
    };
    assert_eq!(grpc(json!(["UNAVAILABLE", "ABORTED"])), Some(GrpcCodes::from_bits(1 << 14 | 1 << 10)));
    assert_eq!(grpc(json!([])), Some(GrpcCodes::default()));
    assert!(grpc(json!(["OK"])).is_none() && grpc(json!(["GONE"])).is_none());
    for bad in [
        json!({"local": [{"requests": 0}]}),
        json!({"local": [{"requests": 1, "unit": "Fortnight"}]}),
        json!({"local": [{"requests": 1, "per": [{"type": "Header"}]}]}),
        json!({"global": {"backendRef": {"name": "rls", "port": 1}, "descriptors": []}}),
    ] {
        assert_ne!(&*read(bad.clone()).flaw, "", "{bad}");
    }
}

#[test]
fn sessions_of_routes() {
    let read = |persistence: Value| {
        let rule = json!({"backendRefs": [{"name": "web", "port": 80}], "sessionPersistence": persistence});
        let spec = json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"rules": [rule]}});
        let Object::Route(route) = object(ObjectKind::Route(RouteKind::Http), spec) else { panic!() };
        let session = route.rules[0].session.clone().unwrap();
        (session.name.to_string(), session.header, session.absolute_s, session.idle_s, session.permanent)
    };
    let cookie = json!({"sessionName": "Stay", "absoluteTimeout": "1m", "idleTimeout": "10s", "cookieConfig": {"lifetimeType": "Permanent"}});
    assert_eq!(read(cookie), ("Stay".into(), false, 60, 10, true));
    assert_eq!(read(json!({"type": "Header", "sessionName": "X-Stay"})), ("x-stay".into(), true, 0, 0, false));
    assert_eq!(read(json!({})), (String::new(), false, 0, 0, false));
}

#[test]
fn who_sees_a_service_entry_and_where_it_is() {
    let read = |export: Value, location: &str| {
        let spec = json!({"hosts": ["far.example"], "exportTo": export, "location": location,
            "subjectAltNames": ["spiffe://far/one"], "resolution": "STATIC"});
        let value = json!({"metadata": {"name": "far", "namespace": "shop"}, "spec": spec});
        let Object::ServiceEntry(entry) = object(ObjectKind::ServiceEntry, value) else { panic!() };
        (
            entry.export_to.iter().map(|to| to.to_string()).collect::<Vec<_>>().join(","),
            entry.outside,
            entry.names.len(),
        )
    };
    assert_eq!(read(json!([".", "bank"]), "MESH_EXTERNAL"), ("shop,bank".to_owned(), true, 1));
    assert_eq!(read(json!([".", "*"]), "MESH_INTERNAL"), (String::new(), false, 1));
    assert_eq!(read(json!(["~"]), ""), ("~".to_owned(), false, 1));
}

#[test]
fn stream_rules_have_their_matches_apart() {
    let spec = json!({"hosts": ["web"], "tls": [
        {"match": [{"sniHosts": ["a.example"], "port": 443}, {"sniHosts": ["b.example"], "sourceLabels": {"app": "x"}, "sourceNamespace": "n"}],
         "route": [{"destination": {"host": "web"}}]},
        {"match": [{"sniHosts": ["c.example"], "destinationSubnets": ["10.0.0.0/33"]}], "route": [{"destination": {"host": "web"}}]},
    ], "tcp": [
        {"route": [{"destination": {"host": "web"}}]},
        {"match": [{"destinationSubnets": ["10.0.0.0/8", "10.9.0.1"]}], "route": [{"destination": {"host": "web"}}]},
    ]});
    let value = json!({"metadata": {"name": "vs", "namespace": "shop"}, "spec": spec});
    let Object::VirtualService(read) = object(ObjectKind::VirtualService, value) else { panic!() };
    let [first, second, third, fourth] = &read.streams[..] else { panic!() };
    let [one, two] = &first.matches[..] else { panic!() };
    assert_eq!((one.port, &*one.sni[0], one.labels.len()), (Some(443), "a.example", 0));
    assert_eq!((two.port, &*two.sni[0], two.labels.len(), two.namespace.as_deref()), (None, "b.example", 1, Some("n")));
    assert!(first.tls && first.flaw.is_empty() && !second.flaw.is_empty(), "10.0.0.0/33 is no block");
    assert!(!third.tls && third.matches.is_empty());
    assert_eq!(fourth.matches[0].destinations, ["10.0.0.0/8", "10.9.0.1"].map(|text| Subnet::parse(text).unwrap()));
}
