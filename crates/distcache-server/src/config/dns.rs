//! The keys of `[discovery]` with `provider = "dns"`.
//!
//! Knows what the library can ask for, not how. The invariant: a port is either in the file or in the records, never in both.

use std::net::SocketAddr;
use std::time::Duration;

use distcache::IpFamily;

use super::GOSSIP_PORT;
use super::error::Reason;
use super::section::Section;

/// One name that stands for all nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsConfig {
    pub name: String,
    pub record: DnsRecord,
    /// None: the system's.
    pub name_servers: Vec<SocketAddr>,
    pub ip_family: IpFamily,
    /// What is `None` is left to the library's default.
    pub timeout: Option<Duration>,
}

/// What the name has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DnsRecord {
    /// Addresses of nodes that all gossip on this port.
    Address { port: u16 },
    /// SRV records, which bring the ports.
    Srv,
}

pub(super) const KNOWN: [&str; 6] = ["name", "port", "record", "name_servers", "ip_family", "timeout"];

pub(super) fn dns(discovery: &mut Section<'_>) -> Result<DnsConfig, Reason> {
    let name = discovery.required("name", "the name that stands for all nodes")?;
    let record = match discovery.choice("record", &["address", "srv"], &[])? {
        Some("srv") => DnsRecord::Srv,
        _ => {
            let port = discovery.integer("port", 1..=65_535)?;
            DnsRecord::Address { port: port.map_or(GOSSIP_PORT, |port| port as u16) }
        }
    };
    let found = DnsConfig {
        name,
        record,
        name_servers: discovery.addrs("name_servers")?.unwrap_or_default(),
        ip_family: ip_family(discovery)?,
        timeout: discovery.duration("timeout")?,
    };
    if record == DnsRecord::Srv {
        discovery.nothing_left("it has no meaning for SRV records, which bring the port of each node")?;
    }
    Ok(found)
}

pub(super) fn ip_family(section: &mut Section<'_>) -> Result<IpFamily, Reason> {
    Ok(match section.choice("ip_family", &["both", "ipv4", "ipv6"], &[])? {
        Some("ipv4") => IpFamily::Ipv4,
        Some("ipv6") => IpFamily::Ipv6,
        _ => IpFamily::Both,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;
    use crate::config::discovery::DiscoveryConfig;

    fn parse(lines: &str) -> Result<DnsConfig, Reason> {
        let text = format!("[discovery]\nprovider = \"dns\"\n{lines}");
        match Config::parse(&text, PathBuf::new())?.discovery {
            DiscoveryConfig::Dns(dns) => Ok(dns),
            other => panic!("{other:?}"),
        }
    }

    fn refused(lines: &str) -> String {
        parse(lines).unwrap_err().to_string()
    }

    #[test]
    fn a_name_is_enough_and_its_nodes_gossip_where_nodes_do() {
        let expected = DnsConfig {
            name: "cache.internal".into(),
            record: DnsRecord::Address { port: 3322 },
            name_servers: vec![],
            ip_family: IpFamily::Both,
            timeout: None,
        };
        assert_eq!(parse("name = \"cache.internal\"").unwrap(), expected);
        let same = "name = \"cache.internal\"\nrecord = \"address\"\nport = 3322\nip_family = \"both\"";
        assert_eq!(parse(same).unwrap(), expected);
    }

    #[test]
    fn everything_can_be_said() {
        let lines = r#"
            record = "srv"
            name = "_distcache._udp.cache.internal"
            name_servers = ["10.0.0.2:53", "[fd00::2]:53"]
            ip_family = "ipv6"
            timeout = "2s"
        "#;
        let expected = DnsConfig {
            name: "_distcache._udp.cache.internal".into(),
            record: DnsRecord::Srv,
            name_servers: vec!["10.0.0.2:53".parse().unwrap(), "[fd00::2]:53".parse().unwrap()],
            ip_family: IpFamily::Ipv6,
            timeout: Some(Duration::from_secs(2)),
        };
        assert_eq!(parse(lines).unwrap(), expected);
        assert_eq!(
            expected.to_string(),
            "every IPv6 address and port of _distcache._udp.cache.internal, as 10.0.0.2:53 or [fd00::2]:53 knows them"
        );
        assert_eq!(parse("name = \"c\"\nip_family = \"ipv4\"").unwrap().ip_family, IpFamily::Ipv4);
    }

    #[test]
    fn the_files_of_the_documentation_are_taken() {
        let page = include_str!("../../../../docs/discovery/dns.md");
        let files: Vec<_> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(files.len(), 2);
        for file in files {
            Config::parse(file, PathBuf::new()).unwrap_or_else(|problem| panic!("{problem} in\n{file}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        assert_eq!(
            refused("port = 1"),
            "`name` is missing in [discovery] at line 1: expected the name that stands for all nodes"
        );
        assert_eq!(
            refused("name = \"c\"\nrecord = \"srv\"\nport = 3322"),
            "`port` in [discovery] at line 5: it has no meaning for SRV records, which bring the port of each node"
        );
        assert_eq!(
            refused("name = \"c\"\nseeds = [\"a:1\"]"),
            "`seeds` in [discovery] at line 4: it has no meaning for this provider"
        );
        assert_eq!(
            refused("name = \"c\"\nname_servers = [\"10.0.0.2\"]"),
            "`name_servers = [\"10.0.0.2\"]` in [discovery] at line 4: expected a list of addresses and ports, such as \
             [\"10.0.0.2:53\"]"
        );
        assert!(refused("name = \"c\"\nrecord = \"svr\"").ends_with("\"address\" or \"srv\"; did you mean \"srv\"?"));
        assert!(refused("name = \"c\"\nip_family = \"ipv5\"").contains("expected \"both\", \"ipv4\" or \"ipv6\""));
        assert!(refused("name = \"c\"\ntimeout = \"0s\"").contains("expected a duration longer than zero"));
        assert!(refused("name = \"c\"\nport = 70000").contains("expected a whole number from 1 to 65535"));
        assert_eq!(
            refused("name = \"c\"\nname_server = [\"10.0.0.2:53\"]"),
            "unknown key `name_server` in [discovery] at line 4; did you mean `name_servers`?"
        );
    }
}
