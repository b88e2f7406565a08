//! `lb-agent register`: the registrar alone, in its own process. It needs no privilege, only the engine and Consul.

use std::{io::Write as _, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use lb_agent::{
    cli::{Output, Progress},
    config::RegisterConfig,
    discover::consul,
    docker::{self, Engine},
    registrar::{self, Metrics, Outputs},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    privileges,
    run::{Ending, Stages, configs::consul_config, fault, last_words, shutdown_signal},
};

/// Registers until it is told to end, or prints what it would register.
///
/// # Errors
/// When it cannot start, or the engine is away for too long.
pub(crate) fn run(config: RegisterConfig, output: Output) -> Result<()> {
    // Before the first thread.
    privileges::give_up_all()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (reload, told_to_reload) = watch::channel(());
        let consul = consul_config(&config.consul, told_to_reload)?;
        if config.dry_run {
            preview(config, consul, output).await
        } else {
            register(config, consul, &reload).await
        }
    })
}

async fn register(
    config: RegisterConfig,
    consul: consul::Config,
    reload: &watch::Sender<()>,
) -> Result<()> {
    let (stop, keep) = (CancellationToken::new(), CancellationToken::new());
    let mut stages = Stages::new();
    let engine = follow(config.docker, &mut stages, &stop);
    let run = registrar::run(
        config.registrar,
        consul,
        engine,
        // What changes is logged by the stage itself.
        Outputs::default(),
        Metrics::default(),
        stop.clone(),
        keep.clone(),
    );
    stages.spawn(async { ("registrar", run.await.map_err(Into::into)) });
    tracing::info!("registering containers");
    let early = tokio::select! {
        ending = shutdown_signal(reload) => ending,
        ended = stages.join_next() => Err(fault(ended)),
    };
    // Another one follows at once, also after a fault.
    if !matches!(early, Ok(Ending::All)) {
        keep.cancel();
    }
    stop.cancel();
    // Deregistering may take a moment.
    if timeout(GRACE, last_words(&mut stages)).await.is_err() {
        tracing::warn!("not everything was deregistered in time");
    }
    early.map(drop)
}

async fn preview(config: RegisterConfig, consul: consul::Config, output: Output) -> Result<()> {
    let stop = CancellationToken::new();
    let mut stages = Stages::new();
    let mut engine = follow(config.docker.clone(), &mut stages, &stop);
    let asking = Progress::start("asking the Docker Engine and Consul");
    let answered = |engine: &Engine| engine.containers.is_some() || engine.error.is_some();
    let engine = tokio::select! {
        engine = timeout(PATIENCE, engine.wait_for(answered)) => match engine {
            Ok(Ok(engine)) => engine.clone(),
            _ => Engine::default(),
        },
        ended = stages.join_next() => return Err(fault(ended)),
    };
    stop.cancel();
    let Some(containers) = &engine.containers else {
        let address = &config.docker.address;
        let why = engine.error.as_deref().unwrap_or("no answer in time");
        return Err(anyhow!("the Docker Engine at {address}: {why}"));
    };
    let (settings, problems) = registrar::identified(&config.registrar, consul, &engine).await?;
    drop(asking);
    let text = match output {
        Output::Json => registrar::preview_json(containers, &settings, &problems)?,
        _ => registrar::preview(containers, &settings),
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        done => done.context("cannot print")?,
    }
    // In the JSON they are already.
    for problem in problems.iter().filter(|_| output != Output::Json) {
        eprintln!("lb-agent: {problem}");
    }
    Ok(())
}

/// Follows the engine as a stage of its own.
fn follow(
    config: docker::Config,
    stages: &mut Stages,
    stop: &CancellationToken,
) -> watch::Receiver<Engine> {
    let (engine_in, engine) = watch::channel(Engine::default());
    let (departed, _) = watch::channel(Arc::default());
    let run = docker::run(config, engine_in, departed, stop.clone());
    stages.spawn(async { ("docker", run.await.map_err(Into::into)) });
    engine
}

/// For the stages to end.
const GRACE: Duration = Duration::from_secs(10);
/// For the engine to answer a preview.
const PATIENCE: Duration = Duration::from_secs(15);
