//! Fuzz targets: every decoder of distcache, given anything.
//!
//! Those of the library stand beside their decoders and come here through its feature `fuzz-internals`; here are those of the
//! binary, and what is common to all. The invariant: [`TARGETS`] names each target once, and each has a binary and a corpus of
//! that name.

use std::process::ExitCode;
use std::{env, fs};

use distcache::fuzz_support as library;
pub use distcache::fuzz_support::{Seed, Target};

mod config;
mod http;
mod tls_pem;

pub use config::CONFIG;
pub use http::HTTP;
pub use tls_pem::TLS_PEM;

/// All of them.
pub const TARGETS: [Target; 12] = [
    library::CLUSTER_SECRET,
    CONFIG,
    library::GOSSIP_ENVELOPE,
    library::GOSSIP_PACKET,
    library::HANDSHAKE,
    HTTP,
    library::METADATA,
    library::PEER_REQUEST,
    library::PEER_RESPONSE,
    library::PEER_SERVE,
    library::REGISTRY,
    TLS_PEM,
];

/// The whole of a target's binary: libFuzzer's where the build is instrumented for it, else one that replays files.
#[macro_export]
macro_rules! target {
    ($target:expr) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| ($target.run)(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::replay(&$target)
        }
    };
}

/// Gives a target each file that the command line names.
pub fn replay(target: &Target) -> ExitCode {
    for path in env::args_os().skip(1) {
        match fs::read(&path) {
            Ok(input) => {
                println!("{}: {}, {} bytes", target.name, path.display(), input.len());
                (target.run)(&input);
            }
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
