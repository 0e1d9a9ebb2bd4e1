//! An OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! Knows neither traces nor metrics; does not send again what was not taken. The invariant: a message is given up after a while,
//! and a collector that is out is said once, not once a message.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use prost::Message;

use crate::call::{CallError, Connection, NodeUrl, Trust};
use crate::config::TelemetryConfig;

/// From the opening of the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Collector {
    url: NodeUrl,
    service_name: String,
    /// The name of this node, once it has one.
    node: OnceLock<String>,
    is_out: AtomicBool,
}

impl Collector {
    pub fn of(config: &TelemetryConfig) -> Self {
        let (url, service_name) = (config.endpoint.clone(), config.service_name.clone());
        Self { url, service_name, node: OnceLock::new(), is_out: AtomicBool::new(false) }
    }

    /// What is sent from here on is of this node.
    pub fn is_of(&self, node: &str) {
        let _ = self.node.set(node.to_owned());
    }

    /// Who sends, as OpenTelemetry names it.
    pub fn resource(&self) -> Resource {
        let resource = Resource::builder_empty()
            .with_service_name(self.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let node = self.node.get().map(|node| KeyValue::new("service.instance.id", node.clone()));
        resource.with_attributes(node).build()
    }

    /// Whether it was taken.
    pub async fn send(&self, path: &str, message: &impl Message) -> bool {
        let sent = tokio::time::timeout(PATIENCE, self.post(path, message.encode_to_vec())).await;
        match sent.unwrap_or_else(|_| Err(CallError::Timeout { url: self.url.clone(), limit: PATIENCE })) {
            Ok(()) => {
                if self.is_out.swap(false, Relaxed) {
                    tracing::info!("the collector of traces and metrics takes them again");
                }
                true
            }
            Err(error) => {
                if !self.is_out.swap(true, Relaxed) {
                    tracing::warn!(%error, "traces and metrics are lost: the collector does not take them");
                }
                false
            }
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<(), CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let mut connection = Connection::open(&self.url, &Trust::default(), PATIENCE).await?;
        connection.call_with(Method::POST, path, headers, body.into(), PATIENCE).await.map(drop)
    }
}
