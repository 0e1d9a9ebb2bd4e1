//! What stands around a gossip datagram.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache::fuzz_support::GOSSIP_ENVELOPE);
