//! Writes what every target begins with: `TARGET/seed-NAME` in the folder that the command line names. What is there stays: some
//! seeds hold random numbers and would be others each time.

use std::io;
use std::path::PathBuf;
use std::{env, fs};

use distcache_fuzz::TARGETS;

fn main() -> io::Result<()> {
    let corpus = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| "fuzz/corpus".into()));
    for target in TARGETS {
        let dir = corpus.join(target.name);
        fs::create_dir_all(&dir)?;
        for (name, input) in (target.seeds)() {
            let path = dir.join(format!("seed-{name}"));
            if !path.exists() {
                fs::write(path, input)?;
            }
        }
    }
    Ok(())
}
