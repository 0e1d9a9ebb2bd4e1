//! Gossip packets, and time.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache::fuzz_support::GOSSIP_PACKET);
