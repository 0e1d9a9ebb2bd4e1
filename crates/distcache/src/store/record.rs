//! One entry or hot copy, and what it must satisfy to count.
//!
//! Knows neither shelves nor policies. The invariants: a record keeps no buffer alive but its own; before it is due, a read compares
//! one moment and has nothing to decide.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::expiry::Times;
use crate::net::{Clock, Moment};
use crate::source::VALIDATOR_BYTES_MAX;
use crate::stats::Count;

/// One entry or hot copy. Key, validator and value share one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(super) data: Bytes,
    pub(crate) version: u64,
    pub(crate) times: Times,
    pub(super) key_len: u16,
    /// Bytes of the source's validator, which stands between key and value; [`NEGATIVE`] of a record that has no value.
    pub(super) validator_len: u16,
    /// Which clear of the keyspace it came after.
    pub(crate) epoch: u32,
    /// Which view it was stored, or begun to load, under.
    pub(crate) view_seq: u32,
}

const NEGATIVE: u16 = u16::MAX;

impl Record {
    /// Copies key and value, so that no network buffer is kept alive by a small part of it. `None`: a record that says that there
    /// is no such key.
    pub(crate) fn new(key: &str, value: Option<&[u8]>) -> Self {
        let negative = if value.is_none() { NEGATIVE } else { 0 };
        Self { validator_len: negative, ..Self::with_validator(key, &[], value.unwrap_or_default()) }
    }

    /// A value with what its source needs to ask whether it has changed.
    pub(crate) fn with_validator(key: &str, validator: &[u8], value: &[u8]) -> Self {
        let validator = if validator.len() > VALIDATOR_BYTES_MAX { &[] } else { validator };
        let mut data = BytesMut::with_capacity(key.len() + validator.len() + value.len());
        data.put_slice(key.as_bytes());
        data.put_slice(validator);
        data.put_slice(value);
        let data = data.freeze();
        Self {
            // Shared from the start, as its first reader would make it: later ones need not ask whether it is.
            data: data.clone(),
            version: 0,
            times: Times::until(Moment(0), Moment::NEVER),
            key_len: key.len() as u16,
            validator_len: validator.len() as u16,
            epoch: 0,
            view_seq: 0,
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.data[..self.key_len as usize]
    }

    /// `None`: the record says that there is no such key.
    #[inline]
    pub(crate) fn value(&self) -> Option<Bytes> {
        use bytes::Buf;
        if self.is_negative() {
            return None;
        }
        let mut data = self.data.clone();
        data.advance(self.key_len as usize + self.validator_len as usize);
        Some(data)
    }

    /// The same, without a reference to count.
    #[inline]
    pub(crate) fn into_value(mut self) -> Option<Bytes> {
        use bytes::Buf;
        if self.is_negative() {
            return None;
        }
        self.data.advance(self.key_len as usize + self.validator_len as usize);
        Some(self.data)
    }

    /// What the source needs to ask whether the value has changed; empty: it gave nothing.
    pub(crate) fn validator(&self) -> Bytes {
        let key_len = self.key_len as usize;
        let len = if self.is_negative() { 0 } else { self.validator_len as usize };
        self.data.slice(key_len..key_len + len)
    }

    #[inline]
    pub(crate) fn is_negative(&self) -> bool {
        self.validator_len == NEGATIVE
    }

    #[inline]
    pub(super) fn weight(&self, overhead_bytes: usize) -> u64 {
        (self.data.len() + overhead_bytes) as u64
    }
}

/// What a record must satisfy to count: the keyspace's latest clear and the slot's latest change of owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) now: Now,
    pub(crate) epoch: u32,
    pub(crate) slot_since: u32,
}

/// The time to judge by; read only for a record that expires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Now {
    Read(Clock),
    At(Moment),
}

impl Now {
    #[inline]
    pub(crate) fn get(self) -> Moment {
        match self {
            Self::Read(clock) => clock.now(),
            Self::At(moment) => moment,
        }
    }
}

impl Validity {
    /// Whether the record is of the present clear and owner, however old it is.
    #[inline]
    pub(super) fn covers(self, record: &Record) -> bool {
        record.epoch == self.epoch && record.view_seq >= self.slot_since
    }

    /// Whether the record is to be answered, with nothing else to do.
    #[inline]
    pub(super) fn admits(self, record: &Record) -> bool {
        let due_at = record.times.due_at;
        self.covers(record) && (due_at == Moment::NEVER || due_at > self.now.get())
    }

    /// Not merely unfit for this reader, who may be behind: of no use to anybody any more.
    pub(super) fn has_ended(self, record: &Record, idle_ttl: Option<Duration>) -> bool {
        record.epoch < self.epoch
            || record.view_seq < self.slot_since
            || record.times.gone_at(idle_ttl) <= self.now.get()
    }

    pub(super) fn cause_of_end(self, record: &Record) -> Count {
        match () {
            () if record.epoch != self.epoch => Count::EvictedCleared,
            () if record.view_seq < self.slot_since => Count::EvictedMoved,
            () if record.times.gone_at(None) > self.now.get() => Count::EvictedIdle,
            () => Count::EvictedExpired,
        }
    }
}
