//! A server of a test's own: a real program on a free port, with its files in a directory that goes with it.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use distcache::{DataSource, Fetched, SourceError};
use tempfile::TempDir;

/// Generous: the machine may be busy. A condition that holds is seen at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's `nobody`: databases refuse to run as root.
const NOBODY: u32 = 65_534;

/// Ends with the value.
pub struct Server {
    pub port: u16,
    package: &'static str,
    dir: TempDir,
    /// Starts it in the foreground.
    command: Vec<String>,
    stop_signal: &'static str,
    process: Option<Child>,
}

impl Server {
    /// Not started yet; `command` is given the port and the directory.
    pub fn new(package: &'static str, stop_signal: &'static str, command: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if is_root(dir.path()) {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // Whoever takes it in the meantime makes the start fail, which says so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let command = command(port, dir.path());
        Self { port, package, dir, command, stop_signal, process: None }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file that only the server reads.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.dir().join(name);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        if is_root(&file) {
            chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        file
    }

    /// A program of the server's package, run to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let log = File::create(self.dir().join("run.log")).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let status = self.spawn(program, &arguments, log).wait().unwrap();
        let log = || fs::read_to_string(self.dir().join("run.log")).unwrap();
        assert!(status.success(), "{program}: {}", log());
    }

    /// Starts it, and waits until `answers`.
    pub async fn up(&mut self, answers: impl AsyncFn(u16) -> bool) {
        assert!(self.process.is_none(), "it runs already");
        let log = File::create(self.dir().join("server.log")).unwrap();
        let mut process = self.spawn(&self.command[0], &self.command[1..], log);
        let deadline = Instant::now() + PATIENCE;
        while !answers(self.port).await {
            let is_over = process.try_wait().unwrap().is_some() || Instant::now() > deadline;
            let log = || fs::read_to_string(self.dir().join("server.log")).unwrap();
            assert!(!is_over, "{} does not come up: {}", self.command[0], log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = Some(process);
    }

    /// Without a word to its clients.
    pub fn down(&mut self) {
        let mut process = self.process.take().expect("it runs");
        stop(&mut process, self.stop_signal);
    }

    /// As `nobody` where the tests run as root.
    fn spawn(&self, program: &str, arguments: &[String], log: File) -> Child {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.dir()).env("HOME", self.dir()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.spawn().unwrap_or_else(|error| match error.kind() {
            ErrorKind::NotFound => {
                panic!("{program} is not installed; with Debian: apt-get install {}", self.package)
            }
            _ => panic!("{program} does not start: {error}"),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            stop(process, self.stop_signal);
        }
    }
}

fn stop(process: &mut Child, signal: &str) {
    let _ = Command::new("kill").arg(signal).arg(process.id().to_string()).status();
    let _ = process.wait();
}

fn is_root(path: &Path) -> bool {
    fs::metadata(path).unwrap().uid() == 0
}

pub async fn text(source: &impl DataSource, key: &str) -> String {
    String::from_utf8(source.fetch(key).await.unwrap().value().to_vec()).unwrap()
}

pub fn is_not_found(answer: &Result<Fetched, SourceError>) -> bool {
    matches!(answer, Err(SourceError::NotFound))
}

/// Asks until the answer holds, and gives it.
pub async fn eventually(
    source: &impl DataSource,
    key: &str,
    holds: impl Fn(&Result<Fetched, SourceError>) -> bool,
) -> Result<Fetched, SourceError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = source.fetch(key).await;
        if holds(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "the last answer: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One and many keys are answered alike, in order.
pub async fn answers_alike(source: &impl DataSource, keys: &[&str]) {
    let many = source.fetch_many(keys).await;
    assert_eq!(many.len(), keys.len());
    for (key, many) in keys.iter().zip(many) {
        match (many, source.fetch(key).await) {
            (Ok(many), Ok(one)) => assert_eq!(many.value(), one.value(), "{key}"),
            (Err(SourceError::NotFound), Err(SourceError::NotFound)) => {}
            (many, one) => panic!("{key}: in a batch {many:?}, alone {one:?}"),
        }
    }
}
