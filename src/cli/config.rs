//! `nearside config reference`.

use clap::{Args, Subcommand};

use super::say;
use crate::error::StartError;

/// About the configuration.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Prints every key with its default, in Markdown.
    Reference,
}

/// Runs the command.
pub fn run(args: &ConfigArgs) -> Result<(), StartError> {
    match args.what {
        What::Reference => say(nearside_config::reference().trim_end()),
    }
}
