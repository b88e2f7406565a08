//! What systemd is told of the agent (`sd_notify(3)`): when it has started, how it is, that it lives, that it ends. Without
//! systemd nothing is told to nobody.
//!
//! READY means that listeners are bound and the maps are taken over. What an agent without Consul waits for is in STATUS and
//! in `/ready`: a host has to start without it.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lb_agent::admin::Readiness;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// Where systemd listens; clones tell the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Systemd {
    socket: Option<Arc<UnixDatagram>>,
    /// How often it wants to hear that the agent lives.
    watchdog: Option<Duration>,
    /// What it must hear and had no room for yet.
    owed: Arc<Mutex<Option<String>>>,
}

impl Systemd {
    /// The one that started this process, if it wants to be told.
    pub(crate) fn of_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let watchdog = watchdog(
            env::var("WATCHDOG_USEC").ok().as_deref(),
            env::var("WATCHDOG_PID").ok().as_deref(),
            std::process::id(),
        );
        match connect(&name) {
            Ok(socket) => {
                if let Some(watchdog) = watchdog.filter(|it| *it < SHORTEST_WATCHDOG) {
                    tracing::warn!(
                        ?watchdog,
                        "a late sign of life ends the agent: set WatchdogSec to 4 s or more"
                    );
                }
                Self {
                    socket: Some(Arc::new(socket)),
                    watchdog,
                    owed: Arc::default(),
                }
            }
            Err(error) => {
                tracing::warn!(%error, ?name, "systemd cannot be told of the agent");
                Self::default()
            }
        }
    }

    /// Tells it lines of `KEY=value`; whether it took them. Nothing is done about one that does not listen: it has its own
    /// limits.
    fn tell(&self, lines: &str) -> bool {
        let Some(socket) = &self.socket else {
            return true;
        };
        let sent = socket.send(lines.as_bytes());
        if let Err(error) = &sent {
            tracing::debug!(%error, lines, "systemd was not told");
        }
        sent.is_ok()
    }

    /// Tells it what it waits for, now or as soon as it has room.
    fn owe(&self, lines: &str) {
        let unsent = (!self.tell(lines)).then(|| lines.to_owned());
        *self.owed.lock().unwrap_or_else(PoisonError::into_inner) = unsent;
    }

    /// Tells it what it had no room for.
    fn pay(&self) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.as_deref().is_some_and(|lines| self.tell(lines)) {
            *owed = None;
        }
    }

    /// The agent has started.
    pub(crate) fn ready(&self) {
        self.owe("READY=1");
    }

    /// The agent ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=ending");
    }

    /// Nothing is told for so long from now on: the stages end.
    pub(crate) fn be_patient(&self, limit: Duration) {
        if let Some(usual) = self.watchdog {
            let micros = (limit + usual).as_micros();
            self.tell(&format!("WATCHDOG_USEC={micros}\nWATCHDOG=1"));
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // The agent waits for nobody.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `WATCHDOG_USEC`, if it is meant for this process: sd_watchdog_enabled(3).
fn watchdog(micros: Option<&str>, of: Option<&str>, own: u32) -> Option<Duration> {
    if of.is_some_and(|of| of.parse() != Ok(own)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// Tells it how the agent is, until `stop`. `beat` comes from the loop that writes the maps: when that makes no progress,
/// systemd hears nothing and starts the agent anew.
pub(crate) async fn run(
    systemd: Systemd,
    readiness: Readiness,
    mut beat: watch::Receiver<()>,
    mut reload: watch::Receiver<()>,
    stop: CancellationToken,
) {
    let mut looks = interval(STATUS_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut lived) = (String::new(), None::<Instant>);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = beat.changed() => {
                // Four times as often as it has to be, so that a late one is no death.
                let due = systemd.watchdog.is_some_and(|every| {
                    lived.is_none_or(|at| at.elapsed() >= every / 4)
                });
                if due {
                    lived = Some(Instant::now());
                    systemd.tell("WATCHDOG=1");
                }
            }
            Ok(()) = reload.changed() => {
                systemd.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()));
                systemd.ready();
            }
            _ = looks.tick() => {
                systemd.pay();
                let status = status(&readiness.reasons());
                if status != told {
                    systemd.tell(&format!("STATUS={status}"));
                    told = status;
                }
            }
        }
    }
}

fn status(reasons: &[String]) -> String {
    match reasons {
        [] => "ready".to_owned(),
        reasons => reasons.join("; "),
    }
}

fn monotonic_micros() -> u128 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.unwrap_or_default().as_micros()
}

/// Signs of life come once a second, and four of them must fit.
const SHORTEST_WATCHDOG: Duration = Duration::from_secs(4);
/// How often the line of status may change.
const STATUS_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None, 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("7"), 7), second);
        for (micros, of) in [
            (Some("1000000"), Some("8")),
            (Some("1000000"), Some("")),
            (Some("0"), None),
            (Some("soon"), None),
            (None, None),
        ] {
            assert_eq!(watchdog(micros, of, 7), None, "{micros:?} {of:?}");
        }
    }

    struct Stage {
        heard: UnixDatagram,
        beat: watch::Sender<()>,
        reload: watch::Sender<()>,
        readiness: Readiness,
        stop: CancellationToken,
    }

    impl Stage {
        /// With a watchdog of four seconds, on a clock that the test moves.
        fn start() -> Self {
            let (own, heard) = UnixDatagram::pair().unwrap();
            heard.set_nonblocking(true).unwrap();
            let systemd = Systemd {
                socket: Some(Arc::new(own)),
                watchdog: Some(Duration::from_secs(4)),
                owed: Arc::default(),
            };
            let (beat, reload) = (watch::Sender::new(()), watch::Sender::new(()));
            let (readiness, stop) = (Readiness::new(["maps"]), CancellationToken::new());
            tokio::spawn(run(
                systemd,
                readiness.clone(),
                beat.subscribe(),
                reload.subscribe(),
                stop.clone(),
            ));
            Self {
                heard,
                beat,
                reload,
                readiness,
                stop,
            }
        }

        /// Lets this time pass, and returns what was told meanwhile.
        async fn hear(&self, time: Duration) -> Vec<String> {
            tokio::time::sleep(time).await;
            let (mut all, mut room) = (Vec::new(), [0; 256]);
            while let Ok(length) = self.heard.recv(&mut room) {
                all.push(String::from_utf8(room[..length].to_vec()).unwrap());
            }
            all
        }
    }

    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_makes_no_progress_is_not_told_to_live() {
        let stage = Stage::start();
        assert_eq!(stage.hear(MOMENT).await, ["STATUS=waiting for maps"]);
        for _ in 0..5 {
            stage.beat.send_replace(());
            assert_eq!(stage.hear(2 * Duration::from_secs(1)).await, ["WATCHDOG=1"]);
        }
        // It stalls: time alone tells nothing.
        let nothing = Vec::<String>::new();
        assert_eq!(stage.hear(Duration::from_secs(60)).await, nothing);
        stage.beat.send_replace(());
        assert_eq!(stage.hear(MOMENT).await, ["WATCHDOG=1"]);
        // A quick one is not told each time.
        for _ in 0..5 {
            stage.beat.send_replace(());
            assert_eq!(stage.hear(MOMENT).await, nothing);
        }
        stage.stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_and_what_is_waited_for_are_told() {
        let stage = Stage::start();
        stage.hear(MOMENT).await;
        stage.readiness.set("maps");
        let second = Duration::from_secs(1);
        assert_eq!(stage.hear(second).await, ["STATUS=ready"]);
        stage.reload.send_replace(());
        let told = stage.hear(MOMENT).await;
        let [reloading, ready] = &told[..] else {
            panic!("{told:?}");
        };
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(since.unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(ready, "READY=1");
        stage.readiness.stop();
        assert_eq!(stage.hear(second).await, ["STATUS=stopping"]);
        stage.stop.cancel();
        tokio::task::yield_now().await;
    }

    #[test]
    fn nobody_is_told_without_systemd_and_a_name_may_be_abstract() {
        Systemd::default().ready();
        let name = format!("lb-agent-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let heard = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        let systemd = Systemd {
            socket: Some(Arc::new(socket)),
            watchdog: None,
            owed: Arc::default(),
        };
        systemd.ready();
        // No watchdog, no word about it.
        systemd.be_patient(Duration::from_secs(1));
        systemd.stopping();
        let mut room = [0; 64];
        for told in ["READY=1", "STOPPING=1\nSTATUS=ending"] {
            let length = heard.recv(&mut room).unwrap();
            assert_eq!(&room[..length], told.as_bytes());
        }
    }
}
