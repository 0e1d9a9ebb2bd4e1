//! What makes other nodes trust this one: the cluster secret and the certificates, read from their files and again when they
//! change.
//!
//! The invariant: a file that makes no sense stops the start; while the node runs it is logged once, and what was read before
//! stays in use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use distcache::{ClusterSecret, Engine, EngineBuilder, SecretError, Tls, TlsError};

use crate::config::{Config, NodeTlsConfig};

/// How often the secret is read again. Certificates are looked after by the library, as often.
const SECRET_INTERVAL: Duration = Duration::from_secs(5);

/// Why a node cannot show that it belongs.
#[derive(Debug, thiserror::Error)]
pub enum SecurityProblem {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("[tls] {0}")]
    Tls(#[from] TlsError),
}

/// Gives the engine what its file names.
pub fn secured(mut builder: EngineBuilder, config: &Config) -> Result<EngineBuilder, SecurityProblem> {
    if let Some(file) = &config.cluster.secret_file {
        builder = builder.cluster_secret(ClusterSecret::from_file(file)?);
    }
    if let Some(tls) = &config.tls {
        builder = builder.tls(open(tls)?);
    }
    Ok(builder)
}

fn open(config: &NodeTlsConfig) -> Result<Tls, TlsError> {
    let tls = Tls::from_files(&config.ca, &config.cert, &config.key)?.mutual(config.mutual)?;
    Ok(match &config.server_name {
        Some(name) => tls.server_name(name),
        None => tls,
    })
}

/// Reads the secret again and again, for as long as it is awaited.
pub async fn follow_secret(engine: Engine, file: PathBuf) {
    let mut read = contents(&file);
    let mut failure = None;
    loop {
        tokio::time::sleep(SECRET_INTERVAL).await;
        let now = contents(&file);
        if now == read && failure.is_none() {
            continue;
        }
        match ClusterSecret::from_file(&file) {
            Ok(secret) if now != read => {
                if let Err(error) = engine.rotate_cluster_secret(&secret) {
                    tracing::error!(%error, "the cluster secret was not changed");
                }
                (read, failure) = (now, None);
            }
            Ok(_) => failure = None,
            Err(error) => {
                let error = error.to_string();
                if failure.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the cluster secret has changed and cannot be used; the old one stays in use"
                    );
                }
                failure = Some(error);
            }
        }
    }
}

/// Compared and forgotten.
fn contents(file: &Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok()
}
