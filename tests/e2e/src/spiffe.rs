//! What an application does with the SPIFFE Workload API, by the Python package `spiffe`.

use crate::platform::binary;
use crate::shell::run;
use std::path::PathBuf;
use std::process::Command;

/// Fetches everything that there is to fetch at `SPIFFE_ENDPOINT_SOCKET`, as the identity that the first argument names, and says `all good`.
pub const SCRIPT: &str = r#"
import sys
from spiffe import JwtSvid, SpiffeId, TrustDomain, WorkloadApiClient

own, audience = sys.argv[1], "shop"
domain = TrustDomain("cluster.local")
with WorkloadApiClient() as client:
    context = client.fetch_x509_context(timeout=20)
    svid = context.default_svid
    assert str(svid.spiffe_id) == own, svid.spiffe_id
    assert svid.private_key.public_key() == svid.leaf.public_key(), "the key is another's"
    # From the leaf to what the bundle holds, each is signed by the next.
    roots = context.x509_bundle_set.get_bundle_for_trust_domain(domain).x509_authorities
    for lower, upper in zip(svid.cert_chain, svid.cert_chain[1:]):
        lower.verify_directly_issued_by(upper)
    top = svid.cert_chain[-1]
    if top not in roots:
        top.verify_directly_issued_by(next(root for root in roots if root.subject == top.issuer))
    token = client.fetch_jwt_svid(audience={audience, "other"}, timeout=20)
    assert str(token.spiffe_id) == own and token.audience == {audience, "other"}, token.audience
    # By the platform, and by the client itself with the keys that it is told.
    assert str(client.validate_jwt_svid(token.token, audience=audience).spiffe_id) == own
    keys = client.fetch_jwt_bundles(timeout=20).get_bundle_for_trust_domain(domain)
    assert str(JwtSvid.parse_and_validate(token.token, keys, {audience}).spiffe_id) == own
    for wrong in (lambda: client.validate_jwt_svid(token.token, audience="nobody"),
                  lambda: client.validate_jwt_svid(token.token[:-8] + "AAAAAAAA", audience=audience),
                  lambda: client.fetch_jwt_svid(audience={audience}, subject=SpiffeId("spiffe://cluster.local/ns/default/sa/king"))):
        try:
            wrong()
        except Exception:
            continue
        raise SystemExit("something was given that should have been refused")
print("all good")
"#;

/// A Python that can import `spiffe`.
pub fn python() -> Option<PathBuf> {
    let can = |python: &PathBuf| run(Command::new(python).args(["-c", "import spiffe"]), None).ok;
    binary("PYTHON").filter(can)
}
