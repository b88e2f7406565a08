//! The unix socket of the command line: made for root and the agent's own user, or for whoever the stage then lets in.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error(
        "another agent answers at {}: stop it, or give this one another socket (--socket)",
        path.display()
    )]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} exists and is not a socket: remove it, or give another path (--socket)", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// It does not work.
    #[error("cannot make the socket {}", path.display())]
    Make {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Listens at `path`, in place of a socket that nobody answers any more. Only root and the agent's own user can connect,
/// unless `others` may; who they are is checked at each connection.
///
/// # Errors
/// When another agent answers there, or the socket cannot be made.
pub fn bind_socket(path: &Path, others: bool) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Make {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(parent).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(SocketError::Taken {
                path: path.to_owned(),
            });
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Until here another user could have connected; the peer's user is checked at each request.
    let mode = if others { 0o666 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Removes the name of a socket that nobody listens on any more. A successor's stays: it answers, and goes on answering. A child
/// that is just being started has our listener until it is another program.
pub(super) async fn remove_dead(path: &Path) {
    for _ in 0..LOOKS {
        match UnixStream::connect(path) {
            Ok(_) => sleep(BETWEEN_LOOKS).await,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // A name that stays is harmless: the next agent replaces it.
                let _ = fs::remove_file(path);
                return;
            }
            Err(_) => return,
        }
    }
}

const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_and_its_folder_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lb/admin.sock");
        let _listener = bind_socket(&path, false).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn others_can_connect_where_some_of_them_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _listener = bind_socket(&path, true).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o666);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(bind_socket(&path, false).unwrap());
        let _live = bind_socket(&path, false).unwrap();
        let error = bind_socket(&path, false).unwrap_err();
        assert!(matches!(error, SocketError::Taken { .. }), "{error}");
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "x").unwrap();
        let error = bind_socket(&path, false).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    }

    #[tokio::test]
    async fn a_dead_name_is_removed_and_a_successor_s_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(bind_socket(&path, false).unwrap());
        remove_dead(&path).await;
        assert!(!path.exists());
        // As a child has it for a moment.
        let copy = bind_socket(&path, false).unwrap();
        let held = tokio::spawn(async move {
            sleep(BETWEEN_LOOKS / 2).await;
            drop(copy);
        });
        remove_dead(&path).await;
        held.await.unwrap();
        assert!(!path.exists());
        let _successor = bind_socket(&path, false).unwrap();
        remove_dead(&path).await;
        assert!(path.exists());
    }
}
