//! `nearside compress`: a smaller model, and in a table what that costs: size, speed and accuracy before and after.

mod measure;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nearside_models::card::{self, Card, Task, WeightsFormat};
use nearside_models::compress::{self, Compression};
use nearside_models::text::Encoders;
use nearside_models::text::head::Head;
use nearside_models::{artefact, catalog};
use serde_json::json;

use self::measure::{Measure, show_table};
use super::outputs::Inputs;
use super::train::{DEFAULT_SEED, epoch_bar, show};
use crate::error::StartError;

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
    /// then learns from the whole network on the data that its method is trained on. Of a classifier of texts, a bag of n-grams, those
    /// buckets of n-grams go that say least; nothing learns anew.
    #[arg(long, conflicts_with = "distill", value_name = "SHARE", value_parser = share)]
    prune: Option<f64>,
    /// The hidden units a layer of a new, smaller network that learns from the whole one.
    #[arg(long, value_name = "UNITS", value_parser = units)]
    distill: Option<usize>,
    /// The folder of data that the method is trained and measured on (for anomaly the Numenta benchmark, for multivariate the Skoltech
    /// one, for glucose recordings, for ecg WFDB records, for a classifier of texts the folder that it was trained on: it is measured on the
    /// texts held out). Without it accuracy is the loss on simulated samples held back, of the text classifier that ships its accuracy on
    /// generated texts.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The sentence encoder's folder, of a model that is a head on one. The encoder itself stays as it is.
    #[arg(long)]
    encoder: Option<PathBuf>,
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

impl CompressArgs {
    /// Whether the model ships.
    fn is_shipped(&self) -> bool {
        catalog::names().any(|name| name == self.model)
    }
}

/// Runs the command.
pub fn run(args: &CompressArgs) -> Result<(), StartError> {
    if args.quantize.is_none() && args.prune.is_none() && args.distill.is_none() {
        return Err(StartError::Usage("say how: --quantize, --prune or --distill".to_owned()));
    }
    let (card, weights, bytes) = read(&args.model)?;
    let how = Compression {
        prune: args.prune,
        distill: args.distill,
        quantize: args.quantize.map(WeightsFormat::from),
        epochs: args.epochs,
        seed: args.seed,
    };
    check(args, &card, &weights, &how)?;
    let data = args.data.as_deref();
    let measure = Measure::new(args, &card, &weights)?;
    let before = measure.figures(&card, &weights, bytes, None)?;
    let bar = epoch_bar(args.epochs);
    // The multivariate detector is trained on simulated plants alone.
    let lessons = data.filter(|_| card.method() != nearside_models::anomaly::multivariate::NAME);
    let mut small = compress::compress(&card, &weights, &how, lessons, &mut |epoch| show(&bar, epoch))?;
    bar.finish_and_clear();
    let floats = compress::decode(card.name.as_str(), &small.weights)?.into_owned();
    let after = measure.figures(&small.card, &floats, small.weights.len(), Some(&how))?;
    let data = data.map(|_| " --data DIR").unwrap_or_default();
    let encoder = args.encoder.as_ref().map(|_| " --encoder ENCODER").unwrap_or_default();
    let command = small.card.training.as_ref().map(|training| training.command.clone()).unwrap_or_default();
    let command = command + data + encoder;
    match (&before.accuracy, &after.accuracy) {
        (Some(before), Some(after)) => compress::note_figures(&mut small.card, before, after, &command),
        // The figures on the card are those of the model it was made from.
        _ => small.card.metrics.clear(),
    }
    card::write_folder(&args.out, &small.card, &small.weights)?;
    // As a gateway would.
    let encoders = Encoders::new(args.encoder.iter().cloned().collect());
    artefact::try_folder(&args.out, &artefact::Trust::default(), &encoders)?;
    show_table(&before, &after);
    let line = json!({
        "model": card.reference().to_string(),
        "compressed": small.card.reference().to_string(),
        "folder": args.out.display().to_string(),
        "bytes": { "before": before.bytes, "after": after.bytes },
        (before.pass_name()): { "before": before.pass_us, "after": after.pass_us },
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
fn check(args: &CompressArgs, card: &Card, weights: &[u8], how: &Compression) -> Result<(), StartError> {
    let (folder, encoder) = (Path::new(&args.model), args.encoder.as_deref());
    let inputs = Inputs::default().with_some("the model", (!args.is_shipped()).then_some(folder));
    let inputs = inputs.with_some("--data", args.data.as_deref()).with_some("--encoder", encoder);
    inputs.spare_folder("--out", &args.out)?;
    let is_head = card.task == Task::Text && Head::is_head(weights);
    match encoder {
        None if is_head => {
            let why =
                format!("`{}` is a head on a sentence encoder: name the encoder's folder with --encoder", card.name);
            return Err(StartError::Usage(why));
        }
        Some(_) if !is_head => {
            let why = format!("--encoder: `{}` is no head on an encoder; leave it out", card.name);
            return Err(StartError::Usage(why));
        }
        _ => {}
    }
    compress::check(card, weights, how).map_err(StartError::Usage)
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
