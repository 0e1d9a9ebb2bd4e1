//! How gossip packets are encoded, and a look at whom they name before foca believes them.
//!
//! Knows packets and identities, no sockets and no clock. The invariants: no member that no honest node would name is ever passed
//! on, and the members that foca remembers are bounded, however many somebody invents.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use foca::{Header, Member, PostcardCodec};
use parking_lot::Mutex;

use super::member::Identity;

/// Why a packet is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Implausible {
    #[error("the address {0} is nobody's")]
    Address(SocketAddr),
    #[error("the node at {addr} claims an epoch of {epoch}, far ahead of this node's time")]
    Epoch { addr: SocketAddr, epoch: u64 },
    #[error("there is no room for {0} among the members")]
    Crowded(SocketAddr),
}

/// What a packet may name.
#[derive(Debug)]
pub(super) struct Plausible {
    /// Epochs beyond it are not those of a clock.
    pub(super) epoch_max: u64,
    /// Those who are remembered already.
    pub(super) known: HashSet<SocketAddr>,
    pub(super) known_max: usize,
    /// What was wrong with the latest packet, if anything was.
    pub(super) found: Option<Implausible>,
}

/// foca's own encoding under supervision.
#[derive(Clone, Debug)]
pub(super) struct Codec {
    plausible: Arc<Mutex<Plausible>>,
    /// Who has sent the packet that is being decoded.
    sender: Option<Identity>,
}

/// Why a packet does not decode.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Malformed(#[from] postcard::Error),
    #[error(transparent)]
    Implausible(#[from] Implausible),
}

impl Codec {
    pub(super) fn new(plausible: Arc<Mutex<Plausible>>) -> Self {
        Self { plausible, sender: None }
    }
}

impl Plausible {
    fn look_at(&mut self, id: &Identity) -> Result<(), Implausible> {
        let looked = self.objection(id).map_or(Ok(()), Err);
        self.found = self.found.or(looked.err());
        looked
    }

    fn objection(&mut self, id: &Identity) -> Option<Implausible> {
        if !id.is_reachable() {
            return Some(Implausible::Address(id.addr));
        }
        if id.epoch > self.epoch_max {
            return Some(Implausible::Epoch { addr: id.addr, epoch: id.epoch });
        }
        if !self.known.contains(&id.addr) {
            if self.known.len() >= self.known_max {
                return Some(Implausible::Crowded(id.addr));
            }
            self.known.insert(id.addr);
        }
        None
    }
}

impl foca::Codec<Identity> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_header(header, buf)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        self.plausible.lock().look_at(&header.src)?;
        self.sender = Some(header.src);
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_member(member, buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf)?;
        match (self.plausible.lock().look_at(member.id()), self.sender) {
            (Ok(()), _) => Ok(member),
            // A cluster that is full must go on talking: the packet says nothing about this one, and foca knows its sender.
            (Err(Implausible::Crowded(_)), Some(sender)) => Ok(Member::alive(sender)),
            (Err(error), _) => Err(error.into()),
        }
    }
}
