//! `nearside run`: a site until SIGINT or SIGTERM.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nearside_schemas::{Clock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::StartError;
use crate::pipeline::{Gateway, Surroundings};

/// Runs a site.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The site's TOML file.
    site: PathBuf,
    /// How long stopping may take: for what is acknowledged to be judged, sealed and, where the cloud is there, sent.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    grace: u64,
}

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<(), StartError> {
    let config = nearside_config::load(&args.site)?;
    super::block_on(async {
        let clock = Arc::new(SystemClock);
        // The one place where a seed comes from outside: it only spreads the pauses between tries to reach the cloud.
        let seed = clock.now().as_micros().unsigned_abs();
        let base = args.site.parent().unwrap_or(Path::new(".")).to_owned();
        let gateway = Gateway::start(&config, Surroundings { clock, seed, base }).await?;
        println!("{} is running", config.site.id);
        let (plain, tls) = (gateway.broker_addr(), gateway.broker_tls_addr());
        if tls != Some(plain) {
            println!("  devices  mqtt://{plain}");
        }
        if let Some(tls) = tls {
            println!("  devices  mqtts://{tls}");
        }
        println!("  console  http://{}", gateway.console_addr());
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result?,
            _ = terminate.recv() => {}
        }
        eprintln!("stopping");
        gateway.stop(Duration::from_secs(args.grace)).await;
        Ok(())
    })
}
