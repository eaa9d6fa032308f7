//! The command line: one file a command, one table of commands.
//!
//! Exit codes: 0 done; 1 the surroundings failed (a port, a disk), trying again may help; 2 what was given is wrong.

mod certs;
mod check;
mod compress;
mod config;
mod courses;
mod deadletters;
mod demo;
mod eval;
mod eval_ecg;
mod finetune;
mod journal;
mod models;
mod motion;
mod open;
mod outbox;
mod outputs;
mod replay;
mod run;
mod simulate;
mod train;
mod users;
mod watched;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use nearside_config::SiteConfig;
use nearside_privacy::KeyRing;
use nearside_telemetry::{LogFormat, init_logging};

use crate::error::StartError;

/// Judges telemetry where it is made: an MQTT broker, windows, models and rules in one program; only sealed summaries
/// leave.
#[derive(Parser, Debug)]
#[command(name = "nearside", version, about, max_term_width = 100)]
pub struct Cli {
    /// Which log lines are shown, such as `debug` or `nearside_broker=debug,info`. They go to standard error.
    #[arg(long, global = true, env = "NEARSIDE_LOG", default_value = "warn")]
    log: String,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogLook::Text)]
    log_format: LogLook,
    #[command(subcommand)]
    command: Command,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum LogLook {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs a site until it is told to stop.
    ///
    /// SIGHUP, or a change of the site's file, puts streams, rules, models and roll-ups in force as the file says then; what is about
    /// files and ports waits for the next start, and is named. A file that is wrong is refused as a whole.
    Run(run::RunArgs),
    /// Shows a city and a ward being judged: gateway, devices and cloud in one process.
    Demo(demo::DemoArgs),
    /// Checks a site's configuration and says everything that is wrong with it.
    Check(check::CheckArgs),
    /// Publishes what a simulated city or ward would; also generates load.
    ///
    /// A fleet that runs faster than real time starts in the past, by `--rate` times `--seconds`, and ends now. A second run soon after
    /// the first goes over the same time again, and the gateway sets most of it aside as late or duplicate.
    Simulate(simulate::SimulateArgs),
    /// Sends recorded data through one stream of a site, the same in every run.
    ///
    /// Columns and members are found by name: each field by its own name, else by the last name of its path (`value` of `$.a.value`);
    /// the time by the last name of the stream's timestamp, else timestamp, time, ts or datetime; a key part by its name. The case of
    /// names counts only where two differ in nothing else. JSON lines
    /// of a stream in JSON or CBOR are read by its paths first. What is no column is missing in every row.
    Replay(replay::ReplayArgs),
    /// Trains a model from data on this machine.
    Train(train::TrainArgs),
    /// Tunes a model on a site's own recordings.
    Finetune(finetune::FinetuneArgs),
    /// Makes a model smaller and measures what that costs.
    Compress(compress::CompressArgs),
    /// Evaluates a model.
    Eval(eval::EvalArgs),
    /// Signs, checks, lists and encrypts models that a site brings itself.
    Models(models::ModelsArgs),
    /// Decrypts events for the holder of the site's key.
    Open(open::OpenArgs),
    /// Looks at a site's journal.
    Journal(journal::JournalArgs),
    /// Looks at what waits for the cloud, and mends it.
    Outbox(outbox::OutboxArgs),
    /// Looks at messages that could not be handled, and sends them again.
    Deadletters(deadletters::DeadlettersArgs),
    /// Says who may connect to a site's broker.
    Users(users::UsersArgs),
    /// Makes certificates for tests.
    Certs(certs::CertsArgs),
    /// About the configuration.
    Config(config::ConfigArgs),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let format = match self.log_format {
            LogLook::Text => LogFormat::Text,
            LogLook::Json => LogFormat::Json,
        };
        if let Err(error) = init_logging(&self.log, format) {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
        match self.command.run() {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads has read enough, such as `head`.
            Err(StartError::File { source, .. }) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(error.exit_code())
            }
        }
    }
}

impl Command {
    fn run(&self) -> Result<(), StartError> {
        match self {
            Self::Run(args) => run::run(args),
            Self::Demo(args) => demo::run(args),
            Self::Check(args) => check::run(args),
            Self::Simulate(args) => simulate::run(args),
            Self::Replay(args) => replay::run(args),
            Self::Train(args) => train::run(args),
            Self::Finetune(args) => finetune::run(args),
            Self::Compress(args) => compress::run(args),
            Self::Eval(args) => eval::run(args),
            Self::Models(args) => models::run(args),
            Self::Open(args) => open::run(args),
            Self::Journal(args) => journal::run(args),
            Self::Outbox(args) => outbox::run(args),
            Self::Deadletters(args) => deadletters::run(args),
            Self::Users(args) => users::run(args),
            Self::Certs(args) => certs::run(args),
            Self::Config(args) => config::run(args),
        }
    }
}

/// A site's configuration, its data folder and its keys, for commands that look at what it left there.
fn open_site(site: &Path) -> Result<(SiteConfig, PathBuf, KeyRing), StartError> {
    let config = nearside_config::load(site)?;
    let data = site.parent().unwrap_or(Path::new(".")).join(&config.site.data_dir);
    let key_file = data.join(&config.privacy.key_file);
    if !key_file.exists() && !data.join("journal").exists() {
        let why = format!("site `{}` has not run yet: there is no data in {}", config.site.id, data.display());
        return Err(StartError::Surroundings(why));
    }
    // With another key everything would look damaged, and a repair would make it so.
    let keys = KeyRing::of_folder(&data, &key_file, crate::pipeline::SEALED)?;
    Ok((config, data, keys))
}

/// A line on standard output. An error where nobody reads any more.
fn say(line: impl std::fmt::Display) -> Result<(), StartError> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(StartError::file(Path::new("standard output")))
}

/// A number of things: `1 stream`, `2 streams`.
pub fn counted(count: impl TryInto<u64>, thing: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Runs a future on an actix system over a tokio runtime with all cores.
fn block_on<T>(future: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    // One TLS provider for the whole program; that it is there already is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // actix asks for a function that cannot fail, so the runtime is built, and its error seen, before.
    let runtime = std::cell::Cell::new(Some(tokio::runtime::Builder::new_multi_thread().enable_all().build()?));
    let again = || tokio::runtime::Runtime::new();
    let system = actix::System::with_tokio_rt(|| match runtime.take().map_or_else(again, Ok) {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    });
    system.block_on(future)
}
