//! Certificates and keys in PEM.
#![cfg_attr(fuzzing, no_main)]

distcache_fuzz::target!(distcache_fuzz::TLS_PEM);
