//! `distcache certs`: a CA and certificates for development, as files.
//!
//! Decides which files there are to be; [`issue`] knows certificates, [`files`] writes. The invariant: nothing is written unless
//! everything that was asked for can be, and no key can be read by another user of the machine.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use crate::table::count;

mod files;
mod issue;

use files::Pair;
use issue::{Authority, IssueError, Purpose};

#[derive(clap::Args)]
pub struct Args {
    /// The directory of the files; a CA that is there is used again
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A certificate for each of these nodes
    #[arg(value_name = "NODE", required_unless_present = "clients")]
    nodes: Vec<Name>,
    /// Another name or address that the nodes are reached under; may be repeated
    #[arg(long = "san", value_name = "NAME|IP")]
    sans: Vec<San>,
    /// A certificate of a client, that no node can use; may be repeated
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<Name>,
    /// How long they are valid
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Leave out localhost, 127.0.0.1 and ::1
    #[arg(long)]
    no_localhost: bool,
    /// Replace certificates and keys that are there; never the CA
    #[arg(long)]
    force: bool,
}

/// What a certificate is for, and a part of its files' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

const NAME_BYTES_MAX: usize = 63;
const CA: &str = "ca";

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |part: &str| {
            let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
            part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                && is_edge(part.bytes().next())
                && is_edge(part.bytes().last())
        };
        if text.len() > NAME_BYTES_MAX || !text.split('.').all(is_plain) {
            return Err(format!("expected a name such as cache-1, of at most {NAME_BYTES_MAX} letters and digits"));
        }
        if text.eq_ignore_ascii_case(CA) {
            return Err("this name is the CA's".into());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A name or an address in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    Dns(String),
    Ip(IpAddr),
}

impl FromStr for San {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        match text.parse::<Name>() {
            Ok(Name(name)) => Ok(Self::Dns(name)),
            Err(_) => Err("expected a host name or an IP address, without a port".into()),
        }
    }
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{} exists; --force replaces it", .0.display())]
    Exists(PathBuf),
    #[error("{} exists without {}; both are needed to make certificates of this CA", there.display(), missing.display())]
    HalfCa { there: PathBuf, missing: PathBuf },
    #[error("{} is named twice", .0)]
    Twice(String),
    #[error("{}: {error}", path.display())]
    Ca {
        path: PathBuf,
        #[source]
        error: IssueError,
    },
    #[error("certificate of {name}: {error}")]
    Issue {
        name: String,
        #[source]
        error: IssueError,
    },
}

pub fn run(args: Args) -> Result<ExitCode, CertsError> {
    let wanted = wanted(&args)?;
    files::directory(&args.out)?;
    let ca_files = Pair::of(&args.out, CA);
    let (ca, is_new) = authority(&ca_files)?;
    if !args.force {
        wanted.iter().try_for_each(|(name, _)| Pair::of(&args.out, name).absent())?;
    }
    let mut issued = Vec::new();
    for (name, purpose) in &wanted {
        let made = ca.issue(name, purpose, args.days);
        issued.push((name, made.map_err(|error| CertsError::Issue { name: (*name).to_owned(), error })?));
    }
    if is_new {
        ca_files.write(ca.certificate(), ca.key(), false)?;
    }
    for (name, (certificate, key)) in &issued {
        Pair::of(&args.out, name).write(certificate, key, args.force)?;
    }
    tell(&args, &ca_files, is_new);
    Ok(ExitCode::SUCCESS)
}

fn wanted(args: &Args) -> Result<Vec<(&str, Purpose)>, CertsError> {
    let mut sans = args.sans.clone();
    if !args.no_localhost {
        sans.push(San::Dns("localhost".into()));
        sans.extend(["127.0.0.1", "::1"].into_iter().filter_map(|ip| ip.parse().ok().map(San::Ip)));
    }
    let nodes = args.nodes.iter().map(|Name(name)| (name.as_str(), Purpose::Node { sans: sans.clone() }));
    let clients = args.clients.iter().map(|Name(name)| (name.as_str(), Purpose::Client));
    let all: Vec<_> = nodes.chain(clients).collect();
    for (i, (name, _)) in all.iter().enumerate() {
        // Also where a file system takes A.pem and a.pem for one.
        if all[..i].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(CertsError::Twice((*name).to_owned()));
        }
    }
    Ok(all)
}

/// The CA of the directory, or a new one that is not written yet.
fn authority(files: &Pair) -> Result<(Authority, bool), CertsError> {
    let of_ca = |error| CertsError::Ca { path: files.certificate.clone(), error };
    match files.read()? {
        Some((certificate, key)) => Ok((Authority::open(certificate, key).map_err(of_ca)?, false)),
        None => Ok((Authority::new().map_err(of_ca)?, true)),
    }
}

fn tell(args: &Args, ca: &Pair, is_new: bool) {
    let shown = |path: &Path| path.display().to_string();
    let word = if is_new { "a new CA" } else { "the CA that was there" };
    println!("{} {} ({word})", shown(&ca.certificate), shown(&ca.key));
    let days = count(args.days.into());
    for (kind, names) in [("node", &args.nodes), ("client", &args.clients)] {
        for Name(name) in names {
            let pair = Pair::of(&args.out, name);
            println!("{} {} ({kind} {name}, valid for {days} days)", shown(&pair.certificate), shown(&pair.key));
        }
    }
    if let Some(Name(name)) = args.nodes.first() {
        let pair = Pair::of(&args.out, name);
        println!("\nIn the configuration of {name}:\n");
        println!("[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}", ca.certificate, pair.certificate, pair.key);
    }
    println!(
        "\nThese are for development: whoever reads {} can pass for any node. Keep it off the nodes.",
        shown(&ca.key)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_files_and_of_hosts() {
        for text in ["a", "cache-1", "cache_1.internal", "10"] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
        for text in
            ["", ".", "..", "../a", "a/b", "-a", "a-", ".a", "a..b", "a b", "naïve", "ca", "CA", &"a".repeat(64)]
        {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        assert_eq!("::1".parse(), Ok(San::Ip("::1".parse().unwrap())));
        assert_eq!("cache.internal".parse(), Ok(San::Dns("cache.internal".into())));
        assert!("10.0.0.1:3320".parse::<San>().is_err());
    }
}
