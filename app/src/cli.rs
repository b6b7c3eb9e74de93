//! The command line.

use crate::config::{Config, ConfigError, Settings};
use crate::{logging, role, supervisor};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// Nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A role could not start or broke down.
    #[error("{0}")]
    Role(String),
    /// The user asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

impl CommandError {
    /// As sysexits.h: 78 configuration, 64 usage; 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Config(_) => 78,
            CommandError::Usage(_) => 64,
            CommandError::Role(_) => 1,
        }
    }
}

/// One pool of machines, one mesh over everything in it.
#[derive(Parser)]
#[command(name = "diolkos", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine: API server, controllers, node agent, proxy, dashboard, containerd.
    Up(UpArgs),
    /// Run the API server, the controllers, the scheduler and mesh control.
    Server,
    /// Run the node agent.
    Node,
    /// Run the node's proxy. Where one runs already it takes over from it.
    Proxy(ProxyArgs),
    /// Join a process on a machine that is no node to the mesh.
    Join(JoinArgs),
    /// The proxy of a joined host: `join` starts it.
    #[command(hide = true)]
    Host,
    /// Container images on this machine.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Tokens: to join workloads, and to sign in to the dashboard.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The mesh as it runs.
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Play a pool and its pods through under several placement policies: a capacity planner.
    Simulate(role::simulate::SimulateArgs),
    /// Stop what still runs and remove the data and run directories: everything is gone afterwards.
    Reset,
    /// Print the version.
    Version,
}

#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// Leave the pods running when the platform is stopped (by default they are stopped in order, and started again by the next `up`).
    #[arg(long)]
    pub leave_pods: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    #[command(subcommand)]
    pub command: Option<ProxyCommand>,
}

#[derive(Subcommand, Clone, Debug)]
pub enum ProxyCommand {
    /// Put a proxy of the binary that is on disk now in the place of the one that `diolkos up` or `diolkos join` runs, without a failed request.
    Upgrade,
}

/// What a legacy workload says of itself.
#[derive(Args, Clone, Debug)]
pub struct JoinArgs {
    /// Made by `diolkos token create`. A host that has joined needs none as long as its certificate is valid.
    #[arg(long, env = "DIOLKOS_JOIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Mesh control of the platform, HOST:PORT.
    #[arg(long)]
    pub control: String,
    /// The platform's CA (DATA_DIR/pki/ca.crt there), to verify mesh control with before the token is sent.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The Service under which it is reached.
    #[arg(long)]
    pub service: String,
    /// Namespace of that Service.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// The port on which the process listens on this machine.
    #[arg(long)]
    pub port: u16,
    /// Protocol of that port: http, http2, grpc or tcp.
    #[arg(long, default_value = "http")]
    pub protocol: String,
    /// This machine's address, as the pool's machines reach it [default: --node-ip].
    #[arg(long)]
    pub address: Option<IpAddr>,
    /// An Envoy on this machine serves the process, in place of our own proxy: its bootstrap is written to DATA_DIR/join/envoy.json, and the certificate
    /// that it shows to mesh control is kept fresh. `listen`: it has the port on this machine's address, and the process on loopback; `capture`: iptables
    /// sends what comes in to its port 15006.
    #[arg(long, value_name = "HOW")]
    pub envoy: Option<Inbound>,
    /// Users whose processes get the host's identity from the SPIFFE Workload API, beside root and the user that runs this: names or numbers.
    #[arg(long, value_name = "USER,...", value_delimiter = ',')]
    pub workload_api_users: Vec<String>,
    /// Groups whose processes get it, by their own group or a supplementary one: names or numbers.
    #[arg(long, value_name = "GROUP,...", value_delimiter = ',')]
    pub workload_api_groups: Vec<String>,
}

/// How connections come to an Envoy beside a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Inbound {
    /// It listens where the process would.
    Listen,
    /// iptables brings them.
    Capture,
}

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Load an image from a tar archive (OCI layout or `docker save`).
    Load { archive: PathBuf },
    /// Show the images.
    List,
    /// Remove an image.
    Rm { image: String },
    /// Pull an image from a registry.
    Pull { image: String },
    /// Make an image of one static binary, as an OCI archive.
    Build {
        /// The binary; it becomes the entry point.
        #[arg(long)]
        binary: PathBuf,
        /// Name of the image, such as example.com/shop/frontend:1.
        #[arg(long)]
        name: String,
        /// The archive to write.
        #[arg(long)]
        output: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum TokenCommand {
    /// A token with which a workload may join, valid for a day.
    Create {
        /// Hours until it ends.
        #[arg(long, default_value_t = 24)]
        hours: u32,
        /// It joins workloads to this namespace alone.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        namespace: Option<String>,
        /// It joins workloads as this service alone.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        service: Option<String>,
    },
    /// A token to sign in to the dashboard (of the ServiceAccount diolkos-dashboard), valid for a day.
    Dashboard,
}

#[derive(Subcommand)]
pub enum MeshCommand {
    /// Which proxy runs the newest of everything, what is behind, and what it refused and why.
    Status {
        /// As text, or as JSON with each version of each type.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Replace the mesh's root certificate: the old one is trusted until nothing rests on it any more.
    RotateRoot {
        /// Stay until the old root is gone.
        #[arg(long)]
        wait: bool,
    },
    /// Sign workload certificates with a new intermediate.
    RotateIntermediate,
}

/// In which form something is printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Text,
    Json,
}

/// The command line, whose short help (`-h`) leaves out most of the settings: they are the same for every command, and many.
fn parser() -> clap::Command {
    const SHORT: [&str; 3] = ["config", "data_dir", "run_dir"];
    Cli::command().mut_args(|arg| {
        let long = arg.is_global_set() && !SHORT.contains(&arg.get_id().as_str());
        if long { arg.hide_short_help(true) } else { arg }
    })
}

/// Parses the command line and runs the command to its end.
pub fn run() -> Result<(), CommandError> {
    let Cli { settings, command } = Cli::from_arg_matches(&parser().get_matches()).unwrap_or_else(|error| error.exit());
    let config = settings.resolve()?;
    match command {
        Command::Up(args) => supervisor::up(config, args),
        Command::Server => with_logs(config, role::server::run),
        Command::Node => with_logs(config, role::node::run),
        Command::Proxy(ProxyArgs { command: None }) => with_logs(config, role::proxy::run),
        Command::Proxy(ProxyArgs { command: Some(ProxyCommand::Upgrade) }) => role::proxy::upgrade(&config),
        Command::Join(args) => with_logs(config, |config| role::join::run(config, args)),
        Command::Host => with_logs(config, role::host::run),
        Command::Image(command) => role::image::run(&config, command),
        Command::Token(command) => role::token::run(&config, command),
        Command::Mesh(command) => role::mesh::run(&config, command),
        Command::Simulate(args) => role::simulate::run(&args),
        Command::Reset => role::reset::run(&config),
        Command::Version => {
            println!("diolkos {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn with_logs(config: Config, role: impl FnOnce(Config) -> Result<(), CommandError>) -> Result<(), CommandError> {
    logging::init(&config);
    role(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A variable that is not set must not make a token for everything of one for something.
    #[test]
    fn a_token_is_not_for_a_name_that_is_empty() {
        for (arguments, good) in [
            (&["--namespace", "shop", "--service", "inventory"][..], true),
            (&["--namespace", ""], false),
            (&["--namespace", "shop", "--service="], false),
            (&[], true),
        ] {
            let line = ["diolkos", "token", "create"].into_iter().chain(arguments.iter().copied());
            assert_eq!(parser().try_get_matches_from(line).is_ok(), good, "{arguments:?}");
        }
    }
}
