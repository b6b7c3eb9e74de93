//! `diolkos mesh`.

use super::{failed, runtime};
use crate::cli::CommandError;
use crate::config::Config;
use bytes::Bytes;
use client::HttpsApi;
use http::Method;

/// Prints what each proxy runs.
pub fn status(config: &Config) -> Result<(), CommandError> {
    let api = HttpsApi::from_kubeconfig(&config.admin_kubeconfig()).map_err(failed)?;
    let answer = runtime(1)?.block_on(api.call(Method::GET, "/diolkos/v1/mesh", "", Bytes::new())).map_err(failed)?;
    if !answer.status.is_success() {
        return Err(failed(String::from_utf8_lossy(&answer.body)));
    }
    let report: serde_json::Value = serde_json::from_slice(&answer.body).map_err(failed)?;
    println!("{}", serde_json::to_string_pretty(&report).map_err(failed)?);
    Ok(())
}
