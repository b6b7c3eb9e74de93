//! JSON Web Tokens of callers (RequestAuthentication): where they stand in a request, and whether they hold.
//!
//! Signatures are checked with keys of a JSON Web Key Set (RFC 7517) that the control plane fetched: RS256 to RS512, PS256 to PS512,
//! ES256 to ES512, EdDSA (RFC 7518, RFC 8037). `none` and shared secrets are never taken.
use authz::mesh::Jwt;
use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http1::{Fields, RequestHead};
use model::mesh::policy::{JwtRule, RequestAuthentication};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Clocks differ by so much (Envoy's default).
const LEEWAY_S: i64 = 60;
/// Longer ones are not looked at.
const MOST_BYTES: usize = 16 << 10;
/// Keys of one set.
const MOST_KEYS: usize = 64;

/// Why a token is refused. The words are Envoy's, which people look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    #[error("Jwt issuer is not configured")]
    Issuer,
    #[error("Jwt is expired")]
    Expired,
    #[error("Jwt not yet valid")]
    NotYet,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    #[error("Jwt verification fails")]
    Signature,
    #[error("Jwks remote fetch is failed")]
    NoKeys,
}

/// The rules of all policies that hold at one place, with their keys.
#[derive(Debug, Default)]
pub struct Verifier {
    rules: Vec<(JwtRule, Vec<Key>)>,
}

/// A token that holds, and what its rule wants of the request.
#[derive(Debug)]
pub struct Verified {
    pub jwt: Jwt,
    payload: String,
    rule: usize,
    place: Where,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Where {
    Header(Arc<str>),
    Param(Arc<str>),
    Cookie,
}

#[derive(Debug)]
struct Key {
    id: String,
    algorithm: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// Curve, and the uncompressed point.
    Ec(&'static str, Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Verifier {
    /// Of the policies that hold.
    pub fn new<'a>(policies: impl IntoIterator<Item = &'a RequestAuthentication>) -> Self {
        let rules = policies.into_iter().flat_map(|policy| &policy.rules);
        Self { rules: rules.map(|rule| (rule.clone(), keys(&rule.jwks))).collect() }
    }

    /// Whether there is nothing to verify.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Verifies the request's token. None: it has none. Of several all must hold; the first one's identity counts.
    pub fn verify(&self, head: &RequestHead, now_s: i64) -> Result<Option<Verified>, JwtError> {
        let mut found: Option<Verified> = None;
        for (place, token) in self.tokens(head) {
            let verified = self.check(place, &token, now_s)?;
            found.get_or_insert(verified);
        }
        Ok(found)
    }

    /// Tokens, each once, with the first place where it stands.
    fn tokens(&self, head: &RequestHead) -> Vec<(Where, String)> {
        let mut found: Vec<(Where, String)> = Vec::new();
        let mut add = |place: Where, token: Option<String>| {
            let token = token.filter(|token| !token.is_empty() && found.iter().all(|(_, have)| have != token));
            found.extend(token.map(|token| (place, token)));
        };
        let bearer: Arc<str> = "authorization".into();
        for (rule, _) in &self.rules {
            for (name, prefix) in &rule.from_headers {
                add(Where::Header(name.clone()), in_header(&head.fields, name, prefix));
            }
            for name in &rule.from_params {
                add(Where::Param(name.clone()), in_query(head, name));
            }
            for name in &rule.from_cookies {
                add(Where::Cookie, in_cookie(&head.fields, name));
            }
            if rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty() {
                add(Where::Header(bearer.clone()), in_header(&head.fields, &bearer, "Bearer "));
                add(Where::Param("access_token".into()), in_query(head, "access_token"));
            }
        }
        found
    }

    fn check(&self, place: Where, token: &str, now_s: i64) -> Result<Verified, JwtError> {
        if token.len() > MOST_BYTES {
            return Err(JwtError::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Form)?;
        let json = |part: &str| -> Result<Value, JwtError> {
            let bytes = BASE64.decode(part).map_err(|_| JwtError::Form)?;
            serde_json::from_slice(&bytes).map_err(|_| JwtError::Form)
        };
        let (header, claims) = (json(header)?, json(payload)?);
        let signature = BASE64.decode(signature).map_err(|_| JwtError::Form)?;
        let issuer = claims["iss"].as_str().unwrap_or_default();
        let of_issuer = |(rule, _): &&(JwtRule, Vec<Key>)| &*rule.issuer == issuer;
        let index = self.rules.iter().position(|it| of_issuer(&it)).ok_or(JwtError::Issuer)?;
        let (rule, keys) = &self.rules[index];
        times(&claims, now_s)?;
        let jwt = attributes(&claims, &rule.space_delimited);
        if !rule.audiences.is_empty()
            && !jwt.audiences.iter().any(|aud| rule.audiences.iter().any(|it| same_audience(it, aud)))
        {
            return Err(JwtError::Audience);
        }
        if keys.is_empty() {
            return Err(JwtError::NoKeys);
        }
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let id = header["kid"].as_str();
        let mut tried = false;
        for key in keys.iter().filter(|key| key.fits(id, algorithm)) {
            tried = true;
            if key.material.verifies(algorithm, signed.as_bytes(), &signature) {
                return Ok(Verified { jwt, payload: payload.to_owned(), rule: index, place });
            }
        }
        Err(if tried { JwtError::Signature } else { JwtError::NoKey })
    }

    /// Takes off what the caller says under names that belong to any rule, and then does what the rule of its token, if it has one, wants.
    pub fn finish(&self, verified: Option<&Verified>, head: &mut RequestHead) {
        self.scrub(head);
        let Some(verified) = verified else { return };
        let (rule, _) = &self.rules[verified.rule];
        if !rule.forward {
            match &verified.place {
                Where::Header(name) => head.fields.remove(name),
                Where::Param(name) => without_param(head, name),
                Where::Cookie => {}
            }
        }
        if !rule.payload_header.is_empty() {
            let _ = head.fields.set(&rule.payload_header, verified.payload.as_bytes());
        }
        for (header, claim) in &rule.claim_headers {
            let name = claim.replace('.', "][");
            if let Some(values) = verified.jwt.claims.get(name.as_str()).or(verified.jwt.claims.get(claim)) {
                let _ = head.fields.set(header, values.join(",").as_bytes());
            }
        }
    }

    /// What no caller may say of himself, whichever token he has: the headers that rules set.
    fn scrub(&self, head: &mut RequestHead) {
        for (rule, _) in &self.rules {
            head.fields.remove(&rule.payload_header);
            rule.claim_headers.iter().for_each(|(header, _)| head.fields.remove(header));
        }
    }
}

/// A JWT-SVID that holds: whose it is, and what it says. `jwks` gives a trust domain's keys. What has no end is none (JWT-SVID, 3.3).
///
/// # Errors
/// Why it does not hold.
pub fn svid(
    token: &str,
    audience: &str,
    now_s: i64,
    jwks: impl Fn(&str) -> Option<String>,
) -> Result<(String, Value), JwtError> {
    let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= MOST_BYTES).ok_or(JwtError::Form)?;
    let (header, payload) = signed.split_once('.').ok_or(JwtError::Form)?;
    let bytes = |part: &str| BASE64.decode(part).map_err(|_| JwtError::Form);
    let json = |part: &str| serde_json::from_slice::<Value>(&bytes(part)?).map_err(|_| JwtError::Form);
    let (header, claims) = (json(header)?, json(payload)?);
    let signature = bytes(signature)?;
    let subject = claims["sub"].as_str().unwrap_or_default();
    let rest = subject.strip_prefix("spiffe://").ok_or(JwtError::Issuer)?;
    let keys = jwks(rest.split('/').next().unwrap_or_default()).ok_or(JwtError::Issuer)?;
    if claims["exp"].as_f64().is_none() {
        return Err(JwtError::Expired);
    }
    times(&claims, now_s)?;
    if !attributes(&claims, &[]).audiences.iter().any(|it| **it == *audience) {
        return Err(JwtError::Audience);
    }
    let algorithm = header["alg"].as_str().unwrap_or_default();
    let keys = self::keys(&keys);
    let mut fitting = keys.iter().filter(|key| key.fits(header["kid"].as_str(), algorithm)).peekable();
    if fitting.peek().is_none() {
        return Err(JwtError::NoKey);
    }
    match fitting.any(|key| key.material.verifies(algorithm, signed.as_bytes(), &signature)) {
        true => Ok((subject.to_owned(), claims)),
        false => Err(JwtError::Signature),
    }
}

fn in_header(fields: &Fields, name: &str, prefix: &str) -> Option<String> {
    let value = fields.get_str(name)?;
    let token = match prefix.trim_end() {
        // The scheme's name has no case (RFC 9110, 11.1).
        "Bearer" => value.get(..7).filter(|begin| begin.eq_ignore_ascii_case("Bearer ")).map(|_| &value[7..]),
        _ => value.strip_prefix(prefix),
    };
    token.map(|token| token.trim().to_owned())
}

fn in_query(head: &RequestHead, name: &str) -> Option<String> {
    let pairs = head.query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

fn without_param(head: &mut RequestHead, name: &str) {
    let Some(query) = head.query() else { return };
    let kept: Vec<&str> = query.split('&').filter(|pair| pair.split('=').next() != Some(name)).collect();
    let target = if kept.is_empty() { head.path().to_owned() } else { format!("{}?{}", head.path(), kept.join("&")) };
    head.set_target(&target);
}

fn in_cookie(fields: &Fields, name: &str) -> Option<String> {
    let lines = fields.get_all("cookie").filter_map(|line| std::str::from_utf8(line).ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then(|| value.trim_matches('"').to_owned()))
}

fn times(claims: &Value, now_s: i64) -> Result<(), JwtError> {
    let time = |name: &str| claims[name].as_i64().or(claims[name].as_f64().map(|time| time as i64));
    if time("exp").is_some_and(|exp| exp.saturating_add(LEEWAY_S) < now_s) {
        return Err(JwtError::Expired);
    }
    if time("nbf").is_some_and(|nbf| nbf.saturating_sub(LEEWAY_S) > now_s) {
        return Err(JwtError::NotYet);
    }
    Ok(())
}

/// As Envoy: a scheme and a final slash make no difference.
fn same_audience(allowed: &str, said: &str) -> bool {
    fn bare(text: &str) -> &str {
        let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        text.strip_suffix('/').unwrap_or(text)
    }
    bare(allowed) == bare(said)
}

fn attributes(claims: &Value, space_delimited: &[Arc<str>]) -> Jwt {
    let text = |name: &str| -> Arc<str> { claims[name].as_str().unwrap_or_default().into() };
    let audiences = match &claims["aud"] {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(Arc::from).collect(),
        Value::String(one) => vec![one.as_str().into()],
        _ => Vec::new(),
    };
    let mut all = BTreeMap::new();
    flatten("", claims, space_delimited, 0, &mut all);
    Jwt { issuer: text("iss"), subject: text("sub"), audiences, presenter: text("azp"), claims: all }
}

fn flatten(
    prefix: &str,
    claims: &Value,
    space_delimited: &[Arc<str>],
    depth: usize,
    out: &mut BTreeMap<Arc<str>, Vec<Arc<str>>>,
) {
    for (name, value) in claims.as_object().into_iter().flatten() {
        let whole = if prefix.is_empty() { name.clone() } else { format!("{prefix}][{name}") };
        let splits = || name == "scope" || name == "permission" || space_delimited.iter().any(|it| **it == **name);
        let values: Vec<Arc<str>> = match value {
            Value::String(text) if depth == 0 && splits() => text.split(' ').map(Arc::from).collect(),
            Value::String(text) => vec![text.as_str().into()],
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(Arc::from).collect(),
            Value::Bool(value) => vec![value.to_string().into()],
            Value::Number(value) => vec![value.to_string().into()],
            Value::Object(_) if depth < 4 => {
                flatten(&whole, value, space_delimited, depth + 1, out);
                continue;
            }
            _ => continue,
        };
        out.insert(whole.into(), values);
    }
}

/// The keys of a set that are for signatures and of a kind that we know.
fn keys(jwks: &str) -> Vec<Key> {
    let set: Value = serde_json::from_str(jwks).unwrap_or_default();
    let list = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().take(MOST_KEYS).filter(|key| key["use"].as_str().is_none_or(|it| it == "sig")).filter_map(key).collect()
}

fn key(value: &Value) -> Option<Key> {
    let bytes = |name: &str| BASE64.decode(value[name].as_str()?.trim_end_matches('=')).ok();
    let material = match (value["kty"].as_str()?, value["crv"].as_str()) {
        ("RSA", _) => Material::Rsa(RsaPublicKeyComponents { n: bytes("n")?, e: bytes("e")? }),
        ("EC", Some(curve)) => {
            let curve = ["P-256", "P-384", "P-521"].into_iter().find(|known| *known == curve)?;
            Material::Ec(curve, [&[4][..], &bytes("x")?, &bytes("y")?].concat())
        }
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x")?),
        _ => return None,
    };
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some(Key { id: text("kid").unwrap_or_default(), algorithm: text("alg"), material })
}

impl Key {
    fn fits(&self, id: Option<&str>, algorithm: &str) -> bool {
        id.is_none_or(|id| self.id.is_empty() || self.id == id)
            && self.algorithm.as_deref().is_none_or(|own| own == algorithm)
    }
}

impl Material {
    /// The algorithm must be one of the key's own kind: a token cannot choose how it is checked.
    fn verifies(&self, algorithm: &str, message: &[u8], signed: &[u8]) -> bool {
        match self {
            Material::Rsa(key) => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                key.verify(parameters, message, signed).is_ok()
            }
            Material::Ec(curve, point) => {
                let parameters = match (algorithm, *curve) {
                    ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
                    ("ES512", "P-521") => &signature::ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(parameters, point).verify(message, signed).is_ok()
            }
            Material::Ed25519(point) => {
                algorithm == "EdDSA"
                    && UnparsedPublicKey::new(&signature::ED25519, point).verify(message, signed).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            Signer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn jwks(&self) -> String {
            let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
            let (x, y) = (BASE64.encode(x), BASE64.encode(y));
            json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y}, {"kty": "oct", "k": "AAAA"}]})
                .to_string()
        }

        fn token(&self, header: Value, claims: &Value) -> String {
            let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", BASE64.encode(signature))
        }
    }

    fn head(target: &str, headers: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        head.set_target(target);
        for (name, value) in headers {
            head.fields.append(name, value.as_bytes()).unwrap();
        }
        head
    }

    fn rule(signer: &Signer) -> JwtRule {
        JwtRule { issuer: "https://a".into(), jwks: signer.jwks().into(), ..JwtRule::default() }
    }

    fn verifier(rules: Vec<JwtRule>) -> Verifier {
        let key = model::Key::new("a", "r");
        Verifier::new([&RequestAuthentication { key, scope: model::mesh::Scope::Mesh, rules, gateways: vec![] }])
    }

    #[test]
    fn tokens_hold_or_are_refused_for_a_reason() {
        let (signer, other) = (Signer::new(), Signer::new());
        let strict = JwtRule { audiences: vec!["https://me/".into()], ..rule(&signer) };
        let keyless = JwtRule { issuer: "https://b".into(), ..JwtRule::default() };
        let verifier = verifier(vec![strict, keyless]);
        let good = json!({"iss": "https://a", "sub": "s", "aud": ["x", "me"], "exp": 1_000, "nbf": 10});
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        let es256 = || json!({"alg": "ES256", "kid": "k1"});
        let token = signer.token(es256(), &good);
        let forged = {
            let mut parts: Vec<&str> = token.split('.').collect();
            let claims = BASE64.encode(with("sub", json!("king")).to_string());
            parts[1] = &claims;
            parts.join(".")
        };
        for (token, now_s, expect) in [
            (token.clone(), 500, Ok(())),
            (token.clone(), 1_059, Ok(())),
            (token.clone(), 1_061, Err(JwtError::Expired)),
            (token.clone(), -60, Err(JwtError::NotYet)),
            (forged, 500, Err(JwtError::Signature)),
            (other.token(es256(), &good), 500, Err(JwtError::Signature)),
            (signer.token(json!({"alg": "none"}), &good), 500, Err(JwtError::Signature)),
            (signer.token(json!({"alg": "HS256", "kid": "k1"}), &good), 500, Err(JwtError::Signature)),
            (signer.token(json!({"alg": "ES256", "kid": "k2"}), &good), 500, Err(JwtError::NoKey)),
            (signer.token(es256(), &with("aud", json!("x"))), 500, Err(JwtError::Audience)),
            (signer.token(es256(), &with("iss", json!("https://c"))), 500, Err(JwtError::Issuer)),
            (signer.token(es256(), &with("iss", json!("https://b"))), 500, Err(JwtError::NoKeys)),
            ("abc".into(), 500, Err(JwtError::Form)),
            ("a.b.c".into(), 500, Err(JwtError::Form)),
            ("..".into(), 500, Err(JwtError::Form)),
        ] {
            let head = head("/", &[("authorization", &format!("bearer {token}"))]);
            assert_eq!(verifier.verify(&head, now_s).map(|found| assert!(found.is_some())), expect, "{token} {now_s}");
        }
        assert!(verifier.verify(&head("/", &[("authorization", "Basic x")]), 0).unwrap().is_none());
        let verified = verifier.verify(&head(&format!("/?access_token={token}&x=1"), &[]), 500).unwrap().unwrap();
        assert_eq!(verified.jwt.principal().unwrap(), "https://a/s");
    }

    #[test]
    fn a_jwt_svid_holds_or_not() {
        let signer = Signer::new();
        let good = json!({"sub": "spiffe://td/ns/a/sa/b", "aud": ["me", "x"], "exp": 1_000});
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        let jwks = |domain: &str| (domain == "td").then(|| signer.jwks());
        for (claims, audience, now_s, expect) in [
            (good.clone(), "me", 500, Ok("spiffe://td/ns/a/sa/b")),
            (good.clone(), "you", 500, Err(JwtError::Audience)),
            (good.clone(), "me", 2_000, Err(JwtError::Expired)),
            (with("exp", Value::Null), "me", 500, Err(JwtError::Expired)),
            (with("sub", json!("spiffe://other/x")), "me", 500, Err(JwtError::Issuer)),
            (with("sub", json!("b")), "me", 500, Err(JwtError::Issuer)),
        ] {
            let token = signer.token(json!({"alg": "ES256", "kid": "k1"}), &claims);
            let found = svid(&token, audience, now_s, jwks).map(|(subject, _)| subject);
            assert_eq!(found, expect.map(str::to_owned), "{claims}");
        }
        let unsigned = signer.token(json!({"alg": "none"}), &good);
        assert_eq!(svid(&unsigned, "me", 500, jwks).map(|_| ()), Err(JwtError::Signature));
    }

    #[test]
    fn requests_are_changed_as_the_rule_wants() {
        let signer = Signer::new();
        let rule = JwtRule {
            from_headers: vec![("x-token".into(), "T ".into())],
            from_params: vec!["t".into()],
            payload_header: "x-payload".into(),
            claim_headers: vec![("x-group".into(), "nested.group".into()), ("x-none".into(), "none".into())],
            ..rule(&signer)
        };
        let verifier = verifier(vec![rule]);
        let claims = json!({"iss": "https://a", "sub": "s", "scope": "read write", "nested": {"group": ["g1", "g2"]}});
        let token = signer.token(json!({"alg": "ES256"}), &claims);
        let mut one = head("/p?a=1", &[("x-token", &format!("T {token}")), ("x-none", "forged")]);
        let verified = verifier.verify(&one, 0).unwrap().unwrap();
        assert_eq!(verified.jwt.claims["scope"], ["read".into(), "write".into()]);
        verifier.finish(Some(&verified), &mut one);
        assert_eq!((one.fields.get("x-token"), one.fields.get("x-none")), (None, None));
        assert_eq!(one.fields.get_str("x-group"), Some("g1,g2"));
        assert!(one.fields.get_str("x-payload").is_some_and(|it| BASE64.decode(it).unwrap().starts_with(b"{")));
        let mut two = head(&format!("/p?a=1&t={token}"), &[("x-payload", "forged")]);
        let verified = verifier.verify(&two, 0).unwrap().unwrap();
        verifier.finish(Some(&verified), &mut two);
        assert_eq!(two.target(), "/p?a=1");
        let mut without = head("/", &[("x-payload", "forged"), ("x-group", "forged")]);
        assert!(verifier.verify(&without, 0).unwrap().is_none());
        verifier.finish(None, &mut without);
        assert_eq!((without.fields.get("x-payload"), without.fields.get("x-group")), (None, None));
    }

    /// Whoever has a token of one issuer does not say by himself what another's rule says of its own.
    #[test]
    fn a_token_of_one_rule_lets_no_header_of_another_be_forged() {
        let signer = Signer::new();
        let partner = JwtRule { issuer: "https://partner".into(), ..rule(&signer) };
        let own = JwtRule {
            payload_header: "x-payload".into(),
            claim_headers: vec![("x-group".into(), "group".into())],
            ..rule(&signer)
        };
        let verifier = verifier(vec![partner, own]);
        let token = signer.token(json!({"alg": "ES256"}), &json!({"iss": "https://partner", "sub": "s"}));
        let bearer = format!("Bearer {token}");
        let mut request =
            head("/", &[("authorization", &bearer), ("X-Group", "admin"), ("X-Payload", "forged"), ("x-other", "o")]);
        let verified = verifier.verify(&request, 0).unwrap();
        assert!(verified.is_some());
        verifier.finish(verified.as_ref(), &mut request);
        let left = ["x-group", "x-payload", "x-other"].map(|name| request.fields.get_str(name));
        assert_eq!(left, [None, None, Some("o")]);
    }
}
