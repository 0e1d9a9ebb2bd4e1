//! The one task behind membership: owns the gossip socket and all timers, and moves what happens between the pure parts.
//!
//! Decides nothing that gossip, state or agenda could. The invariant: one task changes them, in turn; what has been received is
//! handled before a timer fires, so that a process that was stopped for a while does not take everybody for dead; and what a
//! node says of itself can be asked for before its datagrams tell of it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::agenda::{Agenda, Errand};
use super::codec::Implausible;
use super::envelope::Envelope;
use super::events::{Board, Event};
use super::gossip::{Gossip, PACKET_BYTES_MAX};
use super::member::{Identity, Metadata};
use super::state::{Learned, Members};
use super::sync::{Exchange, ExchangeError, Knowledge, Known};
use super::{Progress, Seeds, Wanted};
use crate::net::{self, UdpSocket};
use crate::trust::{Gate, Refusal};

/// Datagrams that are handled before timers get their turn.
const RECEIVED_AT_ONCE_MAX: usize = 1024;
/// Strangers that are announced to after one exchange or one answer of discovery.
const ANNOUNCED_AT_ONCE_MAX: usize = 64;
/// Members of whom one is told after one exchange that they were taken for dead here; the others are for the next.
const OBJECTED_AT_ONCE_MAX: usize = 64;
/// Lost members that are announced to with each answer of discovery.
const LOST_ANNOUNCED_MAX: usize = 16;
/// Pause between exchanges with somebody for no other reason than that it was long ago.
const ROUND_PERIOD: Duration = Duration::from_secs(10);
/// The same after something changed, since rumours are passed on a few times only, and after a cut one may have been lost on somebody;
/// and while somebody is unknown, or up elsewhere and not here.
const ROUND_IN_TROUBLE: Duration = Duration::from_secs(2);
/// Whoever is up and has not said in this time who it is may not be reached from here: others are asked what they know of it.
const HEARSAY_AFTER: Duration = Duration::from_millis(300);
/// Whoever was taken for dead here and not elsewhere hears of it within this, if a datagram from here reaches it.
const DISPUTED_AFTER: Duration = Duration::from_secs(2);
/// All members ask a newcomer for its metadata; they spread over this much for each of them.
const SPREAD_PER_MEMBER: Duration = Duration::from_millis(1);
const SPREAD_MAX: Duration = Duration::from_secs(1);
/// Changes of identity in a row, and how soon one more is allowed. Each one interrupts this node's probing of the others.
const CHANGES_IN_A_ROW: u32 = 5;
const CHANGE_PERIOD: Duration = Duration::from_secs(3);

/// What reaches the driver from the tasks beside it.
#[derive(Debug)]
pub(super) enum Input {
    /// Discovery names somebody.
    Seeds(Vec<SocketAddr>),
    /// Another node has asked, and told what it knows.
    Heard(Box<Knowledge>),
}

/// What the driver is made of.
pub(super) struct Parts {
    pub(super) socket: UdpSocket,
    pub(super) gate: Arc<Gate>,
    pub(super) envelope: Envelope,
    pub(super) members: Members,
    pub(super) exchange: Arc<Exchange>,
    pub(super) board: Arc<Board>,
    pub(super) known: watch::Sender<Arc<Known>>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) inputs: mpsc::Receiver<Input>,
    /// Members that are remembered, those that are down among them.
    pub(super) known_max: usize,
    pub(super) aliases_max: usize,
    pub(super) tasks: TaskTracker,
    pub(super) leaving: CancellationToken,
    pub(super) stop: CancellationToken,
}

pub(super) struct Driver {
    parts: Parts,
    gossip: Gossip,
    agenda: Agenda,
    exchanges: JoinSet<Result<Knowledge, ExchangeError>>,
    running: HashMap<Id, SocketAddr>,
    /// Addresses under which discovery knows members that call themselves otherwise.
    aliases: HashMap<SocketAddr, SocketAddr>,
    news: watch::Receiver<Wanted>,
    /// This node has something new to say and has not changed its identity yet.
    is_change_due: bool,
    allowance: Allowance,
    /// Something may have changed that others look at.
    is_dirty: bool,
    next_round: Instant,
    rng: SmallRng,
    datagram: Vec<u8>,
}

/// Runs until the node leaves or stops. `_ended` tells that the farewell is sent.
pub(super) async fn run(parts: Parts, _ended: DropGuard) {
    // Also when the task is dropped half-way: whoever waits for events must hear the end.
    let board = Arc::clone(&parts.board);
    let _closing = Closing(board);
    Driver::new(parts).run().await;
}

struct Closing(Arc<Board>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Driver {
    fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            gossip: Gossip::new(parts.members.me().id, parts.known_max),
            agenda: Agenda::default(),
            exchanges: JoinSet::new(),
            running: HashMap::new(),
            aliases: HashMap::new(),
            news: parts.wanted.subscribe(),
            is_change_due: false,
            allowance: Allowance { left: CHANGES_IN_A_ROW, refilled: now },
            is_dirty: true,
            next_round: now + ROUND_PERIOD,
            rng: net::rng(),
            datagram: Vec::with_capacity(PACKET_BYTES_MAX + Envelope::OVERHEAD_BYTES),
            parts,
        }
    }

    async fn run(mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX + Envelope::OVERHEAD_BYTES + 1];
        loop {
            let due = self.next_due();
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => return,
                () = self.parts.leaving.cancelled() => return self.leave().await,
                Ok(()) = self.news.changed() => self.say_something_new(),
                Some(input) = self.parts.inputs.recv() => self.handle(input),
                Some(ended) = self.exchanges.join_next_with_id() => self.exchanged(ended),
                received = self.parts.socket.recv_from(&mut buffer) => self.received(received, &buffer),
                () = sleep_until(due) => {}
            }
            self.drain_socket(&mut buffer);
            self.fire(Instant::now());
            self.reconcile(Instant::now());
            self.send().await;
        }
    }

    fn next_due(&self) -> Instant {
        let change = self.is_change_due.then(|| self.allowance.next());
        let dues = [self.gossip.next_due(), self.agenda.next_due(), change];
        dues.into_iter().flatten().fold(self.next_round, Instant::min)
    }

    fn drain_socket(&mut self, buffer: &mut [u8]) {
        for _ in 0..RECEIVED_AT_ONCE_MAX {
            match self.parts.socket.try_recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                received => self.received(received, buffer),
            }
        }
    }

    fn received(&mut self, received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        let (len, from) = match received {
            Ok(received) => received,
            Err(error) => return tracing::trace!(%error, "nothing was received"),
        };
        match self.parts.envelope.open(&buffer[..len], net::wall_clock_ms()) {
            Ok(packet) => match self.gossip.receive(packet, Identity::epoch_max(), Instant::now()) {
                Ok(()) => {}
                Err(error @ Implausible::Crowded(_)) => self.refuse(Refusal::Crowded, from, &error),
                Err(error) => self.refuse(Refusal::Implausible, from, &error),
            },
            Err(error) => self.refuse(error.reason(), from, &error),
        }
    }

    fn refuse(&self, reason: Refusal, from: SocketAddr, error: &(dyn std::error::Error + 'static)) {
        match self.parts.gate.refusals.note(reason, from.ip()) {
            true => tracing::warn!(addr = %from, error, "a datagram was refused"),
            false => tracing::trace!(addr = %from, error, "a datagram was refused"),
        }
    }

    fn say_something_new(&mut self) {
        let state = self.news.borrow_and_update().state;
        self.parts.members.set_state(state);
        self.is_change_due = true;
        self.is_dirty = true;
    }

    fn handle(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Seeds(seeds) => self.seeded(seeds, now),
            Input::Heard(theirs) => self.learn(*theirs, now),
        }
    }

    fn seeded(&mut self, mut seeds: Vec<SocketAddr>, now: Instant) {
        seeds.retain(|seed| !self.is_here(*seed));
        let found = if seeds.is_empty() { Seeds::Nobody } else { Seeds::Somebody };
        self.parts.progress.send_if_modified(|progress| std::mem::replace(&mut progress.seeds, found) != found);
        self.agenda.forget_seeds();
        for seed in seeds.into_iter().sample(&mut self.rng, ANNOUNCED_AT_ONCE_MAX) {
            self.gossip.announce(Identity::unknown(seed), now);
            self.agenda.want(seed, Errand::Seed, now);
        }
        self.parts.members.forget_long_lost(now);
        for lost in self.parts.members.lost().sample(&mut self.rng, LOST_ANNOUNCED_MAX) {
            self.gossip.announce(Identity::unknown(lost), now);
        }
    }

    /// Whether the address is this node's own or a member's, whatever name discovery has for it.
    fn is_here(&self, addr: SocketAddr) -> bool {
        let addr = *self.aliases.get(&addr).unwrap_or(&addr);
        addr == self.parts.members.me().id.addr || self.parts.members.is_up(addr)
    }

    fn exchanged(&mut self, ended: Result<(Id, Result<Knowledge, ExchangeError>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result.map_err(|error| error.to_string())),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let Some(addr) = self.running.remove(&id) else { return };
        let now = Instant::now();
        match result {
            Ok(theirs) => {
                let called = theirs.me.id.addr;
                if called != addr && self.aliases.len() < self.parts.aliases_max {
                    self.aliases.insert(addr, called);
                }
                self.learn(theirs, now);
            }
            Err(error) => tracing::debug!(address = %addr, %error, "an exchange came to nothing"),
        }
        let is_satisfied = !self.parts.members.is_unknown(addr);
        self.agenda.finish(addr, is_satisfied, now, self.rng.random());
    }

    /// Takes over what another node knows, and says hello to those whom gossip has not met.
    fn learn(&mut self, theirs: Knowledge, now: Instant) {
        self.settle_disputes(&theirs, now);
        let strangers: Vec<_> = std::iter::once(&theirs.me).chain(&theirs.others).map(|metadata| metadata.id).collect();
        for metadata in std::iter::once(theirs.me).chain(theirs.others) {
            self.learn_one(metadata, now);
        }
        let unmet = strangers.into_iter().filter(|id| !self.is_here(id.addr));
        for id in unmet.take(ANNOUNCED_AT_ONCE_MAX).collect::<Vec<_>>() {
            self.gossip.announce(id, now);
        }
    }

    /// Whoever was taken for dead here, and is up elsewhere for longer than it takes to hear that, cannot hear it from here.
    fn settle_disputes(&mut self, theirs: &Knowledge, now: Instant) {
        let disputes = theirs.others.iter().filter_map(|told| self.parts.members.dispute(told.id, now));
        let disputes: Vec<_> = disputes.collect();
        if !disputes.is_empty() {
            self.next_round = self.next_round.min(now + ROUND_IN_TROUBLE);
        }
        let settled = disputes.iter().filter(|dispute| now.duration_since(dispute.since) >= DISPUTED_AFTER);
        for dispute in settled.take(OBJECTED_AT_ONCE_MAX) {
            tracing::info!(address = %dispute.lost.addr, teller = theirs.me.name, "a node taken for dead is up elsewhere: others tell it");
            self.gossip.object(theirs.me.id, dispute.lost);
        }
    }

    fn learn_one(&mut self, metadata: Metadata, now: Instant) {
        match self.parts.members.learn(metadata, now) {
            Learned::Nothing => {}
            Learned::News => self.is_dirty = true,
            Learned::Outpaced { epoch } if self.allowance.take(now) => {
                tracing::info!("the others know this node under a newer epoch; it takes one newer than that");
                self.gossip.change_identity(self.gossip.identity().outlasting(epoch), now);
            }
            Learned::Outpaced { .. } => {}
        }
    }

    fn fire(&mut self, now: Instant) {
        if self.is_change_due && self.allowance.take(now) {
            self.is_change_due = false;
            self.gossip.change_identity(self.gossip.identity().bumped(), now);
        }
        self.gossip.fire(now);
        if self.next_round <= now {
            let members = &self.parts.members;
            let is_in_trouble = members.unknown().next().is_some() || members.has_disputes(now);
            let period = if is_in_trouble { ROUND_IN_TROUBLE } else { ROUND_PERIOD };
            self.next_round = now + period.mul_f64(0.75 + self.rng.random::<f64>() / 2.0);
            // Rather somebody who has said before who it is: it is reached, most likely.
            let known = members.up().filter(|addr| !members.is_unknown(*addr)).choose(&mut self.rng);
            let member = known.or_else(|| members.up().choose(&mut self.rng));
            member.into_iter().for_each(|member| self.agenda.want(member, Errand::Round, now));
        }
    }

    /// Brings in line what depends on what has just happened. Before anything is sent: see the invariant.
    fn reconcile(&mut self, now: Instant) {
        while let Some(change) = self.gossip.next_change() {
            self.parts.members.apply(change, now);
            self.is_dirty = true;
            self.next_round = self.next_round.min(now + ROUND_IN_TROUBLE);
        }
        for addr in self.parts.members.take_turned_away() {
            if self.parts.gate.refusals.note(Refusal::Crowded, addr.ip()) {
                tracing::warn!(%addr, "a node was left out: there are as many members as there may be");
            }
        }
        if self.gossip.identity() != self.parts.members.me().id {
            self.parts.members.set_identity(self.gossip.identity());
            self.is_dirty = true;
        }
        if std::mem::take(&mut self.is_dirty) {
            self.plan_exchanges(now);
            self.publish();
        }
        self.begin_exchanges(now);
    }

    fn plan_exchanges(&mut self, now: Instant) {
        let members = &self.parts.members;
        self.agenda.retain_members(|addr| members.is_unknown(addr));
        let spread = (SPREAD_PER_MEMBER * members.up().count() as u32).min(SPREAD_MAX);
        for addr in members.unknown() {
            self.agenda.want(addr, Errand::Member, now + spread.mul_f64(self.rng.random()));
        }
        if members.unknown().next().is_some() {
            self.next_round = self.next_round.min(now + spread + HEARSAY_AFTER);
        }
    }

    fn publish(&mut self) {
        let members = &mut self.parts.members;
        self.parts.known.send_replace(Arc::new(Known { me: members.me().clone(), others: members.known() }));
        if let Some((view, events)) = members.refresh() {
            events.iter().for_each(log);
            self.parts.board.publish(view, events);
        }
        let (is_met, unknown) = (members.up().next().is_some(), members.unknown().count());
        self.parts.progress.send_if_modified(|progress| {
            let before = *progress;
            *progress = Progress { is_contacted: progress.is_contacted || is_met, unknown, ..before };
            *progress != before
        });
    }

    fn begin_exchanges(&mut self, now: Instant) {
        for addr in self.agenda.begin(now) {
            let (exchange, stop) = (Arc::clone(&self.parts.exchange), self.parts.stop.clone());
            let asked =
                async move { stop.run_until_cancelled(exchange.ask(addr)).await.unwrap_or(Err(ExchangeError::Closed)) };
            let task = self.exchanges.spawn(self.parts.tasks.track_future(asked));
            self.running.insert(task.id(), addr);
        }
    }

    async fn send(&mut self) {
        while let Some((to, packet)) = self.gossip.next_packet() {
            if super::is_severed(self.parts.members.me().id.addr, to) {
                continue;
            }
            self.parts.envelope.seal(&packet, net::wall_clock_ms(), &mut self.datagram);
            if let Err(error) = self.parts.socket.send_to(&self.datagram, to).await {
                tracing::trace!(address = %to, %error, "a datagram was not sent");
            }
        }
    }

    async fn leave(mut self) {
        self.gossip.leave(Instant::now());
        self.send().await;
    }
}

fn log(event: &Event) {
    match event {
        Event::Joined(peer) => tracing::info!(name = peer.name, address = %peer.gossip_addr, "peer joined"),
        Event::Left(peer) => tracing::info!(name = peer.name, address = %peer.gossip_addr, "peer left"),
        Event::Updated(peer) => tracing::debug!(name = peer.name, state = ?peer.state, "peer updated"),
        Event::Lagged { .. } => {}
    }
}

/// Some changes in a row, then one a period.
#[derive(Debug)]
struct Allowance {
    left: u32,
    refilled: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < CHANGES_IN_A_ROW && self.refilled + CHANGE_PERIOD <= now {
            self.left += 1;
            self.refilled += CHANGE_PERIOD;
        }
        if self.left == CHANGES_IN_A_ROW {
            self.refilled = now;
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }

    fn next(&self) -> Instant {
        if self.left > 0 { self.refilled } else { self.refilled + CHANGE_PERIOD }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_identity_are_bounded_so_that_probing_goes_on() {
        let start = Instant::now();
        let mut allowance = Allowance { left: CHANGES_IN_A_ROW, refilled: start };
        let granted = |allowance: &mut Allowance, now| (0..100).filter(|_| allowance.take(now)).count();
        assert_eq!(granted(&mut allowance, start), CHANGES_IN_A_ROW as usize);
        assert_eq!(allowance.next(), start + CHANGE_PERIOD);
        assert_eq!(granted(&mut allowance, start + CHANGE_PERIOD * 2), 2);
        assert_eq!(granted(&mut allowance, start + CHANGE_PERIOD * 100), CHANGES_IN_A_ROW as usize);
    }
}
