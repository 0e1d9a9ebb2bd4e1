# What there is to run: `just` lists it.

_default:
    @"{{ just_executable() }}" --list --unsorted

# Every test and example, once
test:
    scripts/test

# Everything a change has to pass
ci:
    .ci/run

# Three nodes over a real data set, with nothing to install
demo *args:
    cargo run --locked --release --package distcache-server --bin distcache -- demo {{ args }}

# Side by side with other systems; minutes, on a quiet machine
bench *args='all':
    cargo run --locked --release --package distcache-bench -- {{ args }}

# Whole clusters in trouble, simulated: so many seeds of five minutes, five nodes each
sim seeds='60' first='1':
    cargo run --locked --release --package distcache-sim -- run --seeds {{ seeds }} --first-seed {{ first }}

# The same for as many simulated hours as asked
sim-long hours='100' first='1000':
    cargo run --locked --release --package distcache-sim -- run --seeds $(({{ hours }} * 12)) --first-seed {{ first }}

# The protocol without one of its rules at a time: some seed finds out
hunt *args:
    cargo run --locked --release --package distcache-sim -- hunt {{ args }}

# Format the code
fmt:
    cargo fmt --all

# Lint, warnings are errors
clippy:
    .ci/run clippy

# Build the documentation and open it
doc:
    cargo doc --locked --workspace --no-deps --all-features --open

# Licences, bans and sources of every dependency
deny:
    .ci/run deny

# Fuzz each target for so many seconds, or those that are named; what it finds joins the corpus
fuzz seconds='300' *targets:
    scripts/fuzz for {{ seconds }} {{ targets }}

# Run every example of the library
examples:
    for file in crates/distcache/examples/*.rs; do cargo run --locked --quiet --example "$(basename "$file" .rs)" || exit; done
