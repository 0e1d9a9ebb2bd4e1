//! The rules of the protocol that can be left out.
//!
//! Knows no step; the steps ask whether a rule is kept. The invariant: each rule is needed, which a counterexample without it
//! shows.

/// One rule; without it the promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A load that a write overtook answers those that wait for it; it is not stored and gives no lease. Else it stores the old
    /// value after the write.
    LoadFence,
    /// A write detaches the load under way: a later get starts a new one. Else it is answered with what was read before the write.
    Detach,
    /// The owner enters the asker as a holder when the question arrives, before it reads anything for it. Else a write between
    /// the reading and the entering tells nobody.
    RegisterOnArrival,
    /// A reader counts its lease from when it sent the question. Else its copy outlives the owner's entry of it.
    LeaseFromSend,
    /// A new owner tells everybody of its writes until the leases that the former owner gave have run out. Else it does not know
    /// whom to tell.
    AllWhileYoung,
    /// An invalidation detaches the fetch under way, which keeps nothing then and is not joined. Else the old value, which was on
    /// its way, is kept after the copy was dropped.
    FetchDetach,
    /// No get joins a fetch that was sent a lease ago: the owner has forgotten by then that an answer is on its way, and tells
    /// nobody of a write. Else the get is answered with what was read before the write.
    JoinWithinLease,
    /// A write returns when those it told have answered, or its wait is over. Else it returns while they still have copies.
    AwaitAcks,
    /// An answer to an invalidation ends only the registration it was sent for. Else it ends one that was made meanwhile, and the
    /// next write tells nobody.
    AckEndsWhatWasTold,
    /// Copies from an owner, and fetches to it, count for nothing once the reader knows another owner. Else they stay with nobody
    /// who would drop them.
    CopiesLeaveWithTheSlot,
    /// Who has lost a slot names the writes it took to the new owner, which drops what was begun before them and tells its own
    /// holders. Else what it loaded while both took writes stays.
    TellTheNext,
    /// A new owner refuses the former owner's entry once the key was written here. Else a deleted value comes back.
    HandOverFence,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 12] = [
        Self::LoadFence,
        Self::Detach,
        Self::RegisterOnArrival,
        Self::LeaseFromSend,
        Self::AllWhileYoung,
        Self::FetchDetach,
        Self::JoinWithinLease,
        Self::AwaitAcks,
        Self::AckEndsWhatWasTold,
        Self::CopiesLeaveWithTheSlot,
        Self::TellTheNext,
        Self::HandOverFence,
    ];
}
