//! What nodes say of the cluster over TCP.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache::fuzz_support::METADATA);
