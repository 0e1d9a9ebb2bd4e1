//! Whether this node lives, and whether it wants work: for load balancers and schedulers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use distcache::{Engine, PeerState};
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Health {
    engine: Engine,
    is_draining: Arc<AtomicBool>,
}

impl Health {
    pub fn of(engine: Engine) -> Self {
        Self { engine, is_draining: Arc::default() }
    }

    /// From now on the node asks for no new work.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    pub fn router(&self) -> Router {
        let routes = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
        routes.with_state(self.clone())
    }

    fn unready(&self) -> Option<&'static str> {
        if self.is_draining.load(Relaxed) {
            return Some("draining");
        }
        if self.engine.is_ready() {
            return None;
        }
        Some(match self.engine.me().state {
            PeerState::Joining => "joining",
            _ => "draining",
        })
    }
}

async fn healthz() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

async fn readyz(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    match health.unready() {
        None => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not_ready", "reason": reason }))),
    }
}
