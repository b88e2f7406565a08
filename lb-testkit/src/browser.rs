//! A real browser that a test leads: Chromium without a window, by WebDriver.
//!
//! Browser and driver live in a network namespace, so that nothing of them leaves the machine; the port of the driver
//! is free there by nature. The protocol is requests of JSON over HTTP/1.1, one after the other.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Error, Netns, Process, Result, Spawn, eventually};

/// A browser with one page. Dropping it ends it.
#[derive(Debug)]
pub struct Browser<'n> {
    netns: &'n Netns,
    session: String,
    // The driver ends the browser when it is told to, and only then is the profile removed.
    driver: Process,
    _profile: tempfile::TempDir,
}

/// Which programs to start.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'p> {
    /// `chromium`.
    pub chromium: &'p Path,
    /// `chromedriver`, of the same version.
    pub driver: &'p Path,
}

impl<'n> Browser<'n> {
    /// Starts one in `netns`.
    ///
    /// # Errors
    /// When a program is not there, or the browser does not start in time.
    pub fn start(netns: &'n Netns, programs: Programs<'_>) -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("lb-test-").tempdir();
        let profile = profile.map_err(Error::of("make a folder for", "the browser"))?;
        let driver = Spawn::new("chromedriver", programs.driver)
            .arg(format!("--port={PORT}"))
            // Whatever they write is gone with the test.
            .env("HOME", profile.path())
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path())
            .netns(netns)
            .log(profile.path())
            .start()?;
        let mut browser = Self {
            netns,
            session: String::new(),
            driver,
            _profile: profile,
        };
        eventually(STARTS_WITHIN, || browser.exchange("GET", "/status", None))
            .map_err(|late| late.last)?;
        let chromium = on_path(programs.chromium);
        let data = browser._profile.path().join("profile");
        let wishes = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": [
                "--headless=new",
                // It runs as root here, and in a namespace that leads nowhere.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-crash-reporter",
                "--no-first-run",
                "--hide-scrollbars",
                format!("--user-data-dir={}", data.display()),
            ]},
        }}});
        let session = browser.exchange("POST", "/session", Some(&wishes))?;
        let Some(id) = session["sessionId"].as_str() else {
            return Err(failed("begin a session", &session));
        };
        browser.session = id.to_owned();
        Ok(browser)
    }

    /// Goes to an address and waits until the page is loaded.
    ///
    /// # Errors
    /// As all of these: when the driver says no.
    pub fn go(&self, address: &str) -> Result<()> {
        self.post("/url", json!({ "url": address })).map(drop)
    }

    /// Runs the body of a function in the page; what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", json!({"script": script, "args": []}))
    }

    /// The same for a body that gives its value to its last argument, a function, later.
    ///
    /// # Errors
    /// When it throws.
    pub fn run_async(&self, script: &str) -> Result<Value> {
        self.post("/execute/async", json!({"script": script, "args": []}))
    }

    /// Clicks what a selector of CSS finds first, as a mouse does. A page that renews itself may have put another one into
    /// its place by then: that is clicked instead.
    ///
    /// # Errors
    /// When there is no such thing, or something lies over it.
    pub fn click(&self, css: &str) -> Result<()> {
        for _ in 0..RENEWALS {
            match self.click_once(css) {
                Err(Error::Browser { said, .. }) if said.contains("stale element reference") => {}
                clicked => return clicked,
            }
        }
        self.click_once(css)
    }

    fn click_once(&self, css: &str) -> Result<()> {
        let found = self.post("/element", json!({"using": "css selector", "value": css}))?;
        let id = found.as_object().and_then(|it| it.values().next());
        let id = id.and_then(Value::as_str).unwrap_or_default();
        self.post(&format!("/element/{id}/click"), json!({}))
            .map(drop)
    }

    /// Presses keys one after the other: characters, and those that WebDriver numbers from U+E000 on.
    ///
    /// # Errors
    /// As [`Browser::go`].
    pub fn press(&self, keys: &str) -> Result<()> {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let strokes: Vec<Value> = strokes.collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.post("/actions", json!({ "actions": [keyboard] }))
            .map(drop)
    }

    /// Lets the page be so wide and high, also narrower than a window may be, and dark or light.
    ///
    /// # Errors
    /// As [`Browser::go`].
    pub fn look(&self, width: u32, height: u32, dark: bool) -> Result<()> {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .map(drop)
    }

    /// A picture of what is in sight, as PNG.
    ///
    /// # Errors
    /// As [`Browser::go`].
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        let text = self.exchange("GET", &self.path("/screenshot"), None)?;
        let bytes = STANDARD.decode(text.as_str().unwrap_or_default());
        bytes.map_err(|error| failed("take a picture", &Value::String(error.to_string())))
    }

    /// What the browser wrote to its console since it was asked last: errors of scripts, what the page's policy forbade,
    /// and requests that failed.
    ///
    /// # Errors
    /// As [`Browser::go`].
    pub fn console(&self) -> Result<Vec<String>> {
        let lines = self.post("/se/log", json!({"type": "browser"}))?;
        let lines = lines.as_array().into_iter().flatten();
        let text = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
        Ok(lines.map(text).collect())
    }

    /// One command of the developers' protocol.
    ///
    /// # Errors
    /// As [`Browser::go`].
    pub fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        let order = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", order)
    }

    fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.exchange("POST", &self.path(path), Some(&body))
    }

    fn path(&self, path: &str) -> String {
        format!("/session/{}{path}", self.session)
    }

    /// One request and the value of its answer.
    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let talk = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
            stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
            let body = body.map(Value::to_string).unwrap_or_default();
            let length = body.len();
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            answer(&mut stream)
        };
        let object = || format!("{method} {path}");
        let answer = self.netns.enter(talk)?;
        let mut answer = answer.map_err(Error::of("ask the browser for", object()))?;
        let value = answer["value"].take();
        match value["error"] {
            Value::Null => Ok(value),
            _ => Err(failed(&object(), &value)),
        }
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // The driver ends the browser's processes; killed, it would leave them.
        if !self.session.is_empty() {
            let _ = self.exchange("DELETE", &self.path(""), None);
        }
        let _ = self.driver.terminate();
        let _ = self.driver.wait(ENDS_WITHIN);
    }
}

/// The body of an answer, read by its length: the driver may keep the connection.
fn answer(stream: &mut TcpStream) -> io::Result<Value> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let n = stream.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..n]);
        if let Some(body) = body(&bytes) {
            return serde_json::from_slice(body).map_err(io::Error::other);
        }
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The body, once all of it is there.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| {
        let length = line.strip_prefix("content-length:")?;
        length.trim().parse::<usize>().ok()
    })?;
    bytes.get(end + 4..end + 4 + length)
}

/// The driver wants the whole path of the browser.
fn on_path(program: &Path) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    let found = places.find(|place| place.is_file());
    found.unwrap_or_else(|| program.to_owned())
}

fn failed(what: &str, said: &Value) -> Error {
    Error::Browser {
        what: what.to_owned(),
        said: said.to_string(),
    }
}

/// Of the driver, in a namespace of its own.
const PORT: u16 = 9515;
/// On a machine that does much else.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// The first session starts the browser.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How often a page may renew itself while one thing on it is clicked.
const RENEWALS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_is_there() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(body(whole), Some(&b"{}"[..]));
        assert_eq!(body(&whole[..whole.len() - 1]), None);
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
