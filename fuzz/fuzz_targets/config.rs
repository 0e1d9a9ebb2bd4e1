//! The configuration file of the binary.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache_fuzz::CONFIG);
