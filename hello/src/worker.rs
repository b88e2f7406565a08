//! The application's worker, a process of its own as a PHP application has: when it is killed, the web server lives on
//! and answers 502. It does nothing but live; and here is what kills it in an image without a shell.

use std::{
    ffi::OsString,
    fs, io,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::answers::App;

/// Starts `program`; from its end on the pages of `app` fail.
pub(crate) fn start(program: &Path, app: Arc<App>) -> io::Result<()> {
    let mut child = Command::new(program)
        // Closed with this process, however it ends, and the worker goes with it.
        .stdin(Stdio::piped())
        .spawn()?;
    let watch = move || {
        let open = child.stdin.take();
        let ended = child.wait();
        drop(open);
        eprintln!("hello: the worker is gone ({ended:?})");
        app.fail();
    };
    thread::Builder::new()
        .name("worker".into())
        .spawn(watch)
        .map(drop)
}

/// Lives until the server does not.
pub(crate) fn work() -> ExitCode {
    match io::copy(&mut io::stdin(), &mut io::sink()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// `pkill NAME`: sends SIGTERM to every process with `name` in its name.
pub(crate) fn kill_all(name: Option<OsString>) -> ExitCode {
    let Some(name) = name.as_ref().and_then(|name| name.to_str()) else {
        eprintln!("usage: pkill NAME");
        return ExitCode::from(2);
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id();
    let meant = numbers.filter(|number| {
        let called = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        called.contains(name) && u32::try_from(*number) != Ok(own)
    });
    let killed = meant.filter(|number| kill(Pid::from_raw(*number), Signal::SIGTERM).is_ok());
    match killed.count() {
        0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
