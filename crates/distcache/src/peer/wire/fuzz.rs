//! Requests and answers made of whatever arrives: what decodes survives being sent on.

use bytes::BytesMut;

use super::samples::{requests, responses};
use super::{Answer, Frame, LENGTH_BYTES, Request, RequestId, Response};
use crate::fuzz_support::{Seed, Target};

/// A frame without its length.
pub const PEER_REQUEST: Target = Target { name: "peer_request", run: request, seeds: request_seeds };
/// The same of the other direction.
pub const PEER_RESPONSE: Target = Target { name: "peer_response", run: response, seeds: response_seeds };

fn request(data: &[u8]) {
    let Ok((id, request)) = Request::decode(data) else { return };
    let sent = sent(|out| request.encode(id, out));
    let mut appended = BytesMut::new();
    Frame::of(&request).append(id, &mut appended);
    assert_eq!(sent, appended, "a frame that is made ahead is the same");
    assert_eq!(Request::decode(&sent[LENGTH_BYTES..]), Ok((id, request)));
}

fn response(data: &[u8]) {
    let Ok((id, response)) = Response::decode(data) else { return };
    let sent = sent(|out| response.encode(id, out));
    let (same_id, same) = Response::decode(&sent[LENGTH_BYTES..]).expect("what was encoded decodes");
    assert_eq!((same_id, format!("{same:?}")), (id, format!("{response:?}")));
    if let Response::Many(answers) = &response {
        answers.iter().for_each(fits_where_it_was_thought_to_fit);
    }
}

fn fits_where_it_was_thought_to_fit(answer: &Answer<'_>) {
    let mut out = BytesMut::new();
    answer.encode(&mut out);
    assert!(out.len() <= answer.encoded_len(), "{} bytes instead of {}", out.len(), answer.encoded_len());
}

fn sent(encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    encode(&mut out);
    let (len, payload) = out.split_first_chunk().expect("a frame begins with its length");
    assert_eq!(u32::from_be_bytes(*len) as usize, payload.len());
    out
}

fn request_seeds() -> Vec<Seed> {
    let seed = |request: Request<'_>| seed(&format!("{request:?}"), |out| request.encode(RequestId(42), out));
    requests().into_iter().map(seed).collect()
}

fn response_seeds() -> Vec<Seed> {
    let seed = |response: Response<'_>| seed(&format!("{response:?}"), |out| response.encode(RequestId(42), out));
    responses().into_iter().map(seed).collect()
}

/// Called after the variants that it is made of.
fn seed(shown: &str, encode: impl FnOnce(&mut BytesMut)) -> Seed {
    let words = shown.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.starts_with(char::is_uppercase));
    let name = words.take(4).collect::<Vec<_>>().join("-").to_lowercase();
    (name, sent(encode)[LENGTH_BYTES..].to_vec())
}
