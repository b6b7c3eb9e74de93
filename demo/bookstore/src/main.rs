//! A small bookstore: gateway -> frontend -> catalog, reviews (v1, v2) -> ratings, and a legacy inventory. One static binary, told by its first
//! argument what to be. Every service says in its answer who called it, as the mesh proved it, so the whole path can be read off one answer.

mod call;
mod echo;
mod health;
mod load;
mod serve;
mod services;

use std::process::ExitCode;

const USAGE: &str = "usage: bookstore frontend|catalog|reviews|ratings|inventory
       bookstore load --url URL --rate N --seconds S --output FILE [--host NAME] [--protocol http1|http2|grpc|stream]

Services read PORT (default 8080), VERSION (default v1) and the addresses of the others:
CATALOG_URL, REVIEWS_URL, RATINGS_URL, INVENTORY_URL.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bookstore: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match arguments.split_first() {
        Some((role, rest)) if role == "load" => runtime.block_on(load::run(rest)),
        Some((role, [])) => match services::Role::parse(role) {
            Some(role) => runtime.block_on(serve::run(role)),
            None => Err(USAGE.to_owned()),
        },
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookstore: {error}");
            ExitCode::FAILURE
        }
    }
}
