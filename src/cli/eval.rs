//! `nearside eval`.

use clap::Args;

use crate::error::StartError;

/// Arguments.
#[derive(Args, Debug)]
pub struct EvalArgs {}

/// Runs the command.
pub fn run(_args: &EvalArgs) -> Result<(), StartError> {
    Err(StartError::Usage("not in this build".to_owned()))
}
