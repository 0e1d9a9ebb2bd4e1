//! What stands around a gossip datagram: the protocol's magic and version, and which cluster it belongs to.
//!
//! Knows nothing of what it carries. The invariant: nothing of another protocol, version or cluster is ever opened. Whoever
//! encrypts and authenticates datagrams does it here: [`Envelope::seal`] and [`Envelope::open`] are the only way in and out.

use xxhash_rust::xxh3::xxh3_64;

/// Also opens the TCP exchange.
pub(super) const MAGIC: [u8; 3] = *b"dcG";
/// Of gossip and exchange together. Nodes of different versions do not talk to each other.
pub(super) const VERSION: u8 = 1;

const HEADER_BYTES: usize = MAGIC.len() + 1 + size_of::<u64>();

/// The mark of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    header: [u8; HEADER_BYTES],
}

/// Why a datagram is not for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is no gossip of ours")]
    Foreign,
    #[error("it speaks version {0} of the gossip, not {VERSION}")]
    OtherVersion(u8),
    #[error("it belongs to another cluster")]
    OtherCluster,
}

impl Envelope {
    /// Most bytes that [`seal`](Self::seal) adds.
    pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES;

    pub(super) fn new(cluster_name: &str) -> Self {
        let mut header = [0; HEADER_BYTES];
        header[..MAGIC.len()].copy_from_slice(&MAGIC);
        header[MAGIC.len()] = VERSION;
        header[MAGIC.len() + 1..].copy_from_slice(&xxh3_64(cluster_name.as_bytes()).to_be_bytes());
        Self { header }
    }

    /// Replaces what is in `datagram`.
    pub(super) fn seal(&self, payload: &[u8], datagram: &mut Vec<u8>) {
        datagram.clear();
        datagram.extend_from_slice(&self.header);
        datagram.extend_from_slice(payload);
    }

    pub(super) fn open<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Refused> {
        let (header, payload) = datagram.split_at_checked(HEADER_BYTES).ok_or(Refused::Foreign)?;
        match header {
            header if header == self.header => Ok(payload),
            header if header[..MAGIC.len()] != MAGIC => Err(Refused::Foreign),
            header if header[MAGIC.len()] != VERSION => Err(Refused::OtherVersion(header[MAGIC.len()])),
            _ => Err(Refused::OtherCluster),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(cluster: &str, payload: &[u8]) -> Vec<u8> {
        let mut datagram = b"left over".to_vec();
        Envelope::new(cluster).seal(payload, &mut datagram);
        datagram
    }

    #[test]
    fn only_the_same_cluster_and_version_open_it() {
        let datagram = sealed("shop", b"hello");
        assert_eq!(datagram.len(), 5 + Envelope::OVERHEAD_BYTES);
        assert_eq!(Envelope::new("shop").open(&datagram), Ok(&b"hello"[..]));
        assert_eq!(Envelope::new("Shop").open(&datagram), Err(Refused::OtherCluster));
        let mut newer = datagram.clone();
        newer[MAGIC.len()] = VERSION + 1;
        assert_eq!(Envelope::new("shop").open(&newer), Err(Refused::OtherVersion(VERSION + 1)));
        assert_eq!(Envelope::new("shop").open(&datagram[..3]), Err(Refused::Foreign));
    }

    proptest! {
        #[test]
        fn whatever_was_sealed_opens_again(payload: Vec<u8>) {
            let datagram = sealed("shop", &payload);
            prop_assert_eq!(Envelope::new("shop").open(&datagram), Ok(&payload[..]));
        }

        #[test]
        fn garbage_is_refused(datagram: Vec<u8>) {
            prop_assert!(Envelope::new("shop").open(&datagram).is_err());
        }
    }
}
