//! The `nearside` binary: one program, one TOML file.

mod cli;
mod demo;
mod descriptors;
mod error;
mod feedback;
mod heart;
mod middle;
mod model_set;
mod pipeline;
mod publisher;
mod replay;
mod view;
mod wall_clock;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// A reading is allocated on one thread and freed on another, with thousands of small messages between: the system's allocator took
/// a seventh more CPU for each.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    install_panic_hook();
    cli::Cli::parse().run()
}

/// A panic's message may quote a payload (promise I2): only its place is logged.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, "panic");
    }));
}
