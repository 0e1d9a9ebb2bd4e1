//! `distcache demo`: it ends by itself, keeps its promises and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::node::{binary, ended, run, until};

/// Processes of this system whose command line names the directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let needle = dir.to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    lines.filter(|line| line.contains(needle)).collect()
}

fn is_left(dir: &Path) -> Option<String> {
    let files: Vec<_> = fs::read_dir(dir).unwrap().filter_map(Result::ok).map(|entry| entry.path()).collect();
    let processes = processes_of(dir);
    (!files.is_empty() || !processes.is_empty()).then(|| format!("{files:?} {processes:?}"))
}

#[test]
fn once_ends_well_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = run(binary().args(["demo", "--once", "--read-for", "3s"]).env("TMPDIR", dir.path()));
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("GeoNames") && out.contains("as promised"), "{out}");
    assert!(!out.contains('\u{1b}'), "colours without a terminal: {out}");
    until("nothing is left", || is_left(dir.path()).is_none());
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = binary().args(["demo", "--once"]).env("TMPDIR", dir.path()).stdout(Stdio::null()).spawn().unwrap();
    until("nodes are up", || processes_of(dir.path()).len() >= 3);
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(ended(&mut child).code(), Some(143));
    until("nothing is left", || is_left(dir.path()).is_none());
}

#[test]
fn killed_it_takes_its_nodes_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = binary().args(["demo", "--once"]).env("TMPDIR", dir.path()).stdout(Stdio::null()).spawn().unwrap();
    until("nodes are up", || processes_of(dir.path()).len() >= 3);
    child.kill().unwrap();
    ended(&mut child);
    until("no node is left", || processes_of(dir.path()).is_empty());
}
