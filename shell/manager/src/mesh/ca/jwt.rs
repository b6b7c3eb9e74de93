//! JWT-SVIDs (spiffe.io, "JWT-SVID"): tokens of ES256 that name a workload and for whom they are.

use super::CaError;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

/// A key that signs tokens. There is one beside each root, and it comes and goes with it.
pub struct JwtKey {
    /// PKCS #8, base64.
    pub kept: String,
    pair: EcdsaKeyPair,
    id: String,
}

impl JwtKey {
    /// A new one.
    pub fn make() -> Result<Self, CaError> {
        let failed = |_| CaError::Sign("no key for tokens can be made".into());
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        let document = pair.to_pkcs8v1().map_err(failed)?;
        Self::read(&BASE64_STANDARD.encode(document.as_ref())).map_err(CaError::Sign)
    }

    /// From PKCS #8 in base64.
    pub fn read(kept: &str) -> Result<Self, String> {
        let bytes = BASE64_STANDARD.decode(kept).map_err(|error| error.to_string())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes);
        let pair = pair.map_err(|error| error.to_string())?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair.public_key().as_ref());
        let id = BASE64.encode(&digest.as_ref()[..12]);
        Ok(JwtKey { kept: kept.to_owned(), pair, id })
    }

    /// RFC 7517.
    pub fn jwk(&self) -> Value {
        // Uncompressed point: 4, x, y.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "x": BASE64.encode(x), "y": BASE64.encode(y) })
    }

    /// A token.
    pub fn sign(&self, identity: &str, audience: &[String], now_s: u64, ttl_s: u64) -> Result<String, CaError> {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.id });
        let claims = json!({ "sub": identity, "aud": audience, "iat": now_s, "exp": now_s + ttl_s });
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| CaError::Sign("a token cannot be signed".into()))?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }
}
