//! Every message survives the way; nothing that is not a message does harm.

use proptest::prelude::*;

use super::*;
use crate::error::{Overload, PeerFailure, Unreached};
use crate::source::SourceError;

const USERS: Named<'static> = Named { name: "users", generation: 7 };

fn payload(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(&mut out);
    let (len, payload) = out.split_at(LENGTH_BYTES);
    assert_eq!(u32::from_be_bytes(len.try_into().unwrap()) as usize, payload.len());
    payload.to_vec()
}

fn requests() -> Vec<Request<'static>> {
    let deadline = Duration::from_millis(1_234);
    vec![
        Request::Get(Get { keyspace: USERS, key: "ключ", wants_copy: true, deadline }),
        Request::GetMany { get: GetMany { keyspace: USERS, keys: vec![("a", true), ("b", false)], deadline } },
        Request::Put {
            keyspace: USERS,
            entries: vec![
                PutEntry { key: "a", value: b"", ttl: None },
                PutEntry { key: "b", value: &[0, 255], ttl: Some(deadline) },
            ],
        },
        Request::Delete { keyspace: USERS, keys: vec!["a", "b"] },
        Request::Invalidate { keyspace: USERS, keys: vec![] },
        Request::Refresh { keyspace: USERS, key: "k", deadline },
        Request::Registry(b"state"),
        Request::Cancel,
        Request::Ping,
    ]
}

fn errors() -> Vec<Error> {
    let unavailable = Error::PeerUnavailable { peer: "b".into(), reason: PeerFailure::Refused("why".into()) };
    vec![
        Error::NotFound,
        Error::Source(SourceError::unavailable("down")),
        Error::Source(SourceError::failed("broken")),
        Error::SourcePanicked { message: "oh".into() },
        Error::LoadTimeout { limit: Duration::from_secs(1) },
        Error::Timeout { limit: Duration::from_millis(20) },
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
        unavailable.clone(),
        Error::NotOwner { peer: "b".into() },
        Error::Unreached { unreached: vec![Unreached { key: Some("k".into()), peer: "b".into(), error: unavailable }] },
        Error::Protocol { peer: "b".into(), reason: "why".into() },
        Error::Shutdown,
    ]
}

fn responses() -> Vec<Response<'static>> {
    let value = Value {
        value: b"v",
        loaded: true,
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
        Response::Refused(Error::Shutdown),
    ];
    responses.extend(errors().into_iter().map(|error| Response::One(Answer::Failed(error))));
    responses
}

#[test]
fn requests_arrive_as_they_were_sent() {
    for request in requests() {
        let payload = payload(|out| request.encode(RequestId(42), out));
        assert_eq!(Request::decode(&payload), Ok((RequestId(42), request)));
    }
}

#[test]
fn responses_arrive_as_they_were_sent() {
    for response in responses() {
        let payload = payload(|out| response.encode(RequestId(42), out));
        let (id, decoded) = Response::decode(&payload).unwrap();
        assert_eq!((id, format!("{decoded:?}")), (RequestId(42), format!("{response:?}")));
    }
}

#[test]
fn the_longest_lifetime_there_is_does_not_arrive_as_none() {
    for ttl in [Duration::from_millis(u64::MAX), Duration::from_millis(u64::MAX - 1), Duration::MAX] {
        let entries = vec![PutEntry { key: "a", value: b"", ttl: Some(ttl) }];
        let payload = payload(|out| Request::Put { keyspace: USERS, entries }.encode(RequestId(42), out));
        let Ok((_, Request::Put { entries, .. })) = Request::decode(&payload) else { panic!("it decodes") };
        assert_eq!(entries[0].ttl, Some(Duration::from_millis(u64::MAX - 1)));
    }
}

#[test]
fn every_truncation_is_refused() {
    for request in requests().iter().filter(|request| !matches!(request, Request::Registry(_))) {
        let payload = payload(|out| request.encode(RequestId(42), out));
        assert!((0..payload.len()).all(|len| Request::decode(&payload[..len]).is_err()), "{request:?}");
    }
    for response in responses().iter().filter(|response| !matches!(response, Response::Registry(_))) {
        let payload = payload(|out| response.encode(RequestId(42), out));
        assert!((0..payload.len()).all(|len| Response::decode(&payload[..len]).is_err()), "{response:?}");
    }
}

#[test]
fn frames_are_cut_off_as_they_come_in_and_a_promised_length_takes_no_memory() {
    let mut sent = BytesMut::new();
    Request::Ping.encode(RequestId(1), &mut sent);
    Request::Cancel.encode(RequestId(2), &mut sent);
    let (mut received, mut ids) = (BytesMut::new(), Vec::new());
    for byte in sent {
        received.put_u8(byte);
        while let Some(frame) = cut_frame(&mut received, 9).unwrap() {
            ids.push(Request::decode(&frame).unwrap().0.0);
        }
    }
    assert_eq!(ids, [1, 2]);
    let mut promise = BytesMut::from(&[0x3F, 0xFF, 0xFF, 0xFF, 1][..]);
    assert_eq!(cut_frame(&mut promise, 1 << 30), Ok(None));
    assert!(promise.capacity() < 1 << 10);
    assert!(cut_frame(&mut promise, 1 << 20).is_err());
}

#[test]
fn a_false_length_takes_no_memory() {
    let mut out = BytesMut::new();
    frame(&mut out, op::DELETE, RequestId(1), |out| {
        USERS.encode(out);
        out.put_u32(u32::MAX);
    });
    assert_eq!(Request::decode(&out[LENGTH_BYTES..]), Err(TRUNCATED));
}

#[test]
fn errors_nested_without_end_are_refused() {
    let nest = |error| Error::Unreached { unreached: vec![Unreached { key: None, peer: "b".into(), error }] };
    let deep = (0..100).fold(Error::Shutdown, |error, _| nest(error));
    let payload = payload(|out| Response::Refused(deep).encode(RequestId(1), out));
    assert_eq!(Response::decode(&payload).unwrap_err(), WireError("errors nested too deeply"));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes);
    }

    #[test]
    fn flipped_bits_never_panic(which in 0usize..9, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut payload = payload(|out| requests()[which].encode(RequestId(42), out));
        let at = at.index(payload.len());
        payload[at] ^= 1 << bit;
        let _ = Request::decode(&payload);
    }
}
