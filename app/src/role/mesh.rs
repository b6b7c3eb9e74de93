//! `diolkos mesh`.

mod status;

use super::{failed, runtime};
use crate::cli::{CommandError, MeshCommand, Output};
use crate::config::Config;
use bytes::Bytes;
use client::HttpsApi;
use http::Method;
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often is looked whether a succession of roots is over.
const LOOK: Duration = Duration::from_millis(500);

/// Carries out a command.
pub fn run(config: &Config, command: MeshCommand) -> Result<(), CommandError> {
    let api = super::admin(config)?;
    runtime(1)?.block_on(async {
        match command {
            MeshCommand::Status { output } => {
                let status = ask(&api, Method::GET, "/diolkos/v1/mesh").await?;
                if output == Output::Json {
                    return print(&status);
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
                print!("{}", status::text(&status, now));
                Ok(())
            }
            MeshCommand::RotateIntermediate => {
                ask(&api, Method::POST, "/diolkos/v1/mesh/rotate-intermediate").await?;
                println!("another intermediate signs");
                Ok(())
            }
            MeshCommand::RotateRoot { wait } => {
                print(&ask(&api, Method::POST, "/diolkos/v1/mesh/rotate-root").await?)?;
                while wait && !is_steady(&api).await? {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(())
            }
        }
    })
}

async fn ask(api: &HttpsApi, method: Method, path: &str) -> Result<Value, CommandError> {
    let answer = api.call(method, path, "", Bytes::new()).await.map_err(failed)?;
    let said: Value = serde_json::from_slice(&answer.body).map_err(failed)?;
    if answer.status.is_success() {
        return Ok(said);
    }
    Err(failed(said["message"].as_str().unwrap_or("the server answers with an error")))
}

async fn is_steady(api: &HttpsApi) -> Result<bool, CommandError> {
    Ok(ask(api, Method::GET, "/diolkos/v1/mesh").await?["trust"]["phase"] == "steady")
}

fn print(value: &Value) -> Result<(), CommandError> {
    println!("{}", serde_json::to_string_pretty(value).map_err(failed)?);
    Ok(())
}
