//! How many loads run at once: places, given out in the order of asking, whose number may change while they are taken.
//!
//! Knows nothing of loads; does not bound how long anybody waits. The invariant: whenever a place is given, no more are taken
//! than there are, also right after their number has shrunk; whoever drops one gives it back.

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) struct Places {
    permits: Semaphore,
    size: Mutex<Size>,
}

struct Size {
    places: usize,
    /// Permits that exist beyond the places, because those that hold them have not come back since the number shrank.
    owed: usize,
}

/// A place that is taken.
pub(super) struct Place<'a> {
    places: &'a Places,
    permit: Option<SemaphorePermit<'a>>,
}

impl Places {
    pub(super) fn new(places: usize) -> Self {
        Self { permits: Semaphore::new(places), size: Mutex::new(Size { places, owed: 0 }) }
    }

    pub(super) fn len(&self) -> usize {
        self.size.lock().places
    }

    /// A place, if one is free and nobody waits for it.
    pub(super) fn try_take(&self) -> Option<Place<'_>> {
        loop {
            if let Some(place) = self.settle(self.permits.try_acquire().ok()?) {
                return Some(place);
            }
        }
    }

    pub(super) async fn take(&self) -> Place<'_> {
        loop {
            match self.permits.acquire().await {
                Ok(permit) => {
                    if let Some(place) = self.settle(permit) {
                        return place;
                    }
                }
                // Nobody closes it.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// A permit that is owed is none.
    fn settle<'a>(&'a self, permit: SemaphorePermit<'a>) -> Option<Place<'a>> {
        self.pay(permit).map(|permit| Place { places: self, permit: Some(permit) })
    }

    fn pay<'a>(&self, permit: SemaphorePermit<'a>) -> Option<SemaphorePermit<'a>> {
        let mut size = self.size.lock();
        match size.owed.checked_sub(1) {
            None => Some(permit),
            Some(owed) => {
                size.owed = owed;
                permit.forget();
                None
            }
        }
    }

    /// From now on so many. Those that hold a place keep it.
    pub(super) fn resize(&self, places: usize) {
        let mut size = self.size.lock();
        if places >= size.places {
            let more = places - size.places;
            let forgiven = more.min(size.owed);
            size.owed -= forgiven;
            self.permits.add_permits(more - forgiven);
        } else {
            let fewer = size.places - places;
            size.owed += fewer - self.permits.forget_permits(fewer);
        }
        size.places = places;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.permit.take().and_then(|permit| self.places.pay(permit)));
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_that_are_taken_while_their_number_shrinks_are_not_given_again() {
        let places = Places::new(3);
        let mut taken: Vec<_> = std::iter::from_fn(|| places.try_take()).collect();
        assert_eq!(taken.len(), 3);
        places.resize(1);
        taken.truncate(1);
        assert!(places.try_take().is_none(), "one is taken still");
        taken.clear();
        let _one = places.try_take().unwrap();
        assert!(places.try_take().is_none());
    }

    #[test]
    fn those_that_wait_get_the_places_that_are_added_in_their_order() {
        let places = Places::new(1);
        let _taken = places.try_take().unwrap();
        let (mut first, mut second) = (Box::pin(places.take()), Box::pin(places.take()));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        places.resize(2);
        assert!(places.try_take().is_none(), "nobody overtakes");
        assert!(second.as_mut().now_or_never().is_none());
        assert!(first.as_mut().now_or_never().is_some());
    }

    #[derive(Clone, Debug)]
    enum Act {
        Ask,
        TryTake,
        GiveUp(usize),
        GiveBack(usize),
        Resize(usize),
        Look,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => Just(Act::Ask),
            2 => Just(Act::TryTake),
            2 => any::<usize>().prop_map(Act::GiveUp),
            4 => any::<usize>().prop_map(Act::GiveBack),
            2 => (1usize..6).prop_map(Act::Resize),
            // Between these, those that wait do not notice what became of them.
            4 => Just(Act::Look),
        ];
        prop::collection::vec(act, 0..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn never_more_are_taken_than_there_are_and_none_is_lost(acts in acts(), mut size in 1usize..6) {
            let places = Places::new(size);
            let mut waiting: Vec<BoxFuture<'_, Place<'_>>> = Vec::new();
            let mut taken: Vec<Place<'_>> = Vec::new();
            for act in acts {
                let before = taken.len();
                match act {
                    Act::Ask => waiting.push(Box::pin(places.take())),
                    Act::TryTake => taken.extend(places.try_take()),
                    Act::GiveUp(which) if !waiting.is_empty() => drop(waiting.remove(which % waiting.len())),
                    Act::GiveBack(which) if before > 0 => drop(taken.remove(which % before)),
                    Act::Resize(to) => {
                        places.resize(to);
                        size = to;
                    }
                    Act::GiveUp(_) | Act::GiveBack(_) => {}
                    Act::Look => waiting.retain_mut(|ask| match ask.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(place) => {
                            taken.push(place);
                            false
                        }
                        Poll::Pending => true,
                    }),
                }
                prop_assert!(taken.len() <= before || taken.len() <= size, "{} of {size} taken", taken.len());
            }
            drop((waiting, taken));
            let free: Vec<_> = std::iter::from_fn(|| places.try_take()).take(10).collect();
            prop_assert_eq!(free.len(), size);
        }
    }
}
