//! The rules behind the promise of a write, by name, so that a simulation can do without one of them and show what it is for.
//!
//! Knows no keys and no nodes. The invariant: outside of a simulation every rule is kept, and asking costs nothing.

/// A rule of the protocol between an owner and those who read its keys. See `docs/consistency.md` for the argument behind each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What a load brings is not kept if the key was written since it began.
    LoadFence,
    /// Who asks after a write does not join a load that began before it.
    Detach,
    /// The owner enters a reader as a holder when its request arrives, not when it is answered.
    RegisterOnArrival,
    /// A reader counts its lease from when it sent the request, not from when the answer came.
    LeaseFromSend,
    /// While the last owner's leases may run, a write is told to every node.
    AllWhileYoung,
    /// An invalidation also keeps what a fetch under way brings from being kept.
    FetchDetach,
    /// A write returns when the holders have confirmed, or their time is up.
    AwaitAcks,
    /// An owner that loses a slot tells its next owner what was written.
    TellTheNext,
    /// A node that others took for dead asks them what they wrote in its place.
    Heal,
    /// What is handed over is not kept if the key was written at its new owner.
    HandOverFence,
    /// The last owner is not asked for a key that was written since.
    PeekFence,
    /// What is loaded within the hold of a delete is not kept.
    Hold,
}

impl Rule {
    /// All of them, in the order of the argument.
    #[cfg(feature = "sim")]
    pub const ALL: [Self; 12] = [
        Self::LoadFence,
        Self::Detach,
        Self::RegisterOnArrival,
        Self::LeaseFromSend,
        Self::AllWhileYoung,
        Self::FetchDetach,
        Self::AwaitAcks,
        Self::TellTheNext,
        Self::Heal,
        Self::HandOverFence,
        Self::PeekFence,
        Self::Hold,
    ];
}

/// What a node promises: which of the rules it keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promise {
    #[cfg(feature = "sim")]
    pub(crate) without: Option<Rule>,
}

impl Promise {
    #[inline(always)]
    pub(crate) fn keeps(self, rule: Rule) -> bool {
        #[cfg(feature = "sim")]
        return self.without != Some(rule);
        #[cfg(not(feature = "sim"))]
        {
            let _ = rule;
            true
        }
    }
}
