//! ES256 JSON Web Tokens: only what ServiceAccount tokens need.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use thiserror::Error;

/// Why a token is refused. No retry helps; the client needs another token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not a JWT of ours at all; another authenticator may know it.
    #[error("not a token of this platform")]
    Foreign,
    /// Ours by its shape, and the signature is wrong.
    #[error("the signature does not verify")]
    Signature,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// Too early.
    #[error("the token is not valid yet")]
    NotYet,
    /// For somebody else's ears.
    #[error("the token is for another audience")]
    Audience,
    /// What it was bound to is gone.
    #[error("the object that the token is bound to is gone")]
    Unbound,
}

/// The key that signs and checks.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    id: String,
}

impl TokenKey {
    /// From PKCS#8 DER.
    ///
    /// # Errors
    /// It is not a P-256 key.
    pub fn new(pkcs8: &[u8]) -> Result<TokenKey, String> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|error| error.to_string())?;
        let id = BASE64.encode(digest::digest(&digest::SHA256, pair.public_key().as_ref()));
        Ok(TokenKey { pair, id })
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let mut token = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), token.as_bytes())
            .expect("signing with a valid key and the system's randomness");
        token.push('.');
        token.push_str(&BASE64.encode(signature.as_ref()));
        token
    }

    /// The claims of a token that this key signed. Times and audience are the caller's to check.
    ///
    /// # Errors
    /// [`TokenError::Foreign`] or [`TokenError::Signature`].
    pub fn open(&self, token: &str) -> Result<Value, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let json = |part: &str| -> Option<Value> { serde_json::from_slice(&BASE64.decode(part).ok()?).ok() };
        let header = json(header).ok_or(TokenError::Foreign)?;
        if header["alg"] != "ES256" || header["kid"] != self.id.as_str() {
            return Err(TokenError::Foreign);
        }
        let signature = BASE64.decode(signature).map_err(|_| TokenError::Signature)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        json(claims).ok_or(TokenError::Foreign)
    }

    /// The key set that others verify our tokens with.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "alg": "ES256", "crv": "P-256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }
}

/// `exp`, `nbf` and `aud`. `now_s` is seconds since the epoch; ten seconds of clock difference are forgiven.
///
/// # Errors
/// The one that does not hold.
pub fn check_times_and_audience(claims: &Value, audiences: &[String], now_s: i64) -> Result<(), TokenError> {
    const LEEWAY_S: i64 = 10;
    if claims["exp"].as_i64().is_none_or(|exp| exp + LEEWAY_S < now_s) {
        return Err(TokenError::Expired);
    }
    if claims["nbf"].as_i64().is_some_and(|nbf| nbf - LEEWAY_S > now_s) {
        return Err(TokenError::NotYet);
    }
    let has = |aud: &Value| aud.as_str().is_some_and(|aud| audiences.iter().any(|wanted| wanted == aud));
    let fits = match &claims["aud"] {
        Value::Array(list) => list.iter().any(has),
        one => has(one),
    };
    if fits { Ok(()) } else { Err(TokenError::Audience) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey::new(&rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_der()).unwrap()
    }

    #[test]
    fn what_was_signed_opens_and_nothing_else_does() {
        let (ours, other) = (key(), key());
        let token = ours.sign(&json!({"sub": "x"}));
        assert_eq!(ours.open(&token), Ok(json!({"sub": "x"})));
        assert_eq!(other.open(&token), Err(TokenError::Foreign));
        assert_eq!(ours.open("abc"), Err(TokenError::Foreign));
        let (head, tail) = token.split_at(token.find('.').unwrap() + 2);
        let forged = format!("{head}A{}", &tail[1..]);
        assert!(ours.open(&forged).is_err());
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode("{}"));
        assert_eq!(ours.open(&none), Err(TokenError::Foreign));
    }

    #[test]
    fn times_and_audience() {
        let claims = json!({"exp": 1000, "nbf": 500, "aud": ["a", "b"]});
        let audiences = ["b".to_owned()];
        assert_eq!(check_times_and_audience(&claims, &audiences, 700), Ok(()));
        assert_eq!(check_times_and_audience(&claims, &audiences, 1011), Err(TokenError::Expired));
        assert_eq!(check_times_and_audience(&claims, &audiences, 400), Err(TokenError::NotYet));
        assert_eq!(check_times_and_audience(&claims, &["c".to_owned()], 700), Err(TokenError::Audience));
    }
}
