//! Before policy decides about a request: its token is verified, and who must be asked is asked.
use super::external::{self, Ends};
use super::plan::{View, is_codecs};
use super::reply::Reply;
use super::{Place, Site};
use crate::gateway::Found;
use crate::policy::Rules;
use crate::telemetry::Flag;
use crate::worker::Worker;
use authz::mesh::{HttpCall, Jwt};
use bytes::Bytes;
use http1::RequestHead;
use model::mesh::Headers;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was found out about a request.
#[derive(Clone, Debug, Default)]
pub struct Guarded {
    /// Its verified token.
    pub jwt: Option<Jwt>,
    /// Whoever must be asked was, and lets it pass.
    pub asked: bool,
}

impl Guarded {
    /// A request as policies see it.
    pub fn call<'a>(&'a self, head: &'a RequestHead, headers: &'a dyn Headers) -> HttpCall<'a> {
        let (authority, method, path) = (head.authority(), head.method(), head.path());
        HttpCall { authority, method, path, headers, jwt: self.jwt.as_ref(), asked: self.asked }
    }
}

/// What is looked up once for a request.
#[derive(Debug)]
pub struct Ground {
    /// The listener that takes it, if it came to a gateway and one does.
    pub found: Option<Found>,
    /// The policy of the place; none: nothing holds there, or before a process, it is not known what does.
    pub rules: Option<Rules>,
}

impl Ground {
    /// The ground that a request stands on.
    pub fn of(worker: &Worker, site: &Site, head: &RequestHead) -> Self {
        match &site.place {
            Place::Process { pod, to, caller } => Self { found: None, rules: Rules::of(worker, pod, caller, *to) },
            Place::Gateway(door, _) => {
                let found = door.listener(&super::plan::host_of(head.authority()));
                let of = |found: &Found| Rules::of_gateway(worker, &found.gateway().gateway, site.client, door.port());
                let rules = found.as_ref().and_then(of);
                Self { found, rules }
            }
            Place::Service { .. } => Self { found: None, rules: None },
        }
    }

    /// Whether policy lets a request pass. Says why not, to the operator.
    pub fn admits(&self, site: &Site, head: &RequestHead, guarded: &Guarded) -> bool {
        let view = View(head);
        let call = guarded.call(head, &view);
        match &site.place {
            // The connection may be older than a policy that takes no plain text.
            Place::Process { .. } => {
                self.rules.as_ref().is_some_and(|rules| rules.admits_plain_text() && rules.admits(Some(call)))
            }
            Place::Gateway(..) => self.rules.as_ref().is_none_or(|rules| rules.admits(Some(call))),
            Place::Service { .. } => true,
        }
    }

    /// The policy, if there is more to do for it than to decide.
    pub fn to_check(&self) -> Option<&Rules> {
        self.rules.as_ref().filter(|rules| rules.concerns_requests())
    }
}

/// Verifies and asks. `Err`: the answer that the caller gets.
pub async fn check(
    worker: &Worker,
    site: &Site,
    rules: &Rules,
    head: &mut RequestHead,
    http2: bool,
) -> Result<Guarded, Reply> {
    let mut guarded = Guarded { jwt: authenticate(rules, head)?, asked: false };
    let asks = rules.asks(guarded.call(head, &View(head)));
    let request = format!("{} {}", head.method(), head.path());
    for ask in asks {
        let provider = worker.shared.mesh.known().providers.get(&ask.provider).cloned();
        let Some(provider) = provider else {
            rules.refused(&ask, &request, "no such provider is configured");
            return Err(Reply::denied());
        };
        let ends = Ends {
            caller: rules.caller(),
            to: rules.to(),
            own: site.origin.identity.name.as_ref(),
            protocol: if http2 { "HTTP/2" } else { "HTTP/1.1" },
        };
        match external::ask(worker, &site.origin, &provider, head, ends).await {
            Ok(verdict) if verdict.pass => {
                for name in &verdict.remove {
                    head.fields.remove(name);
                }
                for (name, value, append) in verdict.headers.iter().filter(|(name, ..)| !is_codecs(name)) {
                    let _ = match append {
                        true => head.fields.append(name, value.as_bytes()),
                        false => head.fields.set(name, value.as_bytes()),
                    };
                }
            }
            Ok(verdict) => {
                rules.refused(&ask, &request, "the external authorizer refuses");
                let reply = Reply::new(verdict.status, "external authorization refuses").saying(verdict.body);
                let reply = reply.flagged(Flag::UnauthorizedExternal);
                let own = verdict.headers.into_iter().filter(|(name, ..)| !is_codecs(name));
                let own = own.map(|(name, value, _)| (name, value)).collect();
                return Err(reply.with_own(own));
            }
            Err(why) if provider.fail_open => {
                tracing::warn!(target: "policy", provider = %provider.name, why, "the external authorizer does not answer; fail-open");
            }
            Err(why) => {
                rules.refused(&ask, &request, &why);
                let reply = Reply::new(provider.status_on_error, "external authorization failed");
                return Err(reply.flagged(Flag::UnauthorizedExternal));
            }
        }
    }
    guarded.asked = true;
    Ok(guarded)
}

fn authenticate(rules: &Rules, head: &mut RequestHead) -> Result<Option<Jwt>, Reply> {
    let verifier = rules.verifier();
    if verifier.is_empty() {
        return Ok(None);
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    match verifier.verify(head, now_s) {
        Ok(verified) => {
            verifier.finish(verified.as_ref(), head);
            Ok(verified.map(|verified| verified.jwt))
        }
        Err(error) => {
            tracing::warn!(target: "policy", request = format!("{} {}", head.method(), head.path()), %error, "refused: a token does not hold");
            let reply = Reply::new(401, "Jwt verification fails").saying(Bytes::from(error.to_string()));
            Err(reply.with("www-authenticate", "Bearer error=\"invalid_token\"".to_owned()))
        }
    }
}
