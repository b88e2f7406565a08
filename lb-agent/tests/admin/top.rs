//! `top` in a real terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    pty::{OpenptyResult, Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::agent::Agent;

struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(agent: &Agent) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_lb-agent"))
            .args(["top", "--socket"])
            .arg(&agent.socket)
            .env("NO_COLOR", "1")
            .stdin(end(&slave))
            .stdout(end(&slave))
            .stderr(end(&slave))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut screen = File::from(master.try_clone().unwrap());
        let out = Arc::clone(&seen);
        // It ends with the last one that has the terminal open.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                out.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            child,
            keys: master.into(),
            seen,
        }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    async fn until(&self, text: &str) {
        let seen = async {
            while !self.seen().contains(text) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        assert!(seen.is_ok(), "no {text:?} in {:?}", self.seen());
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    async fn exit(&mut self) -> Option<i32> {
        let end = tokio::time::timeout(Duration::from_secs(20), self.child.wait());
        end.await.unwrap().unwrap().code()
    }
}

/// Takes the screen, and gives it back.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

#[tokio::test]
async fn it_follows_keys_and_leaves_the_terminal_as_it_was() {
    let agent = Agent::start().await;
    let mut terminal = Terminal::start(&agent);
    terminal.until(ENTER).await;
    terminal.until("www_hello").await;
    terminal.press("\t");
    // Only what differs is drawn: words where nothing was before.
    terminal.until("consul_critical").await;
    terminal.press("?");
    terminal.until("PageDown").await;
    assert!(!terminal.seen().contains(LEAVE));
    terminal.press("q");
    assert_eq!(terminal.exit().await, Some(0));
    terminal.until(LEAVE).await;
    agent.end().await;
}

#[tokio::test]
async fn a_signal_and_ctrl_c_leave_it_as_it_was_too() {
    let agent = Agent::start().await;
    let mut terminal = Terminal::start(&agent);
    terminal.until("www_hello").await;
    let pid = i32::try_from(terminal.child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(terminal.exit().await, Some(130));
    terminal.until(LEAVE).await;

    let mut terminal = Terminal::start(&agent);
    terminal.until("www_hello").await;
    terminal.press("\u{3}");
    assert_eq!(terminal.exit().await, Some(130));
    terminal.until(LEAVE).await;
    agent.end().await;
}
