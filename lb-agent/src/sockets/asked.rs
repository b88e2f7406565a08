//! What the thread is asked, in the order that it answers: the end of flows waits for no list that can be made later, and
//! all that have asked for the same list before it is begun share it. Pure.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::Ipv4Addr,
};

use tokio::sync::{mpsc, oneshot};

use super::{Flows, Outcome, Sight, Target};

pub(super) type Reply<T> = oneshot::Sender<io::Result<T>>;

#[derive(Debug)]
pub(super) enum Request {
    Targets(Reply<(BTreeSet<Target>, Sight)>),
    End(BTreeSet<Target>, Reply<Outcome>),
    List(Option<BTreeSet<Ipv4Addr>>, Reply<Flows>),
}

/// One look at the sockets.
#[derive(Debug)]
pub(super) enum Look {
    Targets(Reply<(BTreeSet<Target>, Sight)>),
    End(BTreeSet<Target>, Reply<Outcome>),
    List(Lists),
}

/// Those who want the same list.
#[derive(Debug)]
pub(super) struct Lists {
    /// The VIPs whose flows they want; `None` for all.
    pub(super) vips: Option<BTreeSet<Ipv4Addr>>,
    /// Whoever waits.
    replies: Vec<Reply<Flows>>,
}

impl Lists {
    /// Tells all of them.
    pub(super) fn tell(self, told: &io::Result<Flows>) {
        for reply in self.replies {
            let told = match told {
                Ok(flows) => Ok(flows.clone()),
                Err(error) => Err(again(error)),
            };
            // It may have gone meanwhile.
            drop(reply.send(told));
        }
    }
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// What has been asked and not answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Of the stage that cuts flows, which asks one thing after the other.
    first: VecDeque<Look>,
    /// Of people, in the order of who asked first.
    lists: VecDeque<Lists>,
}

impl Asked {
    /// The next look, if necessary after waiting for somebody to ask; `None` when nobody can any more.
    pub(super) fn next(&mut self, asked: &mut mpsc::Receiver<Request>) -> Option<Look> {
        loop {
            // Bounded: those who come meanwhile are looked at the next time.
            for _ in 0..asked.len() {
                if let Ok(request) = asked.try_recv() {
                    self.add(request);
                }
            }
            if let Some(look) = self.take() {
                return Some(look);
            }
            let request = asked.blocking_recv()?;
            self.add(request);
        }
    }

    fn add(&mut self, request: Request) {
        match request {
            Request::Targets(reply) => self.first.push_back(Look::Targets(reply)),
            Request::End(targets, reply) => self.first.push_back(Look::End(targets, reply)),
            Request::List(vips, reply) => match self.lists.iter_mut().find(|it| it.vips == vips) {
                Some(same) => same.replies.push(reply),
                None => {
                    let replies = vec![reply];
                    self.lists.push_back(Lists { vips, replies });
                }
            },
        }
    }

    /// Takes what somebody still waits for.
    fn take(&mut self) -> Option<Look> {
        self.first.retain(|look| match look {
            Look::Targets(reply) => !reply.is_closed(),
            Look::End(_, reply) => !reply.is_closed(),
            Look::List(_) => true,
        });
        for lists in &mut self.lists {
            lists.replies.retain(|reply| !reply.is_closed());
        }
        self.lists.retain(|lists| !lists.replies.is_empty());
        let first = self.first.pop_front();
        first.or_else(|| self.lists.pop_front().map(Look::List))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer<T> = oneshot::Receiver<io::Result<T>>;

    fn list(asking: &mpsc::Sender<Request>, last: Option<u8>) -> Answer<Flows> {
        let (reply, answer) = oneshot::channel();
        let vips = last.map(|last| [Ipv4Addr::new(198, 18, 0, last)].into());
        asking.try_send(Request::List(vips, reply)).unwrap();
        answer
    }

    fn end(asking: &mpsc::Sender<Request>) -> Answer<Outcome> {
        let (reply, answer) = oneshot::channel();
        let request = Request::End(BTreeSet::new(), reply);
        asking.try_send(request).unwrap();
        answer
    }

    #[track_caller]
    fn lists(look: Option<Look>) -> Lists {
        match look {
            Some(Look::List(lists)) => lists,
            other => panic!("no list: {other:?}"),
        }
    }

    #[test]
    fn flows_are_ended_before_anything_is_listed_and_the_same_list_is_made_once() {
        let (asking, mut queue) = mpsc::channel(16);
        let mut asked = Asked::default();
        let (mut one, mut all) = (list(&asking, Some(7)), list(&asking, None));
        let (mut same, gone) = (list(&asking, Some(7)), list(&asking, Some(8)));
        drop(gone);
        let _ended = end(&asking);
        assert!(matches!(asked.next(&mut queue), Some(Look::End(..))));
        let first = lists(asked.next(&mut queue));
        assert_eq!(first.replies.len(), 2);
        // Who asks while it is made has one of its own, and what is to end goes before that as well.
        let mut late = list(&asking, Some(7));
        let _ended = end(&asking);
        let told = Flows {
            left_out: 3,
            ..Flows::default()
        };
        first.tell(&Ok(told.clone()));
        for answer in [&mut one, &mut same] {
            assert_eq!(answer.try_recv().unwrap().unwrap(), told);
        }
        assert!(late.try_recv().is_err());
        assert!(matches!(asked.next(&mut queue), Some(Look::End(..))));
        let second = lists(asked.next(&mut queue));
        assert_eq!(second.vips, None);
        second.tell(&Err(io::Error::from_raw_os_error(1)));
        let error = all.try_recv().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
        let third = lists(asked.next(&mut queue));
        assert_eq!(third.replies.len(), 1);
        // Nobody wants the list of who has gone, and nobody is left to ask.
        drop(asking);
        assert!(asked.next(&mut queue).is_none());
    }
}
