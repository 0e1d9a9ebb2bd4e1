//! What nodes say of the keyspaces.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache::fuzz_support::REGISTRY);
