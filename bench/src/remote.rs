//! A get of a key that another node owns: requests a second, latency, and processor time of both sides.

use crate::Settings;
use crate::cluster::{Cluster, Sample};
use crate::drive::{How, Work};
use crate::error::BenchError;
use crate::report::{Bound, Table, Target};
use crate::stats::{alternate, median, ratio, spread};
use crate::systems::{System, redis};
use crate::workload::{LARGE_VALUE_BYTES, SMALL_VALUE_BYTES};

pub const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];
pub const IN_FLIGHT_OF_TARGETS: usize = 64;

pub fn run(settings: Settings) -> Result<Vec<Target>, BenchError> {
    redis::check_installed()?;
    let mut clusters = Vec::new();
    for system in System::ALL {
        clusters.push(Cluster::start(system, 1)?);
    }
    let mut targets = Vec::new();
    for value_bytes in [SMALL_VALUE_BYTES, LARGE_VALUE_BYTES] {
        let mut table = Table::new(
            format!("Remote get, values of {value_bytes} bytes, one worker thread a side"),
            &["in flight, system", "k/s", "±%", "p50 µs", "p99 µs", "CPU µs", "of it client", "distcache is"],
        );
        for in_flight in IN_FLIGHT {
            let samples = rounds(&mut clusters, settings, value_bytes, in_flight)?;
            for (cluster, of_system) in clusters.iter().zip(&samples) {
                table.row(row(cluster.system, in_flight, of_system, &samples[0]));
            }
            if value_bytes == SMALL_VALUE_BYTES && in_flight == IN_FLIGHT_OF_TARGETS {
                targets = targets_of(&samples);
            }
        }
        table.print(settings.style());
    }
    Ok(targets)
}

pub fn rounds(
    clusters: &mut [Cluster],
    settings: Settings,
    value_bytes: usize,
    in_flight: usize,
) -> Result<Vec<Vec<Sample>>, BenchError> {
    let work = |millis| Work { how: How::Remote, value_bytes, tasks: in_flight, millis };
    for cluster in clusters.iter_mut() {
        cluster.measure(work(settings.pick(200, 20)))?;
    }
    let timed = work(settings.pick(1_000, 50));
    alternate(clusters.len(), settings.pick(5, 1), |contestant| clusters[contestant].measure(timed))
}

pub fn of(samples: &[Sample], number: impl Fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(number).collect()
}

pub fn row(system: System, in_flight: usize, samples: &[Sample], ours: &[Sample]) -> [String; 8] {
    let rates = of(samples, |sample| sample.per_second);
    let versus = ratio(&of(ours, |sample| sample.per_second), &rates);
    let middle = |number: fn(&Sample) -> f64| median(&of(samples, number));
    [
        format!("{in_flight:>3}  {}", system.name()),
        format!("{:.1}", median(&rates) / 1_000.0),
        format!("{:.0}", spread(&rates) * 100.0),
        format!("{:.0}", middle(|sample| sample.p50_micros)),
        format!("{:.0}", middle(|sample| sample.p99_micros)),
        format!("{:.1}", middle(|sample| sample.cpu_micros)),
        format!("{:.1}", middle(|sample| sample.cpu_client_micros)),
        if system == System::Distcache { String::new() } else { format!("{versus:.2}x") },
    ]
}

fn targets_of(samples: &[Vec<Sample>]) -> Vec<Target> {
    let rates: Vec<Vec<f64>> = samples.iter().map(|samples| of(samples, |sample| sample.per_second)).collect();
    let cpu: Vec<Vec<f64>> = samples.iter().map(|samples| of(samples, |sample| sample.cpu_micros)).collect();
    let place = |system| System::ALL.iter().position(|&other| other == system).unwrap_or_default();
    let (ours, groupcache, redis) = (place(System::Distcache), place(System::Groupcache), place(System::Redis));
    vec![
        Target {
            what: "remote gets a second beside groupcache, 64 in flight".into(),
            bound: Bound::AtLeast(5.0),
            measured: ratio(&rates[ours], &rates[groupcache]),
        },
        Target {
            what: "remote gets a second beside redis-rs and a Redis server, 64 in flight".into(),
            bound: Bound::AtLeast(1.0),
            measured: ratio(&rates[ours], &rates[redis]),
        },
        Target {
            what: "processor time of a remote get, both sides, beside Redis, 64 in flight".into(),
            bound: Bound::AtMost(1.0),
            measured: ratio(&cpu[ours], &cpu[redis]),
        },
    ]
}
