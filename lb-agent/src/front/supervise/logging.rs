//! The file of the access log. The front may open none, so it is opened here and passed on, and again whenever somebody
//! has moved it away and says so.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use lb_front::{
    control::{self, Order, VERSION},
    handover,
};
use nix::fcntl::OFlag;
use tokio::{net::unix::OwnedWriteHalf, sync::watch, time::timeout};

use super::{Stage, accompany::ORDER, living::Living};

/// Where the front's access log goes.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// The file, which is made if it is not there.
    pub path: PathBuf,
    /// A wish that it be opened again.
    pub reopen: watch::Receiver<()>,
}

impl LogFile {
    /// Lines are only ever added, and readable for the file's group.
    pub(super) fn open(&self) -> io::Result<File> {
        // A pipe without a reader would be waited for.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(flags.bits())
            .open(&self.path)
    }
}

impl Stage {
    /// Tells the front behind `orders` where its access log goes, and the fronts before.
    pub(super) async fn tell_log(&mut self, orders: &mut OwnedWriteHalf) -> io::Result<()> {
        let log = self.config.log_file.as_ref();
        let file = match log.map(|log| log.open().map_err(|error| (log, error))) {
            None => None,
            Some(Ok(file)) => Some(file),
            Some(Err((log, error))) => {
                let path = log.path.display();
                let message = format!(
                    "its access log stays where it is: {path} cannot be opened ({error}); SIGHUP has it tried again"
                );
                self.report(Some(message));
                return Ok(());
            }
        };
        self.report(None);
        let file = file.as_ref();
        tell(orders, file).await?;
        // What comes after half an order would be taken for the rest of it, so nothing may: this one is found anew.
        let understands = |it: &&mut Living| it.hello.version == VERSION;
        if let Some(former) = self.former.as_mut().filter(understands) {
            tell(&mut former.orders, file).await?;
        }
        // And this one nobody finds any more; it ends when its time is over.
        if let Some(retired) = self.retired.as_mut().filter(understands)
            && tell(&mut retired.orders, file).await.is_err()
        {
            self.retired = None;
        }
        Ok(())
    }
}

/// Tells a front to write into `file` from now on, or to standard output.
async fn tell(orders: &mut OwnedWriteHalf, file: Option<&File>) -> io::Result<()> {
    let telling = async {
        let order = Order::Log {
            file: file.is_some(),
        };
        control::send(orders, &order).await?;
        match file {
            Some(file) => handover::send_file((*orders).as_ref(), file).await,
            None => Ok(()),
        }
    };
    timeout(ORDER, telling).await?
}

/// Ends when somebody wishes that the file be opened again; never without one.
pub(super) async fn wish(reopen: &mut Option<watch::Receiver<()>>) {
    if let Some(reopen) = reopen
        && reopen.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::{
        super::kit::{front, stage},
        *,
    };

    #[tokio::test]
    async fn nothing_more_is_told_to_a_front_that_was_told_in_part() {
        let directory = tempfile::tempdir().unwrap();
        let mut stage = stage(directory.path());
        let (mut present, mut here) = front(directory.path(), "present").await;
        let (deaf, _there) = front(directory.path(), "deaf").await;
        while deaf.orders.try_write(b"\0").is_ok() {}
        // From here on nothing has to be waited for but in vain.
        tokio::time::pause();
        stage.retired = Some(deaf);
        stage.tell_log(&mut present.orders).await.unwrap();
        let told: Option<Order> = control::receive(&mut here).await.unwrap();
        assert!(matches!(told, Some(Order::Log { file: false })));
        assert!(stage.retired.is_none());
        tokio::time::resume();
        let (deaf, _there) = front(directory.path(), "deaf too").await;
        while deaf.orders.try_write(b"\0").is_ok() {}
        tokio::time::pause();
        stage.former = Some(deaf);
        // Whoever hears of this looks for it again.
        let failed = stage.tell_log(&mut present.orders).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }
}
