//! The same remote get in the clear, and under mutual TLS with a cluster secret.

use crate::Settings;
use crate::cluster::Cluster;
use crate::error::BenchError;
use crate::remote::{IN_FLIGHT, IN_FLIGHT_OF_TARGETS, of, rounds, row};
use crate::report::{Bound, Table, Target};
use crate::stats::ratio;
use crate::systems::{System, distcache};
use crate::workload::{LARGE_VALUE_BYTES, SMALL_VALUE_BYTES};

const CONTESTANTS: [System; 2] = [System::Distcache, System::DistcacheTls];

pub fn run(settings: Settings) -> Result<Vec<Target>, BenchError> {
    let _certificates = distcache::Certificates::make()?;
    let mut clusters = Vec::new();
    for system in CONTESTANTS {
        clusters.push(Cluster::start(system, 1)?);
    }
    let mut targets = Vec::new();
    for value_bytes in [SMALL_VALUE_BYTES, LARGE_VALUE_BYTES] {
        let mut table = Table::new(
            format!("Remote get under TLS, values of {value_bytes} bytes, one worker thread a side"),
            &["in flight, system", "k/s", "±%", "p50 µs", "p99 µs", "CPU µs", "of it client", "plaintext is"],
        );
        for in_flight in IN_FLIGHT {
            let samples = rounds(&mut clusters, settings, value_bytes, in_flight)?;
            for (cluster, of_system) in clusters.iter().zip(&samples) {
                table.row(row(cluster.system, in_flight, of_system, &samples[0]));
            }
            if value_bytes == SMALL_VALUE_BYTES && in_flight == IN_FLIGHT_OF_TARGETS {
                let rates = samples.iter().map(|samples| of(samples, |sample| sample.per_second)).collect::<Vec<_>>();
                targets.push(Target {
                    what: "remote gets a second under mutual TLS beside plaintext, 64 in flight".into(),
                    bound: Bound::AtLeast(0.7),
                    measured: ratio(&rates[1], &rates[0]),
                });
            }
        }
        table.print(settings.style());
    }
    Ok(targets)
}
