use crate::config::Config;

/// Sends what the role has to say to stderr, where `diolkos up` puts it into the role's log file.
pub fn init(config: &Config) {
    let builder = tracing_subscriber::fmt().with_max_level(config.log).with_writer(std::io::stderr).with_ansi(false);
    if config.log_json {
        builder.json().init();
    } else {
        builder.init();
    }
}
