//! Where the log goes, and how a line of it looks.
//!
//! An event is one line, whatever is in it: names come from others, and one with a line break could otherwise say anything in
//! the name of the agent.

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
};

use lb_agent::{config::LogFormat, last_lines::LastLines};
use nix::sys::stat::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Starts the log of this process, and keeps its last lines.
pub(crate) fn start(format: LogFormat) -> LastLines {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("LB_LOG")
        .from_env_lossy();
    let last = LastLines::default();
    let kept = fmt::layer()
        .with_target(false)
        .with_ansi(false)
        .with_writer(Keep(last.clone()))
        .with_filter(filter_fn(is_kept));
    let log = tracing_subscriber::registry().with(filter).with(kept);
    let written = fmt::layer().with_target(false).with_writer(Lines {
        with_priority: format == LogFormat::Journald,
    });
    match format {
        LogFormat::Json => log.with(written.json()).init(),
        // The journal has a clock of its own, and shows levels by what it was told.
        LogFormat::Journald => {
            let written = written.with_ansi(false).without_time().with_level(false);
            log.with(written).init();
        }
        LogFormat::Auto | LogFormat::Text => {
            let written = written.with_ansi(io::stderr().is_terminal());
            log.with(written).init();
        }
    }
    last
}

/// What the audit writes, and what is for debugging, may name clients.
fn is_kept(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.target() != "audit"
}

/// What `auto` means here: the journal's form where standard error is the journal, as sd_journal_stream_fd(3) tells it.
pub(crate) fn resolve(format: LogFormat) -> LogFormat {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let own = fstat(io::stderr().as_fd()).ok();
    let own = own.map(|file| (file.st_dev, file.st_ino));
    match format {
        LogFormat::Auto if is_journal(stream.as_deref(), own) => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Text,
        other => other,
    }
}

/// A variable that was inherited says nothing of a standard error that was redirected since.
fn is_journal(stream: Option<&str>, own: Option<(u64, u64)>) -> bool {
    let told = stream.and_then(|stream| stream.split_once(':'));
    let told = told.and_then(|(dev, inode)| Some((dev.parse().ok()?, inode.parse().ok()?)));
    told.is_some() && told == own
}

/// Keeps what is written of each event.
struct Keep(LastLines);

/// The event that is kept.
struct Kept<'k>(&'k LastLines);

impl<'w> MakeWriter<'w> for Keep {
    type Writer = Kept<'w>;

    fn make_writer(&'w self) -> Kept<'w> {
        Kept(&self.0)
    }
}

impl io::Write for Kept<'_> {
    /// Called once for each event, with all of it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = one_line(None, event);
        self.0.add(String::from_utf8_lossy(&line).trim_end());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes what is written of each event one line.
#[derive(Clone, Copy, Debug)]
struct Lines {
    with_priority: bool,
}

/// The line of one event.
struct Line {
    priority: Option<u8>,
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Line;

    fn make_writer(&'w self) -> Line {
        Line {
            priority: self.with_priority.then_some(6),
        }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Line {
        // syslog(3)
        let priority = match *metadata.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        Line {
            priority: self.with_priority.then_some(priority),
        }
    }
}

impl io::Write for Line {
    /// Called once for each event, with all of it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&one_line(self.priority, event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn one_line(priority: Option<u8>, event: &[u8]) -> Vec<u8> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    let mut line = Vec::with_capacity(event.len() + 4);
    if let Some(priority) = priority {
        line.extend_from_slice(format!("<{priority}>").as_bytes());
    }
    for byte in text {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            other => line.push(*other),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let event = b" INFO service appeared service=a\nERROR x\r\n\n";
        let line = one_line(None, event);
        let told = b" INFO service appeared service=a\\nERROR x\\r\\n\n";
        assert_eq!(line, told, "{}", String::from_utf8_lossy(&line));
        assert_eq!(one_line(Some(4), b"a\nb\n"), b"<4>a\\nb\n");
        assert_eq!(one_line(None, b""), b"\n");
    }

    #[test]
    fn the_journal_is_where_standard_error_leads() {
        let own = Some((9, 4711));
        assert!(is_journal(Some("9:4711"), own));
        for stream in [None, Some("9:4712"), Some("8:4711"), Some("9"), Some("a:b")] {
            assert!(!is_journal(stream, own), "{stream:?}");
        }
        assert!(!is_journal(Some("9:4711"), None));
        assert!(!is_journal(None, None));
    }
}
