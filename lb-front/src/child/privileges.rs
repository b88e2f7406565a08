//! What the front gives up before it serves.

use std::io;

use caps::{CapSet, Capability};
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};

/// Gives up root and all capabilities for good. The front needs neither: its listeners are open.
pub(super) fn drop_privileges() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    // Only who may change the bounding set has something in it to lose.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(io::Error::other)? {
        caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
    }
    if geteuid().is_root()
        && let Err(error) = become_nobody()
    {
        tracing::warn!(
            %error,
            "the front keeps the agent's user, who may open what root owns; give the agent CAP_SETUID, CAP_SETGID and CAP_KILL"
        );
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Root without capabilities still owns the pinned maps, the admin socket and most files of the host.
fn become_nobody() -> io::Result<()> {
    // The last one is for the agent: without it, root cannot end a process of another user.
    for needed in [
        Capability::CAP_SETGID,
        Capability::CAP_SETUID,
        Capability::CAP_KILL,
    ] {
        if !caps::has_cap(None, CapSet::Effective, needed).map_err(io::Error::other)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{needed} is missing"),
            ));
        }
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    Ok(())
}

/// The overflow user and group: owns nothing, and needs no entry in a user database.
const NOBODY: u32 = 65_534;
