//! `nearside check`: everything that is wrong with a configuration, without starting anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nearside_broker::Anonymous;
use nearside_config::SiteConfig;
use nearside_privacy::KeyRing;

use super::counted;
use crate::error::StartError;
use crate::model_set::{self, ModelSet};
use crate::pipeline::check_learning;

/// Checks a site's configuration.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The site's TOML file.
    site: PathBuf,
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<(), StartError> {
    let config = nearside_config::load_with_files(&args.site)?;
    let base = args.site.parent().unwrap_or(Path::new("."));
    site_models(&config, base, &base.join(&config.site.data_dir).join(&config.privacy.key_file))?;
    let (streams, rules) = (counted(config.streams.len(), "stream"), counted(config.rules.len(), "rule"));
    println!("{}: {streams}, {rules}: good", args.site.display());
    for encoder in config.models.encoders.iter().map(|folder| base.join(folder)) {
        if !encoder.join("config.json").is_file() {
            println!("warning: {} in [models] encoders holds no encoder: there is no config.json", encoder.display());
        }
    }
    for oddity in config.oddities(&args.site) {
        println!("warning: {oddity}");
    }
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

/// The models that a site's streams name; those of its folder that cannot be used are told of.
pub(super) fn site_models(config: &SiteConfig, base: &Path, key_file: &Path) -> Result<ModelSet, StartError> {
    let keys = key_file.exists().then(|| KeyRing::load(key_file)).transpose()?.map(Arc::new);
    let library = model_set::library(config, base, keys);
    check_learning(&config.models.online, &library)?;
    let (models, refusals) = ModelSet::load(config, &library, &ModelSet::default(), &library.failed())?;
    for refusal in refusals {
        eprintln!("warning: {}; {} is used instead", refusal.error, refusal.instead);
    }
    Ok(models)
}
