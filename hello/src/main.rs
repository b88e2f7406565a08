//! The demo's application: an HTTP server that shows its instance id.
//!
//! It can be broken while its port stays open, and it leaves as a good citizen of a load balancer does: after
//! SIGTERM it goes on accepting for two seconds, so that whoever balances has time to look elsewhere, then
//! finishes what it has and ends. It keeps nothing and never reads a request's body.
//!
//! In an image it is four programs, told apart by the name that it was started under: the server; the worker
//! `php-fpm` without which the pages fail, and `pkill` to end that one with; and `ask`, a client.

mod answers;
mod ask;
mod download;
mod worker;

use std::{
    env, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use answers::App;
use clap::Parser;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

/// A tiny web page that shows which instance answered.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example: hello --listen 127.0.0.1:8081 --id a, then curl http://127.0.0.1:8081/"
)]
struct Args {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:80")]
    listen: SocketAddr,

    /// What this instance calls itself; in a container, the container's id.
    #[arg(long, env = "HOSTNAME", default_value = "unnamed")]
    id: String,

    /// Whom the page greets.
    #[arg(long, env = "NAME", default_value = "world")]
    name: String,

    /// A program to run beside it, in the place of the application: once it ends, the pages answer 502.
    #[arg(long, value_name = "PROGRAM")]
    worker: Option<PathBuf>,

    /// Where it says its id as soon as somebody connects: a protocol that is not HTTP.
    #[arg(long, value_name = "ADDR")]
    line: Option<SocketAddr>,

    /// How long it goes on accepting after SIGTERM; 0 is an application that knows nothing of load balancers.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    notice: u64,
}

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let called = arguments.next().unwrap_or_default();
    match Path::new(&called)
        .file_name()
        .and_then(|name| name.to_str())
    {
        Some("php-fpm") => worker::work(),
        Some("pkill") => worker::kill_all(arguments.next()),
        Some("ask") => ask::ask(arguments.next().and_then(|url| url.into_string().ok())),
        _ => hello(Args::parse()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn hello(args: Args) -> ExitCode {
    let app = Arc::new(App::new(args.id, args.name));
    if let Some(program) = &args.worker
        && let Err(error) = worker::start(program, Arc::clone(&app))
    {
        eprintln!("hello: cannot start {}: {error}", program.display());
        return ExitCode::FAILURE;
    }
    if let Some(address) = args.line
        && let Err(error) = say_id(address, Arc::clone(&app)).await
    {
        eprintln!("hello: cannot serve on {address}: {error}");
        return ExitCode::FAILURE;
    }
    match serve(args.listen, app, Duration::from_secs(args.notice)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: cannot serve on {}: {error}", args.listen);
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT, and then for as long as it takes to leave politely.
async fn serve(address: SocketAddr, app: Arc<App>, notice: Duration) -> io::Result<()> {
    // Before the port opens: whoever sees the port may send the signal.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(address).await?;
    println!("hello: listening on {}", listener.local_addr()?);
    let connections = GracefulShutdown::new();

    tokio::select! {
        never = accept(&listener, &app, &connections) => match never {},
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let Err(_) = timeout(notice, accept(&listener, &app, &connections)).await;
    drop(listener);
    if timeout(GRACE, connections.shutdown()).await.is_err() {
        eprintln!("hello: some connections were still open {GRACE:?} after the last accept");
    }
    Ok(())
}

/// Says its id to everybody who connects to `address`, in a task of its own.
async fn say_id(address: SocketAddr, app: Arc<App>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("hello: saying the id on {}", listener.local_addr()?);
    tokio::spawn(async move {
        let line = format!("{}\n", app.id());
        loop {
            match listener.accept().await {
                // One that left does not matter to the next.
                Ok((mut stream, _)) => drop(stream.write_all(line.as_bytes()).await),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    });
    Ok(())
}

/// Accepts for ever.
async fn accept(
    listener: &TcpListener,
    app: &Arc<App>,
    connections: &GracefulShutdown,
) -> std::convert::Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => attend(stream, peer.ip(), Arc::clone(app), connections),
            // Out of descriptors, or the peer left already: neither is a reason to end, nor to spin.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Serves one connection in a task of its own.
fn attend(stream: TcpStream, peer: IpAddr, app: Arc<App>, connections: &GracefulShutdown) {
    // Without it a small answer waits for the acknowledgement of its head.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let answer = app.answer(&request, peer);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // A peer that leaves early, or talks nonsense, concerns nobody else.
        let _ = connection.await;
    });
}

/// How long requests in flight may take after that.
const GRACE: Duration = Duration::from_secs(30);
