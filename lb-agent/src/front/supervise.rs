//! The agent's side of the front: finds one that is still alive or starts one, sends it routes, and hears its
//! figures.
//!
//! The stage owns the listeners together with the front, and the child process. A front that dies is
//! started again on the same listeners, whose queues meanwhile keep the clients. One that was started by an earlier agent
//! as something else is replaced: the next one is started on its very listeners, and when requests follow its routes
//! the old one is told to go.
//!
//! | file | room |
//! |---|---|
//! | `interface` | what the stage is told, what it tells, why it may end |
//! | `place`, `living`, `listen` | which front there is, the way to one, the sockets that it is given |
//! | `accompany`, `telling`, `sent`, `logging` | a living front: what it is told and says, its routes, the rest after them, the file of its access log |
//! | `outputs`, `parting` | what the others are told, the end |

use std::{
    error::Error as _,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use lb_front::{
    Listeners,
    control::{FRONT, FRONT_TLS},
};
use tokio::{
    process::Child,
    sync::watch,
    time::{Instant, sleep},
};

use interface::workers;
use listen::Group;
use living::Living;

use crate::{catalog::Problem, snapshot::Snapshot};

pub use interface::{End, Metrics, Outputs, SuperviseError, Supervisor};
pub use logging::LogFile;

mod accompany;
mod interface;
#[cfg(test)]
mod kit;
mod listen;
mod living;
mod logging;
mod outputs;
mod parting;
mod place;
mod sent;
mod telling;

/// Listeners at `address`, one for each worker of the usual front.
///
/// # Errors
/// When the address is taken, or is not ours to take.
pub fn listeners(address: SocketAddr) -> io::Result<Vec<TcpListener>> {
    listen::group(address, workers())
}

/// Keeps a front running and informed until the end, then drains and ends it, unless it is to be kept.
/// `inherited` are listeners that were passed to the agent under the name `front`; without any, it listens by itself once it knows that no
/// living front already does.
///
/// # Errors
/// When the first front cannot be started. Later failures are reported as problems and tried again, and so is the silence
/// of one that may be there.
pub async fn supervise(
    config: Supervisor,
    inherited: impl Into<Listeners>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    outputs: Outputs,
    end: End,
) -> Result<(), SuperviseError> {
    let inherited = inherited.into();
    let plain = Group::new(FRONT, &config.listen, inherited.plain);
    let tls = Group::new(FRONT_TLS, &config.listen_tls, inherited.tls);
    // Who asks for nothing at all takes what there is.
    let plain = match config.listen_tls.is_empty() {
        true => plain.anywhere(),
        false => plain,
    };
    let mut stage = Stage {
        config,
        plain,
        tls,
        child: None,
        former: None,
        retired: None,
        snapshots,
        outputs,
        trouble: None,
        end,
    };
    let mut pause = FIRST_PAUSE;
    let mut first = true;
    let mut left = false;
    while !stage.end.stop.is_cancelled() {
        let began = Instant::now();
        match stage.front().await {
            Ok(front) => {
                first = false;
                let ended = stage.accompany(front).await;
                left = ended.is_err();
                stage.outputs.stats.send_replace(None);
                if let Err(error) = ended {
                    tracing::warn!(%error, "the front ended; starting another one");
                    stage.report(Some(format!("it ended ({error}) and is started again")));
                }
            }
            Err(error) if first && !error.leaves_one() => return Err(error),
            Err(error) => {
                (first, left) = (false, true);
                let causes = std::iter::successors(error.source(), |it| (*it).source());
                let why: Vec<_> = causes.map(ToString::to_string).collect();
                let why = why.join(": ");
                tracing::error!(%error, why, "no front of this agent");
                stage.report(Some(format!("{error} ({why})")));
            }
        }
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = stage.end.stop.cancelled() => {}
        }
    }
    // One that could not be replaced, or adopted again, is not kept either.
    if left && !stage.end.keep_front.is_cancelled() {
        stage.end_left().await;
    }
    Ok(())
}

struct Stage {
    config: Supervisor,
    /// The listeners of the present front, for the next one.
    plain: Group,
    /// Those for TLS.
    tls: Group,
    /// The present front, if this agent started it.
    child: Option<Child>,
    /// Serves until the present one follows its routes.
    former: Option<Living>,
    /// The one before, with what is still open there.
    retired: Option<Living>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    outputs: Outputs,
    /// What is wrong with the front itself, beside the problems of its routes.
    trouble: Option<Problem>,
    end: End,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
