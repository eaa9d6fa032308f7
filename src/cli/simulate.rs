//! `nearside simulate`.

use clap::Args;

use crate::error::StartError;

/// Arguments.
#[derive(Args, Debug)]
pub struct SimulateArgs {}

/// Runs the command.
pub fn run(_args: &SimulateArgs) -> Result<(), StartError> {
    Err(StartError::Usage("not in this build".to_owned()))
}
