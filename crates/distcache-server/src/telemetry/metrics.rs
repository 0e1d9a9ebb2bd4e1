//! Metrics as OTLP has them: the same names, without the suffix of counters, which collectors add where Prometheus reads them.

use std::env;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use tokio::time::MissedTickBehavior;

use super::collector::Collector;
use crate::metrics::{Durations, Family, Kind, Metrics, Sample, Value};

/// As in OpenTelemetry's own SDKs, and set by their variable, in milliseconds.
const EVERY: Duration = Duration::from_secs(60);
const EVERY_ENV: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// Sends now and then, without an end.
pub async fn repeat(collector: Arc<Collector>, metrics: Metrics) {
    let every = env::var(EVERY_ENV).ok().and_then(|millis| millis.parse().ok()).filter(|millis| *millis > 0);
    let mut ticks = tokio::time::interval(every.map_or(EVERY, Duration::from_millis));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        send(&collector, &metrics).await;
    }
}

pub async fn send(collector: &Collector, metrics: &Metrics) {
    collector.send("/v1/metrics", &message(collector, metrics)).await;
}

fn message(collector: &Collector, metrics: &Metrics) -> ExportMetricsServiceRequest {
    let resource = ResourceAttributesWithSchema::from(&collector.resource());
    let scope = InstrumentationScope {
        name: "distcache".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let span = Span { from: nanos(metrics.started()), to: nanos(SystemTime::now()) };
    let metrics = metrics.gather().into_iter().map(|family| metric(family, span)).collect();
    let resource =
        opentelemetry_proto::tonic::resource::v1::Resource { attributes: resource.attributes.0, ..Default::default() };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
    let all = ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }
}

/// The time that a number stands for.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

fn metric(family: Family, span: Span) -> Metric {
    let numbers = |samples: Vec<Sample>| samples.into_iter().filter_map(|sample| number(sample, span)).collect();
    let data = match family.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(family.samples) }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(family.samples),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Kind::Histogram => {
            let points = family.samples.into_iter().filter_map(|sample| histogram(sample, span));
            Data::Histogram(Histogram { data_points: points.collect(), aggregation_temporality: CUMULATIVE })
        }
    };
    let unit = match family.name {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "1",
    };
    Metric {
        name: family.name.into(),
        description: family.help.into(),
        unit: unit.into(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(sample: Sample, span: Span) -> Option<NumberDataPoint> {
    let value = match sample.value {
        Value::Whole(n) => Number::AsInt(n.try_into().unwrap_or(i64::MAX)),
        Value::Real(n) => Number::AsDouble(n),
        Value::Durations(_) => return None,
    };
    Some(NumberDataPoint {
        attributes: attributes(sample.labels),
        start_time_unix_nano: span.from,
        time_unix_nano: span.to,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(sample: Sample, span: Span) -> Option<HistogramDataPoint> {
    let Value::Durations(Durations { sum, count, buckets }) = sample.value else { return None };
    let (bounds, mut counts): (Vec<f64>, Vec<u64>) = buckets.into_iter().unzip();
    // One more than there are bounds: what is beyond the last.
    counts.push(count - counts.iter().sum::<u64>());
    Some(HistogramDataPoint {
        attributes: attributes(sample.labels),
        start_time_unix_nano: span.from,
        time_unix_nano: span.to,
        count,
        sum: Some(sum),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    })
}

fn attributes(labels: Vec<(&'static str, String)>) -> Vec<KeyValue> {
    let attribute = |(key, value): (&'static str, String)| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value)) }),
        ..KeyValue::default()
    };
    labels.into_iter().map(attribute).collect()
}
