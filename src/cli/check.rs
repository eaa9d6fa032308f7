//! `nearside check`: everything that is wrong with a configuration, without starting anything.

use std::path::PathBuf;

use clap::Args;
use nearside_broker::Anonymous;

use super::counted;
use crate::error::StartError;

/// Checks a site's configuration.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The site's TOML file.
    site: PathBuf,
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<(), StartError> {
    let config = nearside_config::load_with_files(&args.site)?;
    let (streams, rules) = (counted(config.streams.len(), "stream"), counted(config.rules.len(), "rule"));
    println!("{}: {streams}, {rules}: good", args.site.display());
    let broker = &config.broker;
    if !broker.listen.ip().is_loopback() && broker.anonymous == Anonymous::Always {
        println!("warning: broker.listen is {}, and anybody who reaches it may use it", broker.listen);
    }
    let console = config.console.listen;
    if !console.ip().is_loopback() {
        println!("warning: console.listen is {console}, and it shows everything to anybody who reaches it");
    }
    Ok(())
}
