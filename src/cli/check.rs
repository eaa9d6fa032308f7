//! `nearside check`: everything that is wrong with a configuration, without starting anything.

use std::path::PathBuf;

use clap::Args;

use crate::error::StartError;

/// Checks a site's configuration.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The site's TOML file.
    site: PathBuf,
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<(), StartError> {
    let config = nearside_config::load(&args.site)?;
    println!("{}: {} streams, {} rules: good", args.site.display(), config.streams.len(), config.rules.len());
    let addresses = [("broker", config.broker.listen), ("console", config.console.listen)];
    for (name, address) in addresses {
        // The console has no users.
        let has_users = name == "broker" && config.broker.users.is_some();
        if !address.ip().is_loopback() && !has_users {
            println!("warning: {name}.listen is {address} and there are no users: anybody who reaches it may use it");
        }
    }
    Ok(())
}
