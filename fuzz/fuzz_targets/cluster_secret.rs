//! Files of cluster secrets.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache::fuzz_support::CLUSTER_SECRET);
