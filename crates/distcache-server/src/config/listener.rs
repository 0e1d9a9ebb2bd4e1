//! The sections `[http]` and `[admin]`: a port, its limits, its certificates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::error::Reason;
use super::section::Section;
use crate::listener::{CertificateFiles, ListenerConfig, ListenerLimits};

const LISTENER: [&str; 9] = [
    "listen",
    "connections_max",
    "header_timeout",
    "header_bytes_max",
    "body_timeout",
    "idle_timeout",
    "write_timeout",
    "handshake_timeout",
    "tls",
];
const HEADER_BYTES_MIN: u64 = 4 << 10;
const ANSWER_BYTES_MIN: u64 = 64 << 10;

/// What all values of one batch may take in an answer.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;

pub(super) fn http(root: &mut Section<'_>, listen: SocketAddr, dir: &Path) -> Result<(ListenerConfig, usize), Reason> {
    let known: Vec<&'static str> = LISTENER.into_iter().chain(["answer_bytes_max"]).collect();
    let mut http = root.section("http", &known, &["token_file"])?;
    let answer_bytes_max = http.size("answer_bytes_max", ANSWER_BYTES_MIN)?.map_or(ANSWER_BYTES_MAX, |n| n as usize);
    Ok((listener(&mut http, listen, ListenerLimits::HTTP, dir)?, answer_bytes_max))
}

pub(super) fn admin(root: &mut Section<'_>, listen: SocketAddr, dir: &Path) -> Result<ListenerConfig, Reason> {
    let mut admin = root.section("admin", &LISTENER, &["token_file", "token"])?;
    listener(&mut admin, listen, ListenerLimits::ADMIN, dir)
}

fn listener(
    section: &mut Section<'_>,
    listen: SocketAddr,
    limits: ListenerLimits,
    dir: &Path,
) -> Result<ListenerConfig, Reason> {
    let connections_max = section.integer("connections_max", 1..=1_000_000)?;
    let header_bytes_max = section.size("header_bytes_max", HEADER_BYTES_MIN)?;
    let limits = ListenerLimits {
        connections_max: connections_max.map_or(limits.connections_max, |n| n as usize),
        header_timeout: section.duration("header_timeout")?.unwrap_or(limits.header_timeout),
        header_bytes_max: header_bytes_max.map_or(limits.header_bytes_max, |n| n as usize),
        body_timeout: section.duration("body_timeout")?.unwrap_or(limits.body_timeout),
        idle_timeout: section.duration("idle_timeout")?.unwrap_or(limits.idle_timeout),
        write_timeout: section.duration("write_timeout")?.unwrap_or(limits.write_timeout),
        handshake_timeout: section.duration("handshake_timeout")?.unwrap_or(limits.handshake_timeout),
    };
    let listen = section.addr("listen")?.unwrap_or(listen);
    Ok(ListenerConfig { listen, limits, tls: tls(section, dir)? })
}

/// A section that is there and empty is no wish for plaintext: what is missing in it is an error.
fn tls(section: &mut Section<'_>, dir: &Path) -> Result<Option<CertificateFiles>, Reason> {
    let Some(mut tls) = section.optional("tls", &["cert", "key", "client_ca"], &[])? else { return Ok(None) };
    let path = |text: String| -> PathBuf { dir.join(text) };
    Ok(Some(CertificateFiles {
        cert: path(tls.required("cert", "the file of this node's certificate, in PEM")?),
        key: path(tls.required("key", "the file of the certificate's private key, in PEM")?),
        client_ca: tls.string("client_ca")?.map(path),
    }))
}
