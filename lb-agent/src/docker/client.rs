//! One request to the engine at a time, over a connection of its own; the stream of events is one that goes on.
//!
//! A connection to a unix socket costs less than keeping one alive does, and a fault never touches two requests. The
//! few answers that are read here do not justify a client library with a model of the whole API, which refuses an
//! answer for one unknown word in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    Address, Config, Network, Networks,
    error::RequestError,
    event::{self, ACTIONS, Event, Told},
    events::{EVENTS, Events},
    inspect::{self, Inspected},
    time::nanoseconds,
    version::Versions,
};

/// A look at the engine that nothing comes of: everything that the agent asks it for, once. Tells by how many seconds
/// its clock is ahead of ours.
///
/// # Errors
/// What it does not answer.
pub(crate) async fn look(address: &Address, limit: Duration) -> Result<Option<i64>, RequestError> {
    let config = Config {
        timeout: limit,
        ..Config::new(address.clone())
    };
    let client = Client::negotiate(&config).await?;
    let theirs = client.about().await?.time;
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    if let Some(id) = client.list().await?.first() {
        client.inspect(id).await?;
    }
    client.networks().await?;
    let seconds = |nanoseconds: u128| i64::try_from(nanoseconds / 1_000_000_000).ok();
    let ours = ours.ok().and_then(|ours| seconds(ours.as_nanos()));
    let theirs_seconds = theirs.and_then(|theirs| seconds(theirs.into()));
    client.events(theirs.unwrap_or(0)).await?;
    Ok(theirs_seconds.zip(ours).map(|(theirs, ours)| theirs - ours))
}

/// An engine that has said which version of its API it speaks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    address: Address,
    limit: Duration,
    /// `/v1.41`.
    version: String,
}

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// What it calls its host.
    pub(super) name: Option<String>,
    /// Its clock, in nanoseconds since 1970.
    pub(super) time: Option<u64>,
}

impl Client {
    /// Asks which version to speak.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub(super) async fn negotiate(config: &Config) -> Result<Self, RequestError> {
        let mut client = Self {
            address: config.address.clone(),
            limit: config.timeout,
            version: String::new(),
        };
        let versions: Versions = client.json("/version").await?;
        client.version = format!("/v{}", versions.choose());
        Ok(client)
    }

    pub(super) async fn about(&self) -> Result<About, RequestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Info {
            name: Option<String>,
            system_time: Option<String>,
        }
        let info: Info = self.json("/info").await?;
        Ok(About {
            name: info.name.filter(|name| !name.is_empty()),
            time: info.system_time.as_deref().and_then(nanoseconds),
        })
    }

    /// The full ids of all containers.
    pub(super) async fn list(&self) -> Result<BTreeSet<String>, RequestError> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(rename = "Id")]
            id: String,
        }
        let all: Vec<Listed> = self.json("/containers/json?all=1").await?;
        Ok(all.into_iter().map(|listed| listed.id).collect())
    }

    /// All networks.
    pub(super) async fn networks(&self) -> Result<Networks, RequestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            name: String,
            #[serde(default)]
            internal: bool,
        }
        let all: Vec<Listed> = self.json("/networks").await?;
        let mut networks: Networks = BTreeMap::new();
        for Listed { name, internal } in all {
            // Old engines allow two of one name. Nobody can tell them apart by it: one way out is a way out.
            let network = networks.entry(name).or_insert(Network { internal });
            network.internal &= internal;
        }
        Ok(networks)
    }

    /// The container `id`; `None` if there is none.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Inspected>, RequestError> {
        let path = format!("/containers/{}/json", escape(id));
        let text = match self.text(&path).await {
            Err(RequestError::Refused { code: 404, .. }) => return Ok(None),
            answer => answer?,
        };
        let inspected = inspect::parse(&text);
        inspected
            .map(Some)
            .map_err(|source| RequestError::Garbage { path, source })
    }

    /// The signals that containers were sent in that time, as far as the engine remembers, in its order. Times are in
    /// nanoseconds since 1970 by the engine's clock, and `until` has passed.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub(super) async fn signals(&self, since: u64, until: u64) -> Result<Vec<Event>, RequestError> {
        let filters = serde_json::json!({"type": ["container"], "event": ["kill"]});
        let filters = escape(&filters.to_string());
        let (since, until) = (seconds(since), seconds(until));
        let path = format!("/events?since={since}&until={until}&filters={filters}");
        let text = self.text(&path).await?;
        let lines = text.split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.trim_ascii().is_empty());
        let told: Result<Vec<_>, _> = lines.map(event::parse).collect();
        let told = told.map_err(|source| RequestError::Garbage {
            path: EVENTS.to_owned(),
            source,
        })?;
        let signals = told.into_iter().filter_map(|told| match told {
            Some(Told::Container(event)) => Some(event),
            _ => None,
        });
        Ok(signals.collect())
    }

    /// The events from `since` on, a time in nanoseconds since 1970 by the engine's clock.
    ///
    /// # Errors
    /// When the engine does not begin to answer.
    pub(super) async fn events(&self, since: u64) -> Result<Events, RequestError> {
        let filters = serde_json::json!({"type": ["container", "network"], "event": ACTIONS});
        let (since, filters) = (seconds(since), escape(&filters.to_string()));
        let path = format!("/events?since={since}&filters={filters}");
        let begun = self.within(&path, self.request(&path)).await?;
        Ok(Events::new(begun.into_body()))
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        let text = self.text(path).await?;
        serde_json::from_slice(&text).map_err(|source| RequestError::Garbage {
            path: path.to_owned(),
            source,
        })
    }

    async fn text(&self, path: &str) -> Result<Bytes, RequestError> {
        let whole = async {
            let response = self.request(path).await?;
            read(path, response).await
        };
        self.within(path, whole).await
    }

    async fn within<T>(
        &self,
        path: &str,
        answer: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        let limit = self.limit;
        timeout(limit, answer).await.unwrap_or_else(|_| {
            let path = path.split('?').next().unwrap_or(path).to_owned();
            Err(RequestError::Late { path, limit })
        })
    }

    async fn request(&self, path: &str) -> Result<Response<Incoming>, RequestError> {
        let failed = |source: io::Error| RequestError::Connect {
            address: self.address.clone(),
            source,
        };
        let stream: Box<dyn Stream> = match &self.address {
            Address::Unix(place) => Box::new(UnixStream::connect(place).await.map_err(failed)?),
            Address::Tcp(place) => Box::new(TcpStream::connect(place).await.map_err(failed)?),
        };
        let broken = |source: hyper::Error| RequestError::Http {
            path: path.to_owned(),
            source: source.into(),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // It ends with the sender and the body. What goes wrong in it, they tell.
        tokio::spawn(connection);
        let host = match &self.address {
            Address::Unix(_) => "docker",
            Address::Tcp(place) => place,
        };
        let request = Request::get(format!("{}{path}", self.version))
            .header(header::HOST, host)
            .body(Empty::<Bytes>::new())
            .map_err(|source| RequestError::Http {
                path: path.to_owned(),
                source: source.into(),
            })?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let text = read(path, response).await?;
        Err(RequestError::Refused {
            path: path.to_owned(),
            code,
            message: message(&text),
        })
    }
}

/// A time in nanoseconds as the engine takes it.
fn seconds(nanoseconds: u64) -> String {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    format!("{seconds}.{rest:09}")
}

/// What the engine says in the body of a refusal, cut short.
fn message(text: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let said = serde_json::from_slice::<Refusal>(text).map(|refusal| refusal.message);
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned());
    said.trim().chars().take(200).collect()
}

async fn read(path: &str, response: Response<Incoming>) -> Result<Bytes, RequestError> {
    let body = Limited::new(response.into_body(), LONGEST_ANSWER);
    let read = body.collect().await.map_err(|source| RequestError::Http {
        path: path.to_owned(),
        source,
    })?;
    Ok(read.to_bytes())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Bytes of an answer: a list of ten thousand containers with many labels.
const LONGEST_ANSWER: usize = 64 << 20;

/// Percent-encodes what has a meaning in a path or a query.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_query_is_encoded() {
        assert_eq!(
            escape(r#"{"a":["b c"]}"#),
            "%7B%22a%22%3A%5B%22b%20c%22%5D%7D"
        );
    }

    #[test]
    fn a_refusal_is_told_in_the_engines_words() {
        assert_eq!(message(br#"{"message":"no such thing"}"#), "no such thing");
        assert_eq!(message(b"plain\n"), "plain");
    }
}
