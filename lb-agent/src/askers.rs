//! Who waits for a value that is dear. All that have asked before it begins to be made share it; who asks later knows things
//! that it may not hold, and has the next one.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

/// Those that one value is for.
pub(crate) struct Askers<T>(Vec<oneshot::Sender<Arc<T>>>);

impl<T> Askers<T> {
    /// `first` and all that wait behind it; `None` if none of them is there any more.
    pub(crate) fn gather(
        first: oneshot::Sender<Arc<T>>,
        behind: &mut mpsc::Receiver<oneshot::Sender<Arc<T>>>,
    ) -> Option<Self> {
        // Bounded: those who come meanwhile wait for the next one.
        let behind = (0..behind.len()).map_while(|_| behind.try_recv().ok());
        let all = [first].into_iter().chain(behind);
        let there: Vec<_> = all.filter(|it| !it.is_closed()).collect();
        (!there.is_empty()).then_some(Self(there))
    }

    /// Whether nobody waits any more.
    pub(crate) fn are_gone(&self) -> bool {
        self.0.iter().all(oneshot::Sender::is_closed)
    }

    /// Tells all of them.
    pub(crate) fn tell(self, value: T) {
        let value = Arc::new(value);
        for asker in self.0 {
            // It may have gone meanwhile.
            drop(asker.send(Arc::clone(&value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_have_asked_are_told_one_value_and_none_is_made_for_who_has_gone() {
        let (asks, mut asked) = mpsc::channel::<oneshot::Sender<Arc<u8>>>(16);
        let ask = || {
            let (asker, answer) = oneshot::channel();
            asks.try_send(asker).unwrap();
            answer
        };
        let (first, gone, mut last) = (ask(), ask(), ask());
        drop(gone);
        let mut first = first;
        let request = asked.try_recv().unwrap();
        let askers = Askers::gather(request, &mut asked).unwrap();
        assert_eq!(askers.0.len(), 2);
        let mut late = ask();
        assert!(!askers.are_gone());
        askers.tell(7);
        let (one, other) = (first.try_recv().unwrap(), last.try_recv().unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert!(late.try_recv().is_err(), "who asked later has the next one");

        let request = asked.try_recv().unwrap();
        let askers = Askers::gather(request, &mut asked).unwrap();
        drop(late);
        assert!(askers.are_gone());
        drop(ask());
        let request = asked.try_recv().unwrap();
        assert!(Askers::gather(request, &mut asked).is_none());
    }
}
