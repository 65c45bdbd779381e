//! The log: standard error, as lines or as JSON.

use tracing_subscriber::{EnvFilter, fmt};

use super::cli::LogFormat;

/// Starts logging.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("SMARTSCALE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        // systemd's journal has a time of its own, and no colours.
        LogFormat::Text => builder.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        eprintln!("smartscale-agent: no log: {error}");
    }
}
