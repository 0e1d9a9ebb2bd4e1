//! What the numbers were measured on, and what a process took of it.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// One line that names processor, cores, kernel, compiler and how busy the machine was before the run.
pub fn describe() -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = file("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{}, {} cores, Linux {}, {}, load average {}",
        model.map_or("unknown processor", |(_, model)| model),
        std::thread::available_parallelism().map_or(0, usize::from),
        file("/proc/sys/kernel/osrelease").trim(),
        rustc.unwrap_or_else(|_| "rustc unknown".into()),
        file("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

/// Time since the machine started: the same for all its processes.
pub fn uptime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// User and system time that a process took since it started, to the tick (10 ms).
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks_of(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat is not as proc(5) says"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn ticks_of(stat: &str) -> Option<u64> {
    // The second field is the program's name in brackets and may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let (user, system): (u64, u64) = (fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?);
    Some(user + system)
}

/// Bytes of a process's memory that are resident now, and the most that ever were.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    pub now: u64,
    pub peak: u64,
}

/// Resident bytes of a process.
pub fn resident(pid: u32) -> io::Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |field| kib_of(&status, field).map(|kib| kib << 10);
    match (bytes("VmRSS:"), bytes("VmHWM:")) {
        (Some(now), Some(peak)) => Ok(Resident { now, peak }),
        _ => Err(io::Error::other("/proc/PID/status is not as proc(5) says")),
    }
}

fn kib_of(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_its_own_time_and_memory() {
        let me = std::process::id();
        assert!(cpu_time(me).unwrap() < Duration::from_secs(3_600));
        let resident = resident(me).unwrap();
        assert!(resident.now > 100_000 && resident.now <= resident.peak, "{resident:?}");
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(ticks_of(stat), Some(300));
    }
}
