//! The log: standard error, as lines or as JSON.

use tracing_subscriber::{
    Layer as _, Registry, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::cli::LogFormat;

/// Starts logging.
pub(crate) fn start(format: LogFormat) {
    // `Targets` and not `EnvFilter`: what the latter can do beyond (spans, fields) is not worth a regex engine on every worker.
    let wanted = std::env::var("SMARTSCALE_LOG").unwrap_or_default();
    let filter = wanted.parse::<Targets>().ok().filter(|_| !wanted.is_empty());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        // systemd's journal has a time of its own, and no colours.
        LogFormat::Text => layer.with_ansi(false).with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let started = Registry::default().with(layer.with_filter(filter)).try_init();
    if let Err(error) = started {
        eprintln!("smartscale-agent: no log: {error}");
    }
}
