//! The network namespace of one process, on demand.

use std::path::PathBuf;

use super::namespaces::{Fault, Namespaces, Wanted};

/// Why the namespace of a process is not known.
#[derive(Debug, thiserror::Error)]
pub enum NoProcess {
    /// There is none with that number.
    #[error("there is no process {0}")]
    Gone(u32),
    /// The agent may not look at it, or cannot.
    #[error(
        "cannot enter the network namespace of process {0}: the agent needs CAP_SYS_ADMIN and CAP_SYS_PTRACE, and the \
         host's processes in /proc"
    )]
    Hidden(u32),
}

/// The cookie of the network namespace that process `pid` is in, and whether that is the agent's own, the host's.
///
/// # Errors
/// When there is no such process, or it cannot be looked at.
pub async fn cookie_of(pid: u32) -> Result<(u64, bool), NoProcess> {
    let hidden = || NoProcess::Hidden(pid);
    // A thread for one question: it is rare, and the stage's own is there only with a Docker Engine.
    let namespaces = Namespaces::start(PathBuf::from("/proc")).map_err(|_| hidden())?;
    // Every cgroup contains the empty name: whichever process has the number is meant.
    let container = String::new();
    let found = namespaces.cookies(vec![Wanted { container, pid }]).await;
    let found = found.and_then(|found| found.into_iter().next());
    match found.ok_or_else(hidden)? {
        Ok(cookie) => Ok((cookie, cookie == namespaces.own)),
        Err(Fault::NotThere) => Err(NoProcess::Gone(pid)),
        Err(Fault::Denied(_) | Fault::Failed(_)) => Err(hidden()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_process_is_in_its_own_namespace_and_none_has_the_highest_number() {
        assert!(cookie_of(std::process::id()).await.unwrap().1);
        let gone = cookie_of(u32::MAX).await.unwrap_err();
        assert!(matches!(gone, NoProcess::Gone(u32::MAX)), "{gone}");
    }
}
