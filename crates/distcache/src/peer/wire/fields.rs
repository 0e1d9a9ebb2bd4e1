//! The parts of every message: numbers, text, lists, lifetimes.
//!
//! Knows no messages. The invariants: reading never panics and takes no memory for what a length promises before the bytes are
//! there; what is too long for its length is cut where it is written.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::{Named, WireError};
use crate::trace::Traceparent;

pub(super) const TRUNCATED: WireError = WireError("the message ends too early");
/// The lifetime of what has no end.
const NO_LIMIT: u64 = u64::MAX;

pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    // Names and keys are checked against limits of at most 65,535 bytes before they come here; other text is only shown.
    let cut = text.floor_char_boundary(u16::MAX as usize);
    out.put_u16(cut as u16);
    out.put_slice(&text.as_bytes()[..cut]);
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

pub(super) fn put_duration(out: &mut BytesMut, duration: Duration) {
    let longest = u128::from(NO_LIMIT - 1);
    out.put_u64(duration.as_millis().min(longest) as u64);
}

pub(super) fn put_lifetime(out: &mut BytesMut, lifetime: Option<Duration>) {
    match lifetime {
        Some(lifetime) => put_duration(out, lifetime),
        None => out.put_u64(NO_LIMIT),
    }
}

pub(super) fn put_trace(out: &mut BytesMut, trace: Option<Traceparent>) {
    out.put_u8(trace.is_some().into());
    if let Some(trace) = trace {
        out.put_slice(&trace.trace_id());
        out.put_slice(&trace.span_id());
        out.put_u8(trace.flags());
    }
}

pub(super) fn put_list<T>(out: &mut BytesMut, items: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    out.put_u32(items.len() as u32);
    items.iter().for_each(|item| put(out, item));
}

/// What is left of a payload.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, WireError> {
        let len = self.u16()?;
        std::str::from_utf8(self.take(len.into())?).map_err(|_| WireError("text that is not UTF-8"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub(super) fn duration(&mut self) -> Result<Duration, WireError> {
        // The number that stands for no limit is no duration; nobody sends it as one.
        self.u64().map(|millis| Duration::from_millis(millis.min(NO_LIMIT - 1)))
    }

    pub(super) fn lifetime(&mut self) -> Result<Option<Duration>, WireError> {
        self.u64().map(|millis| (millis != NO_LIMIT).then(|| Duration::from_millis(millis)))
    }

    pub(super) fn named(&mut self) -> Result<Named<'a>, WireError> {
        Ok(Named { name: self.text()?, generation: self.u64()?, trace: self.trace()? })
    }

    fn trace(&mut self) -> Result<Option<Traceparent>, WireError> {
        match self.u8()? {
            0 => Ok(None),
            1 => {
                let trace = Traceparent::new(self.array()?, self.array()?, self.u8()?);
                trace.map(Some).ok_or(WireError("a trace without an id"))
            }
            _ => Err(WireError("neither a trace nor none")),
        }
    }

    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let len = self.u32()? as usize;
        // No item is shorter than a byte, so a false length cannot make this larger than what was really sent.
        if len > self.0.len() {
            return Err(TRUNCATED);
        }
        let mut items = Vec::with_capacity(len.min(1_024));
        for _ in 0..len {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError("bytes behind the end of the message")) }
    }
}
