use super::files::Pair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig with one cluster, the user with its client certificate as the current context, and optionally a token user.
pub(super) fn render(url: &str, ca_pem: &str, user: &str, pair: &Pair, token: Option<(&str, &str)>) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    let mut text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: diolkos\n  \
           cluster:\n    \
             server: {url}\n    \
             certificate-authority-data: {ca}\n\
         contexts:\n\
         - name: diolkos\n  \
           context:\n    \
             cluster: diolkos\n    \
             user: {user}\n\
         current-context: diolkos\n\
         users:\n\
         - name: {user}\n  \
           user:\n    \
             client-certificate-data: {certificate}\n    \
             client-key-data: {key}\n",
        ca = encode(ca_pem),
        certificate = encode(&pair.certificate_pem),
        key = encode(&pair.key_pem),
    );
    if let Some((name, token)) = token {
        text.push_str(&format!("- name: {name}\n  user:\n    token: {token}\n"));
    }
    text
}
