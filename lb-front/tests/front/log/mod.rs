//! The access log, line by line, over real sockets.

mod ends;
mod lines;
mod writer;

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use lb_front::{
    Limits, Settings,
    log::{LogFormat, LogSettings},
};

use crate::kit::{TestFront, eventually, routes};

/// A front that logs into a file.
pub(crate) struct Logged {
    pub(crate) front: TestFront,
    path: PathBuf,
}

impl Logged {
    pub(crate) fn start(
        log: LogSettings,
        limits: Limits,
        backends: &[std::net::SocketAddr],
    ) -> Self {
        Self::on(TestFront::start(limits, 1), log, backends)
    }

    fn on(front: TestFront, log: LogSettings, backends: &[std::net::SocketAddr]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lb-front-log-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        front.front.log().write_to(File::create(&path).unwrap());
        let settings = Settings {
            log,
            ..Settings::default()
        };
        front.front.publish(&routes(backends), &settings);
        Self { front, path }
    }

    pub(crate) fn of(format: LogFormat, backends: &[std::net::SocketAddr]) -> Self {
        let log = LogSettings {
            format: Some(format),
            ..LogSettings::default()
        };
        Self::start(log, Limits::default(), backends)
    }

    /// How many lines there are.
    pub(crate) fn now(&self) -> usize {
        fs::read_to_string(&self.path).unwrap().lines().count()
    }

    /// The lines, once there are as many.
    #[track_caller]
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        eventually("the lines are there", || {
            let text = fs::read_to_string(&self.path).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// The only line, as an object without what differs from run to run.
    #[track_caller]
    fn object(&self) -> serde_json::Map<String, serde_json::Value> {
        let lines = self.lines(1);
        let object: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let mut object = object.as_object().unwrap().clone();
        for time in [
            "time",
            "queue_ms",
            "connect_ms",
            "first_byte_ms",
            "total_ms",
            "request_id",
        ] {
            object.remove(time);
        }
        object
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
