//! A network and a mount table of this test's own: it runs once more inside of them, and they are gone with its last process,
//! however it ends.
//!
//! Knows what is needed for that and says what is missing. The invariant: nothing outside is touched, and nothing is passed over
//! in silence.

use std::process::{Command, Output};

/// Set for the test inside.
const INSIDE: &str = "DISTCACHE_NETNS_INSIDE";
const NEEDS: &str = "this test makes network namespaces of its own, for which it needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) or a \
                     kernel that lets users have user namespaces";

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test of this name inside, and fails as it fails.
pub fn run_inside(test: &str) {
    for (program, version, package) in
        [("ip", "-V", "iproute2"), ("nft", "--version", "nftables"), ("unshare", "--version", "util-linux")]
    {
        let found = command(program).arg(version).output();
        assert!(found.is_ok(), "no `{program}` here; with Debian: apt-get install {package}");
    }
    let mut unshare = unshare();
    let probe = unshare.arg("true").output().unwrap();
    assert!(probe.status.success(), "{NEEDS}; unshare says: {}", String::from_utf8_lossy(&probe.stderr).trim());
    let mut inside = self::unshare();
    inside.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let Output { status, stdout, stderr } = inside.output().unwrap();
    print!("{}", String::from_utf8_lossy(&stdout));
    eprint!("{}", String::from_utf8_lossy(&stderr));
    assert!(status.success(), "what stands above happened inside: {status}");
}

/// Once inside: a place for the names of namespaces that nobody else sees.
pub fn settle() {
    run(&["mount", "-t", "tmpfs", "tmpfs", "/run"]);
    run(&["ip", "link", "set", "lo", "up"]);
}

fn unshare() -> Command {
    let mut unshare = command("unshare");
    unshare.args(["--net", "--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.arg("--");
    unshare
}

/// A program that Debian may keep where only root looks.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    // The program is looked for there too: on the path that the command is given.
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Runs a command that has to succeed.
pub fn run(words: &[&str]) {
    let output = command(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")));
    assert!(
        output.status.success(),
        "{}: {}; {NEEDS}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
}
