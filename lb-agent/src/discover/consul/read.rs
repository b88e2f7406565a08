//! Reading one endpoint again and again, so that only answers which may be believed come out.

use tokio::time::{Instant, timeout_at};

use super::{
    client::{Answer, Client, Consistency},
    error::RequestError,
    index::{Index, Step},
    judge::{Seen, Verdict, judge, may_be_older},
    rights,
};

/// The list of services.
const LIST: [&str; 2] = ["catalog", "services"];

/// Reads `path` of Consul's API; `parse` also says how many entries an answer has.
pub(super) struct Reader<'a, P> {
    client: &'a Client,
    path: Vec<&'a str>,
    parse: P,
    index: Index,
    /// The last answer that was believed.
    before: Option<Seen>,
    /// Whether Consul's state went back since then, and until when an emptied answer waits for that.
    went_back: bool,
    held_until: Option<Instant>,
    moved: bool,
    asked: Instant,
}

/// An answer to believe.
pub(super) struct Reading<T> {
    pub(super) value: T,
    /// Why it may be older than we like.
    pub(super) stale: Option<String>,
    /// Whether its index is another than that of the answer before.
    pub(super) moved: bool,
    /// When it was asked for: it tells all that had happened before.
    pub(super) asked: Instant,
}

/// Why there is nothing to believe. What is known stays in use.
#[derive(Debug)]
pub(super) enum Trouble {
    Request(RequestError),
    /// The answer is older than what is known, or may be, and no leader says what is so.
    Older(RequestError),
    /// Consul hides something.
    Hidden(String),
    /// Consul was wiped or restored, and its agents have some time left to register again.
    Held,
}

impl From<RequestError> for Trouble {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl Trouble {
    pub(super) fn explain(&self) -> String {
        match self {
            Self::Request(error) | Self::Older(error) => error.explain(),
            Self::Hidden(text) => text.clone(),
            Self::Held => "Consul's state went back in time, as if wiped or restored, and lists nothing \
                           any more; the last known instances are kept until its agents had time to \
                           register again"
                .to_owned(),
        }
    }

    /// Whether it stays so until somebody changes something.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Request(error) if error.is_final())
    }

    /// Whether the token may not see it.
    pub(super) fn is_of_rights(&self) -> bool {
        match self {
            Self::Request(error) => error.is_forbidden(),
            Self::Hidden(_) => true,
            Self::Older(_) | Self::Held => false,
        }
    }
}

impl<'a, T, P> Reader<'a, P>
where
    P: Fn(&[u8]) -> Result<(T, usize), serde_json::Error>,
{
    pub(super) fn new(client: &'a Client, path: Vec<&'a str>, parse: P) -> Self {
        Self {
            client,
            path,
            parse,
            index: Index::default(),
            before: None,
            went_back: false,
            held_until: None,
            moved: false,
            asked: Instant::now(),
        }
    }

    /// Makes the next read one that does not wait for a change.
    pub(super) fn at_once(&mut self) {
        self.index.at_once();
    }

    /// The next answer: at once the first time, then when Consul says that something may have changed.
    pub(super) async fn next(&mut self) -> Result<Reading<T>, Trouble> {
        self.asked = Instant::now();
        let answer = match self.held_until {
            None => self.ask().await?,
            Some(until) => match timeout_at(until, self.ask()).await {
                Ok(answer) => answer?,
                Err(_) => self.ask_leader().await?,
            },
        };
        // An index that goes back is a server that is behind, unless the leader says that all of Consul went back.
        let is_behind = self.index.step(answer.index) == Step::Back;
        let (answer, stale) = if is_behind || answer.is_stale(self.client.config().max_stale) {
            match self.ask_leader().await {
                Ok(fresh) => (fresh, None),
                Err(error) => {
                    let (_, seen) = self.parse(&answer)?;
                    if is_behind || may_be_older(self.before, seen, self.went_back) {
                        return Err(Trouble::Older(error));
                    }
                    (answer, Some(error.explain()))
                }
            }
        } else {
            (answer, None)
        };
        let before = self.index.last();
        let step = self.index.answered(answer.index);
        self.moved = self.index.last() != before;
        if step == Step::Back {
            self.client.metrics().index_resets.inc();
            self.went_back = true;
        }
        let (value, seen) = self.parse(&answer)?;
        match judge(self.before, seen) {
            Verdict::Apply => Ok(self.believe(value, seen, stale)),
            Verdict::Keep => Err(self.filtered()),
            Verdict::Confirm => self.confirm().await,
        }
    }

    /// The answer was empty: asks the leader, and whether we are allowed to see.
    async fn confirm(&mut self) -> Result<Reading<T>, Trouble> {
        if self.went_back && self.before.is_some() {
            let hold = self.client.config().hold;
            let until = *self.held_until.get_or_insert_with(|| Instant::now() + hold);
            if Instant::now() < until {
                return Err(Trouble::Held);
            }
        }
        let (value, seen) = self.parse(&self.ask_leader().await?)?;
        match judge(self.before, seen) {
            Verdict::Keep => return Err(self.filtered()),
            Verdict::Confirm => rights::prove(self.client).await?,
            Verdict::Apply => {}
        }
        Ok(self.believe(value, seen, None))
    }

    fn believe(&mut self, value: T, seen: Seen, stale: Option<String>) -> Reading<T> {
        self.before = Some(seen.after(self.before));
        self.went_back = false;
        self.held_until = None;
        Reading {
            value,
            stale,
            moved: self.moved,
            asked: self.asked,
        }
    }

    async fn ask(&self) -> Result<Answer, RequestError> {
        let index = self.index.ask();
        let wait = self.client.config().wait;
        let asked = Instant::now();
        let answer = self
            .client
            .read(&self.path, index, Consistency::Stale)
            .await;
        // Some versions of Consul now and then end a blocking query with an error instead of an answer.
        let late = index.is_some() && asked.elapsed() >= wait * 9 / 10;
        match answer.and_then(Answer::successful) {
            Err(RequestError::Refused { status, .. }) if late && status.is_server_error() => {
                let again = self.client.read(&self.path, index, Consistency::Stale);
                again.await?.successful()
            }
            // It says how fresh the server was when the wait began. The one list stands for all that is read.
            Ok(answer) if late && answer.index == index && self.path == LIST => {
                let now = self.client.read(&self.path, None, Consistency::Stale);
                now.await?.successful()
            }
            other => other,
        }
    }

    async fn ask_leader(&self) -> Result<Answer, RequestError> {
        let leader = &self.client.leader;
        if let Some(error) = leader.is_away(Instant::now()) {
            return Err(error);
        }
        let answer = self.client.read(&self.path, None, Consistency::Consistent);
        let answer = answer.await.and_then(Answer::successful);
        leader.asked(Instant::now(), answer.as_ref().err());
        answer
    }

    fn parse(&self, answer: &Answer) -> Result<(T, Seen), RequestError> {
        let (value, entries) = (self.parse)(&answer.body).map_err(|e| answer.malformed(e))?;
        let filtered = answer.filtered;
        Ok((value, Seen { entries, filtered }))
    }

    fn filtered(&self) -> Trouble {
        self.client.metrics().filtered_by_acl.inc();
        Trouble::Hidden(
            "Consul left out what the token may not see; give it service_prefix \"\" and node_prefix \"\" \
             read"
                .to_owned(),
        )
    }
}
