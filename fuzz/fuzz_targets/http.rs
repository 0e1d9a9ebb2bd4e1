//! Requests of the HTTP API, batches among them.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache_fuzz::HTTP);
