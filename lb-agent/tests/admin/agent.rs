//! A live admin stage for the tests.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use lb_agent::{
    admin::{
        self, Component, Config, Events, Figure, Figures, Inputs, Mark, Published, Readiness,
        Sample,
    },
    cli::{self, Ask, Exit, Options, Output, Style},
    clients::Clients,
    config::Setting,
    order::OrderRequest,
    packet, registrar, removal,
    snapshot::Snapshot,
    sockets::Sockets,
    stats::{Stats, StatsRequest},
    trace::TraceRequest,
    vip,
};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::values::{figures, snapshot};

/// A packet path that is played: one flow goes to `10.0.0.1:80`, whatever is asked.
fn packet_path() -> (packet::Handle, JoinHandle<()>) {
    let (requests, mut asked) = mpsc::channel(4);
    let (_, seen) = watch::channel(Arc::default());
    let backend = SocketAddr::from(([10, 0, 0, 1], 80));
    let played = async move {
        while let Some(request) = asked.recv().await {
            match request {
                packet::Request::Flows(_, reply) => {
                    let flow = lb_packet::FlowEntry {
                        proto: 6,
                        client: ([192, 0, 2, 9], 40_000).into(),
                        vip: ([198, 18, 12, 7], 80).into(),
                        backend: Some(backend),
                        index: 1,
                        way: Some(lb_common::packet::Way::Full),
                        local_port: 61_000,
                        from_client: None,
                        from_backend: None,
                        age_seconds: Some(7),
                    };
                    let _ = reply.send(Ok(packet::List {
                        flows: vec![flow],
                        left_out: 0,
                    }));
                }
                packet::Request::Flush(_, reply) => drop(reply.send(Ok(1))),
                packet::Request::Explain(_, reply) => {
                    let all = lb_packet::Answer::Flow {
                        backend,
                        way: Some(lb_common::packet::Way::Full),
                        local_port: 61_000,
                        idle_seconds: 3,
                    };
                    let local = lb_packet::Answer::NoEndpoint;
                    let _ = reply.send(Ok(packet::Explained { all, local }));
                }
                packet::Request::Trace(_, reply) => {
                    let (tells, hears) = mpsc::channel(4);
                    let packet = lb_packet::Packet {
                        time: Duration::from_secs(1),
                        device: 3,
                        length: 74,
                        fate: Some(lb_common::packet::Fate::Full),
                        bytes: vec![0; 14],
                    };
                    let packet = packet::Told::Packet(packet, Some("eth0".into()));
                    tells.send(packet).await.unwrap();
                    let _ = reply.send(hears);
                }
            }
        }
    };
    (packet::Handle { seen, requests }, tokio::spawn(played))
}

/// A live admin stage with everything that it asks played by the test.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) token: String,
    pub(crate) readiness: Readiness,
    pub(crate) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) orders: mpsc::Receiver<OrderRequest>,
    pub(crate) removal: watch::Sender<removal::Status>,
    pub(crate) in_maps: watch::Sender<Option<u64>>,
    pub(crate) vips: mpsc::Receiver<vip::Request>,
    pub(crate) traces: mpsc::Receiver<TraceRequest>,
    pub(crate) clients: watch::Sender<Option<Arc<Clients>>>,
    pub(crate) registrar: watch::Sender<registrar::Status>,
    pub(crate) events: Events,
    pub(crate) front: watch::Sender<Option<lb_front::FrontStats>>,
    /// Who answers for the packet path, if there is one.
    pub(crate) packets: Option<JoinHandle<()>>,
    pub(crate) stop: CancellationToken,
    stage: JoinHandle<Result<(), admin::Error>>,
    _dir: tempfile::TempDir,
}

impl Agent {
    pub(crate) async fn start() -> Self {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_with(tcp, snapshot(), admin::STEP, figures).await
    }

    /// One that pushes its metrics there.
    pub(crate) async fn start_pushing(otlp: admin::otlp::Config) -> Self {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let around = Around {
            sockets: no_sockets(),
            registers: true,
            packets: false,
            otlp: Some(otlp),
        };
        Self::start_among(around, tcp, snapshot(), admin::STEP, figures).await
    }

    /// One that listens there, knows this, and whose data plane counts what `figures` says whenever it is asked, for
    /// the graphs after each `step`.
    pub(crate) async fn start_with(
        tcp: std::net::TcpListener,
        snapshot: Snapshot,
        step: Duration,
        figures: impl Fn() -> Stats + Send + 'static,
    ) -> Self {
        let around = Around {
            sockets: no_sockets(),
            registers: true,
            packets: false,
            otlp: None,
        };
        Self::start_among(around, tcp, snapshot, step, figures).await
    }

    /// The same with these stages beside it.
    pub(crate) async fn start_among(
        Around {
            sockets,
            registers,
            packets,
            otlp,
        }: Around,
        tcp: std::net::TcpListener,
        snapshot: Snapshot,
        step: Duration,
        figures: impl Fn() -> Stats + Send + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/admin.sock");
        let unix = admin::bind_socket(&socket, false).unwrap();
        let address = tcp.local_addr().unwrap();
        let (snapshots, snapshots_in) = watch::channel(Some(Arc::new(snapshot)));
        let (clients, clients_in) = watch::channel(None);
        let (front, front_in) = watch::channel(None);
        let (registrar, registrar_in) = watch::channel(registrar::Status::default());
        let (stats, mut asked) = mpsc::channel::<StatsRequest>(4);
        tokio::spawn(async move {
            while let Some(reply) = asked.recv().await {
                let _ = reply.send(Arc::new(figures()));
            }
        });
        let (packet, packets) = packets.then(packet_path).unzip();
        let (traces_out, traces) = mpsc::channel(4);
        let (orders_out, orders) = mpsc::channel(4);
        let (removal, removal_in) = watch::channel(removal::Status::default());
        let (in_maps, in_maps_in) = watch::channel(Some(1));
        let (vips_out, vips) = mpsc::channel(4);
        let readiness = Readiness::new(["maps", "listeners"]);
        let mut registry = Registry::with_prefix("lb");
        registry.register_collector(Box::new(Figures::new(|| {
            let sample = Sample::labelled([("type", "A"), ("rcode", "NOERROR")], 7.0);
            vec![Figure::counter(
                "dns_queries",
                "Queries answered.",
                vec![sample],
            )]
        })));
        let events = Events::default();
        let inputs = Inputs {
            snapshots: snapshots_in,
            stats,
            traces: traces_out,
            front: front_in,
            orders: orders_out,
            removal: removal_in,
            followers: vec![("the maps", in_maps_in)],
            vips: vips_out,
            clients: clients_in,
            registrar: registers.then_some(registrar_in),
            packet,
            settings: settings(),
            events: events.clone(),
            readiness: readiness.clone(),
            registry,
            hosts: Box::new(|| {
                let names = [
                    ("www_hello", ["www.hello", "www.hello.localhost"]),
                    ("shop_api", ["shop.api", "shop.example"]),
                ];
                let owned = |(label, names): (&str, [&str; 2])| {
                    (label.to_owned(), names.map(str::to_owned).to_vec())
                };
                names.map(owned).into()
            }),
            components: vec![Box::new(|| Component::new("dns", Mark::Ok, "on :53"))],
            ..Inputs::unconnected(sockets)
        };
        let config = Config {
            state_dir: dir.path().to_owned(),
            token_file: None,
            step,
            names: vec!["lb.example".to_owned()],
            published: Published::default(),
            per_backend: false,
            otlp,
            allow_uids: Default::default(),
        };
        let stop = CancellationToken::new();
        let stage = tokio::spawn(admin::run(config, unix, vec![tcp], inputs, stop.clone()));
        let mut agent = Self {
            address,
            socket,
            token: String::new(),
            readiness,
            snapshots,
            orders,
            removal,
            in_maps,
            vips,
            traces,
            clients,
            registrar,
            front,
            packets,
            events,
            stop,
            stage,
            _dir: dir,
        };
        // The first answer proves that the stage runs, and so that the token is made.
        let (exit, _, error) = agent.ask(Output::Json, Ask::Status).await;
        assert_ne!(exit, Exit::Failed, "{error}");
        let token = agent._dir.path().join("admin.token");
        agent.token = fs::read_to_string(token).unwrap().trim().to_owned();
        agent
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1"), &self.host(), "", "")
            .await
    }

    /// How the pushes of metrics go, as soon as that is so.
    pub(crate) async fn line_that(&self, is_so: impl Fn(&str) -> bool) -> String {
        let looked = async {
            loop {
                let answer = self.get("/api/v1/status").await;
                let body = answer.split_once("\r\n\r\n").unwrap().1;
                let status: admin::report::Status = serde_json::from_str(body).unwrap();
                let mut lines = status.components.into_iter();
                let line = lines.find(|it| it.name == "otlp").unwrap();
                if is_so(&line.detail) {
                    return line.detail;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), looked).await.unwrap()
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Sends one request and reads the answer to its end.
    pub(crate) async fn send(&self, line: &str, host: &str, headers: &str, body: &str) -> String {
        let length = match body.len() {
            0 => String::new(),
            n => format!("Content-Length: {n}\r\n"),
        };
        let head = format!("{line}\r\nHost: {host}\r\nConnection: close\r\n{headers}{length}\r\n");
        let stream = TcpStream::connect(self.address).await.unwrap();
        exchange(stream, &(head + body)).await
    }

    /// The answer to a GET over the socket of the command line.
    pub(crate) async fn get_there(&self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        exchange(stream, &head).await
    }

    pub(crate) async fn post_order(&self, headers: &str) -> String {
        let body = r#"{"service":"www_hello","backend":"a","mode":"drain"}"#;
        self.send(
            "POST /api/v1/instances/state HTTP/1.1",
            &self.host(),
            headers,
            body,
        )
        .await
    }

    /// Runs a command; its exit, standard output and standard error.
    pub(crate) async fn ask(&self, output: Output, ask: Ask) -> (Exit, String, String) {
        ask_at(self.socket.clone(), output, ask).await
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        let ended = timeout(Duration::from_secs(5), self.stage).await;
        ended.unwrap().unwrap().unwrap();
        assert!(!self.socket.exists(), "the socket's name is left behind");
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    let exchange = async {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(Duration::from_secs(10), exchange).await.unwrap()
}

/// What is played beside the stage.
pub(crate) struct Around {
    pub(crate) sockets: Sockets,
    /// Whether containers are registered.
    pub(crate) registers: bool,
    /// Whether there is a packet path.
    pub(crate) packets: bool,
    /// Where metrics are pushed to.
    pub(crate) otlp: Option<admin::otlp::Config>,
}

fn settings() -> Vec<Setting> {
    let setting = |key, value, origin: &str| Setting {
        key,
        value,
        origin: origin.to_owned(),
    };
    vec![
        setting("vip.pool", "198.18.0.0/16".into(), "default"),
        setting("sources.consul.token", "***".into(), "CONSUL_HTTP_TOKEN"),
        setting(
            "admin.names",
            serde_json::json!(["<script>"]),
            "/etc/lb/lb.toml:7",
        ),
        setting("admin.token_file", serde_json::Value::Null, "default"),
    ]
}

/// What lists no flow: the kernel refuses what is no map.
pub(crate) fn no_sockets() -> Sockets {
    Sockets::start(fs::File::open("/dev/null").unwrap().into()).unwrap()
}

pub(crate) async fn ask_at(socket: PathBuf, output: Output, ask: Ask) -> (Exit, String, String) {
    let options = Options {
        socket: Some(socket),
        output,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = cli::perform(&options, &ask, Style::Plain, &mut out, &mut err).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (exit, text(out), text(err))
}

#[track_caller]
pub(crate) fn status(answer: &str, expect: u16) {
    let start = format!("HTTP/1.1 {expect} ");
    assert!(answer.starts_with(&start), "not {expect}: {answer}");
}
