//! Streams of requests: read from files of real ones, or made by Zipf's law.
//!
//! Knows no cache. A file holds one record a request, the key as little-endian `u64` and the size as little-endian `u32`, as it
//! is or compressed by zstd (`.zst`). Sizes are passed over: every entry counts as one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

use crate::error::BenchError;
use crate::workload::{self, SplitMix};

const RECORD_BYTES: usize = 12;

/// Requests in the order in which they came; keys are numbered from 0 by their first request.
pub struct Trace {
    pub name: String,
    pub requests: Vec<u32>,
    pub keys: usize,
}

impl Trace {
    fn new(name: impl Into<String>, keys: impl IntoIterator<Item = u64>) -> Self {
        let mut numbers = HashMap::new();
        let mut number = |key| {
            let next = numbers.len() as u32;
            *numbers.entry(key).or_insert(next)
        };
        let requests = keys.into_iter().map(&mut number).collect();
        Self { name: name.into(), requests, keys: numbers.len() }
    }

    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let bytes = decompressed(path).map_err(|source| BenchError::Trace { path: path.into(), source })?;
        let key = |record: &[u8]| record.iter().take(8).rev().fold(0, |key, &byte| key << 8 | u64::from(byte));
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name = name.split('.').next().unwrap_or_default();
        Ok(Self::new(name, bytes.chunks_exact(RECORD_BYTES).map(key)))
    }

    /// Streams by Zipf's law: three exponents, one interrupted by scans, one whose popular keys become others.
    pub fn made(keys: usize, requests: usize) -> Vec<Self> {
        let zipf = |exponent, seed| workload::zipf_of(exponent, keys, requests, seed).into_iter().map(u64::from);
        let mut made: Vec<_> =
            [0.7, 0.9, 1.1].map(|exponent| Self::new(format!("Zipf, exponent {exponent}"), zipf(exponent, 1))).into();
        made.push(Self::new("Zipf, exponent 0.9, every fifth request one of a scan", scanned(zipf(0.9, 2), keys)));
        made.push(Self::new("Zipf, exponent 0.9, popularity shifts", shifted(zipf(0.9, 3), keys, requests)));
        made
    }
}

/// After four requests one of a scan, again and again over as many other keys.
fn scanned(requests: impl Iterator<Item = u64>, keys: usize) -> impl Iterator<Item = u64> {
    let scan = (keys as u64..2 * keys as u64).cycle();
    let mut scan = scan.into_iter();
    requests.enumerate().flat_map(move |(at, key)| {
        let scanned = if at % 4 == 3 { scan.next() } else { None };
        [Some(key), scanned].into_iter().flatten()
    })
}

/// Twenty times over the stream all keys change their places: what was popular is not any more.
fn shifted(requests: impl Iterator<Item = u64>, keys: usize, len: usize) -> impl Iterator<Item = u64> {
    let mut random = SplitMix(4);
    let by: Vec<u64> = (0..=20).map(|_| random.next() % keys as u64).collect();
    requests.enumerate().map(move |(at, key)| (key + by[at * 20 / len.max(1)]) % keys as u64)
}

fn decompressed(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    if path.extension().is_some_and(|extension| extension == "zst") {
        StreamingDecoder::new(file).map_err(io::Error::other)?.read_to_end(&mut bytes)?;
    } else {
        file.read_to_end(&mut bytes)?;
    }
    match bytes.len() % RECORD_BYTES {
        0 if !bytes.is_empty() => Ok(bytes),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a number of records of 12 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_records_is_read_and_its_keys_are_numbered_as_they_come() {
        let path = std::env::temp_dir().join(format!("trace-of-{}.bin", std::process::id()));
        let record = |key: u64| [&key.to_le_bytes()[..], &1_u32.to_le_bytes()].concat();
        std::fs::write(&path, [record(1 << 60), record(5), record(1 << 60)].concat()).unwrap();
        let trace = Trace::read(&path).unwrap();
        assert_eq!((trace.requests, trace.keys), (vec![0, 1, 0], 2));
        std::fs::write(&path, [1, 2, 3]).unwrap();
        let refused = Trace::read(&path).err().unwrap().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(refused.contains("records of 12 bytes") && refused.contains("trace-of-"), "{refused}");
    }

    #[test]
    fn made_streams_have_the_requests_that_they_say() {
        let made = Trace::made(1_000, 10_000);
        let [first, .., scan, shift] = &made[..] else { panic!("five streams") };
        assert_eq!((first.requests.len(), scan.requests.len(), shift.requests.len()), (10_000, 12_500, 10_000));
        assert!(scan.keys > 1_800, "{}", scan.keys);
    }
}
