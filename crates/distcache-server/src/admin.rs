//! The admin API: what this node knows of itself, its peers and its keyspaces, as JSON.
//!
//! Field names are snake_case; durations end in `_ms`, sizes in `_bytes` or as the counters of the library are called.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use distcache::{Engine, KeyspaceInfo, KeyspaceStats, Peer, PeerState};
use serde_json::{Value, json};

use crate::http::{self, ApiError};
use crate::listener::{HEADERS_MAX, ListenerState};

mod settings;

pub fn router(engine: Engine, listeners: Vec<Arc<ListenerState>>) -> Router {
    let listeners = Router::new().route("/admin/listeners", get(self::listeners)).with_state(listeners.into());
    Router::new()
        .route("/admin/node", get(node))
        .route("/admin/peers", get(peers))
        .route("/admin/ring", get(ring))
        .route("/admin/keyspaces", get(keyspaces))
        .route("/admin/keyspaces/{name}", axum::routing::delete(delete).post(act))
        .route("/admin/hot-keys/{keyspace}", get(hot_keys))
        .route("/admin/owner/{keyspace}/{*key}", get(owner))
        .fallback(http::no_route)
        .method_not_allowed_fallback(http::no_method)
        .with_state(engine)
        .merge(listeners)
}

async fn node(State(engine): State<Engine>) -> Json<Value> {
    let refusals: serde_json::Map<String, Value> =
        engine.refusals().into_iter().map(|(reason, count)| (reason.name().to_owned(), count.into())).collect();
    Json(json!({ "node": peer(&engine.me()), "is_ready": engine.is_ready(), "refusals": refusals }))
}

async fn peers(State(engine): State<Engine>) -> Json<Value> {
    Json(json!({ "peers": engine.peers().iter().map(peer).collect::<Vec<_>>() }))
}

async fn ring(State(engine): State<Engine>) -> Json<Value> {
    let ring = engine.ring();
    let member = |one: &distcache::RingMember| json!({ "name": one.name, "weight": one.weight, "slots": one.slots });
    let members: Vec<Value> = ring.members.iter().map(member).collect();
    // As text: the readers of JSON in browsers round numbers of 64 bits.
    Json(json!({ "view": format!("{:016x}", ring.view), "slots": ring.slots, "members": members }))
}

async fn keyspaces(State(engine): State<Engine>) -> Json<Value> {
    let mut stats = engine.stats();
    let mut described = |info: KeyspaceInfo| {
        let at = stats.iter().position(|(name, _)| *name == info.name);
        keyspace(&info, &at.map(|at| stats.swap_remove(at).1).unwrap_or_default())
    };
    let keyspaces: Vec<Value> = engine.keyspaces().into_iter().map(&mut described).collect();
    Json(json!({ "keyspaces": keyspaces }))
}

/// How many hot keys are shown unless told.
const HOT_KEYS_SHOWN: usize = 20;

#[derive(serde::Deserialize)]
struct Shown {
    limit: Option<usize>,
}

async fn hot_keys(
    State(engine): State<Engine>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Shown>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let (Path(keyspace), Query(shown)) = (path?, query?);
    let hottest = engine.keyspace(&keyspace)?.hot_keys(shown.limit.unwrap_or(HOT_KEYS_SHOWN));
    let keys = hottest.iter().map(|hot| json!({ "key": hot.key, "reads_per_second": hot.reads_per_second }));
    Ok(Json(json!({ "keyspace": keyspace, "hot_keys": keys.collect::<Vec<_>>() })))
}

async fn listeners(State(listeners): State<Arc<[Arc<ListenerState>]>>) -> Json<Value> {
    Json(json!({ "listeners": listeners.iter().map(|one| listener(one)).collect::<Vec<_>>() }))
}

async fn owner(
    State(engine): State<Engine>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path((keyspace, key)) = path?;
    let owner = engine.owner_of(&keyspace, &key)?;
    Ok(Json(json!({ "keyspace": keyspace, "key": key, "owner": peer(&owner) })))
}

async fn act(State(engine): State<Engine>, path: Result<Path<String>, PathRejection>) -> Result<StatusCode, ApiError> {
    let Path(path) = path?;
    let name = path.strip_suffix(":clear").ok_or_else(ApiError::no_route)?;
    engine.clear_keyspace(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete(
    State(engine): State<Engine>,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(name) = path?;
    engine.delete_keyspace(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn peer(peer: &Peer) -> Value {
    let state = match peer.state {
        PeerState::Joining => "joining",
        PeerState::Ready => "ready",
        PeerState::Draining => "draining",
        _ => "other",
    };
    json!({
        "name": peer.name,
        "state": state,
        "is_self": peer.is_self,
        "incarnation": peer.incarnation.to_string(),
        "peer_addr": bound(peer.peer_addr),
        "gossip_addr": bound(peer.gossip_addr),
        "admin_addr": peer.admin_addr,
        "zone": peer.zone,
        "weight": peer.weight,
        "version": peer.version,
    })
}

fn keyspace(info: &KeyspaceInfo, stats: &KeyspaceStats) -> Value {
    json!({
        "name": info.name,
        "generation": info.generation,
        "settings": settings::settings(&info.settings),
        "stats": stats,
    })
}

fn listener(listener: &ListenerState) -> Value {
    let limits = &listener.limits;
    let counters: serde_json::Map<String, Value> =
        listener.counters.named().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    json!({
        "name": listener.name,
        "url": listener.url(),
        "limits": {
            "connections_max": limits.connections_max,
            "header_timeout_ms": limits.header_timeout.as_millis() as u64,
            "header_bytes_max": limits.header_bytes_max,
            "headers_max": HEADERS_MAX,
            "body_timeout_ms": limits.body_timeout.as_millis() as u64,
            "idle_timeout_ms": limits.idle_timeout.as_millis() as u64,
            "write_timeout_ms": limits.write_timeout.as_millis() as u64,
            "handshake_timeout_ms": limits.handshake_timeout.as_millis() as u64,
        },
        "connections_open": listener.connections_open(),
        "stats": counters,
    })
}

/// A node by itself listens to nobody.
fn bound(addr: SocketAddr) -> Option<SocketAddr> {
    (addr.port() != 0).then_some(addr)
}
