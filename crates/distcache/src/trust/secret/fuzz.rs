//! Files of secrets: what is too short, too long or too much is refused, and nothing of them is ever printed.

use super::*;
use crate::fuzz_support::{Seed, Target};

/// A file of secrets.
pub const CLUSTER_SECRET: Target = Target { name: "cluster_secret", run, seeds };

fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ClusterSecret::of_lines(text) {
        Ok(secret) => {
            assert!((1..=SECRETS_MAX).contains(&secret.secrets.len()));
            let lens = SECRET_BYTES_MIN..=SECRET_BYTES_MAX;
            assert!(secret.secrets.iter().all(|secret| lens.contains(&secret.len())));
            assert_eq!(format!("{secret:?}"), format!("ClusterSecret({} keys, redacted)", secret.secrets.len()));
            let ring = KeyRing::new(&secret, "shop");
            assert!(ring.find(ring.spoken().id).is_some());
        }
        Err(SecretError::Length { len }) => assert!(!(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&len)),
        Err(SecretError::Count { count }) => assert!(count == 0 || count > SECRETS_MAX),
        Err(SecretError::Unreadable { .. }) => panic!("no file was read"),
    }
}

fn seeds() -> Vec<Seed> {
    let one = "one secret of a cluster";
    vec![
        ("one".into(), one.into()),
        ("rotation".into(), format!("\n  {one}\n\n{one} before\r\n").into()),
        ("short".into(), "short".into()),
        ("many".into(), [one; SECRETS_MAX + 1].join("\n").into()),
        ("long".into(), "x".repeat(SECRET_BYTES_MAX + 1).into()),
    ]
}
