//! What each service answers.

use crate::call::Caller;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Which of the services this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Frontend,
    Catalog,
    Reviews,
    Ratings,
    Inventory,
}

impl Role {
    pub fn parse(name: &str) -> Option<Role> {
        Some(match name {
            "frontend" => Role::Frontend,
            "catalog" => Role::Catalog,
            "reviews" => Role::Reviews,
            "ratings" => Role::Ratings,
            "inventory" => Role::Inventory,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Role::Frontend => "frontend",
            Role::Catalog => "catalog",
            Role::Reviews => "reviews",
            Role::Ratings => "ratings",
            Role::Inventory => "inventory",
        }
    }
}

/// From the environment.
pub struct Settings {
    pub bind: IpAddr,
    pub port: u16,
    pub version: String,
    catalog: String,
    reviews: String,
    ratings: String,
    inventory: String,
}

impl Settings {
    pub fn from_environment() -> Result<Settings, String> {
        let text = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let bad = |name: &str, value: &str| format!("{name}: {value:?} is not valid");
        let (bind, port) = (text("BIND", "0.0.0.0"), text("PORT", "8080"));
        Ok(Settings {
            bind: bind.parse().map_err(|_| bad("BIND", &bind))?,
            port: port.parse().map_err(|_| bad("PORT", &port))?,
            version: text("VERSION", "v1"),
            catalog: text("CATALOG_URL", "http://catalog"),
            reviews: text("REVIEWS_URL", "http://reviews"),
            ratings: text("RATINGS_URL", "http://ratings"),
            inventory: text("INVENTORY_URL", "http://inventory"),
        })
    }
}

/// Status and JSON for a path.
pub async fn answer(
    role: Role,
    settings: &Settings,
    caller: &Caller,
    path: &str,
    headers: &HeaderMap,
) -> (StatusCode, Value) {
    if path == "/healthz" {
        return (StatusCode::OK, json!({"ok": true}));
    }
    let hop = json!({"service": role.name(), "version": settings.version, "caller": identity_of_caller(headers)});
    let outcome = match role {
        Role::Frontend => frontend(settings, caller, headers, hop).await,
        Role::Reviews => reviews(settings, caller, headers, hop).await,
        Role::Catalog => Ok(json!({"hops": [hop], "titles": ["Works and Days", "The Periplus", "On Straits"]})),
        Role::Ratings => Ok(json!({"hops": [hop], "stars": [5, 4, 5]})),
        Role::Inventory => Ok(json!({"hops": [hop], "copies": [12, 3, 40]})),
    };
    match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            eprintln!("{path}: {error}");
            (StatusCode::BAD_GATEWAY, json!({"error": error}))
        }
    }
}

async fn frontend(settings: &Settings, caller: &Caller, headers: &HeaderMap, hop: Value) -> Result<Value, String> {
    let (catalog, reviews, inventory) = (
        format!("{}/titles", settings.catalog),
        format!("{}/reviews", settings.reviews),
        format!("{}/copies", settings.inventory),
    );
    let (catalog, reviews, inventory) =
        tokio::join!(caller.get(&catalog, headers), caller.get(&reviews, headers), caller.get(&inventory, headers));
    let (catalog, reviews, inventory) = (catalog?, reviews?, inventory?);
    let mut hops = vec![hop];
    for answer in [&catalog, &reviews, &inventory] {
        hops.extend(answer["hops"].as_array().into_iter().flatten().cloned());
    }
    Ok(json!({
        "hops": hops,
        "titles": catalog["titles"],
        "reviews": reviews["reviews"],
        "copies": inventory["copies"],
    }))
}

async fn reviews(settings: &Settings, caller: &Caller, headers: &HeaderMap, hop: Value) -> Result<Value, String> {
    let ratings = caller.get(&format!("{}/stars", settings.ratings), headers).await?;
    let mut hops = vec![hop];
    hops.extend(ratings["hops"].as_array().into_iter().flatten().cloned());
    Ok(json!({"hops": hops, "reviews": ["terse", "windy", "clear"], "stars": ratings["stars"]}))
}

/// The caller's identity as the mesh proved it: the URI of `x-forwarded-client-cert`, which the proxy in front of this process sets and
/// takes away from anybody who sends it.
fn identity_of_caller(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("x-forwarded-client-cert")?.to_str().ok()?;
    value.split([';', ',']).find_map(|part| part.trim().strip_prefix("URI="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_identity_that_the_proxy_vouches_for() {
        let mut headers = HeaderMap::new();
        assert_eq!(identity_of_caller(&headers), None);
        let value = "By=spiffe://cluster.local/ns/a/sa/b;Hash=00;URI=spiffe://cluster.local/ns/shop/sa/frontend";
        headers.insert("x-forwarded-client-cert", value.parse().unwrap());
        assert_eq!(identity_of_caller(&headers), Some("spiffe://cluster.local/ns/shop/sa/frontend"));
    }
}
