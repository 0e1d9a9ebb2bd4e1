//! One of every message, for tests and as what fuzzing begins with.

use std::time::Duration;

use super::{
    Answer, Get, GetMany, HandedOver, Lost, Named, Parted, PutEntry, Request, Response, Told, ToldChange, Value,
};
use crate::error::{Error, Overload, PeerFailure, Unreached};
use crate::partings;
use crate::ring::NodeId;
use crate::source::SourceError;
use crate::trace::Traceparent;

pub(super) const USERS: Named<'static> = Named { name: "users", generation: 7, trace: None };
/// The same, asked within a trace.
pub(super) const TRACED: Named<'static> = Named { trace: Traceparent::new([7; 16], [9; 8], 1), ..USERS };

/// Every kind of request.
pub(super) fn requests() -> Vec<Request<'static>> {
    let deadline = Duration::from_millis(1_234);
    vec![
        Request::Get(Get { keyspace: USERS, key: "ключ", wants_copy: true, deadline }),
        Request::Get(Get { keyspace: TRACED, key: "k", wants_copy: false, deadline }),
        Request::GetMany { get: GetMany { keyspace: USERS, keys: vec![("a", true), ("b", false)], deadline } },
        Request::Put {
            keyspace: USERS,
            entries: vec![
                PutEntry { key: "a", value: b"", ttl: None },
                PutEntry { key: "b", value: &[0, 255], ttl: Some(deadline) },
            ],
        },
        Request::Delete { keyspace: USERS, keys: vec!["a", "b"], hold: deadline },
        Request::Invalidate { keyspace: USERS, hashes: vec![1, u64::MAX], is_relayed: true },
        Request::Peek { keyspace: USERS, keys: vec!["a"] },
        Request::HandOver {
            keyspace: USERS,
            entries: vec![HandedOver { key: "a", value: &[0, 255], age: deadline, remaining: None }],
        },
        Request::Tell { keyspace: USERS, told: told(None) },
        Request::Tell { keyspace: USERS, told: told(Some(Lost { age: deadline, slots: &[1, 2, 3] })) },
        Request::DropCopies { keyspace: USERS, slots: &[1, 2, 3] },
        Request::Part {
            out_of_sight: vec![partings::OutOfSight { life: life(1, u64::MAX), age: Duration::from_millis(3) }],
        },
        Request::Missed,
        Request::Warm { keyspace: USERS, keys: vec!["a", "ключ"] },
        Request::Refresh { keyspace: USERS, key: "k", deadline },
        Request::Registry(b"state"),
        Request::Cancel,
        Request::Ping,
    ]
}

fn life(id: u64, incarnation: u64) -> partings::Life {
    partings::Life { id: NodeId(id), incarnation }
}

fn told(lost: Option<Lost<'static>>) -> Told<'static> {
    let age = Duration::from_millis(77);
    Told {
        changes: vec![ToldChange { hash: 5, age, hold: Duration::ZERO }, ToldChange { hash: 6, age, hold: age }],
        lost,
    }
}

/// Every kind of error.
fn errors() -> Vec<Error> {
    let unavailable = Error::PeerUnavailable { peer: "b".into(), reason: PeerFailure::Refused("why".into()) };
    vec![
        Error::NotFound,
        Error::Source(SourceError::unavailable("down")),
        Error::Source(SourceError::failed("broken")),
        Error::SourcePanicked { message: "oh".into() },
        Error::LoadTimeout { limit: Duration::from_secs(1) },
        Error::Timeout { limit: Duration::from_millis(20) },
        Error::RateLimited { retry_after: Duration::from_millis(20) },
        Error::CircuitOpen { retry_after: Duration::from_millis(20) },
        Error::KeyspaceNotFound { name: "users".into() },
        Error::KeyspaceExists { name: "users".into() },
        Error::KeyTooLarge { len: 2, max: 1 },
        Error::KeyEmpty,
        Error::ValueTooLarge { len: 2, max: 1 },
        Error::BatchTooLarge { len: 2, max: 1 },
        Error::Overloaded { what: Overload::Loads, limit: 5 },
        Error::Overloaded { what: Overload::Waiters, limit: 5 },
        Error::Overloaded { what: Overload::PeerRequests, limit: 5 },
        Error::Overloaded { what: Overload::Keyspaces, limit: 5 },
        Error::Overloaded { what: Overload::Holds, limit: 5 },
        unavailable.clone(),
        Error::NotOwner { peer: "b".into() },
        Error::Unreached { unreached: vec![Unreached { key: Some("k".into()), peer: "b".into(), error: unavailable }] },
        Error::Protocol { peer: "b".into(), reason: "why".into() },
        Error::Shutdown,
    ]
}

/// Every kind of answer, each error among them.
pub(super) fn responses() -> Vec<Response<'static>> {
    let value = Value {
        value: b"v",
        loaded: true,
        is_stale: true,
        age: Duration::from_millis(5),
        remaining: None,
        lease: Duration::from_secs(5),
        version: 9,
    };
    let mut responses = vec![
        Response::One(Answer::Value(value)),
        Response::Many(vec![Answer::Value(value), Answer::NotFound, Answer::NotOwner, Answer::NoRoom]),
        Response::Written(vec![None, Some(Error::KeyEmpty)]),
        Response::Done,
        Response::Registry(b"state"),
        Response::Parted(Parted { places_you: true, met: vec![life(1, 2), life(u64::MAX, 3)] }),
        Response::Refused(Error::Shutdown),
    ];
    responses.push(Response::Many(errors().into_iter().map(Answer::Failed).collect()));
    responses.extend(errors().into_iter().map(|error| Response::One(Answer::Failed(error))));
    responses
}
