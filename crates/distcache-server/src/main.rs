//! The `distcache` binary. All of it stands in the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    distcache_server::main()
}
