//! What crosses when keys move between owners, and when nodes meet again: entries, changes, and whom somebody has met.
//!
//! Knows neither stores nor logs. The invariant: of a change only its key's hash and its age cross, never the value and never a
//! clock time.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::fields::{Input, put_bytes, put_duration, put_lifetime, put_list, put_text};
use crate::partings::{self, Life};
use crate::ring::NodeId;

/// An entry that its owner of before gives to its owner of now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HandedOver<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
    /// Since its load began, or it was put.
    pub(crate) age: Duration,
    pub(crate) remaining: Option<Duration>,
}

/// What was written at one node, for another that may have what is older.
#[derive(Debug, PartialEq)]
pub(crate) struct Told<'a> {
    pub(crate) changes: Vec<ToldChange>,
    /// Set where the log does not reach back far enough.
    pub(crate) lost: Option<Lost<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ToldChange {
    pub(crate) hash: u64,
    pub(crate) age: Duration,
    /// How long loads of it are not to be kept yet.
    pub(crate) hold: Duration,
}

/// Changes that are not in the log any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost<'a> {
    /// Of the newest of them.
    pub(crate) age: Duration,
    /// The slots that may be concerned, a bit each.
    pub(crate) slots: &'a [u8],
}

/// How the answerer stands to the asker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parted {
    /// The asker owns keys in the answerer's view.
    pub(crate) places_you: bool,
    /// Who may know of changes since the answerer lost sight of the asker. Where it never did: whom it has heard well after the asker
    /// had lost sight of them.
    pub(crate) met: Vec<Life>,
}

impl<'a> HandedOver<'a> {
    /// Bytes that it takes in a frame, an upper bound.
    pub(crate) fn frame_bytes(key_len: usize, value_len: usize) -> usize {
        key_len + value_len + 32
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_text(out, self.key);
        put_duration(out, self.age);
        put_lifetime(out, self.remaining);
        put_bytes(out, self.value);
    }

    pub(super) fn decode(input: &mut Input<'a>) -> Result<Self, WireError> {
        Ok(Self { key: input.text()?, age: input.duration()?, remaining: input.lifetime()?, value: input.bytes()? })
    }
}

impl<'a> Told<'a> {
    /// Bytes that one change takes in a frame.
    pub(crate) const CHANGE_BYTES: usize = 24;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.lost.is_some().into());
        if let Some(lost) = &self.lost {
            put_duration(out, lost.age);
            put_bytes(out, lost.slots);
        }
        put_list(out, &self.changes, |out, change| {
            out.put_u64(change.hash);
            put_duration(out, change.age);
            put_duration(out, change.hold);
        });
    }

    pub(super) fn decode(input: &mut Input<'a>) -> Result<Self, WireError> {
        let lost = match input.u8()? {
            0 => None,
            1 => Some(Lost { age: input.duration()?, slots: input.bytes()? }),
            _ => return Err(WireError("neither a loss nor none")),
        };
        let change = |input: &mut Input<'a>| {
            Ok(ToldChange { hash: input.u64()?, age: input.duration()?, hold: input.duration()? })
        };
        Ok(Self { changes: input.list(change)?, lost })
    }
}

pub(super) fn put_out_of_sight(out: &mut BytesMut, out_of_sight: &[partings::OutOfSight]) {
    put_list(out, out_of_sight, |out, lost| {
        put_life(out, lost.life);
        put_duration(out, lost.age);
    });
}

pub(super) fn out_of_sight(input: &mut Input<'_>) -> Result<Vec<partings::OutOfSight>, WireError> {
    input.list(|input| Ok(partings::OutOfSight { life: life(input)?, age: input.duration()? }))
}

fn put_life(out: &mut BytesMut, life: Life) {
    out.put_u64(life.id.0);
    out.put_u64(life.incarnation);
}

fn life(input: &mut Input<'_>) -> Result<Life, WireError> {
    Ok(Life { id: NodeId(input.u64()?), incarnation: input.u64()? })
}

impl Parted {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.places_you.into());
        put_list(out, &self.met, |out, met| put_life(out, *met));
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self, WireError> {
        let places_you = input.u8()? != 0;
        Ok(Self { places_you, met: input.list(life)? })
    }
}
