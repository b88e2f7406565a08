//! How a world is looked at from outside: pages, the front, plain flows, commands.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    process::Command,
};

use lb_testkit::eventually;

use super::{Answer, Asked, LIMIT, Report, World, ask, greeting, world::BINARY};

impl World {
    #[track_caller]
    pub(crate) fn await_ready(&mut self) {
        self.await_page("/ready", |answer| answer.status == 200);
    }

    /// Waits until a page of the admin is as it should be.
    #[track_caller]
    pub(crate) fn await_page(&mut self, path: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
        let found = eventually(LIMIT, || {
            assert!(self.is_running(), "the agent ended:\n{}", self.said());
            match self.page(path) {
                Ok(answer) if fits(&answer) => Ok(answer),
                Ok(answer) => Err(format!("{path} is {}: {}", answer.status, answer.body)),
                Err(error) => Err(error.to_string()),
            }
        });
        found.unwrap_or_else(|late| panic!("{late}\n{}", self.said()))
    }

    /// Gets a page of the admin.
    pub(crate) fn page(&self, path: &str) -> io::Result<Answer> {
        ask::http(&self.netns, ADMIN, "127.0.0.1:9180", path)
    }

    /// Posts an order to the admin, as a program does that shows the token.
    pub(crate) fn post(&self, path: &str, order: &str) -> io::Result<Answer> {
        let token = fs::read_to_string(self.path("state/admin.token"))?;
        let (token, length) = (token.trim(), order.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {ADMIN}\r\nX-LB-Action: 1\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n"
        );
        ask::exchange(&self.netns, ADMIN, &head, order)
    }

    /// Asks the front for `/` of `host`.
    pub(crate) fn front(&self, host: &str) -> io::Result<Answer> {
        ask::http(&self.netns, FRONT, host, "/")
    }

    /// Sends the front one request for `host`.
    pub(crate) fn front_with(&self, line: &str, host: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{line}\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}");
        ask::exchange(&self.netns, FRONT, &head, body).unwrap()
    }

    /// Waits until the front answers so for `/` of `host`.
    #[track_caller]
    pub(crate) fn await_front(&self, host: &str, fits: impl Fn(&Answer) -> bool) {
        self.await_answer(FRONT, host, fits);
    }

    /// Waits until whoever listens at `address` answers so for `/` of `host`.
    #[track_caller]
    pub(crate) fn await_answer(
        &self,
        address: SocketAddr,
        host: &str,
        fits: impl Fn(&Answer) -> bool,
    ) {
        let found = eventually(LIMIT, || match ask::http(&self.netns, address, host, "/") {
            Ok(answer) if fits(&answer) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        found.unwrap_or_else(|late| panic!("{late}\n{}", self.said()));
    }

    pub(crate) fn report(&self) -> Report {
        let answer = self.page("/api/v1/snapshot").unwrap();
        Report(serde_json::from_str(&answer.body).unwrap())
    }

    /// Waits until the report has what is looked for.
    #[track_caller]
    pub(crate) fn await_report<T>(&self, look: impl Fn(&Report) -> Option<T>) -> T {
        let found = eventually(LIMIT, || {
            let report = self.report();
            look(&report).ok_or_else(|| format!("{:#}", report.0))
        });
        found.unwrap_or_else(|late| panic!("{late}\n{}", self.said()))
    }

    /// The same of an agent whose page may not be there yet, and that may not become ready.
    #[track_caller]
    pub(crate) fn await_page_report<T>(&mut self, look: impl Fn(&Report) -> Option<T>) -> T {
        self.await_page("/healthz", |answer| answer.status == 200);
        self.await_report(look)
    }

    /// Waits for the virtual address of `service`, with exactly these instances usable.
    #[track_caller]
    pub(crate) fn await_usable(&self, service: &str, ids: &[&str]) -> Ipv4Addr {
        self.await_report(|report| {
            let usable = report.instances(service, "usable");
            let same = usable.iter().map(String::as_str).eq(ids.iter().copied());
            same.then(|| report.vip(service))?
        })
    }

    /// Connects as a client on this host does.
    pub(crate) fn connect(&self, address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
        ask::connect(&self.netns, address, port)
    }

    /// Runs `lb-agent uninstall` on this host, whose files lie in `root` of the world's folder.
    pub(crate) fn uninstall(&self, flags: &[&str]) -> Asked {
        self.uninstall_by(&[BINARY], flags)
    }

    /// The same by this command, of which the agent is the last word.
    pub(crate) fn uninstall_by(&self, command: &[&str], flags: &[&str]) -> Asked {
        let (program, before) = command.split_first().unwrap();
        let mut command = Command::new(program);
        command
            .args(before)
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .args(["uninstall", "--config"])
            .arg(self.config())
            .arg("--root")
            .arg(self.path("root"))
            .args(flags);
        Asked::of(&self.netns.enter(|| command.output()).unwrap().unwrap())
    }

    /// Runs a command against the agent's socket.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Asked {
        let output = Command::new(BINARY)
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .args(arguments)
            .output()
            .unwrap();
        Asked::of(&output)
    }

    /// The same by the user `uid` of this host.
    pub(crate) fn ask_as(&self, uid: u32, arguments: &[&str]) -> Asked {
        let output = Command::new(BINARY)
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .args(arguments)
            .uid(uid)
            .gid(uid)
            .output()
            .unwrap();
        Asked::of(&output)
    }

    /// The service `www_hello` is served by the instance `id`, to clients of its address and of the front.
    #[track_caller]
    pub(crate) fn assert_serves(&self, vip: Ipv4Addr, id: &str) {
        assert_eq!(greeting(&self.connect(vip, 80).unwrap()).unwrap(), id);
        assert_eq!(self.front("www.hello.localhost").unwrap().body, id);
    }

    /// What `status` says once it is degraded and names all of this.
    #[track_caller]
    pub(crate) fn await_degraded(&self, words: &[&str]) -> String {
        let found = eventually(LIMIT, || {
            let status = self.ask(&["status"]);
            let all = words.iter().all(|word| status.out.contains(word));
            if status.code == Some(3) && all {
                Ok(status.out)
            } else {
                Err(format!("{words:?} are not all in {status:?}"))
            }
        });
        found.unwrap_or_else(|late| panic!("{late}"))
    }

    #[track_caller]
    pub(crate) fn await_fine(&self) {
        let found = eventually(LIMIT, || match self.ask(&["status"]) {
            status if status.code == Some(0) => Ok(()),
            status => Err(format!("{status:?}")),
        });
        found.unwrap_or_else(|late| panic!("{late}"));
    }
}

/// Where the agent listens if its configuration does not say: nobody else is in the namespace.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

const FRONT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
