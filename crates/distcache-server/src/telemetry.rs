//! What this process says of itself without being asked: lines on standard error, and with the feature `otlp` traces and metrics
//! for a collector.
//!
//! Knows neither keys nor sources. The invariant: a collector that is slow or down holds up nothing but the end of the process,
//! by a moment, and is one line in the log.

use std::io::IsTerminal;

use distcache::EngineBuilder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::TelemetryConfig;
use crate::metrics::Metrics;

#[cfg(feature = "otlp")]
mod collector;
#[cfg(feature = "otlp")]
mod metrics;
#[cfg(feature = "otlp")]
mod traces;

/// A section of the configuration that this build can do nothing with.
#[derive(Debug, thiserror::Error)]
#[error("this build knows no collector, as [telemetry] names one; build it with the cargo feature `otlp` or `full`")]
pub struct NotBuiltIn;

/// Lines on standard error, for commands.
pub fn log() {
    tracing_subscriber::registry().with(lines()).init();
}

/// Whether this build can do what the configuration says.
pub fn check(config: Option<&TelemetryConfig>) -> Result<(), NotBuiltIn> {
    if config.is_some() && cfg!(not(feature = "otlp")) { Err(NotBuiltIn) } else { Ok(()) }
}

/// `RUST_LOG` picks levels by target: `debug`, or `info,distcache=debug`.
fn lines<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let levels = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let is_coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_coloured).with_filter(levels)
}

/// What a node says of itself.
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    sent: Option<Sent>,
}

/// What goes to a collector.
#[cfg(feature = "otlp")]
struct Sent {
    collector: std::sync::Arc<collector::Collector>,
    traces: traces::Traces,
    /// Once there is a node to measure.
    metrics: std::sync::OnceLock<Metrics>,
}

#[cfg(not(feature = "otlp"))]
impl Telemetry {
    pub fn start(config: Option<&TelemetryConfig>) -> Result<Self, NotBuiltIn> {
        log();
        check(config).map(|()| Self {})
    }

    pub fn connect(&self, builder: EngineBuilder) -> EngineBuilder {
        builder
    }

    pub fn watch(&self, _: &str, _: &Metrics, _: &CancellationToken, _: &TaskTracker) {}

    pub async fn end(&self) {}
}

#[cfg(feature = "otlp")]
impl Telemetry {
    /// From here on there is a log, and traces if they are asked for. Once for the process.
    pub fn start(config: Option<&TelemetryConfig>) -> Result<Self, NotBuiltIn> {
        let Some(config) = config else {
            log();
            return Ok(Self { sent: None });
        };
        let collector = std::sync::Arc::new(collector::Collector::of(config));
        let traces = traces::Traces::recorded(collector.clone(), config.sample_ratio);
        tracing_subscriber::registry().with(traces.layer()).with(lines()).init();
        Ok(Self { sent: Some(Sent { collector, traces, metrics: std::sync::OnceLock::new() }) })
    }

    /// Lets traces cross from node to node.
    pub fn connect(&self, builder: EngineBuilder) -> EngineBuilder {
        if self.sent.is_some() { builder.propagator(traces::W3c) } else { builder }
    }

    /// Sends the metrics of this node from time to time.
    pub fn watch(&self, node: &str, metrics: &Metrics, stop: &CancellationToken, tasks: &TaskTracker) {
        if let Some(sent) = &self.sent {
            sent.collector.is_of(node);
            let metrics = sent.metrics.get_or_init(|| metrics.clone());
            let repeated = self::metrics::repeat(sent.collector.clone(), metrics.clone());
            tasks.spawn(stop.clone().run_until_cancelled_owned(repeated));
        }
    }

    /// Sends the metrics once more, and what is left of the traces.
    pub async fn end(&self) {
        let Some(Sent { collector, traces, metrics }) = &self.sent else { return };
        let last = async {
            if let Some(metrics) = metrics.get() {
                self::metrics::send(collector, metrics).await;
            }
        };
        futures_util::future::join(last, traces.end()).await;
    }
}
