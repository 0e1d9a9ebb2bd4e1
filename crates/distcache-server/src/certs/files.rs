//! A certificate and its key, as two files of a directory.
//!
//! Knows no certificates, only text. The invariant: a key's file was never readable by anybody but its owner, and a file
//! that is replaced is the old one or the new one to whoever reads it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::CertsError;

/// `NAME.pem` and `NAME.key`.
pub(super) struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

pub(super) fn directory(path: &Path) -> Result<(), CertsError> {
    fs::create_dir_all(path).map_err(of(path))
}

impl Pair {
    pub(super) fn of(dir: &Path, name: &str) -> Self {
        Self { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }

    /// Both texts, or none if there is neither file.
    pub(super) fn read(&self) -> Result<Option<(String, String)>, CertsError> {
        match (exists(&self.certificate)?, exists(&self.key)?) {
            (false, false) => Ok(None),
            (true, true) => {
                let read = |path: &Path| fs::read_to_string(path).map_err(of(path));
                Ok(Some((read(&self.certificate)?, read(&self.key)?)))
            }
            (true, false) => Err(CertsError::HalfCa { there: self.certificate.clone(), missing: self.key.clone() }),
            (false, true) => Err(CertsError::HalfCa { there: self.key.clone(), missing: self.certificate.clone() }),
        }
    }

    pub(super) fn absent(&self) -> Result<(), CertsError> {
        for path in [&self.certificate, &self.key] {
            if exists(path)? {
                return Err(CertsError::Exists(path.clone()));
            }
        }
        Ok(())
    }

    /// The key first: a certificate that is there has its key beside it.
    pub(super) fn write(&self, certificate: &str, key: &str, replace: bool) -> Result<(), CertsError> {
        write(&self.key, key, OWNER_ONLY, replace)?;
        write(&self.certificate, certificate, FOR_ALL, replace)
    }
}

const OWNER_ONLY: u32 = 0o600;
const FOR_ALL: u32 = 0o644;

fn write(path: &Path, text: &str, mode: u32, replace: bool) -> Result<(), CertsError> {
    if !replace {
        return create(path, text, mode).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => CertsError::Exists(path.to_owned()),
            _ => of(path)(error),
        });
    }
    // Beside the file, since only within one directory a file is replaced in one step.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // Left there by a process that was killed.
    let _ = fs::remove_file(&new);
    create(&new, text, mode).map_err(of(&new))?;
    fs::rename(&new, path).map_err(of(path))
}

fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)?.write_all(text.as_bytes())
}

fn exists(path: &Path) -> Result<bool, CertsError> {
    path.try_exists().map_err(of(path))
}

fn of(path: &Path) -> impl Fn(io::Error) -> CertsError {
    let path = path.to_owned();
    move |error| CertsError::File { path: path.clone(), error }
}
