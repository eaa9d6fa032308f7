//! `nearside run`: a site until SIGINT or SIGTERM; its file is read again on SIGHUP and when it changes. Where a part of the gateway ends by a
//! fault it stops by itself, with an exit code of its own: the journal has everything, and another start goes on from there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nearside_telemetry::Metric;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::watched::Watched;
use crate::error::StartError;
use crate::pipeline::{BOARD_BOUND, Gateway, Surroundings};
use crate::wall_clock::wall_clock;

/// How often the site's file and its folder of models are looked at.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// How long stopping may take where a part has ended: the sooner it starts again the better, and what waits goes on then.
const FAULT_GRACE: Duration = Duration::from_secs(2);

/// Runs a site. SIGHUP, or a change of its file, puts streams, rules, models and roll-ups in force as the file says then.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The site's TOML file.
    site: PathBuf,
    /// How long stopping may take: for what is acknowledged to be judged, sealed and, while the cloud is connected, sent.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    grace: u64,
}

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<(), StartError> {
    let config = nearside_config::load(&args.site)?;
    super::block_on(async {
        let clock = wall_clock();
        // The one place where a seed comes from outside: it only spreads the pauses between tries to reach the cloud.
        let seed = clock.now().as_micros().unsigned_abs();
        let base = args.site.parent().unwrap_or(Path::new(".")).to_owned();
        // Before it says that it is running: who then stops it finds it listening.
        let stopping = stop_signals()?;
        crate::descriptors::provide(config.broker.max_connections);
        let mut gateway = Gateway::start(&config, Surroundings { clock, seed, base, board: BOARD_BOUND }).await?;
        println!("{} is running", config.site.id);
        let (plain, tls) = (gateway.broker_addr(), gateway.broker_tls_addr());
        if tls != Some(plain) {
            println!("  devices  mqtt://{plain}");
        }
        if let Some(tls) = tls {
            println!("  devices  mqtts://{tls}");
        }
        println!("  console  http://{}", gateway.console_addr());
        let ended = until_stopped(&mut gateway, &args.site, &stopping).await?;
        let grace = Duration::from_secs(args.grace);
        let grace = if ended.is_ok() { grace } else { grace.min(FAULT_GRACE) };
        match (&ended, gateway.waiting_for_cloud()) {
            (Err(parts), _) => tracing::error!(%parts, "ended by a fault; the gateway stops"),
            (Ok(()), (0, _)) => eprintln!("stopping"),
            (Ok(()), (waiting, true)) => eprintln!(
                "stopping; waiting up to {} s for the cloud to take {waiting} items (Ctrl-C: not at all)",
                args.grace
            ),
            (Ok(()), (waiting, false)) => {
                eprintln!("stopping; the cloud is away: {waiting} items wait on disk and go at the next start");
            }
        }
        tokio::select! {
            () = gateway.stop(grace) => ended.map_err(StartError::Ended),
            _ = tokio::signal::ctrl_c() => {
                // Everything that was acknowledged is on disk; the next start goes on as it would after a crash.
                eprintln!("stopped at once; what waits is on disk and goes on at the next start");
                std::process::exit(130)
            }
        }
    })
}

/// Runs until it is told to stop, or until a part of the gateway has ended by a fault: then the inner error names it.
async fn until_stopped(
    gateway: &mut Gateway,
    site: &Path,
    stopping: &watch::Receiver<bool>,
) -> Result<Result<(), String>, StartError> {
    let mut stopped = stopping.clone();
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut file = Watched::new(site);
    let mut models = gateway.models_folder().map(Watched::new);
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return Ok(Ok(())),
            _ = hang_up.recv() => reload(gateway, site, stopping).await,
            _ = looks.tick() => {
                let ended = gateway.ended();
                if !ended.is_empty() {
                    return Ok(Err(ended.join(", ")));
                }
                if file.has_changed() {
                    reload(gateway, site, stopping).await;
                }
                look_at_models(gateway, models.as_mut(), stopping).await;
            }
        }
    }
}

/// True from SIGINT or SIGTERM on, whatever else goes on.
fn stop_signals() -> Result<watch::Receiver<bool>, StartError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(true);
        // Whoever still asks is answered.
        stop.closed().await;
    });
    Ok(stopping)
}

/// Puts what the file says now in force, or says why not.
async fn reload(gateway: &mut Gateway, site: &Path, stopping: &watch::Receiver<bool>) {
    eprintln!("reading {} again", site.display());
    let done = match nearside_config::load(site) {
        Ok(config) => gateway.reload(&config, stopping).await,
        Err(error) => Err(error.into()),
    };
    let outcome = match &done {
        Ok(_) => "done",
        Err(_) => "refused",
    };
    gateway.telemetry().counter(Metric::Reloads, &[outcome]).inc();
    match done {
        Ok(waits) if waits.is_empty() => eprintln!("{} is in force", site.display()),
        Ok(waits) => {
            eprintln!(
                "{} is in force but for {}, which the next start puts in force",
                site.display(),
                waits.join(", ")
            );
        }
        Err(error) => eprintln!("error: {error}\n  hint: the configuration from before stays in force"),
    }
}

fn say_in_force(models: usize) {
    match models {
        0 => {}
        1 => eprintln!("1 model of another version is in force"),
        models => eprintln!("{models} models of another version are in force"),
    }
}

/// Puts in force what is new in the folder of models, and takes back what fails.
async fn look_at_models(gateway: &mut Gateway, folder: Option<&mut Watched>, stopping: &watch::Receiver<bool>) {
    match gateway.end_trial(stopping).await {
        Ok(false) => {}
        Ok(true) => eprintln!("error: a new model failed\n  hint: the version before is in force again"),
        Err(error) => tracing::warn!(%error, "a model that failed could not be taken back yet"),
    }
    match gateway.renew_waiting(stopping).await {
        Ok(count) => say_in_force(count),
        Err(error) => tracing::warn!(%error, "versions of models that wait could not be put in force yet"),
    }
    let Some(folder) = folder else { return };
    if !folder.has_changed() {
        return;
    }
    match gateway.renew_models(stopping).await {
        Ok(count) => say_in_force(count),
        Err(error) => {
            eprintln!("error: {error}\n  hint: the models from before stay in force; it is tried again");
            folder.look_again();
        }
    }
}
