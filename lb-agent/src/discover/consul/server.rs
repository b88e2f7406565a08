//! One Consul and the connections to it.
//!
//! Over plain HTTP each request in flight has a connection of its own, and Consul allows a client's address only
//! so many. Over TLS Consul speaks HTTP/2, and one connection carries a lane of requests.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{
    RequestBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use rustls::ClientConfig;
use tokio::{
    net::lookup_host,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    address::Address,
    answer::Answer,
    error::{Fault, RequestError},
    version::AgentInfo,
};

/// One Consul.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: Address,
    /// What is asked for: the address, or another name for it in TLS.
    pub(super) url: Url,
    tls: ClientConfig,
    lanes: Mutex<Vec<Arc<Lane>>>,
    multiplexes: Mutex<Option<bool>>,
    /// What it said of itself; forgotten when it fails, since another version may come up.
    info: Mutex<Option<AgentInfo>>,
}

/// A pool of connections; over HTTP/2 it holds one.
#[derive(Debug)]
struct Lane {
    http: reqwest::Client,
    room: Arc<Semaphore>,
    greeting: tokio::sync::Mutex<Greeting>,
}

/// Whether there is a connection for everybody. Without this, all who wait for one would open one each, and run
/// into Consul's limit.
#[derive(Debug, Default)]
struct Greeting {
    /// Counts the successful greetings; the last one holds while `good`.
    count: u64,
    good: bool,
    failed: Option<(Instant, Fault)>,
}

/// Go's HTTP/2 servers let 250 requests share a connection; the next would wait for one of them to end.
const LANE: usize = 200;
const GREETING: Duration = Duration::from_secs(5);

impl Server {
    pub(super) fn new(
        address: Address,
        url: Url,
        tls: ClientConfig,
    ) -> Result<Self, reqwest::Error> {
        let server = Self {
            address,
            url,
            tls,
            lanes: Mutex::default(),
            multiplexes: Mutex::default(),
            info: Mutex::default(),
        };
        // The first now: what cannot be built is told at the start.
        let first = server.new_lane()?;
        server.lanes().push(first);
        Ok(server)
    }

    /// Whether its connections carry many requests at a time; known after the first, or where there is no TLS.
    pub(super) fn multiplexes(&self) -> Option<bool> {
        if !self.address.is_tls() {
            return Some(false);
        }
        *self.multiplexes_lock()
    }

    fn multiplexes_lock(&self) -> MutexGuard<'_, Option<bool>> {
        self.multiplexes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What it said of itself, if it did.
    pub(super) fn info(&self) -> Option<AgentInfo> {
        self.info_lock().clone()
    }

    pub(super) fn learn(&self, info: AgentInfo) {
        *self.info_lock() = Some(info);
    }

    pub(super) fn forget(&self) {
        *self.info_lock() = None;
    }

    fn info_lock(&self) -> MutexGuard<'_, Option<AgentInfo>> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what `build` makes, which asks for `what`, and has `limit` to begin to be answered.
    pub(super) async fn exchange(
        &self,
        what: &str,
        limit: Duration,
        build: impl FnOnce(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Answer, RequestError> {
        let (lane, _room) = self.lane()?;
        let greeting = if self.address.is_tls() {
            Some(
                self.greet(&lane)
                    .await
                    .map_err(|fault| self.failed(fault))?,
            )
        } else {
            None
        };
        // The body has a limit of its own.
        let answer = match timeout(limit, build(&lane.http).send()).await {
            Ok(Ok(response)) => Answer::receive(response, &self.address.to_string(), what).await,
            Ok(Err(error)) => Err(self.failed(Fault::of(&error))),
            Err(_) => Err(self.failed(Fault::Silent)),
        };
        if let Err(RequestError::Unreachable { .. }) = answer {
            self.forget();
            if let Some(count) = greeting {
                let mut greeting = lane.greeting.lock().await;
                // Somebody else may have seen the same failure, and have greeted anew.
                greeting.good &= greeting.count != count;
            }
        }
        answer
    }

    /// Waits until the lane has a connection, which one of all who wait makes. Says which greeting it was.
    async fn greet(&self, lane: &Lane) -> Result<u64, Fault> {
        let came = Instant::now();
        let mut greeting = lane.greeting.lock().await;
        if greeting.good {
            return Ok(greeting.count);
        }
        if let Some((when, fault)) = &greeting.failed
            && *when >= came
        {
            return Err(fault.clone());
        }
        let mut url = self.url.clone();
        // Needs no right.
        url.set_path("/v1/status/leader");
        let response = lane.http.get(url).timeout(GREETING).send().await;
        let answered = match response {
            Ok(response) => {
                let multiplexes = response.version() == reqwest::Version::HTTP_2;
                *self.multiplexes_lock() = Some(multiplexes);
                match Answer::receive(response, "", "").await {
                    Err(RequestError::Unreachable { fault, .. }) => Err(fault),
                    _ => Ok(()),
                }
            }
            Err(error) => Err(Fault::of(&error)),
        };
        match answered {
            Ok(()) => {
                greeting.good = true;
                greeting.count += 1;
                Ok(greeting.count)
            }
            Err(fault) => {
                let fault = match fault {
                    Fault::Closed(text) => Fault::Dropped(text),
                    other => other,
                };
                greeting.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    fn failed(&self, fault: Fault) -> RequestError {
        RequestError::Unreachable {
            address: self.address.to_string(),
            fault,
        }
    }

    /// A lane with room for one more request.
    fn lane(&self) -> Result<(Arc<Lane>, OwnedSemaphorePermit), RequestError> {
        let mut lanes = self.lanes();
        for lane in &*lanes {
            if let Ok(room) = lane.room.clone().try_acquire_owned() {
                return Ok((lane.clone(), room));
            }
        }
        let full = || self.failed(Fault::Connect("too many requests at once".to_owned()));
        let lane = self
            .new_lane()
            .map_err(|error| self.failed(Fault::of(&error)))?;
        let room = lane.room.clone().try_acquire_owned().map_err(|_| full())?;
        lanes.push(lane.clone());
        Ok((lane, room))
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_lane(&self) -> Result<Arc<Lane>, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("lb-agent/", env!("CARGO_PKG_VERSION")))
            // Consul is asked directly, whatever HTTP_PROXY says to other programs.
            .no_proxy()
            // Consul redirects paths that it would clean; `a/../b` would silently become `b`.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(30))
            // A peer that is gone without a word is noticed long before a blocking query would end.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .http2_keep_alive_while_idle(true)
            .tls_backend_preconfigured(self.tls.clone());
        if let Some(socket) = self.address.socket() {
            http = http.unix_socket(socket.as_path());
        }
        if self.url.host() != self.address.url().host() {
            http = http.dns_resolver(AddressOf(self.address.clone()));
        }
        let room = match self.address.is_tls() {
            true => LANE,
            false => Semaphore::MAX_PERMITS,
        };
        Ok(Arc::new(Lane {
            http: http.build()?,
            room: Arc::new(Semaphore::new(room)),
            greeting: tokio::sync::Mutex::default(),
        }))
    }
}

/// Answers every name with the IP addresses of this place: whatever Consul is asked for, it is there.
struct AddressOf(Address);

impl Resolve for AddressOf {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.0.host();
        Box::pin(async move {
            // The port is that of the URL.
            let found: Vec<_> = lookup_host((host, 0)).await?.collect();
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}
