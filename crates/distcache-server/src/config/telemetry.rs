//! The section `[telemetry]`: where traces and metrics are sent.

use super::error::Reason;
use super::section::Section;
use crate::call::NodeUrl;

/// Under which a collector files what it gets.
const SERVICE_NAME: &str = "distcache";
/// Enough to see what is slow, at a tenth of the cost.
const SAMPLE_RATIO: f32 = 0.1;

#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// Of a collector that speaks OTLP over HTTP.
    pub endpoint: NodeUrl,
    pub service_name: String,
    /// The part of the traces begun at this node that is recorded, from 0 to 1.
    pub sample_ratio: f32,
}

pub(super) fn telemetry(root: &mut Section<'_>) -> Result<Option<TelemetryConfig>, Reason> {
    const EXPECTED: &str = "where a collector speaks OTLP over HTTP, such as \"http://127.0.0.1:4318\"";
    let known = ["otlp_endpoint", "service_name", "sample_ratio"];
    let Some(mut section) = root.optional("telemetry", &known, &[])? else { return Ok(None) };
    let endpoint = section
        .parsed("otlp_endpoint", EXPECTED, |text| text.starts_with("http://").then(|| text.parse().ok()).flatten())?;
    Ok(Some(TelemetryConfig {
        endpoint: endpoint.ok_or_else(|| section.missing("otlp_endpoint", EXPECTED))?,
        service_name: section.string("service_name")?.unwrap_or_else(|| SERVICE_NAME.into()),
        sample_ratio: section.part("sample_ratio")?.unwrap_or(SAMPLE_RATIO),
    }))
}
