//! With whom to exchange metadata, and when: the queue behind the exchanges.
//!
//! Knows no sockets and not what an exchange brings. The invariant: at most one exchange with an address at a time, at most
//! [`RUNNING_MAX`] in all, members before seeds; what failed is tried again later and later, never at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Exchanges that this node makes at the same time.
pub(super) const RUNNING_MAX: usize = 8;
/// Of these with addresses of which discovery says that somebody may be there: they may all hang until their timeout.
const SEEDS_RUNNING_MAX: usize = 4;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why to exchange; in the order of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Errand {
    /// A member whose metadata is missing. Repeated until it is here.
    Member,
    /// The regular exchange with somebody. Once.
    Round,
    /// An address from discovery. Once: discovery is asked again anyway.
    Seed,
}

#[derive(Debug)]
struct Entry {
    errand: Errand,
    due: Instant,
    failures: u32,
    is_running: bool,
}

/// The exchanges to be made and under way.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: HashMap<SocketAddr, Entry>,
}

impl Agenda {
    /// Adds an exchange. One that is under way stays as it is, one that failed keeps its pause.
    pub(super) fn want(&mut self, addr: SocketAddr, errand: Errand, due: Instant) {
        let entry = self.entries.entry(addr).or_insert(Entry { errand, due, failures: 0, is_running: false });
        if !entry.is_running {
            entry.errand = entry.errand.min(errand);
        }
    }

    /// Drops what is not under way and not needed any more.
    pub(super) fn retain_members(&mut self, is_needed: impl Fn(SocketAddr) -> bool) {
        self.entries.retain(|addr, entry| entry.is_running || entry.errand != Errand::Member || is_needed(*addr));
    }

    /// Drops the addresses of an earlier answer of discovery that were not tried yet: the new answer counts.
    pub(super) fn forget_seeds(&mut self) {
        self.entries.retain(|_, entry| entry.is_running || entry.errand != Errand::Seed);
    }

    /// When [`begin`](Self::begin) will have something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (running, seeds) = self.running();
        let may_begin = |entry: &&Entry| {
            !entry.is_running && running < RUNNING_MAX && (entry.errand != Errand::Seed || seeds < SEEDS_RUNNING_MAX)
        };
        self.entries.values().filter(may_begin).map(|entry| entry.due).min()
    }

    fn running(&self) -> (usize, usize) {
        let running = self.entries.values().filter(|entry| entry.is_running);
        let seeds = running.clone().filter(|entry| entry.errand == Errand::Seed).count();
        (running.count(), seeds)
    }

    /// The exchanges to make now. Each is under way until it is [`finish`](Self::finish)ed.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<SocketAddr> {
        let (mut running, mut seeds) = self.running();
        let mut due: Vec<_> = self.entries.iter_mut().filter(|(_, e)| !e.is_running && e.due <= now).collect();
        due.sort_by_key(|(addr, entry)| (entry.errand, entry.due, **addr));
        let mut begun = Vec::new();
        for (addr, entry) in due {
            let is_seed = entry.errand == Errand::Seed;
            if running < RUNNING_MAX && !(is_seed && seeds >= SEEDS_RUNNING_MAX) {
                entry.is_running = true;
                running += 1;
                seeds += usize::from(is_seed);
                begun.push(*addr);
            }
        }
        begun
    }

    /// An exchange has ended; `spread` (0 to 1) is the random part of the pause before the next try.
    pub(super) fn finish(&mut self, addr: SocketAddr, is_satisfied: bool, now: Instant, spread: f64) {
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        if is_satisfied || entry.errand != Errand::Member {
            self.entries.remove(&addr);
            return;
        }
        let pause = RETRY_FIRST.saturating_mul(1 << entry.failures.min(10)).min(RETRY_MAX);
        entry.failures += 1;
        entry.is_running = false;
        entry.due = now + pause.mul_f64(0.5 + spread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn members_come_before_seeds_and_only_so_many_run() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        (1..=20).for_each(|port| agenda.want(addr(port), Errand::Seed, now));
        (101..=103).for_each(|port| agenda.want(addr(port), Errand::Member, now));
        let begun = agenda.begin(now);
        assert_eq!(begun, [101, 102, 103, 1, 2, 3, 4].map(addr));
        assert_eq!(agenda.next_due(), None, "no further seed may begin");
        (104..=110).for_each(|port| agenda.want(addr(port), Errand::Member, now));
        assert_eq!(agenda.begin(now).len(), RUNNING_MAX - begun.len());
        assert!(agenda.begin(now).is_empty());
    }

    #[test]
    fn a_failed_exchange_waits_longer_each_time_and_a_seed_is_not_repeated() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.want(addr(1), Errand::Seed, now);
        agenda.begin(now);
        agenda.finish(addr(1), false, now, 0.5);
        assert_eq!(agenda.next_due(), None);

        agenda.want(addr(1), Errand::Member, now);
        let mut at = now;
        for expected_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(agenda.begin(at), [addr(1)]);
            agenda.finish(addr(1), false, at, 0.5);
            agenda.want(addr(1), Errand::Member, at);
            assert_eq!(agenda.next_due(), Some(at + Duration::from_millis(expected_ms)));
            at = agenda.next_due().unwrap();
        }
        agenda.begin(at);
        agenda.finish(addr(1), true, at, 0.5);
        assert_eq!(agenda.next_due(), None);
    }

    #[test]
    fn addresses_of_an_earlier_answer_of_discovery_do_not_pile_up() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.want(addr(1), Errand::Member, now + Duration::from_secs(1));
        for answer in 0..100 {
            agenda.forget_seeds();
            (0..100).for_each(|n| agenda.want(addr(100 + answer * 100 + n), Errand::Seed, now));
            agenda.begin(now);
        }
        assert!(agenda.entries.len() <= 1 + SEEDS_RUNNING_MAX + 100, "{}", agenda.entries.len());
        assert!(agenda.entries.contains_key(&addr(1)), "a member is asked whatever discovery says");
    }

    #[test]
    fn a_seed_that_turns_out_a_member_is_repeated_like_one() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.want(addr(1), Errand::Seed, now + Duration::from_secs(1));
        agenda.want(addr(1), Errand::Member, now);
        agenda.retain_members(|_| false);
        assert_eq!(agenda.next_due(), None);
    }
}
