//! Who a verified token names, in Envoy's words.
use super::policies::pattern;
use xds::envoy::{Principal, Text};

fn claim(name: &str, text: Text) -> Principal {
    Principal::Claim(vec![name.to_owned()], text)
}

fn some() -> Text {
    Text::Regex(".+".to_owned())
}

fn both(issuer: Text, subject: Text) -> Principal {
    Principal::All(vec![claim("iss", issuer), claim("sub", subject)])
}

/// `ISSUER/SUBJECT`, with Istio's stars. A star stands for both, as Istio's proxies have it: what is before it may end in the issuer or in the subject.
pub fn request_principal(text: &str) -> Principal {
    let exact = |text: &str| Text::Exact(text.to_owned());
    match (text.strip_suffix('*'), text.strip_prefix('*')) {
        (Some(""), _) => both(some(), some()),
        (Some(before), _) => {
            let in_issuer = both(Text::Prefix(before.to_owned()), some());
            match before.rsplit_once('/') {
                Some((issuer, "")) => Principal::OneOf(vec![both(exact(issuer), some()), in_issuer]),
                Some((issuer, subject)) => {
                    Principal::OneOf(vec![both(exact(issuer), Text::Prefix(subject.to_owned())), in_issuer])
                }
                None => in_issuer,
            }
        }
        (None, Some(after)) => match after.rsplit_once('/') {
            Some((issuer, subject)) => both(pattern("", &format!("*{issuer}")), exact(subject)),
            None => both(some(), pattern("", &format!("*{after}"))),
        },
        (None, None) => match text.rsplit_once('/') {
            Some((issuer, subject)) => both(exact(issuer), exact(subject)),
            None => both(exact(text), exact("")),
        },
    }
}

/// Makes a principal of a value.
pub type Named = Box<dyn Fn(&str) -> Principal>;

/// `request.auth.KEY`; none: there is no such.
pub fn attribute(key: &str) -> Option<Named> {
    let named = |name: &'static str| -> Named { Box::new(move |text| claim(name, pattern("", text))) };
    match key.strip_prefix("request.auth.")? {
        "principal" => Some(Box::new(request_principal)),
        "audiences" => Some(named("aud")),
        "presenter" => Some(named("azp")),
        // claims[a], claims[a][b]
        claims => {
            let path = claims.strip_prefix("claims[")?.strip_suffix(']')?;
            let path: Vec<String> = path.split("][").map(str::to_owned).collect();
            let fine = path.iter().all(|name| !name.is_empty() && !name.contains(['[', ']']));
            fine.then(|| -> Named { Box::new(move |text| Principal::Claim(path.clone(), pattern("", text))) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals() {
        for (text, expect) in [
            ("*", r#"All([Claim(["iss"], Regex(".+")), Claim(["sub"], Regex(".+"))])"#),
            ("https://a/b", r#"All([Claim(["iss"], Exact("https://a")), Claim(["sub"], Exact("b"))])"#),
            ("*/b", r#"All([Claim(["iss"], Regex(".+")), Claim(["sub"], Exact("b"))])"#),
            ("*b", r#"All([Claim(["iss"], Regex(".+")), Claim(["sub"], Regex(".*b"))])"#),
        ] {
            assert_eq!(format!("{:?}", request_principal(text)), expect, "{text}");
        }
        assert!(attribute("request.auth.claims[a][b]").is_some());
        for key in ["request.auth.claims", "request.auth.claims[]", "request.headers[a]", "request.auth.x"] {
            assert!(attribute(key).is_none(), "{key}");
        }
    }
}
