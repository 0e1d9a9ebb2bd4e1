//! Metrics as Prometheus reads them: its text format, version 0.0.4.
//!
//! Only form: escapes, suffixes and the buckets of histograms are the encoder's.

use std::fmt;

use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Family, Kind, Value};

pub fn encode(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gathered(families)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Gathered(Vec<Family>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in &family.samples {
                match sample.labels.as_slice() {
                    [] => put(&mut encoder, family.kind, &sample.value)?,
                    labels => put(&mut encoder.encode_family(&labels)?, family.kind, &sample.value)?,
                }
            }
        }
        Ok(())
    }
}

fn put(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (value, kind) {
        (Value::Whole(n), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Value::Real(n), Kind::Counter) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Value::Whole(n), _) => encoder.encode_gauge(n),
        (Value::Real(n), _) => encoder.encode_gauge(n),
        (Value::Durations(all), _) => encoder.encode_histogram::<NoLabelSet>(all.sum, all.count, &all.buckets, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Durations, Sample};

    #[test]
    fn a_label_may_hold_anything() {
        let labels = vec![("keyspace", "a\"b\\c\nd é".to_owned()), ("kind", String::new())];
        let samples = vec![Sample { labels, value: Value::Whole(u64::MAX) }];
        let family = Family { name: "hits", help: "Hits.", kind: Kind::Counter, samples };
        let expected = "# HELP hits_total Hits.\n# TYPE hits_total counter\n\
            hits_total{keyspace=\"a\\\"b\\\\c\\nd é\",kind=\"\"} 18446744073709551615\n";
        assert_eq!(encode(vec![family]).unwrap(), expected);
    }

    #[test]
    fn buckets_add_up_and_end_with_infinity() {
        let durations = Durations { sum: 0.5, count: 5, buckets: vec![(0.000_1, 1), (0.5, 2)] };
        let samples = vec![Sample { labels: Vec::new(), value: Value::Durations(durations) }];
        let text = encode(vec![Family { name: "t_seconds", help: "T.", kind: Kind::Histogram, samples }]).unwrap();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let buckets =
            ["t_seconds_bucket{le=\"0.0001\"} 1", "t_seconds_bucket{le=\"0.5\"} 3", "t_seconds_bucket{le=\"+Inf\"} 5"];
        assert_eq!(lines, [&buckets[..], &["t_seconds_sum 0.5", "t_seconds_count 5"]].concat());
    }
}
