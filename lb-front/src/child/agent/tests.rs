//! What an agent is told, and agents that end in the middle of what they say.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{sync::mpsc, task::JoinHandle};

use super::*;
use crate::{Limits, Listeners, Reason, stats::TerminationCount};

/// An agent's end of a connection on which both have said hello, and what the front asks its workers.
async fn attended() -> (
    UnixStream,
    mpsc::Receiver<oneshot::Sender<FrontStats>>,
    JoinHandle<io::Result<Parted>>,
) {
    let (mut agent, here) = UnixStream::pair().unwrap();
    let (asked, figures) = mpsc::channel(1);
    let own = Arc::new(Own {
        kind: String::new(),
        listeners: Listeners::default(),
    });
    let front = Front::new(Limits::default());
    let attending = tokio::spawn(attend(here, front, own, asked));
    handover::receive::<Hello>(&agent).await.unwrap().unwrap();
    let hello = Order::Hello { version: VERSION };
    control::send(&mut agent, &hello).await.unwrap();
    (agent, figures, attending)
}

#[tokio::test]
async fn what_an_agent_ordered_before_it_ended_is_obeyed() {
    let (agent, mut figures, attending) = attended().await;
    // The front is about to report, which it cannot any more.
    let asker: oneshot::Sender<FrontStats> = figures.recv().await.unwrap();
    let retire = Order::Retire { seconds: 7 };
    agent.try_write(&control::encode(&retire).unwrap()).unwrap();
    drop(agent);
    asker.send(FrontStats::default()).unwrap();
    let Parted::Leave(leave) = attending.await.unwrap().unwrap() else {
        panic!("it stays");
    };
    assert_eq!(leave.patience, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn an_agent_that_ends_before_it_hands_over_a_file_leaves_the_log_where_it_was() {
    let front = Front::new(Limits::default());
    let (read, write) = io::pipe().unwrap();
    front.log().write_to(File::from(OwnedFd::from(write)));
    let (agent, here) = UnixStream::pair().unwrap();
    drop(agent);
    log_into(&here, &front, true).await.unwrap();
    // It would be at its end.
    let mut read = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut read, PollTimeout::ZERO).unwrap(), 0);
}

#[tokio::test]
async fn an_agent_is_told_all_figures_once_and_then_what_is_new_of_them() {
    let (mut agent, mut figures, attending) = attended().await;
    let stats = |counts: &[(&str, u64)]| {
        let terminations = counts.iter().map(|&(service, count)| TerminationCount {
            service: service.to_owned(),
            class: "2xx".to_owned(),
            reason: Reason::Ok,
            count,
        });
        FrontStats {
            terminations: terminations.collect(),
            ..FrontStats::default()
        }
    };
    let [first, second, third] = [
        &[("a", 1), ("b", 1)][..],
        &[("a", 1), ("b", 2), ("c", 1)],
        &[("_gone", 1), ("b", 2), ("c", 1)],
    ]
    .map(stats);
    let mut told: Vec<Report> = Vec::new();
    for now in [&first, &first, &second, &third] {
        let asker: oneshot::Sender<FrontStats> = figures.recv().await.unwrap();
        asker.send(now.clone()).unwrap();
    }
    for _ in 0..3 {
        told.push(control::receive(&mut agent).await.unwrap().unwrap());
    }
    let told: [Report; 3] = told.try_into().unwrap();
    let [
        Report::Figures(mut known),
        Report::News(news),
        Report::Figures(last),
    ] = told
    else {
        panic!("other reports");
    };
    assert_eq!((&known, news.terminations.len()), (&first, 2));
    known.learn(news);
    assert_eq!((known, last), (second, third));
    attending.abort();
}
