//! Requests that wait for something of which there is not enough, first come, first served.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use tokio::sync::Notify;

/// Who waits. Only the first one is ever woken: it takes what there is, and with its leaving wakes the next.
#[derive(Default)]
pub(crate) struct Queue {
    line: RefCell<VecDeque<(u64, Rc<Notify>)>>,
    tickets: Cell<u64>,
}

/// A place in the queue, given up by its drop.
pub(crate) struct Waiting {
    queue: Rc<Queue>,
    ticket: u64,
    woken: Rc<Notify>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.line.borrow().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.borrow().is_empty()
    }

    /// Joins at the end unless `most` wait already.
    pub(crate) fn join(self: &Rc<Self>, most: usize) -> Option<Waiting> {
        let mut line = self.line.borrow_mut();
        if line.len() >= most {
            return None;
        }
        let ticket = self.tickets.replace(self.tickets.get() + 1);
        let woken = Rc::new(Notify::new());
        line.push_back((ticket, woken.clone()));
        drop(line);
        Some(Waiting {
            queue: self.clone(),
            ticket,
            woken,
        })
    }

    /// There may be something for the first one.
    pub(crate) fn wake(&self) {
        if let Some((_, first)) = self.line.borrow().front() {
            first.notify_one();
        }
    }
}

impl Waiting {
    /// Until it is worth to look again.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut line = self.queue.line.borrow_mut();
        let place = line.binary_search_by_key(&self.ticket, |(ticket, _)| *ticket);
        if let Ok(place) = place {
            line.remove(place);
        }
        drop(line);
        if place == Ok(0) {
            self.queue.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Who of those that wait would look now.
    fn woken(all: &[&Waiting]) -> Vec<usize> {
        let awake = |waiting: &&Waiting| waiting.woken().now_or_never().is_some();
        (0..all.len()).filter(|&at| awake(&all[at])).collect()
    }

    #[test]
    fn the_first_is_woken_and_each_that_leaves_wakes_the_next() {
        let queue = Rc::new(Queue::default());
        let [a, b, c] = [(); 3].map(|()| queue.join(9).unwrap());
        assert!(woken(&[&a, &b, &c]).is_empty());
        queue.wake();
        queue.wake();
        assert_eq!(woken(&[&a, &b, &c]), [0]);
        drop(b);
        assert!(woken(&[&a, &c]).is_empty());
        drop(a);
        assert_eq!(woken(&[&c]), [0]);
        drop(c);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_wake_is_not_lost_on_one_that_leaves() {
        let queue = Rc::new(Queue::default());
        let [a, b] = [(); 2].map(|()| queue.join(9).unwrap());
        queue.wake();
        drop(a);
        assert_eq!(woken(&[&b]), [0]);
    }

    #[test]
    fn no_more_wait_than_may() {
        let queue = Rc::new(Queue::default());
        let first = queue.join(1);
        assert!(first.is_some() && queue.join(1).is_none());
        drop(first);
        assert_eq!((queue.len(), queue.join(1).is_some()), (0, true));
    }
}
