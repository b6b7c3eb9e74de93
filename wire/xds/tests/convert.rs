//! Every resource survives the wire, and bytes that are none are refused.

use bytes::Bytes;
use diolkos_xds::convert::{DecodeError, decode, encode};
use diolkos_xds::resources::{kind_of, type_url};
use model::mesh::*;
use model::{Key, Timestamp};
use std::sync::Arc;

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn texts(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|text| Arc::from(*text)).collect()
}

fn policy() -> TrafficPolicy {
    use model::mesh::traffic::*;
    TrafficPolicy {
        balancer: Balancer::Hash {
            key: HashKey::Cookie { name: "c".into(), path: "/".into(), ttl_s: Some(0) },
            table: HashTable::Maglev { entries: 65_537 },
        },
        warmup: Some(Warmup { duration_ms: 1, minimum_percent: 2, aggression_percent: 3 }),
        locality: Locality {
            enabled: Some(true),
            distribute: vec![("a/b/*".into(), vec![("c".into(), 100)])],
            failover: vec![("a".into(), "b".into())],
            priority: texts(&["topology.kubernetes.io/zone"]),
        },
        pool: ConnectionPool {
            max_connections: 1,
            max_pending: 2,
            max_requests: 3,
            max_requests_per_connection: 4,
            max_retries: 5,
            connect_timeout_ms: 6,
            idle_timeout_ms: 7,
            upgrade_to_http2: true,
            tcp_idle_timeout_ms: 8,
            tcp_max_duration_ms: 9,
            max_streams: 10,
            keepalive: Some(Keepalive { time_s: 11, interval_s: 12, probes: 13 }),
            pings: Some(Pings { interval_ms: 14, timeout_ms: 15 }),
        },
        outlier: Some(Outlier {
            consecutive_gateway: 3,
            consecutive_local: 4,
            statuses: vec![429],
            ..Outlier::default()
        }),
        tls: Some(Arc::new(BackendTls {
            hostname: "s".into(),
            roots: texts(&["pem"]),
            names: vec![SubjectName::Dns("a".into())],
            certificate: Some(key("secret")),
            insecure: true,
            ..BackendTls::default()
        })),
        retry_budget: Some(RetryBudget { percent: 20, min_concurrency: 3 }),
        proxy_protocol: Some(ProxyProtocol::V2),
    }
}

fn attached_policy() -> AttachedPolicy {
    use model::mesh::attached::*;
    let matches = vec![Match { method: Some("GET".into()), ..Match::default() }];
    let parts = vec![
        Part::Header("h".into()),
        Part::Query("q".into()),
        Part::ClientAddress,
        Part::Principal,
        Part::Namespace,
        Part::Method,
        Part::Path,
        Part::Host,
        Part::Fixed("f".into()),
    ];
    AttachedPolicy {
        key: key("p"),
        targets: vec![
            PolicyTarget::Gateway { gateway: key("gw"), listener: "web".into() },
            PolicyTarget::Route { route: "HTTPRoute/default/r".into(), rule: "".into() },
            PolicyTarget::Service { service: key("web"), port: "http".into() },
        ],
        limits: vec![RateLimit {
            name: "l".into(),
            matches: matches.clone(),
            per: parts.clone(),
            requests: 1,
            interval_ms: 2,
            burst: 3,
        }],
        global: Some(GlobalLimit {
            domain: "d".into(),
            service: key("rls"),
            port: 8081,
            timeout_ms: 5,
            fail_open: true,
            descriptors: vec![Descriptor {
                matches,
                entries: parts.into_iter().map(|part| ("k".into(), part)).collect(),
            }],
        }),
        hedging: Some(Hedging { after_ms: Some(50), most: 2, grpc: Some(GrpcCodes::from_bits(1 << 14)) }),
    }
}

fn samples() -> Vec<Resource> {
    let headers = HeaderModifier {
        set: vec![("a".into(), "1".into())],
        add: vec![("b".into(), "2".into())],
        remove: texts(&["c"]),
    };
    let target = BackendTarget::Service { service: key("web"), port: 80 };
    let filters = vec![
        Filter::RequestHeaders(headers.clone()),
        Filter::ResponseHeaders(headers),
        Filter::Redirect(Redirect {
            scheme: Some("https".into()),
            hostname: None,
            path: Some(PathModifier::ReplaceFull("/x".into())),
            port: Some(8443),
            status: 301,
        }),
        Filter::Rewrite(Rewrite { hostname: Some("h".into()), path: Some(PathModifier::ReplacePrefix("/y".into())) }),
        Filter::Mirror(Mirror { backend: target.clone(), fraction: Fraction { numerator: 1, denominator: 3 } }),
        Filter::Cors(Cors {
            allow_origins: texts(&["*"]),
            allow_credentials: true,
            allow_methods: texts(&["GET"]),
            allow_headers: texts(&["x"]),
            expose_headers: texts(&["y"]),
            max_age_s: 9,
            allow_origin_patterns: vec![TextMatch::Regex("x.*".into())],
            pass_unmatched: true,
        }),
        Filter::Rewrite(Rewrite { hostname: None, path: Some(PathModifier::ReplaceMatched("/z".into())) }),
        Filter::Rewrite(Rewrite {
            hostname: None,
            path: Some(PathModifier::ReplaceRegex { pattern: "a(.)".into(), substitution: "\\1".into() }),
        }),
        Filter::Fault(Fault {
            delay: Some((5, Fraction { numerator: 1, denominator: 2 })),
            abort: Some((Abort::Grpc(14), Fraction::ALL)),
        }),
        Filter::Fault(Fault { delay: None, abort: Some((Abort::Http(503), Fraction::ALL)) }),
        Filter::Respond(Response { status: 418, body: b"tea".as_slice().into() }),
    ];
    let matched = Match {
        path: PathMatch::Regex("/v.*".into()),
        method: Some("GET".into()),
        headers: vec![ValueMatch { name: "h".into(), value: TextMatch::Exact("1".into()) }],
        query: vec![
            ValueMatch { name: "q".into(), value: TextMatch::Regex("a+".into()) },
            ValueMatch { name: "r".into(), value: TextMatch::Present },
            ValueMatch { name: "s".into(), value: TextMatch::Prefix("x".into()) },
        ],
        more: Some(Box::new(MatchMore {
            ignore_case: true,
            scheme: Some(TextMatch::Exact("https".into())),
            method: Some(TextMatch::Prefix("P".into())),
            authority: Some(TextMatch::Regex("a.*".into())),
            without_headers: vec![ValueMatch { name: "w".into(), value: TextMatch::Present }],
            port: Some(80),
            source_namespace: Some("n".into()),
            source_labels: [("app".into(), "shop".into())].into(),
            destinations: ["10.0.0.0/8", "2001:db8::/32"].iter().filter_map(|text| Subnet::parse(text)).collect(),
        })),
    };
    let route = Route {
        name: "HTTPRoute/default/r".into(),
        key: key("r"),
        kind: RouteKind::Http,
        created: Timestamp(-5),
        parents: vec![
            Parent {
                target: ParentTarget::Listener { gateway: key("gw"), listener: "web".into() },
                hostnames: vec![Hostname::new("*.example").unwrap()],
            },
            Parent {
                target: ParentTarget::Service { service: key("web"), port: Some(80), consumer: Some("other".into()) },
                hostnames: vec![],
            },
            Parent {
                target: ParentTarget::Service { service: key("web"), port: None, consumer: None },
                hostnames: vec![],
            },
        ],
        rules: vec![Rule {
            name: "n".into(),
            matches: vec![matched, Match::default(), Match { path: PathMatch::Text("/t".into()), ..Match::default() }],
            filters: filters.clone(),
            backends: vec![
                Backend { target, weight: 0, filters },
                Backend {
                    target: BackendTarget::Invalid { reason: "BackendNotFound".into() },
                    weight: 3,
                    filters: vec![],
                },
            ],
            timeouts: Timeouts { request_ms: Some(1), backend_request_ms: None },
            retry: Some(Retry {
                attempts: 2,
                backoff_ms: Some(3),
                codes: vec![503],
                grpc: vec![14],
                any_method: true,
                same_endpoints: true,
                other_localities: true,
            }),
            session: Some(Session { name: "s".into(), header: true, absolute_s: 9, idle_s: 8, permanent: true }),
        }],
        ordered: true,
    };
    let endpoint = |health| Endpoint {
        address: "10.0.0.1".parse().unwrap(),
        workload: "pod/default/web-1".into(),
        health,
        weight: 1,
        region: "r".into(),
        zone: "z".into(),
        node: "n".into(),
        hostname: "h".into(),
    };
    let workload = Workload {
        name: "pod/default/web-1".into(),
        uid: "u".into(),
        key: key("web-1"),
        service_account: "web".into(),
        node: "n".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        status: WorkloadStatus::Draining,
        tunnel: Tunnel::Hbone,
        zone: "z".into(),
        region: "r".into(),
        canonical_name: "web".into(),
        canonical_kind: "Deployment".into(),
        app: "web".into(),
        revision: "v1".into(),
        authorization_policies: vec![key("p")],
        peer_authentications: vec![key("q")],
        request_authentications: vec![key("r")],
        labels: [("app".into(), "web".into())].into(),
    };
    let service = Service {
        key: key("web"),
        vips: vec!["10.96.0.1".parse().unwrap()],
        hostnames: texts(&["web.default.svc.cluster.local"]),
        ports: vec![ServicePort {
            port: 80,
            name: "http".into(),
            transport: Transport::Udp,
            app_protocol: AppProtocol::Grpc,
            node_port: 30_000,
            traffic: Some(Arc::new(policy())),
            tls: Some(Arc::new(BackendTls {
                hostname: "a.example".into(),
                roots: texts(&["PEM"]),
                system_roots: true,
                names: vec![SubjectName::Dns("a.example".into()), SubjectName::Uri("spiffe://a/b".into())],
                flaw: "why".into(),
                ..BackendTls::default()
            })),
            through: true,
            for_callers: vec![
                CallerTraffic { namespace: "n".into(), labels: [("app".into(), "shop".into())].into(), traffic: None },
                CallerTraffic { traffic: Some(Arc::new(policy())), ..CallerTraffic::default() },
            ],
        }],
        headless: true,
        affinity_s: Some(0),
        publish_not_ready: true,
        external_name: Some("x.test".into()),
        subset_of: Some(key("whole")),
        outside: true,
        export_to: texts(&["shop"]),
        blocks: Subnet::parse("10.0.0.0/8").into_iter().collect(),
        created: Timestamp(7),
    };
    let source = Source {
        principals: texts(&["a"]),
        not_principals: texts(&["b"]),
        request_principals: texts(&["c"]),
        not_request_principals: texts(&["d"]),
        namespaces: texts(&["e"]),
        not_namespaces: texts(&["f"]),
        service_accounts: texts(&["g"]),
        not_service_accounts: texts(&["h"]),
        ip_blocks: texts(&["i"]),
        not_ip_blocks: texts(&["j"]),
        remote_ip_blocks: texts(&["k"]),
        not_remote_ip_blocks: texts(&["l"]),
        trust_domains: texts(&["m"]),
        not_trust_domains: texts(&["n"]),
    };
    let operation = Operation {
        hosts: texts(&["a"]),
        not_hosts: texts(&["b"]),
        ports: texts(&["c"]),
        not_ports: texts(&["d"]),
        methods: texts(&["e"]),
        not_methods: texts(&["f"]),
        paths: texts(&["g"]),
        not_paths: texts(&["h"]),
    };
    let condition = Condition { key: "k".into(), values: texts(&["v"]), not_values: texts(&["w"]) };
    let pair = |name: &str, value: &str| vec![(Arc::from(name), Arc::from(value))];
    let jwt = JwtRule {
        issuer: "i".into(),
        audiences: texts(&["a"]),
        jwks: "{}".into(),
        from_headers: pair("x-token", "T "),
        from_params: texts(&["p"]),
        from_cookies: texts(&["c"]),
        payload_header: "x-payload".into(),
        claim_headers: pair("x-claim", "claim"),
        forward: true,
        space_delimited: texts(&["s"]),
    };
    let provider = |kind| {
        Resource::ExtensionProvider(Arc::new(ExtensionProvider {
            name: "asker".into(),
            service: "asker.default.svc.cluster.local".into(),
            namespace: "default".into(),
            port: 9_000,
            kind,
            fail_open: true,
            status_on_error: 503,
            timeout_ms: 9,
        }))
    };
    let http = policy::ProviderKind::Http {
        prefix: "/check".into(),
        send: texts(&["cookie"]),
        add: pair("x-mesh", "me"),
        upstream: texts(&["x-user"]),
        downstream: texts(&["x-why"]),
    };
    vec![
        Resource::RequestAuthentication(Arc::new(RequestAuthentication {
            key: key("jwt"),
            scope: Scope::Namespace,
            rules: vec![jwt],
            gateways: vec![key("gw")],
        })),
        Resource::AttachedPolicy(Arc::new(attached_policy())),
        provider(policy::ProviderKind::Grpc),
        provider(http),
        Resource::Workload(Arc::new(workload)),
        Resource::Service(Arc::new(service)),
        Resource::Service(Arc::new(Service { key: key("empty"), ..Default::default() })),
        Resource::Endpoints(Arc::new(EndpointGroup {
            key: key("web-x"),
            service: key("web"),
            ports: vec![("http".into(), 8080)],
            endpoints: vec![endpoint(Health::Ready), endpoint(Health::Draining), endpoint(Health::NotReady)],
        })),
        Resource::Route(Arc::new(route)),
        Resource::Gateway(Arc::new(Gateway {
            key: key("gw"),
            listeners: vec![Listener {
                name: "web".into(),
                port: 443,
                protocol: ListenerProtocol::Https,
                hostname: Hostname::new("a.example"),
                certificates: vec![key("cert")],
                tls: TlsMode::Terminate,
                on_nodes: true,
                clients: Some(ClientValidation { roots: texts(&["PEM"]), insecure_fallback: true }),
                proxy_protocol: true,
            }],
            service_account: "gw-diolkos".into(),
            authorization_policies: vec![key("p")],
            addresses: vec!["10.98.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            client_certificate: Some(key("client")),
        })),
        Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
            key: key("p"),
            scope: Scope::Workload,
            action: Action::Deny,
            dry_run: true,
            provider: "asker".into(),
            rules: vec![PolicyRule { from: vec![source], to: vec![operation], when: vec![condition] }],
        })),
        Resource::PeerAuthentication(Arc::new(PeerAuthentication {
            key: key("q"),
            scope: Scope::Namespace,
            mode: MtlsMode::Strict,
            ports: vec![(80, MtlsMode::Disable)],
            created: Timestamp(7),
        })),
        Resource::Secret(Arc::new(TlsSecret {
            key: key("cert"),
            certificate_chain: b"chain".as_slice().into(),
            private_key: b"key".as_slice().into(),
        })),
        Resource::TrustBundle(Arc::new(TrustBundle {
            trust_domain: "td".into(),
            roots: texts(&["one", "two"]),
            jwks: "{}".into(),
        })),
    ]
}

#[test]
fn every_resource_survives() {
    for resource in samples() {
        let decoded = decode(resource.kind(), encode(&resource)).expect("our own bytes");
        assert_eq!(decoded, resource);
    }
    for kind in ResourceKind::ALL {
        assert_eq!(kind_of(type_url(kind)), Some(kind));
    }
    assert_eq!(kind_of("type.googleapis.com/envoy.config.cluster.v3.Cluster"), None);
}

#[test]
fn damaged_bytes_are_refused_or_mean_something() {
    for resource in samples() {
        let bytes = encode(&resource);
        for cut in 0..bytes.len() {
            // Cut anywhere: an error, or a resource with less in it; never a panic.
            let _ = decode(resource.kind(), bytes.slice(..cut));
        }
        for index in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[index] ^= 0xff;
            let _ = decode(resource.kind(), Bytes::from(damaged));
        }
    }
    let missing = decode(ResourceKind::Service, Bytes::new());
    assert_eq!(missing, Err(DecodeError::Missing("key")));
    assert!(matches!(decode(ResourceKind::Workload, Bytes::from_static(b"\xff")), Err(DecodeError::Protobuf(_))));
}

#[test]
fn keys_stay_out_of_logs() {
    let secret = samples().into_iter().find(|it| it.kind() == ResourceKind::Secret).unwrap();
    assert!(!format!("{secret:?}").contains("107"), "no bytes of the key: {secret:?}");
}
