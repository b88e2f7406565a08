//! Asking with curl, the real one: its resolver is the C library's and its connect() is what the hooks see.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_testkit::{Cgroup, Netns, Spawn};

/// Where something is run from.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    pub(super) netns: Option<&'a Netns>,
    pub(super) cgroup: Option<&'a Cgroup>,
}

impl<'a> Place<'a> {
    /// The machine itself, where the user's browser is.
    pub(super) const MACHINE: Self = Self {
        netns: None,
        cgroup: None,
    };

    /// A process to be started here.
    pub(super) fn process(self, name: &str, program: &str) -> Spawn<'a> {
        let mut process = Spawn::new(name, program);
        if let Some(netns) = self.netns {
            process = process.netns(netns);
        }
        if let Some(cgroup) = self.cgroup {
            process = process.cgroup(cgroup);
        }
        process
    }

    /// curl, which knows neither the user's settings nor a proxy of theirs.
    pub(super) fn curl(self) -> Spawn<'a> {
        // `-q` is heard in the first place only.
        self.process("curl", "curl")
            .args(["-q", "--silent", "--show-error", "--noproxy", "*"])
    }

    /// Asks for one URL.
    pub(super) fn ask(self, arguments: &[&str]) -> Result<Answer> {
        let said = self
            .curl()
            .args([
                "--max-time",
                "5",
                "--write-out",
                "\n%{http_code} %{remote_ip}",
            ])
            .args(arguments)
            .output()?;
        Answer::parse(&said)
    }

    /// Asks for a page that must be there.
    pub(super) fn get(self, url: &str) -> Result<Answer> {
        let answer = self.ask(&[url])?;
        ensure!(
            answer.status == 200,
            "{url} answers {}: {}",
            answer.status,
            answer.body
        );
        Ok(answer)
    }

    /// Tells `url` to do something.
    pub(super) fn post(self, url: &str) -> Result<()> {
        let answer = self.ask(&["--request", "POST", url])?;
        ensure!(
            answer.status == 200,
            "POST {url} answers {}: {}",
            answer.status,
            answer.body
        );
        Ok(())
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whom the client believes that it talks to: the answer of getpeername().
    pub(super) peer: IpAddr,
    pub(super) body: String,
}

impl Answer {
    fn parse(said: &str) -> Result<Self> {
        let (body, rest) = said.rsplit_once('\n').unwrap_or(("", said));
        let parse = || {
            let (status, peer) = rest.split_once(' ')?;
            Some((status.parse().ok()?, peer.parse().ok()?))
        };
        let (status, peer) = parse().with_context(|| format!("curl said {rest:?}"))?;
        Ok(Self {
            status,
            peer,
            body: body.trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_status_and_its_peer() {
        let answer = Answer::parse("<h1>\n</h1>\n\n200 198.18.4.2").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "<h1>\n</h1>"));
        assert_eq!(answer.peer.to_string(), "198.18.4.2");
        let empty = Answer::parse("503 127.0.0.1").unwrap();
        assert_eq!((empty.status, empty.body.as_str()), (503, ""));
        assert!(Answer::parse("").is_err());
    }
}
