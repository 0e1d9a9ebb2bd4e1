//! The sections `[cluster]` and `[tls]`: which cluster this is, and how its nodes know each other.

use std::path::{Path, PathBuf};

use super::error::Reason;
use super::section::Section;

/// Of a cluster that is given no name, as in the library.
const NAME: &str = "distcache";

#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    pub name: String,
    pub secret_file: Option<PathBuf>,
}

/// TLS between nodes. Clients have a section of their own for each listener.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTlsConfig {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub server_name: Option<String>,
    pub mutual: bool,
}

pub(super) fn cluster(root: &mut Section<'_>, dir: &Path) -> Result<ClusterConfig, Reason> {
    // A secret in the file itself would be read by whoever may read how the node is configured.
    let mut section = root.section("cluster", &["name", "secret_file"], &[])?;
    Ok(ClusterConfig {
        name: section.string("name")?.unwrap_or_else(|| NAME.into()),
        secret_file: section.string("secret_file")?.map(|file| dir.join(file)),
    })
}

pub(super) fn tls(root: &mut Section<'_>, dir: &Path) -> Result<Option<NodeTlsConfig>, Reason> {
    let known = ["ca", "cert", "key", "server_name", "mutual"];
    let Some(mut section) = root.optional("tls", &known, &[])? else { return Ok(None) };
    Ok(Some(NodeTlsConfig {
        ca: dir.join(section.required("ca", "the file of the CA that signs the certificates of all nodes")?),
        cert: dir.join(section.required("cert", "the file of this node's certificate")?),
        key: dir.join(section.required("key", "the file of its private key")?),
        server_name: section.string("server_name")?,
        mutual: section.boolean("mutual")?.unwrap_or(true),
    }))
}
