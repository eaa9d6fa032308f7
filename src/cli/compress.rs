//! `nearside compress`: a smaller model, and in a table what that costs: size, speed and accuracy before and after.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use nearside_models::card::{self, Card, Task, WeightsFormat};
use nearside_models::compress::{self, Accuracy, Compression};
use nearside_models::diagnosis::deterioration;
use nearside_models::diagnosis::motion::{activity, sleep};
use nearside_models::text::Encoders;
use nearside_models::{artefact, catalog};
use serde_json::json;

use super::outputs::Inputs;
use super::train::{DEFAULT_SEED, epoch_bar, show};
use super::{courses, motion};
use crate::error::StartError;

/// Rows of a measured forward pass: what a network takes at once.
const ROWS: usize = 64;
/// Passes that are measured; the median counts.
const PASSES: usize = 401;
/// How often what takes long shows that it goes on.
const TICK: Duration = Duration::from_millis(200);

/// Makes a model smaller: prunes or distils, then quantises.
#[derive(Args, Debug)]
pub struct CompressArgs {
    /// A model that ships, by name, or a model's folder.
    model: String,
    /// The folder that the smaller model is written to; named like the model it can be put into [models] folder as it is.
    #[arg(long)]
    out: PathBuf,
    /// How numbers are kept on disk. In memory they are 32-bit floats again.
    #[arg(long, value_enum)]
    quantize: Option<Quantize>,
    /// The share of hidden units that go, such as 0.5. Whole units: the network is smaller and faster, not full of zeros. What stays
    /// then learns from the whole network on the data that its method is trained on.
    #[arg(long, conflicts_with = "distill", value_name = "SHARE", value_parser = share)]
    prune: Option<f64>,
    /// The hidden units a layer of a new, smaller network that learns from the whole one.
    #[arg(long, value_name = "UNITS", value_parser = units)]
    distill: Option<usize>,
    /// The folder of data that the method is trained and measured on (for anomaly the Numenta benchmark, for multivariate the Skoltech
    /// one, for glucose recordings, for ecg WFDB records). Without it accuracy is the loss on simulated samples held back.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Most passes over the data for a smaller network.
    #[arg(long, default_value_t = 6)]
    epochs: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Quantize {
    #[value(name = "f16")]
    F16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
}

impl From<Quantize> for WeightsFormat {
    fn from(format: Quantize) -> Self {
        match format {
            Quantize::F16 => Self::F16,
            Quantize::Q8_0 => Self::Q8_0,
            Quantize::Q4_0 => Self::Q4_0,
        }
    }
}

/// What is measured of a model.
struct Figures {
    bytes: usize,
    pass_us: f64,
    /// `None` where nothing can be measured on: no data was named.
    accuracy: Option<Accuracy>,
}

/// Runs the command.
pub fn run(args: &CompressArgs) -> Result<(), StartError> {
    if args.quantize.is_none() && args.prune.is_none() && args.distill.is_none() {
        return Err(StartError::Usage("say how: --quantize, --prune or --distill".to_owned()));
    }
    let (card, weights, bytes) = read(&args.model)?;
    if card.task == Task::Text {
        let why = "a model of texts cannot be compressed: it is a table of words, and 16-bit already where it ships";
        return Err(StartError::Usage(why.to_owned()));
    }
    check(args, &card)?;
    let how = Compression {
        prune: args.prune,
        distill: args.distill,
        quantize: args.quantize.map(WeightsFormat::from),
        epochs: args.epochs,
        seed: args.seed,
    };
    let data = args.data.as_deref();
    let before = measure(args, &card, &weights, bytes, "measures the model as it is")?;
    let bar = epoch_bar(args.epochs);
    // The multivariate detector is trained on simulated plants alone.
    let lessons = data.filter(|_| card.method() != nearside_models::anomaly::multivariate::NAME);
    let mut small = compress::compress(&card, &weights, &how, lessons, &mut |epoch| show(&bar, epoch))?;
    bar.finish_and_clear();
    let floats = compress::decode(card.name.as_str(), &small.weights)?.into_owned();
    let after = measure(args, &small.card, &floats, small.weights.len(), "measures the smaller model")?;
    let data = data.map(|_| " --data DIR").unwrap_or_default();
    let command = small.card.training.as_ref().map(|training| training.command.clone()).unwrap_or_default() + data;
    match (&before.accuracy, &after.accuracy) {
        (Some(before), Some(after)) => compress::note_figures(&mut small.card, before, after, &command),
        // The figures on the card are those of the model it was made from.
        _ => small.card.metrics.clear(),
    }
    card::write_folder(&args.out, &small.card, &small.weights)?;
    // As a gateway would.
    artefact::try_folder(&args.out, &artefact::Trust::default(), &Encoders::default())?;
    show_table(&before, &after);
    let line = json!({
        "model": card.reference().to_string(),
        "compressed": small.card.reference().to_string(),
        "folder": args.out.display().to_string(),
        "bytes": { "before": before.bytes, "after": after.bytes },
        "pass_of_64_rows_us": { "before": before.pass_us, "after": after.pass_us },
        "accuracy": { "before": before.accuracy, "after": after.accuracy },
    });
    println!("{line}");
    Ok(())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("a share is above 0 and below 1, such as 0.5".to_owned()),
    }
}

fn units(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|units| *units > 0).ok_or_else(|| "there must be at least one unit".to_owned())
}

/// Whether this can be asked of this model, and its files are spared.
fn check(args: &CompressArgs, card: &Card) -> Result<(), StartError> {
    let (folder, shipped) = (Path::new(&args.model), catalog::names().any(|name| name == args.model));
    let inputs = Inputs::default().with_some("the model", (!shipped).then_some(folder));
    inputs.with_some("--data", args.data.as_deref()).spare_folder("--out", &args.out)?;
    let option = match (args.prune, args.distill) {
        (Some(_), _) => "--prune",
        (_, Some(_)) => "--distill",
        _ => return Ok(()),
    };
    let method = card.method();
    let Some(layout) = compress::layout(method) else {
        let why = format!("{option}: the network of `{method}` has one width only; it can be quantised (--quantize)");
        return Err(StartError::Usage(why));
    };
    match args.distill {
        Some(units) if units >= layout.hidden => Err(StartError::Usage(format!(
            "--distill {units}: the network of `{method}` has {0} units a layer, and a smaller one takes 1 to {1}",
            layout.hidden,
            layout.hidden - 1
        ))),
        _ => Ok(()),
    }
}

/// Card, weights as 32-bit floats, and the size of the weights' file.
pub(super) fn read(model: &str) -> Result<(Card, Vec<u8>, usize), StartError> {
    let folder = Path::new(model);
    if catalog::names().any(|name| name == model) || !folder.is_dir() {
        let (card, weights) = catalog::parts(model, None)?;
        if weights.is_empty() {
            return Err(StartError::Usage(format!("`{model}` has no weights: there is nothing to compress")));
        }
        let bytes = weights.len();
        return Ok((card, weights.into_owned(), bytes));
    }
    let artefact = artefact::read(folder, &artefact::Trust::default())?;
    let floats = compress::decode(model, &artefact.weights)?.into_owned();
    Ok((artefact.card, floats, artefact.weights.len()))
}

fn measure(
    args: &CompressArgs,
    card: &Card,
    floats: &[u8],
    bytes: usize,
    what: &'static str,
) -> Result<Figures, StartError> {
    // Simulating plants or people to measure on takes a minute.
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(TICK);
    let accuracy = match card.method() {
        // Those that people and patients are simulated for are measured as `eval` measures them.
        activity::NAME => motion::activity_accuracy(floats),
        sleep::NAME => motion::sleep_accuracy(floats),
        deterioration::NAME => courses::accuracy(floats),
        _ => compress::accuracy(card, floats, args.data.as_deref(), args.seed),
    };
    bar.finish_and_clear();
    let accuracy = match accuracy {
        // What cannot be trained here can still be made smaller.
        Err(nearside_models::ModelError::Unfit { .. }) => None,
        accuracy => Some(accuracy?),
    };
    Ok(Figures { bytes, pass_us: pass_us(&Card { sha256: None, ..card.clone() }, floats)?, accuracy })
}

/// The median time of a forward pass of [`ROWS`] rows, µs.
fn pass_us(card: &Card, floats: &[u8]) -> Result<f64, StartError> {
    let model = catalog::build(card.clone(), floats)?;
    let inputs: Vec<f32> = (0..ROWS * model.input_width()).map(|n| (n as f32 * 0.37).sin()).collect();
    let mut outputs = Vec::new();
    let mut times = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        let started = Instant::now();
        model.forward(&inputs, ROWS, &mut outputs)?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[PASSES / 2])
}

fn show_table(before: &Figures, after: &Figures) {
    let row = |name: &str, before: f64, after: f64, digits: usize| {
        let ratio = if after == 0.0 { 0.0 } else { before / after };
        println!("{name:<34}{before:>12.digits$}{after:>12.digits$}{ratio:>9.2}x");
    };
    println!("{:<34}{:>12}{:>12}{:>10}", "", "before", "after", "ratio");
    row("weights file, bytes", before.bytes as f64, after.bytes as f64, 0);
    row(&format!("forward pass of {ROWS} rows, µs"), before.pass_us, after.pass_us, 1);
    let (Some(before), Some(after)) = (&before.accuracy, &after.accuracy) else {
        println!("accuracy: not measured; name --data");
        return;
    };
    row(before.metric, before.value, after.value, 4);
    println!("  on {}; {} is better", before.on, if before.more_is_better { "more" } else { "less" });
}
