//! `nearside check`: everything that is wrong with a configuration, without starting anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nearside_config::SiteConfig;
use nearside_privacy::KeyRing;

use crate::error::StartError;
use crate::model_set::{self, ModelSet};

/// Checks a site's configuration.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The site's TOML file.
    site: PathBuf,
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<(), StartError> {
    let config = nearside_config::load(&args.site)?;
    let base = args.site.parent().unwrap_or(Path::new("."));
    site_models(&config, base, &base.join(&config.site.data_dir).join(&config.privacy.key_file))?;
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

/// The models that a site's streams name; those of its folder that cannot be used are told of.
pub(super) fn site_models(config: &SiteConfig, base: &Path, key_file: &Path) -> Result<ModelSet, StartError> {
    let keys = key_file.exists().then(|| KeyRing::load(key_file)).transpose()?.map(Arc::new);
    let library = model_set::library(config, base, keys);
    let (models, refusals) = ModelSet::load(config, &library, &ModelSet::default(), &library.failed())?;
    for refusal in refusals {
        eprintln!("warning: {}; {} is used instead", refusal.error, refusal.instead);
    }
    Ok(models)
}
