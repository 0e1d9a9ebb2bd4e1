//! Every message survives the way; nothing that is not a message does harm.

use proptest::prelude::*;

use super::fields::TRUNCATED;
use super::samples::{TRACED, USERS, requests, responses};
use super::*;
use crate::error::Unreached;

fn payload(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(&mut out);
    let (len, payload) = out.split_at(LENGTH_BYTES);
    assert_eq!(u32::from_be_bytes(len.try_into().unwrap()) as usize, payload.len());
    payload.to_vec()
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
fn a_trace_that_is_none_is_refused() {
    let payload = payload(|out| Request::Warm { keyspace: TRACED, keys: vec![] }.encode(RequestId(1), out));
    let flag = payload.len() - 4 - 25 - 1;
    let with = |changed: &[(usize, u8)]| {
        let mut payload = payload.clone();
        changed.iter().for_each(|&(at, byte)| payload[at] = byte);
        Request::decode(&payload).map(drop)
    };
    assert_eq!(with(&[]), Ok(()));
    assert_eq!(with(&[(flag, 2)]), Err(WireError("neither a trace nor none")));
    for id in [1..17, 17..25] {
        let zeros: Vec<_> = id.map(|at| (flag + at, 0)).collect();
        assert_eq!(with(&zeros), Err(WireError("a trace without an id")));
    }
    assert!(with(&[(flag, 0)]).is_err(), "25 bytes too many");
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
