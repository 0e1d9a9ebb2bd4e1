//! Errors in bytes: one code a variant, so that what arrives is what was sent.
//!
//! Knows only how errors are written and read. The invariant: an error nested by a dishonest sender takes no more of the stack
//! than one nested by an honest one.

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::fields::{Input, put_duration, put_list, put_text};
use crate::error::{Error, Overload, PeerFailure, Unreached};
use crate::source::SourceError;

mod code {
    pub(super) const NOT_FOUND: u8 = 1;
    pub(super) const SOURCE_UNAVAILABLE: u8 = 2;
    pub(super) const SOURCE_FAILED: u8 = 3;
    pub(super) const SOURCE_PANICKED: u8 = 4;
    pub(super) const LOAD_TIMEOUT: u8 = 5;
    pub(super) const TIMEOUT: u8 = 6;
    pub(super) const KEYSPACE_NOT_FOUND: u8 = 7;
    pub(super) const KEYSPACE_EXISTS: u8 = 8;
    pub(super) const KEY_TOO_LARGE: u8 = 9;
    pub(super) const KEY_EMPTY: u8 = 10;
    pub(super) const VALUE_TOO_LARGE: u8 = 11;
    pub(super) const BATCH_TOO_LARGE: u8 = 12;
    pub(super) const OVERLOADED: u8 = 13;
    pub(super) const PEER_UNAVAILABLE: u8 = 14;
    pub(super) const NOT_OWNER: u8 = 15;
    pub(super) const UNREACHED: u8 = 16;
    pub(super) const PROTOCOL: u8 = 17;
    pub(super) const SHUTDOWN: u8 = 18;
    pub(super) const RATE_LIMITED: u8 = 19;
    pub(super) const CIRCUIT_OPEN: u8 = 20;
}

pub(super) fn put_error(out: &mut BytesMut, error: &Error) {
    let text = |out: &mut BytesMut, code, text: &str| {
        out.put_u8(code);
        put_text(out, text);
    };
    let sizes = |out: &mut BytesMut, code, len: usize, max: usize| {
        out.put_u8(code);
        out.put_u64(len as u64);
        out.put_u64(max as u64);
    };
    match error {
        Error::NotFound | Error::Source(SourceError::NotFound) => out.put_u8(code::NOT_FOUND),
        Error::Source(SourceError::Unavailable(cause)) => text(out, code::SOURCE_UNAVAILABLE, &cause.to_string()),
        Error::Source(SourceError::Failed(cause)) => text(out, code::SOURCE_FAILED, &cause.to_string()),
        Error::SourcePanicked { message } => text(out, code::SOURCE_PANICKED, message),
        Error::LoadTimeout { limit } => {
            out.put_u8(code::LOAD_TIMEOUT);
            put_duration(out, *limit);
        }
        Error::Timeout { limit } => {
            out.put_u8(code::TIMEOUT);
            put_duration(out, *limit);
        }
        Error::RateLimited { retry_after } => {
            out.put_u8(code::RATE_LIMITED);
            put_duration(out, *retry_after);
        }
        Error::CircuitOpen { retry_after } => {
            out.put_u8(code::CIRCUIT_OPEN);
            put_duration(out, *retry_after);
        }
        Error::KeyspaceNotFound { name } => text(out, code::KEYSPACE_NOT_FOUND, name),
        Error::KeyspaceExists { name } => text(out, code::KEYSPACE_EXISTS, name),
        // Never the answer to a peer: definitions are checked, and codecs run, where they are used.
        Error::InvalidSpec { .. } | Error::Decode { .. } | Error::Encode { .. } => {
            text(out, code::PROTOCOL, "");
            put_text(out, &error.to_string());
        }
        Error::KeyTooLarge { len, max } => sizes(out, code::KEY_TOO_LARGE, *len, *max),
        Error::KeyEmpty => out.put_u8(code::KEY_EMPTY),
        Error::ValueTooLarge { len, max } => sizes(out, code::VALUE_TOO_LARGE, *len, *max),
        Error::BatchTooLarge { len, max } => sizes(out, code::BATCH_TOO_LARGE, *len, *max),
        Error::Overloaded { what, limit } => sizes(out, code::OVERLOADED, overload_code(*what), *limit),
        Error::PeerUnavailable { peer, reason } => {
            text(out, code::PEER_UNAVAILABLE, peer);
            put_peer_failure(out, reason);
        }
        Error::NotOwner { peer } => text(out, code::NOT_OWNER, peer),
        Error::Unreached { unreached } => {
            out.put_u8(code::UNREACHED);
            put_list(out, unreached, put_unreached);
        }
        Error::Protocol { peer, reason } => {
            text(out, code::PROTOCOL, peer);
            put_text(out, reason);
        }
        Error::Shutdown => out.put_u8(code::SHUTDOWN),
    }
}

fn put_unreached(out: &mut BytesMut, one: &Unreached) {
    put_text(out, one.key.as_deref().unwrap_or_default());
    put_text(out, &one.peer);
    put_error(out, &one.error);
}

fn overload_code(what: Overload) -> usize {
    match what {
        Overload::Loads => 1,
        Overload::Waiters => 2,
        Overload::PeerRequests => 3,
        Overload::Keyspaces => 4,
        Overload::Holds => 5,
    }
}

fn put_peer_failure(out: &mut BytesMut, failure: &PeerFailure) {
    out.put_u8(match failure {
        PeerFailure::NotConnected => 1,
        PeerFailure::Disconnected => 2,
        PeerFailure::Silent => 3,
        PeerFailure::Ejected => 4,
        PeerFailure::Refused(_) => 5,
    });
    put_text(out, if let PeerFailure::Refused(why) = failure { why } else { "" });
}

/// An `Unreached` holds errors that may be `Unreached`; no honest sender nests them deeper than this.
const ERROR_DEPTH_MAX: usize = 4;

impl<'a> Input<'a> {
    pub(super) fn error(&mut self) -> Result<Error, WireError> {
        self.error_within(ERROR_DEPTH_MAX)
    }

    fn error_within(&mut self, depth: usize) -> Result<Error, WireError> {
        let deeper = depth.checked_sub(1).ok_or(WireError("errors nested too deeply"))?;
        Ok(match self.u8()? {
            code::NOT_FOUND => Error::NotFound,
            code::SOURCE_UNAVAILABLE => Error::Source(SourceError::unavailable(self.text()?.to_owned())),
            code::SOURCE_FAILED => Error::Source(SourceError::failed(self.text()?.to_owned())),
            code::SOURCE_PANICKED => Error::SourcePanicked { message: self.text()?.into() },
            code::LOAD_TIMEOUT => Error::LoadTimeout { limit: self.duration()? },
            code::TIMEOUT => Error::Timeout { limit: self.duration()? },
            code::RATE_LIMITED => Error::RateLimited { retry_after: self.duration()? },
            code::CIRCUIT_OPEN => Error::CircuitOpen { retry_after: self.duration()? },
            code::KEYSPACE_NOT_FOUND => Error::KeyspaceNotFound { name: self.text()?.into() },
            code::KEYSPACE_EXISTS => Error::KeyspaceExists { name: self.text()?.into() },
            code::KEY_TOO_LARGE => Error::KeyTooLarge { len: self.size()?, max: self.size()? },
            code::KEY_EMPTY => Error::KeyEmpty,
            code::VALUE_TOO_LARGE => Error::ValueTooLarge { len: self.size()?, max: self.size()? },
            code::BATCH_TOO_LARGE => Error::BatchTooLarge { len: self.size()?, max: self.size()? },
            code::OVERLOADED => Error::Overloaded { what: self.overload()?, limit: self.size()? },
            code::PEER_UNAVAILABLE => {
                Error::PeerUnavailable { peer: self.text()?.into(), reason: self.peer_failure()? }
            }
            code::NOT_OWNER => Error::NotOwner { peer: self.text()?.into() },
            code::UNREACHED => Error::Unreached { unreached: self.list(|input| input.unreached(deeper))? },
            code::PROTOCOL => Error::Protocol { peer: self.text()?.into(), reason: self.text()?.into() },
            code::SHUTDOWN => Error::Shutdown,
            _ => return Err(WireError("an unknown error code")),
        })
    }

    fn unreached(&mut self, depth: usize) -> Result<Unreached, WireError> {
        let key = Some(self.text()?).filter(|key| !key.is_empty()).map(Into::into);
        Ok(Unreached { key, peer: self.text()?.into(), error: self.error_within(depth)? })
    }

    fn size(&mut self) -> Result<usize, WireError> {
        self.u64().map(|size| size as usize)
    }

    fn overload(&mut self) -> Result<Overload, WireError> {
        match self.u64()? {
            1 => Ok(Overload::Loads),
            2 => Ok(Overload::Waiters),
            3 => Ok(Overload::PeerRequests),
            4 => Ok(Overload::Keyspaces),
            5 => Ok(Overload::Holds),
            _ => Err(WireError("an unknown limit")),
        }
    }

    fn peer_failure(&mut self) -> Result<PeerFailure, WireError> {
        let (kind, why) = (self.u8()?, self.text()?);
        Ok(match kind {
            1 => PeerFailure::NotConnected,
            2 => PeerFailure::Disconnected,
            3 => PeerFailure::Silent,
            4 => PeerFailure::Ejected,
            5 => PeerFailure::Refused(why.into()),
            _ => return Err(WireError("an unknown failure of a peer")),
        })
    }
}
