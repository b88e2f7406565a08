//! Which front there is: one that lives, one that follows it, a new one.

use std::{fs, os::fd::OwnedFd, path::Path, time::Duration};

use lb_front::control::{CONTROL, Order, VERSION};
use tokio::{process::Child, time::timeout};

use super::{
    Stage, SuperviseError, listen,
    living::{Living, find, greet, is_nobody, successor},
};

impl Stage {
    /// A living front, or a new one.
    pub(super) async fn front(&mut self) -> Result<Living, SuperviseError> {
        let control = self.config.control.clone();
        let found = find(&control).await;
        if found.as_ref().err().is_none_or(is_nobody) {
            self.former = None;
        }
        match found {
            Ok(mut front) if self.fits(&front) => {
                tracing::info!(pid = front.hello.pid, "adopted a living front");
                let living = std::mem::take(&mut front.listeners);
                self.plain.adopt(living.plain);
                self.tls.adopt(living.tls);
                return Ok(front);
            }
            Ok(front) if front.listeners.all().next().is_some() => {
                let next = self.follow(front).await;
                return next.map_err(|error| SuperviseError::Follow(Box::new(error)));
            }
            Ok(front) => {
                let hello = &front.hello;
                tracing::warn!(
                    pid = hello.pid,
                    version = hello.version,
                    "replacing a front that cannot hand over its listeners"
                );
                // First beside it, so that nobody is refused in between. Where it has an address for itself that
                // fails, and is made again below, when it lets go.
                let _ = self.listen();
                if let Err(error) = front.terminate(&control).await {
                    tracing::warn!(%error, "the other front cannot be told to end; end its process (`lb-agent front`)");
                }
            }
            Err(error) if is_nobody(&error) => tracing::debug!(%error, "no living front"),
            // Our own can be ended for sure, so that there is never a second one; not one that ours was to follow.
            Err(error) if self.child.is_some() && self.former.is_none() => {
                tracing::warn!(%error, "replacing a silent front");
            }
            Err(source) => {
                return Err(SuperviseError::Silent {
                    path: control,
                    source,
                });
            }
        }
        self.end_child(Duration::ZERO).await;
        self.listen()?;
        self.child = Some(self.start(&control, &[])?);
        greet(&control).await.map_err(SuperviseError::Start)
    }

    /// Whether `front` is what this agent would start, where it would.
    fn fits(&self, front: &Living) -> bool {
        front.hello.version == VERSION
            && front.hello.kind == self.config.kind
            && self.plain.fits(&front.listeners.plain)
            && self.tls.fits(&front.listeners.tls)
    }

    /// A front in the place of `former`, which goes on until the new one follows its routes.
    async fn follow(&mut self, mut former: Living) -> Result<Living, SuperviseError> {
        let hello = &former.hello;
        tracing::info!(
            pid = hello.pid,
            version = hello.version,
            kind = hello.kind,
            "another front follows a living one"
        );
        self.end_child(Duration::ZERO).await;
        // Those that are not wanted any more are closed with that front.
        let handed = std::mem::take(&mut former.listeners);
        for (own, handed) in [(&mut self.plain, handed.plain), (&mut self.tls, handed.tls)] {
            own.inherit(&handed).map_err(SuperviseError::Start)?;
        }
        self.listen()?;
        let place = successor(&self.config.control);
        self.child = Some(self.start(&place, &["--successor"])?);
        match greet(&place).await {
            Ok(front) => {
                self.former = Some(former);
                Ok(front)
            }
            Err(error) => {
                self.end_child(Duration::ZERO).await;
                // Nobody is behind it any more.
                let _ = fs::remove_file(&place);
                Err(SuperviseError::Start(error))
            }
        }
    }

    /// Requests follow the present front's routes: the one before may go.
    pub(super) async fn take_over(&mut self) {
        let Some(mut former) = self.former.take() else {
            return;
        };
        let seconds = self.config.retirement.as_secs();
        let retire = Order::Retire { seconds };
        let control = &self.config.control;
        // In this order: whoever looks for a front in between finds the new one by what is left of it.
        let mut told = former.order(&retire).await;
        if told.is_err() {
            // Perhaps only its connection is.
            told = match greet(control).await {
                Ok(again) => {
                    former = again;
                    former.order(&retire).await
                }
                Err(error) => Err(error),
            };
        }
        match told {
            Ok(()) => tracing::info!(pid = former.hello.pid, "the front before retires"),
            Err(error) => tracing::info!(%error, "the front before is gone"),
        }
        if let Err(error) = fs::rename(successor(control), control) {
            tracing::warn!(%error, "the next agent will not find this front");
        }
        self.retired = Some(former);
    }

    /// Sees to it that there are listeners at every address.
    fn listen(&mut self) -> Result<(), SuperviseError> {
        let workers = self.config.workers;
        self.plain.listen(workers)?;
        self.tls.listen(workers)
    }

    /// Lets go of all listeners.
    pub(super) fn let_go(&mut self) {
        self.plain.all.clear();
        self.tls.all.clear();
    }

    fn start(&self, path: &Path, arguments: &[&str]) -> Result<Child, SuperviseError> {
        let control = listen::control(path).map_err(|source| SuperviseError::Control {
            path: path.to_owned(),
            source,
        })?;
        let mut passed = vec![(CONTROL, OwnedFd::from(control))];
        for group in [&self.plain, &self.tls] {
            for listener in &group.all {
                let copy = listener.try_clone().map_err(SuperviseError::Start)?;
                passed.push((group.name, copy.into()));
            }
        }
        let mut command = std::process::Command::new(&self.config.program);
        command.args(&self.config.arguments);
        command.arg(format!("--workers={}", self.config.workers));
        command.arg(format!("--grace-seconds={}", self.config.grace.as_secs()));
        command.arg(format!("--kind={}", self.config.kind));
        command.args(arguments);
        command.stdin(std::process::Stdio::null());
        // The agent's environment may hold tokens, and the front talks to everybody.
        command.env_clear();
        command.envs(std::env::var_os(LOG_LEVEL).map(|level| (LOG_LEVEL, level)));
        // A group of its own: Ctrl-C on a terminal is for the agent, which then drains the front.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        lb_sys::inherit::pass(&mut command, passed);
        tokio::process::Command::from(command)
            .spawn()
            .map_err(SuperviseError::Start)
    }

    /// Waits for the end of the child, and enforces it after `limit`, so that no zombie and no second front
    /// stays.
    pub(super) async fn end_child(&mut self, limit: Duration) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if timeout(limit, child.wait()).await.is_err() {
            tracing::warn!(
                pid = child.id(),
                "the front did not end in time; killing it"
            );
            // Fails only when it has ended in between.
            let _ = child.kill().await;
        }
    }
}

/// The one variable that agent and front share.
const LOG_LEVEL: &str = "LB_LOG";
