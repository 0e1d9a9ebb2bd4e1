//! Sockets, clock and randomness of this node. Nobody else opens a socket or reads a clock; what asks DNS is the exception: the
//! system's resolver, called from here, and under the feature `dns` the resolver crate behind `discovery/dns/servers.rs`.
//!
//! One place to exchange for a simulator's. Knows no protocol. The invariant: a [`Moment`] never runs backwards, and no
//! `Moment` ever leaves the node; what crosses the wire is a remaining duration.

use std::io;
use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
// Tests of this crate are on real sockets, whatever features are on.
#[cfg(any(test, not(feature = "sim")))]
pub(crate) use tokio::net::{TcpListener, TcpStream, UdpSocket};

#[cfg(feature = "sim")]
pub(crate) mod sim;
#[cfg(all(feature = "sim", not(test)))]
pub(crate) use sim::{TcpListener, TcpStream, UdpSocket};

/// Milliseconds on this node's own monotonic clock. The resolution is that of the kernel's tick (1 to 10 ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Later than every moment that will be read.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_millis().try_into().unwrap_or(u64::MAX)))
    }

    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_millis().try_into().unwrap_or(u64::MAX)))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `None` for [`NEVER`](Self::NEVER).
    pub(crate) fn until(self, later: Self) -> Option<Duration> {
        (later != Self::NEVER).then(|| later.since(self))
    }
}

/// The node's clock: the kernel's, or tokio's where a test pauses time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    Kernel,
    #[cfg(any(test, feature = "sim"))]
    Tokio {
        origin: tokio::time::Instant,
        /// What the clock shows of a million ticks.
        rate_ppm: u64,
    },
}

impl Clock {
    /// tokio's clock, which tests pause and simulators drive.
    #[cfg(test)]
    pub(crate) fn tokio() -> Self {
        Self::tokio_at_rate(1_000_000)
    }

    /// The same, fast or slow.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn tokio_at_rate(rate_ppm: u64) -> Self {
        Self::Tokio { origin: tokio::time::Instant::now(), rate_ppm }
    }

    #[inline]
    pub(crate) fn now(self) -> Moment {
        match self {
            Self::Kernel => kernel_now(),
            #[cfg(any(test, feature = "sim"))]
            Self::Tokio { origin, rate_ppm } => {
                Moment((origin.elapsed().as_micros() as u64 / 1_000).saturating_mul(rate_ppm) / 1_000_000 + 1)
            }
        }
    }
}

impl Clock {
    /// Lets the clock count also what the machine sleeps while this runs. Elsewhere than on Linux the standard library's clock is
    /// taken as it is.
    pub(crate) async fn count_sleep(self) {
        #[cfg(target_os = "linux")]
        if matches!(self, Self::Kernel) {
            count_sleep().await;
        }
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn kernel_now() -> Moment {
    Moment(kernel_millis(rustix::time::ClockId::MonotonicCoarse) + SLEPT.millis())
}

#[cfg(target_os = "linux")]
fn kernel_millis(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// How long this machine was suspended since the first node of this process started. The kernel's coarse clock, a fraction as dear to read
/// as the one that counts it, leaves that out.
#[cfg(target_os = "linux")]
static SLEPT: Slept = Slept(AtomicU64::new(0));

#[cfg(target_os = "linux")]
struct Slept(AtomicU64);

#[cfg(target_os = "linux")]
impl Slept {
    /// The clocks are read one after the other: what they differ by anyway is no sleep.
    const MIN_MS: u64 = 10;

    fn note(&self, millis: u64) {
        if millis >= self.millis() + Self::MIN_MS {
            self.0.fetch_max(millis, Relaxed);
        }
    }

    #[inline]
    fn millis(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How long after a machine wakes its nodes may go on as if it had not slept.
#[cfg(target_os = "linux")]
const SLEEP_FOUND_WITHIN: Duration = Duration::from_millis(250);

#[cfg(target_os = "linux")]
async fn count_sleep() {
    use rustix::time::ClockId;
    let behind = || kernel_millis(ClockId::Boottime).saturating_sub(kernel_millis(ClockId::Monotonic));
    // The same for all nodes of this process, also for those that start later.
    static AT_START: OnceLock<u64> = OnceLock::new();
    let at_start = *AT_START.get_or_init(behind);
    loop {
        tokio::time::sleep(SLEEP_FOUND_WITHIN).await;
        SLEPT.note(behind().saturating_sub(at_start));
    }
}

#[cfg(not(target_os = "linux"))]
fn kernel_now() -> Moment {
    use std::sync::LazyLock;
    use std::time::Instant;
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Moment(ORIGIN.elapsed().as_millis() as u64 + 1)
}

/// Wall-clock milliseconds since 1970: for incarnations and versions that must grow over a restart, never for lifetimes.
pub(crate) fn wall_clock_ms() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(millis) = sim::wall_clock_ms() {
        return millis;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Clocks are wrong, but not by more than this.
const CLOCK_AHEAD_MS_MAX: u64 = 24 * 3600 * 1000;

/// The latest that the wall clock of an honest node shows now. What other nodes count from their clocks is believed up to here:
/// a number at the end of all numbers would never be outdone.
pub(crate) fn wall_clock_ms_max() -> u64 {
    wall_clock_ms().saturating_add(CLOCK_AHEAD_MS_MAX)
}

/// A generator of this node's own, seeded by the operating system.
pub(crate) fn rng() -> SmallRng {
    #[cfg(feature = "sim")]
    if let Some(rng) = sim::rng() {
        return rng;
    }
    rand::make_rng()
}

/// A number from 0 up to 1, for jitter.
pub(crate) fn chance() -> f32 {
    #[cfg(feature = "sim")]
    if let Some(chance) = sim::chance() {
        return chance;
    }
    rand::random()
}

/// The name of this host, as far as it has one.
pub(crate) fn host_name() -> String {
    #[cfg(target_os = "linux")]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(target_os = "linux"))]
    let name = std::env::var("HOSTNAME").unwrap_or_default();
    if name.is_empty() { "localhost".into() } else { name }
}

/// All addresses of `host:port`, by the system's resolver.
pub(crate) async fn resolve(host_and_port: &str) -> io::Result<impl Iterator<Item = SocketAddr>> {
    tokio::net::lookup_host(host_and_port).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards_and_keeps_pace() {
        let (start, wall) = (Clock::Kernel.now(), std::time::Instant::now());
        let mut last = start;
        while wall.elapsed() < Duration::from_millis(50) {
            let now = Clock::Kernel.now();
            assert!(now >= last);
            last = now;
        }
        assert!(last.since(start) >= Duration::from_millis(30), "{:?}", last.since(start));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_sleep_counts_once_and_what_two_readings_differ_by_does_not() {
        let slept = Slept(AtomicU64::new(0));
        slept.note(Slept::MIN_MS - 1);
        assert_eq!(slept.millis(), 0);
        [60_000, 60_003, 20_000].into_iter().for_each(|millis| slept.note(millis));
        assert_eq!(slept.millis(), 60_000);
    }

    #[test]
    fn endless_lifetimes_stay_endless() {
        assert_eq!(Moment(5).after(Duration::MAX), Moment::NEVER);
        assert_eq!(Moment(5).until(Moment::NEVER), None);
        assert_eq!(Moment(5).until(Moment(3)), Some(Duration::ZERO));
    }
}
