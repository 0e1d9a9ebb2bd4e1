//! What a peer answers.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache::fuzz_support::PEER_RESPONSE);
