//! The first words between nodes.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache::fuzz_support::HANDSHAKE);
