//! The spans of a node, recorded and sent; and their way from node to node.
//!
//! Records the spans of the cache alone: those of libraries may hold queries and keys. The invariant: whoever ends a span never
//! waits for the collector; spans that it does not take in time are dropped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use distcache::{Propagator, Traceparent};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer, Registry};

use super::collector::Collector;

/// What the spans of the cache have as their target.
const TARGET: &str = "distcache::trace";
/// For what is left at the end.
const FAREWELL: Duration = Duration::from_secs(5);

pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Must be called within a tokio runtime; what is recorded is sent from there.
    pub fn recorded(collector: Arc<Collector>, ratio: f32) -> Self {
        // What another node records of a trace is recorded here, whatever the ratio here is: no trace has holes.
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio.into())));
        let exporter = Exporter { collector, runtime: Handle::current() };
        Self(SdkTracerProvider::builder().with_sampler(sampler).with_batch_exporter(exporter).build())
    }

    pub fn layer(&self) -> impl Layer<Registry> {
        let scope = InstrumentationScope::builder("distcache").with_version(env!("CARGO_PKG_VERSION")).build();
        let layer = tracing_opentelemetry::layer().with_tracer(self.0.tracer_with_scope(scope));
        let layer = layer.with_location(false).with_threads(false).with_target(false);
        layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::DEBUG))
    }

    pub async fn end(&self) {
        let provider = self.0.clone();
        // Whether the collector took it, it has said itself.
        let _ = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FAREWELL)).await;
    }
}

/// Called by a thread of the SDK's own, which waits for the answer here.
struct Exporter {
    collector: Arc<Collector>,
    runtime: Handle,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("collector", &self.collector).finish_non_exhaustive()
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let collector = self.collector.clone();
        let sent = self.runtime.spawn(async move {
            let resource = (&collector.resource()).into();
            let resource_spans = group_spans_by_resource_and_scope(batch, &resource);
            collector.send("/v1/traces", &ExportTraceServiceRequest { resource_spans }).await
        });
        if sent.await.unwrap_or(false) { Ok(()) } else { Err(OTelSdkError::InternalFailure("not taken".into())) }
    }
}

/// The W3C's trace context, as OpenTelemetry has it.
pub struct W3c;

impl Propagator for W3c {
    fn current(&self) -> Option<Traceparent> {
        let context = Span::current().context();
        let span = context.span();
        let place = span.span_context();
        Traceparent::new(place.trace_id().to_bytes(), place.span_id().to_bytes(), place.trace_flags().to_u8())
    }

    fn adopt(&self, span: &Span, remote: Traceparent) {
        let (trace, asking) = (TraceId::from_bytes(remote.trace_id()), SpanId::from_bytes(remote.span_id()));
        let flags = TraceFlags::new(remote.flags());
        let place = SpanContext::new(trace, asking, flags, true, TraceState::default());
        // Fails for a span that is not recorded: then there is nothing to connect.
        let _ = span.set_parent(Context::new().with_remote_span_context(place));
    }
}
