//! Rate limits: the ones that this proxy keeps, then a rate limit service's. Each is asked about a request as it came, before a route
//! changed it.
use super::call::Callee;
use super::plan::{Plan, View, host_of, is_codecs};
use super::reply::Reply;
use super::{Place, Site};
use crate::attached::Held;
use crate::origin::Origin;
use crate::telemetry::Flag;
use crate::worker::Worker;
use http1::RequestHead;
use model::mesh::attached::{Descriptor, GlobalLimit, Part, PolicyTarget};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use traffic::RequestView;
use traffic::limit::Verdict;
use xds::rate_limit as wire;

/// What `x-ratelimit-*` say: of all limits that of which the least is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quota {
    limit: u32,
    window_s: u64,
    remaining: u32,
    reset_s: u64,
}

impl Quota {
    fn headers(self) -> [(&'static str, String); 3] {
        [
            ("x-ratelimit-limit", format!("{}, {};w={}", self.limit, self.limit, self.window_s)),
            ("x-ratelimit-remaining", self.remaining.to_string()),
            ("x-ratelimit-reset", self.reset_s.to_string()),
        ]
    }
}

/// A request, as limits look at it.
struct Asked<'a> {
    view: RequestView<'a>,
    client: SocketAddr,
    /// Identity of the caller and its namespace, as far as they are proved.
    principal: Option<Cow<'a, str>>,
    namespace: Option<&'a str>,
}

impl Asked<'_> {
    fn part<'b>(&'b self, part: &'b Part) -> Option<Cow<'b, str>> {
        Some(match part {
            Part::Header(name) => self.view.headers.value(name)?,
            Part::Query(name) => self.view.query_value(name)?,
            Part::ClientAddress => self.client.ip().to_canonical().to_string().into(),
            Part::Principal => self.principal.as_deref()?.into(),
            Part::Namespace => self.namespace?.into(),
            Part::Method => self.view.method.into(),
            Part::Path => self.view.path.into(),
            Part::Host => self.view.host.into(),
            Part::Fixed(value) => (&**value).into(),
        })
    }

    /// The values that tell it apart, none when one is missing. No value holds a line break.
    fn key(&self, parts: &[Part], at: &str) -> Option<String> {
        let mut key = at.to_owned();
        for part in parts {
            key.push('\n');
            key.push_str(&self.part(part)?);
        }
        Some(key)
    }

    fn descriptor(&self, descriptor: &Descriptor) -> Option<wire::Descriptor> {
        let entry = |(key, part): &(Arc<str>, Part)| {
            Some(wire::Entry { key: key.to_string(), value: self.part(part)?.into_owned() })
        };
        let entries: Option<Vec<_>> = descriptor.entries.iter().map(entry).collect();
        Some(wire::Descriptor { entries: entries? })
    }
}

/// Whether limits may concern a request at all: then its head is kept as it came.
pub fn original(worker: &Worker, head: &RequestHead) -> Option<RequestHead> {
    worker.shared.mesh.has_attached().then(|| head.clone())
}

/// Counts a request, and asks about it. `came`: its head as it came; `head`: as it goes on. `Err`: there are too many.
pub async fn check(
    worker: &Worker,
    site: &Site,
    came: &RequestHead,
    head: &mut RequestHead,
    plan: &mut Plan,
) -> Result<(), Reply> {
    let held = policies(worker, site, came, plan);
    if held.is_empty() {
        return Ok(());
    }
    let (mut quota, questions) = decide(worker, site, came, &held)?;
    for (held, descriptors) in questions {
        let Some(global) = &held.policy.global else { continue };
        let answer = ask(worker, &plan.origin, global, descriptors, &held.policy.key).await?;
        let statuses = answer.iter().flat_map(|answer| &answer.statuses);
        quota = least(quota, statuses.filter_map(of_service).min_by_key(|quota| quota.remaining));
        pass(answer, head, plan)?;
    }
    let headers = quota.into_iter().flat_map(Quota::headers);
    plan.answer_headers.extend(headers.map(|(name, value)| (name.into(), value)));
    Ok(())
}

/// What a rate limit service is to be asked.
type Question = (Arc<Held>, Vec<wire::Descriptor>);

/// Counts a request in all limits of our own, and finds out who else is to be asked what.
fn decide(
    worker: &Worker,
    site: &Site,
    came: &RequestHead,
    held: &[(Arc<Held>, String)],
) -> Result<(Option<Quota>, Vec<Question>), Reply> {
    let host = host_of(came.authority());
    let fields = View(came);
    let view = RequestView::new(&host, came.target(), came.method(), &fields);
    let (principal, namespace) = source(site);
    let asked = Asked { view, client: site.client, principal, namespace };
    let (mut quota, mut questions) = (None, Vec::new());
    for (held, at) in held {
        quota = least(quota, count(worker, held, at, &asked)?);
        let descriptors = held.policy.global.iter().flat_map(|global| &global.descriptors).zip(&held.descriptors);
        let taken = descriptors.filter(|(_, matcher)| matcher.takes(&asked.view));
        let taken: Vec<_> = taken.filter_map(|(descriptor, _)| asked.descriptor(descriptor)).collect();
        if !taken.is_empty() {
            questions.push((held.clone(), taken));
        }
    }
    Ok((quota, questions))
}

/// The policies that hold, each with what besides the request tells buckets apart: the endpoint, at endpoints.
fn policies(worker: &Worker, site: &Site, came: &RequestHead, plan: &Plan) -> Vec<(Arc<Held>, String)> {
    let mut out = Vec::new();
    if let Place::Process { to, .. } = &site.place {
        let at = to.to_string();
        let held = worker.at_endpoints.get(&worker.shared.mesh, *to);
        return held.iter().map(|held| (held.clone(), at.clone())).collect();
    }
    let known = worker.shared.mesh.known();
    let mut add = |target: PolicyTarget, section: &str| {
        out.extend(known.attached.of(&target, section).map(|held| (held.clone(), String::new())));
    };
    if let Some((target, listener)) = plan.on_gateway(site, came) {
        add(target, &listener);
    }
    if let Some((target, rule)) = plan.on_route() {
        add(target, rule);
    }
    out
}

fn source(site: &Site) -> (Option<Cow<'_, str>>, Option<&str>) {
    match &site.place {
        Place::Process { caller, .. } => {
            let identity = caller.identity.as_ref();
            (identity.map(|it| it.principal().into()), identity.map(authz::mesh::Identity::namespace))
        }
        Place::Service { .. } => {
            let name = &*site.origin.identity.name;
            (Some(name.strip_prefix("spiffe://").unwrap_or(name).into()), Some(&site.origin.namespace))
        }
        Place::Gateway(..) => (None, None),
    }
}

/// Counts a request in a policy's own limits.
fn count(worker: &Worker, held: &Held, at: &str, asked: &Asked<'_>) -> Result<Option<Quota>, Reply> {
    let now_us = worker.shared.started.elapsed().as_micros() as u64;
    let mut quota = None;
    for limit in held.limits.iter().filter(|limit| limit.takes(&asked.view)) {
        let Some(key) = asked.key(&limit.limit.per, at) else { continue };
        let verdict = limit.count(&key, now_us);
        let Verdict { pass, remaining, reset_us, retry_us } = verdict;
        let seconds = |us: u64| us.div_ceil(1_000_000);
        let of_this = Quota {
            limit: limit.limit.burst,
            window_s: seconds(limit.limit.interval_ms * 1_000),
            remaining,
            reset_s: seconds(reset_us),
        };
        if !pass {
            let (policy, name) = (&held.policy.key, &limit.limit.name);
            tracing::debug!(target: "ratelimit", %policy, limit = %name, client = %asked.client, "a request is over the limit");
            return Err(of_this
                .headers()
                .into_iter()
                .fold(too_many(), |reply, (name, value)| reply.with(name, value))
                .with("retry-after", seconds(retry_us).max(1).to_string()));
        }
        quota = least(quota, Some(of_this));
    }
    Ok(quota)
}

/// In Envoy's words.
fn too_many() -> Reply {
    Reply::new(429, "rate limited").with("x-envoy-ratelimited", "true".into()).flagged(Flag::RateLimited)
}

fn least(one: Option<Quota>, other: Option<Quota>) -> Option<Quota> {
    one.into_iter().chain(other).min_by_key(|quota| quota.remaining)
}

fn of_service(status: &wire::DescriptorStatus) -> Option<Quota> {
    let limit = status.current_limit.as_ref()?;
    let reset = status.duration_until_reset.unwrap_or_default();
    Some(Quota {
        limit: limit.requests_per_unit,
        window_s: wire::unit_s(limit.unit)?,
        remaining: status.limit_remaining,
        reset_s: u64::try_from(reset.seconds).unwrap_or(0) + u64::from(reset.nanos > 0),
    })
}

/// Asks a rate limit service. None: it does not answer, and the request passes all the same.
async fn ask(
    worker: &Worker,
    origin: &Origin,
    global: &GlobalLimit,
    descriptors: Vec<wire::Descriptor>,
    policy: &model::Key,
) -> Result<Option<wire::RateLimitResponse>, Reply> {
    let question = wire::RateLimitRequest { domain: global.domain.to_string(), descriptors, hits_addend: 0 };
    let asking = async {
        let host = format!("{}.{}", global.service.name, global.service.namespace);
        let callee = Callee::new(worker, origin, &global.service, (global.port, &host))?;
        callee.unary::<wire::RateLimitResponse>(worker, origin, wire::SHOULD_RATE_LIMIT_PATH, &question).await
    };
    let answer = timeout(Duration::from_millis(global.timeout_ms), asking).await;
    match answer.unwrap_or_else(|_| Err("the rate limit service took too long".to_owned())) {
        Ok(answer) => Ok(Some(answer)),
        Err(why) => {
            tracing::warn!(target: "ratelimit", %policy, service = %global.service, why, fail_open = global.fail_open, "the rate limit service does not answer");
            if global.fail_open { Ok(None) } else { Err(Reply::new(500, "rate limit service failed")) }
        }
    }
}

/// Does what the service says.
fn pass(answer: Option<wire::RateLimitResponse>, head: &mut RequestHead, plan: &mut Plan) -> Result<(), Reply> {
    let Some(answer) = answer else { return Ok(()) };
    let quota = answer.statuses.iter().filter_map(of_service).min_by_key(|quota| quota.remaining);
    let own = |headers: Vec<xds::ext_authz::HeaderValue>| {
        let named = headers.into_iter().map(|it| (it.key.to_ascii_lowercase(), it.value));
        named.filter(|(name, _)| !is_codecs(name)).collect::<Vec<_>>()
    };
    if answer.overall_code() == wire::Code::OverLimit {
        let headers = quota.into_iter().flat_map(Quota::headers);
        let reply = headers.fold(too_many(), |reply, (name, value)| reply.with(name, value));
        let reply = if answer.raw_body.is_empty() { reply } else { reply.saying(answer.raw_body.clone()) };
        return Err(reply.with_own(own(answer.response_headers_to_add)));
    }
    for (name, value) in own(answer.request_headers_to_add) {
        let _ = head.fields.append(&name, value.as_bytes());
    }
    let of_answer = own(answer.response_headers_to_add).into_iter().map(|(name, value)| (Cow::Owned(name), value));
    plan.answer_headers.extend(of_answer);
    Ok(())
}
