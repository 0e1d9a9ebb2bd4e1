//! A hundred keys spread over three nodes: one call, beside a hundred calls.

use crate::Settings;
use crate::cluster::{Cluster, Sample};
use crate::drive::{BATCH_KEYS, How, Work};
use crate::error::BenchError;
use crate::report::{Bound, Table, Target};
use crate::stats::{alternate, median, ratio, spread};
use crate::systems::{System, redis};
use crate::workload::SMALL_VALUE_BYTES;

/// A way to read the batch; the first is the one that the others are compared with.
struct Contestant {
    name: &'static str,
    system: System,
    how: How,
}

const CONTESTANTS: [Contestant; 5] = [
    Contestant { name: "get_many", system: System::Distcache, how: How::BatchAtOnce },
    Contestant { name: "100 gets together", system: System::Distcache, how: How::BatchTogether },
    Contestant { name: "100 gets in turn", system: System::Distcache, how: How::BatchInTurn },
    Contestant { name: "groupcache, 100 gets together", system: System::Groupcache, how: How::BatchTogether },
    Contestant { name: "redis MGET, one server", system: System::Redis, how: How::BatchAtOnce },
];

const IN_FLIGHT: [usize; 2] = [1, 8];

pub fn run(settings: Settings) -> Result<Vec<Target>, BenchError> {
    redis::check_installed()?;
    // The reader is a node as well: of three nodes, two are servers. A Redis server is alone.
    let mut clusters = vec![
        Cluster::start(System::Distcache, 2)?,
        Cluster::start(System::Groupcache, 2)?,
        Cluster::start(System::Redis, 1)?,
    ];
    let mut table = Table::new(
        format!("{BATCH_KEYS} keys over three nodes, values of {SMALL_VALUE_BYTES} bytes, one worker thread a node"),
        &["batches in flight, way", "batches/s", "±%", "p50 µs", "p99 µs", "CPU µs a batch", "get_many is"],
    );
    let mut targets = Vec::new();
    for in_flight in IN_FLIGHT {
        let samples = rounds(&mut clusters, settings, in_flight)?;
        for (contestant, of_contestant) in CONTESTANTS.iter().zip(&samples) {
            table.row(row(contestant, in_flight, of_contestant, &samples[0]));
        }
        if in_flight == 1 {
            targets.push(Target {
                what: "batches a second: get_many beside 100 gets awaited together".into(),
                bound: Bound::AtLeast(1.0),
                measured: ratio(&rates(&samples[0]), &rates(&samples[1])),
            });
        }
    }
    table.print(settings.style());
    Ok(targets)
}

fn rounds(clusters: &mut [Cluster], settings: Settings, in_flight: usize) -> Result<Vec<Vec<Sample>>, BenchError> {
    let mut measure = |contestant: usize, millis| {
        let Contestant { system, how, .. } = CONTESTANTS[contestant];
        let work = Work { how, value_bytes: SMALL_VALUE_BYTES, tasks: in_flight, millis };
        let place = clusters.iter().position(|cluster| cluster.system == system).unwrap_or_default();
        clusters[place].measure(work)
    };
    for contestant in 0..CONTESTANTS.len() {
        measure(contestant, settings.pick(200, 20))?;
    }
    alternate(CONTESTANTS.len(), settings.pick(5, 1), |contestant| measure(contestant, settings.pick(1_000, 50)))
}

fn rates(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.per_second).collect()
}

fn row(contestant: &Contestant, in_flight: usize, samples: &[Sample], ours: &[Sample]) -> [String; 7] {
    let middle = |number: fn(&Sample) -> f64| median(&samples.iter().map(number).collect::<Vec<_>>());
    let rates_here = rates(samples);
    [
        format!("{in_flight}  {}", contestant.name),
        format!("{:.0}", median(&rates_here)),
        format!("{:.0}", spread(&rates_here) * 100.0),
        format!("{:.0}", middle(|sample| sample.p50_micros)),
        format!("{:.0}", middle(|sample| sample.p99_micros)),
        format!("{:.0}", middle(|sample| sample.cpu_micros)),
        format!("{:.2}x", ratio(&rates(ours), &rates_here)),
    ]
}
