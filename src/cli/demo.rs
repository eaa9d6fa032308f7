//! `nearside demo`.

use clap::Args;

use crate::error::StartError;

/// Arguments.
#[derive(Args, Debug)]
pub struct DemoArgs {}

/// Runs the command.
pub fn run(_args: &DemoArgs) -> Result<(), StartError> {
    Err(StartError::Usage("not in this build".to_owned()))
}
