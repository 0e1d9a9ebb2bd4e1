//! The bytes between peers: requests, answers and errors, encoded and decoded.
//!
//! Knows neither sockets nor stores. The invariants: decoding never panics and never takes memory for what a length promises
//! before the bytes are there; an error arrives as the variant that was sent; a lifetime crosses as what remains of it.
//!
//! A frame is a 32-bit big-endian length and that many bytes: opcode, request id, body. Integers are big-endian, text is
//! UTF-8 behind its length.

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};

use crate::error::Error;
use crate::partings;
use crate::trace::Traceparent;

mod errors;
mod fields;
#[cfg(feature = "fuzz-internals")]
pub(crate) mod fuzz;
mod moving;
#[cfg(any(test, feature = "fuzz-internals"))]
mod samples;

use errors::put_error;
use fields::{Input, put_bytes, put_duration, put_lifetime, put_list, put_text, put_trace};
pub(crate) use moving::{HandedOver, Lost, Parted, Told, ToldChange};

/// Bytes in front of every frame's payload.
pub(crate) const LENGTH_BYTES: usize = 4;
const OPCODE_BYTES: usize = 1;
/// What was received makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WireError(pub(crate) &'static str);

/// Which question this is, within one connection: never the same twice, so that a late answer finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestId(pub(crate) u64);

/// What a peer asks.
#[derive(Debug, PartialEq)]
pub(crate) enum Request<'a> {
    Get(Get<'a>),
    GetMany {
        get: GetMany<'a>,
    },
    Put {
        keyspace: Named<'a>,
        entries: Vec<PutEntry<'a>>,
    },
    Delete {
        keyspace: Named<'a>,
        keys: Vec<&'a str>,
        /// Loads that begin within it are not kept.
        hold: Duration,
    },
    /// Hashes of keys under which nothing counts any more that was there before.
    Invalidate {
        keyspace: Named<'a>,
        hashes: Vec<u64>,
        /// Passed on by somebody who had it passed to him: it goes no further.
        is_relayed: bool,
    },
    Refresh {
        keyspace: Named<'a>,
        key: &'a str,
        deadline: Duration,
    },
    /// Keys that are worth loading before anybody asks, for who owns them now.
    Warm {
        keyspace: Named<'a>,
        keys: Vec<&'a str>,
    },
    /// What the last owner of these keys has of them, for who owns them now.
    Peek {
        keyspace: Named<'a>,
        keys: Vec<&'a str>,
    },
    /// Entries for who owns them now.
    HandOver {
        keyspace: Named<'a>,
        entries: Vec<HandedOver<'a>>,
    },
    /// What was written elsewhere while the receiver may have owned the same keys.
    Tell {
        keyspace: Named<'a>,
        told: Told<'a>,
    },
    /// Copies of keys of these slots, a bit each, may be too old: nobody knows which.
    DropCopies {
        keyspace: Named<'a>,
        slots: &'a [u8],
    },
    /// Whether the asker owns keys in this node's view; and, of those that it owns, all that was written here.
    Part {
        /// Of whom the asker has lost sight.
        out_of_sight: Vec<partings::OutOfSight>,
    },
    /// The receiver had been out of the sender's sight, and may not have heard that it was missed.
    Missed,
    /// What the sender knows of the cluster's keyspaces.
    Registry(&'a [u8]),
    /// The asker no longer waits for this answer.
    Cancel,
    Ping,
}

/// What every question about a keyspace begins with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    /// The latest clear of it that the sender knows of.
    pub(crate) generation: u64,
    /// The span that asks.
    pub(crate) trace: Option<Traceparent>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Get<'a> {
    pub(crate) keyspace: Named<'a>,
    pub(crate) key: &'a str,
    pub(crate) wants_copy: bool,
    pub(crate) deadline: Duration,
}

#[derive(Debug, PartialEq)]
pub(crate) struct GetMany<'a> {
    pub(crate) keyspace: Named<'a>,
    /// Each with whether a copy is wanted.
    pub(crate) keys: Vec<(&'a str, bool)>,
    pub(crate) deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PutEntry<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
    pub(crate) ttl: Option<Duration>,
}

/// What a peer answers.
#[derive(Debug)]
pub(crate) enum Response<'a> {
    /// To `Get` and `Refresh`.
    One(Answer<'a>),
    /// To `GetMany` and `Peek`, in the order of its keys.
    Many(Vec<Answer<'a>>),
    /// To `Put` and `Delete`: per key, `None` where it took effect.
    Written(Vec<Option<Error>>),
    /// To `Invalidate`, `Warm`, `HandOver`, `Tell` and `Ping`.
    Done,
    /// To `Part`.
    Parted(Parted),
    /// To `Registry`: what the answerer knows after taking in what it was sent.
    Registry(&'a [u8]),
    /// The question itself was refused.
    Refused(Error),
}

/// The owner's answer for one key.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    Value(Value<'a>),
    NotFound,
    NotOwner,
    Failed(Error),
    /// The answers before this one filled the frame; ask for this key again.
    NoRoom,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) loaded: bool,
    /// Past its lifetime: being loaded again, or not to be had.
    pub(crate) is_stale: bool,
    pub(crate) age: Duration,
    pub(crate) remaining: Option<Duration>,
    pub(crate) lease: Duration,
    pub(crate) version: u64,
}

mod op {
    pub(super) const GET: u8 = 1;
    pub(super) const GET_MANY: u8 = 2;
    pub(super) const PUT: u8 = 3;
    pub(super) const DELETE: u8 = 4;
    pub(super) const INVALIDATE: u8 = 5;
    pub(super) const REFRESH: u8 = 6;
    pub(super) const REGISTRY: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PEEK: u8 = 10;
    pub(super) const HAND_OVER: u8 = 11;
    pub(super) const WARM: u8 = 12;
    pub(super) const TELL: u8 = 13;
    pub(super) const PART: u8 = 14;
    pub(super) const MISSED: u8 = 15;
    pub(super) const DROP_COPIES: u8 = 16;
    pub(super) const ONE: u8 = 129;
    pub(super) const MANY: u8 = 130;
    pub(super) const WRITTEN: u8 = 131;
    pub(super) const DONE: u8 = 132;
    pub(super) const REGISTRY_IS: u8 = 133;
    pub(super) const REFUSED: u8 = 134;
    pub(super) const PARTED: u8 = 135;
}

mod answer {
    pub(super) const VALUE: u8 = 1;
    pub(super) const NOT_FOUND: u8 = 2;
    pub(super) const NOT_OWNER: u8 = 3;
    pub(super) const FAILED: u8 = 4;
    pub(super) const NO_ROOM: u8 = 5;
}

/// What is true of a value, a bit each.
mod flag {
    pub(super) const LOADED: u8 = 1;
    pub(super) const STALE: u8 = 2;
}

/// Cuts the next frame off the front of what was received; `None`: not all of it is there yet.
pub(crate) fn cut_frame(received: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, WireError> {
    let Some(len) = received.first_chunk() else { return Ok(None) };
    let len = u32::from_be_bytes(*len) as usize;
    if len > bytes_max {
        return Err(WireError("a frame over the limit"));
    }
    if received.len() < LENGTH_BYTES + len {
        return Ok(None);
    }
    received.advance(LENGTH_BYTES);
    Ok(Some(received.split_to(len)))
}

/// A request in bytes, without its place in a connection.
pub(crate) struct Frame(BytesMut);

impl Frame {
    pub(crate) fn of(request: &Request<'_>) -> Self {
        let mut out = BytesMut::new();
        request.encode(RequestId(0), &mut out);
        Self(out)
    }

    /// Appends the frame under this id.
    pub(crate) fn append(&self, id: RequestId, out: &mut BytesMut) {
        let start = out.len() + LENGTH_BYTES + OPCODE_BYTES;
        out.put_slice(&self.0);
        out[start..start + size_of::<u64>()].copy_from_slice(&id.0.to_be_bytes());
    }
}

/// Appends one frame; the length is filled in once the body is known.
fn frame(out: &mut BytesMut, op: u8, id: RequestId, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(op);
    out.put_u64(id.0);
    body(out);
    let len = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&len.to_be_bytes());
}

impl Request<'_> {
    pub(crate) fn encode(&self, id: RequestId, out: &mut BytesMut) {
        match self {
            Self::Get(get) => frame(out, op::GET, id, |out| {
                get.keyspace.encode(out);
                put_duration(out, get.deadline);
                out.put_u8(get.wants_copy.into());
                put_text(out, get.key);
            }),
            Self::GetMany { get } => frame(out, op::GET_MANY, id, |out| {
                get.keyspace.encode(out);
                put_duration(out, get.deadline);
                put_list(out, &get.keys, |out, (key, wants_copy)| {
                    out.put_u8((*wants_copy).into());
                    put_text(out, key);
                });
            }),
            Self::Put { keyspace, entries } => frame(out, op::PUT, id, |out| {
                keyspace.encode(out);
                put_list(out, entries, |out, entry| {
                    put_text(out, entry.key);
                    put_lifetime(out, entry.ttl);
                    put_bytes(out, entry.value);
                });
            }),
            Self::Delete { keyspace, keys, hold } => frame(out, op::DELETE, id, |out| {
                put_keys(out, keyspace, keys);
                put_duration(out, *hold);
            }),
            Self::Invalidate { keyspace, hashes, is_relayed } => frame(out, op::INVALIDATE, id, |out| {
                keyspace.encode(out);
                out.put_u8((*is_relayed).into());
                put_list(out, hashes, |out, hash| out.put_u64(*hash));
            }),
            Self::Peek { keyspace, keys } => frame(out, op::PEEK, id, |out| put_keys(out, keyspace, keys)),
            Self::HandOver { keyspace, entries } => frame(out, op::HAND_OVER, id, |out| {
                keyspace.encode(out);
                put_list(out, entries, |out, entry| entry.encode(out));
            }),
            Self::Tell { keyspace, told } => frame(out, op::TELL, id, |out| {
                keyspace.encode(out);
                told.encode(out);
            }),
            Self::DropCopies { keyspace, slots } => frame(out, op::DROP_COPIES, id, |out| {
                keyspace.encode(out);
                put_bytes(out, slots);
            }),
            Self::Part { out_of_sight } => frame(out, op::PART, id, |out| moving::put_out_of_sight(out, out_of_sight)),
            Self::Missed => frame(out, op::MISSED, id, |_| ()),
            Self::Warm { keyspace, keys } => frame(out, op::WARM, id, |out| put_keys(out, keyspace, keys)),
            Self::Refresh { keyspace, key, deadline } => frame(out, op::REFRESH, id, |out| {
                keyspace.encode(out);
                put_duration(out, *deadline);
                put_text(out, key);
            }),
            Self::Registry(state) => frame(out, op::REGISTRY, id, |out| out.put_slice(state)),
            Self::Cancel => frame(out, op::CANCEL, id, |_| ()),
            Self::Ping => frame(out, op::PING, id, |_| ()),
        }
    }
}

impl<'a> Request<'a> {
    pub(crate) fn decode(payload: &'a [u8]) -> Result<(RequestId, Self), WireError> {
        let mut input = Input(payload);
        let (op, id) = (input.u8()?, RequestId(input.u64()?));
        let request = match op {
            op::GET => Self::Get(Get {
                keyspace: input.named()?,
                deadline: input.duration()?,
                wants_copy: input.u8()? != 0,
                key: input.text()?,
            }),
            op::GET_MANY => {
                let (keyspace, deadline) = (input.named()?, input.duration()?);
                let keys = input.list(|input| {
                    let wants_copy = input.u8()? != 0;
                    Ok((input.text()?, wants_copy))
                })?;
                Self::GetMany { get: GetMany { keyspace, keys, deadline } }
            }
            op::PUT => {
                let keyspace = input.named()?;
                let entries = input
                    .list(|input| Ok(PutEntry { key: input.text()?, ttl: input.lifetime()?, value: input.bytes()? }))?;
                Self::Put { keyspace, entries }
            }
            op::DELETE => {
                Self::Delete { keyspace: input.named()?, keys: input.list(Input::text)?, hold: input.duration()? }
            }
            op::INVALIDATE => Self::Invalidate {
                keyspace: input.named()?,
                is_relayed: input.u8()? != 0,
                hashes: input.list(Input::u64)?,
            },
            op::PEEK => Self::Peek { keyspace: input.named()?, keys: input.list(Input::text)? },
            op::HAND_OVER => Self::HandOver { keyspace: input.named()?, entries: input.list(HandedOver::decode)? },
            op::TELL => Self::Tell { keyspace: input.named()?, told: Told::decode(&mut input)? },
            op::DROP_COPIES => Self::DropCopies { keyspace: input.named()?, slots: input.bytes()? },
            op::PART => Self::Part { out_of_sight: moving::out_of_sight(&mut input)? },
            op::MISSED => Self::Missed,
            op::WARM => Self::Warm { keyspace: input.named()?, keys: input.list(Input::text)? },
            op::REFRESH => {
                let (keyspace, deadline) = (input.named()?, input.duration()?);
                Self::Refresh { keyspace, key: input.text()?, deadline }
            }
            op::REGISTRY => Self::Registry(input.rest()),
            op::CANCEL => Self::Cancel,
            op::PING => Self::Ping,
            _ => return Err(WireError("an unknown opcode")),
        };
        input.end()?;
        Ok((id, request))
    }
}

impl Named<'_> {
    fn encode(&self, out: &mut BytesMut) {
        put_text(out, self.name);
        out.put_u64(self.generation);
        put_trace(out, self.trace);
    }
}

impl Response<'_> {
    pub(crate) fn encode(&self, id: RequestId, out: &mut BytesMut) {
        match self {
            Self::One(answer) => frame(out, op::ONE, id, |out| answer.encode(out)),
            Self::Many(answers) => frame(out, op::MANY, id, |out| put_list(out, answers, |out, one| one.encode(out))),
            Self::Written(errors) => frame(out, op::WRITTEN, id, |out| {
                put_list(out, errors, |out, error| {
                    out.put_u8(error.is_some().into());
                    if let Some(error) = error {
                        put_error(out, error);
                    }
                });
            }),
            Self::Done => frame(out, op::DONE, id, |_| ()),
            Self::Parted(parted) => frame(out, op::PARTED, id, |out| parted.encode(out)),
            Self::Registry(state) => frame(out, op::REGISTRY_IS, id, |out| out.put_slice(state)),
            Self::Refused(error) => frame(out, op::REFUSED, id, |out| put_error(out, error)),
        }
    }
}

impl<'a> Response<'a> {
    pub(crate) fn decode(payload: &'a [u8]) -> Result<(RequestId, Self), WireError> {
        let mut input = Input(payload);
        let (op, id) = (input.u8()?, RequestId(input.u64()?));
        let response = match op {
            op::ONE => Self::One(Answer::decode(&mut input)?),
            op::MANY => Self::Many(input.list(Answer::decode)?),
            op::WRITTEN => Self::Written(input.list(|input| match input.u8()? {
                0 => Ok(None),
                _ => input.error().map(Some),
            })?),
            op::DONE => Self::Done,
            op::PARTED => Self::Parted(Parted::decode(&mut input)?),
            op::REGISTRY_IS => Self::Registry(input.rest()),
            op::REFUSED => Self::Refused(input.error()?),
            _ => return Err(WireError("an unknown opcode")),
        };
        input.end()?;
        Ok((id, response))
    }
}

impl Answer<'_> {
    /// Bytes that it takes in a `Many`, an upper bound.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Value(value) => value.value.len() + 64,
            Self::Failed(error) => error.to_string().len() + 256,
            Self::NotFound | Self::NotOwner | Self::NoRoom => 1,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Value(value) => {
                out.put_u8(answer::VALUE);
                out.put_u8((u8::from(value.loaded) * flag::LOADED) | (u8::from(value.is_stale) * flag::STALE));
                put_duration(out, value.age);
                put_lifetime(out, value.remaining);
                put_duration(out, value.lease);
                out.put_u64(value.version);
                put_bytes(out, value.value);
            }
            Self::NotFound => out.put_u8(answer::NOT_FOUND),
            Self::NotOwner => out.put_u8(answer::NOT_OWNER),
            Self::NoRoom => out.put_u8(answer::NO_ROOM),
            Self::Failed(error) => {
                out.put_u8(answer::FAILED);
                put_error(out, error);
            }
        }
    }
}

impl<'a> Answer<'a> {
    fn decode(input: &mut Input<'a>) -> Result<Self, WireError> {
        Ok(match input.u8()? {
            answer::VALUE => {
                let flags = input.u8()?;
                Self::Value(Value {
                    loaded: flags & flag::LOADED != 0,
                    is_stale: flags & flag::STALE != 0,
                    age: input.duration()?,
                    remaining: input.lifetime()?,
                    lease: input.duration()?,
                    version: input.u64()?,
                    value: input.bytes()?,
                })
            }
            answer::NOT_FOUND => Self::NotFound,
            answer::NOT_OWNER => Self::NotOwner,
            answer::FAILED => Self::Failed(input.error()?),
            answer::NO_ROOM => Self::NoRoom,
            _ => return Err(WireError("an unknown kind of answer")),
        })
    }
}

fn put_keys(out: &mut BytesMut, keyspace: &Named<'_>, keys: &[&str]) {
    keyspace.encode(out);
    put_list(out, keys, |out, key| put_text(out, key));
}

#[cfg(test)]
mod tests;
