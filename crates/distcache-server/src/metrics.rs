//! What a node measures, by name, for monitoring systems: gathered when somebody looks.
//!
//! In reading order: this file (what a metric is, and where it is asked for), [`keyspaces`] and [`node`] (what there is to
//! measure), [`text`] (as Prometheus reads it). Knows nothing of how a number came about. The invariants: names follow the
//! conventions of Prometheus (base units, `_total` for what only grows); each family stands once, with a help text; no label
//! holds a key.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use distcache::Engine;

use crate::http::ApiError;
use crate::listener::ListenerState;

mod keyspaces;
mod node;
mod text;

/// All measurements of one name.
#[derive(Debug)]
pub struct Family {
    /// Without the `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from the start of the process.
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
pub struct Sample {
    pub labels: Vec<(&'static str, String)>,
    pub value: Value,
}

#[derive(Debug)]
pub enum Value {
    Whole(u64),
    Real(f64),
    Durations(Durations),
}

/// In seconds.
#[derive(Debug)]
pub struct Durations {
    pub sum: f64,
    pub count: u64,
    /// Upper bounds, and how many are within each but in none before it.
    pub buckets: Vec<(f64, u64)>,
}

/// Where the numbers of a node are read.
#[derive(Clone)]
pub struct Metrics {
    engine: Engine,
    listeners: Arc<[Arc<ListenerState>]>,
    started: SystemTime,
}

impl Metrics {
    /// Of a process that has just started.
    pub fn of(engine: Engine, listeners: Vec<Arc<ListenerState>>) -> Self {
        Self { engine, listeners: listeners.into(), started: SystemTime::now() }
    }

    pub fn router(&self) -> Router {
        Router::new().route("/metrics", get(metrics)).with_state(self.clone())
    }

    /// When what only grows was zero.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "Prometheus is told as a metric"))]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    pub fn gather(&self) -> Vec<Family> {
        let mut families = node::families(&self.engine, &self.listeners, self.started);
        families.extend(keyspaces::families(&self.engine));
        families
    }
}

async fn metrics(State(metrics): State<Metrics>) -> Result<Response, ApiError> {
    let text = text::encode(metrics.gather()).map_err(|_| ApiError::internal("the metrics cannot be written"))?;
    Ok(([(CONTENT_TYPE, text::CONTENT_TYPE)], text).into_response())
}
