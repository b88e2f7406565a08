//! How the agent is told to end, and what its stages say when they do.

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinError,
};

use super::Stages;

/// What is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    All,
    /// The front serves on, for the next agent.
    AllButFront,
}

pub(crate) async fn shutdown_signal(reload: &watch::Sender<()>) -> Result<Ending> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut term, mut int, mut hup, mut usr2): (Signal, Signal, Signal, Signal) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
        listen(SignalKind::hangup())?,
        listen(SignalKind::user_defined2())?,
    );
    loop {
        let (signal, ending) = tokio::select! {
            _ = term.recv() => ("SIGTERM", Ending::All),
            _ = int.recv() => ("SIGINT", Ending::All),
            _ = usr2.recv() => ("SIGUSR2", Ending::AllButFront),
            _ = hup.recv() => {
                tracing::info!(
                    "SIGHUP: tokens and certificates are read again, the access log is opened again; restart the agent to change anything else"
                );
                reload.send_replace(());
                continue;
            }
        };
        tracing::info!(signal, "ending");
        return Ok(ending);
    }
}

/// Waits until all have ended that were told to. What one says of its end is heard, though nothing can be done about it any
/// more: a state that was not written, a panic.
pub(crate) async fn last_words(stages: &mut Stages) {
    while let Some(ended) = stages.join_next().await {
        if !matches!(ended, Ok((_, Ok(())))) {
            tracing::warn!("a stage did not end well: {:#}", fault(Some(ended)));
        }
    }
}

/// A stage that ends before it is told to is a fault, even when it says that all is well.
pub(crate) fn fault(ended: Option<Result<(&'static str, Result<()>), JoinError>>) -> anyhow::Error {
    match ended {
        None => anyhow!("no stage is left"),
        Some(Err(error)) => anyhow!("a stage failed: {error}"),
        Some(Ok((name, Ok(())))) => anyhow!("the stage {name} ended by itself"),
        Some(Ok((name, Err(error)))) => error.context(format!("the stage {name} ended")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::instrument::WithSubscriber as _;

    use super::*;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_stages_say_when_they_end_is_logged_and_those_that_end_well_are_silent() {
        let mut stages = Stages::new();
        stages.spawn(async { ("dns", Ok(())) });
        stages.spawn(async {
            let full = io::Error::other("the disk is full");
            let full = anyhow::Error::from(full).context("cannot write vips.json");
            ("vip", Err(full))
        });
        stages.spawn(async { panic!("out of range") });
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        last_words(&mut stages).with_subscriber(subscriber).await;
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.matches(" WARN ").count(), 2, "{log}");
        let vip = "the stage vip ended: cannot write vips.json: the disk is full";
        assert!(log.contains(vip), "{log}");
        assert!(log.contains("panicked"), "{log}");
        assert!(!log.contains("dns"), "{log}");
    }
}
