//! While there is more than one root, mesh control is told what this process trusts and what rests on which of them: a root goes only when
//! nobody needs it any more.
use super::connection::Connection;
use crate::identity::Identities;
use crate::identity::trust::RootId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xds::trust::{REASONS_LIMIT, REPORT_PATH, TrustReport, TrustReportResponse};

/// How often is looked for changes, while there is more than one root.
const LOOK: Duration = Duration::from_millis(250);
/// What did not change is said again after this: mesh control forgets who says nothing.
const REPEAT: Duration = Duration::from_secs(10);

/// Reports over a connection until it is closed.
pub async fn run(identities: Arc<Identities>, connection: Connection) {
    let mut changes = identities.anchors().changes();
    let mut said: Option<(Instant, TrustReport)> = None;
    loop {
        let trusted = changes.borrow_and_update().ids();
        if trusted.len() < 2 {
            said = None;
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        let report = TrustReport {
            process: std::process::id().into(),
            trusted: names(&trusted),
            rests_on: names(&identities.rests_on()),
            because: Vec::new(),
        };
        let news = said.as_ref().is_none_or(|(at, last)| *last != report || at.elapsed() >= REPEAT);
        if news {
            // For people. It changes with each connection, which is no news.
            let whole = TrustReport { because: identities.rests_on_others(REASONS_LIMIT), ..report.clone() };
            let heard: Result<TrustReportResponse, _> = connection.unary(REPORT_PATH, whole).await;
            match heard {
                Ok(_) => said = Some((Instant::now(), report)),
                Err(error) => tracing::debug!(%error, "the report about roots was not heard"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn names(roots: &BTreeSet<RootId>) -> Vec<String> {
    roots.iter().map(ToString::to_string).collect()
}
