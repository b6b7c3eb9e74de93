//! The API server alone, for trying it by hand: `cargo run -p diolkos-server --example serve -- /tmp/d 127.0.0.1:22000`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(listen)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: serve DIR ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    let Ok(listen) = listen.parse() else {
        eprintln!("{listen:?} is no ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    let config = diolkos_server::Config { listen, dashboard: None, ..diolkos_server::Config::new(dir) };
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    match diolkos_server::run(config, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
