//! `nearside train`.

use clap::Args;

use crate::error::StartError;

/// Arguments.
#[derive(Args, Debug)]
pub struct TrainArgs {}

/// Runs the command.
pub fn run(_args: &TrainArgs) -> Result<(), StartError> {
    Err(StartError::Usage("not in this build".to_owned()))
}
