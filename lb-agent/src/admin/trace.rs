//! The decisions for a service as they are taken, a line of JSON for each.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use lb_common::{Form, PROTO_UDP, Refusal, Trace};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast, oneshot},
    time::timeout,
};

use super::{
    explain::meant,
    guard::Actor,
    refusals::{Failed, asked, no_service, only_here},
    router::Desk,
};
use crate::{
    clients::Clients,
    snapshot::{ServiceName, Snapshot},
    trace::{Decision, Told, TraceRequest},
    vip::Pools,
};

/// The path.
pub(crate) const TRACE_PATH: &str = "/api/v1/trace";

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    service: String,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(crate) enum Line {
    /// So many decisions are missing here.
    Lost {
        /// How many.
        lost: u64,
    },
    /// A decision.
    Decision(Box<Decided>),
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Decided {
    /// When, in milliseconds since 1970.
    pub(crate) at_unix_milliseconds: u64,
    /// For which service.
    pub(crate) service: String,
    /// The process that asked; `null` where the kernel does not tell.
    pub(crate) pid: Option<u32>,
    /// The name of its thread.
    pub(crate) command: Option<String>,
    /// Its container; `null` for the host, and for namespaces of no known container.
    pub(crate) container: Option<String>,
    /// The cookie of its network namespace.
    pub(crate) cookie: u64,
    /// The view whose endpoint decided; `null` if that is gone.
    pub(crate) view: Option<u32>,
    /// What was asked for.
    pub(crate) vip: SocketAddr,
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    /// The backend as `node/id`; `null` for a refusal, or if it is gone.
    pub(crate) backend: Option<String>,
    /// Where the flow goes; the same holds.
    pub(crate) address: Option<SocketAddr>,
    /// Why it was refused; `null` if it was not.
    pub(crate) refused: Option<String>,
}

/// `GET /api/v1/trace`, on the socket only: it names processes, and makes the kernel work more.
pub(super) async fn stream(
    State(desk): State<Desk>,
    Extension(actor): Extension<Actor>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Response> {
    let why = "a trace names the processes of this host: run `lb-agent trace` on it";
    only_here(&actor, why)?;
    let wish = asked(wish)?;
    let snapshot = desk.known()?;
    let meant = meant(&snapshot, desk.pools, &wish.service);
    let (name, _) = meant.ok_or_else(|| no_service(&wish.service))?;
    let (reply, answer) = oneshot::channel();
    let service = name.clone();
    let told = async {
        desk.traces
            .send(TraceRequest { service, reply })
            .await
            .ok()?;
        answer.await.ok()
    };
    let Ok(Some(hears)) = timeout(PATIENCE, told).await else {
        return Err(Failed::Silent.answer());
    };
    let state = (hears, desk, name.clone());
    // Whoever goes away drops this, and with it the receiver: that is how the stage knows.
    let lines = stream::unfold(state, |(mut hears, desk, name)| async move {
        let told = match hears.recv().await {
            Ok(told) => told,
            Err(broadcast::error::RecvError::Lagged(lost)) => Told::Lost(lost),
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        let line = bytes(&desk.line(told, &name));
        Some((Ok::<_, Infallible>(line), (hears, desk, name)))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

impl Desk {
    fn line(&self, told: Told, name: &ServiceName) -> Line {
        let decision = match told {
            Told::Lost(lost) => return Line::Lost { lost },
            Told::Decision(decision) => decision,
        };
        let snapshot = self.snapshots.borrow().clone().unwrap_or_default();
        let clients = self.clients.borrow().clone().unwrap_or_default();
        let known = (&*snapshot, &*clients, self.pools);
        Line::Decision(Box::new(decided(decision, name, known)))
    }
}

fn decided(
    Decision {
        at,
        trace,
        view,
        address,
    }: Decision,
    name: &ServiceName,
    (snapshot, clients, pools): (&Snapshot, &Clients, Pools),
) -> Decided {
    let service = snapshot.services.get(name);
    let backend = address.and_then(|address| {
        let mut backends = service?.backends.iter();
        let found = backends.find(|(_, backend)| backend.addresses().any(|it| it == address));
        found.map(|(key, _)| key.to_string())
    });
    let standing = clients.by_cookie.get(&trace.client);
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let pid = u32::try_from(trace.process >> 32)
        .ok()
        .filter(|&pid| pid != 0);
    Decided {
        at_unix_milliseconds: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        service: name.to_string(),
        pid,
        command: pid.map(|_| command(&trace)),
        container: standing.map(|it| it.name.clone()),
        cookie: trace.client,
        view,
        vip: SocketAddr::new(vip(&trace, pools), trace.port.host()),
        protocol: if trace.proto == PROTO_UDP {
            "udp"
        } else {
            "tcp"
        }
        .to_owned(),
        backend,
        address,
        refused: (trace.backend == 0).then(|| reason(trace.detail)),
    }
}

/// The address that the client wrote.
fn vip(trace: &Trace, pools: Pools) -> IpAddr {
    let v4 = Ipv4Addr::from(trace.vip.host());
    if u32::from(trace.form) == Form::V6 as u32
        && let Some(twin) = pools.twin(v4)
    {
        return twin.into();
    }
    v4.into()
}

fn command(trace: &Trace) -> String {
    let name = trace.command.split(|&byte| byte == 0).next();
    String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
}

fn reason(number: u32) -> String {
    let reason = Refusal::ALL.into_iter().find(|it| *it as u32 == number);
    reason.unwrap_or(Refusal::Unknown).as_str().to_owned()
}

fn bytes(line: &Line) -> Bytes {
    // Numbers and texts: there is nothing that JSON has no form for.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text.into()
}

/// For the data plane to begin.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use lb_common::{Be16, Be32};

    use super::*;
    use crate::{admin::sample, clients::Standing, vip::Pool6};

    fn trace() -> Trace {
        let mut command = [0; 16];
        command[..4].copy_from_slice(b"curl");
        Trace {
            client: 4107,
            process: 4711 << 32 | 4712,
            command,
            vip: Be32::from_host(u32::from_be_bytes([198, 18, 12, 7])),
            port: Be16::from_host(80),
            proto: 6,
            table: 3,
            backend: 9,
            detail: 1,
            ..Trace::default()
        }
    }

    fn told(trace: Trace, address: Option<&str>) -> Decided {
        let standing = Standing {
            container: "c0ffee".to_owned(),
            name: "web".to_owned(),
            networks: Default::default(),
            addresses: Default::default(),
            outside: true,
        };
        let clients = Clients {
            by_cookie: [(4107, standing)].into(),
        };
        let pools = Pools {
            v6: Some(Pool6::default()),
            ..Pools::default()
        };
        let decision = Decision {
            at: sample::now(),
            trace,
            view: Some(1),
            address: address.map(|it| it.parse().unwrap()),
        };
        let name = ServiceName::whole("www_hello");
        let snapshot = sample::snapshot();
        decided(decision, &name, (&snapshot, &clients, pools))
    }

    #[test]
    fn a_decision_is_told_with_its_process_container_and_backend() {
        let told = told(trace(), Some("10.0.0.1:80"));
        assert_eq!(told.at_unix_milliseconds, 1_700_000_000_000);
        assert_eq!(
            (told.pid, told.command.as_deref()),
            (Some(4711), Some("curl"))
        );
        assert_eq!(told.container.as_deref(), Some("web"));
        assert_eq!(told.vip, "198.18.12.7:80".parse().unwrap());
        assert_eq!(told.backend.as_deref(), Some("file/a"));
        assert_eq!(told.refused, None);
    }

    #[test]
    fn a_refusal_has_a_reason_and_what_is_not_known_is_null() {
        let refusal = Trace {
            backend: 0,
            detail: Refusal::NoPath as u32,
            process: 0,
            client: 1,
            form: 2,
            ..trace()
        };
        let told = told(refusal, None);
        assert_eq!(told.refused.as_deref(), Some("no-path"));
        assert_eq!(
            (told.pid, told.command.clone(), told.container.clone()),
            (None, None, None)
        );
        assert_eq!((told.backend.clone(), told.address), (None, None));
        assert_eq!(told.vip, "[fd62:6c62:76:1::c07]:80".parse().unwrap());
        let line = bytes(&Line::Decision(told.clone().into()));
        let line: Line = serde_json::from_slice(&line).unwrap();
        assert_eq!(line, Line::Decision(told.into()));
    }
}
