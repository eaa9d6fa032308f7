//! `nearside eval text`: a text classifier against labelled texts.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use nearside_models::artefact::{self, Artefact, Trust};
use nearside_models::card::Card;
use nearside_models::eval::text::{Figures, Flags, TextReport, evaluate, flags};
use nearside_models::eval::text_data::{Example, Split, read_split, read_test};
use nearside_models::row_model::RowModel;
use nearside_models::text::classifier::Classifier;
use nearside_models::text::head::Head;
use nearside_models::text::{Encoder, Encoders, TextTriage, triage};
use nearside_models::train::{Epoch, GENERATED_PART, answers, test_generated, train_classifier, train_head};
use nearside_models::{ModelError, catalog, compress};
use serde_json::json;

use super::super::train::{DEFAULT_SEED, TEXT_EPOCHS, at_least_one, epoch_bar, show};
use crate::error::StartError;

/// Texts of a pass that is timed, and texts that are looked at for that.
const BATCHES: [usize; 2] = [1, 16];
const PASSES: usize = 256;

#[derive(Args, Debug)]
pub(super) struct Text {
    /// A folder of labelled texts (test.csv, train.csv or one other .csv with the columns text and category). Without it, generated
    /// texts, in five folds of phrases.
    #[arg(long)]
    data: Option<PathBuf>,
    /// A sentence encoder's folder: the model is a head on it.
    #[arg(long, requires = "data")]
    encoder: Option<PathBuf>,
    /// The folder of a trained model. Without it, a classifier is trained on what is not tested on.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Seed of the training.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
    /// Most passes of the training.
    #[arg(long, default_value_t = TEXT_EPOCHS, value_parser = at_least_one)]
    epochs: usize,
    /// Also show each class.
    #[arg(long)]
    classes: bool,
}

pub(super) fn run(args: &Text) -> Result<(), StartError> {
    let bar = epoch_bar(args.epochs);
    let mut progress = |epoch: &Epoch| show(&bar, epoch);
    let (model, part, report) = match (&args.data, &args.folder) {
        (Some(data), folder) if args.encoder.is_some() => headed(data, folder.as_deref(), args, &mut progress)?,
        (None, None) => {
            let report = test_generated(args.seed, args.epochs, &mut progress)?;
            (String::from("trained without each fold"), GENERATED_PART.to_owned(), report)
        }
        (Some(data), None) => {
            let Split { train, test, test_part } = read_split(data)?;
            let (classifier, _) = train_classifier(&train, args.seed, args.epochs, &mut progress)?;
            (String::from("trained now"), test_part, tested(&classifier, &test))
        }
        (data, Some(folder)) => {
            let (card, weights) = catalog::parts(triage::NAME, Some(folder))?;
            let classifier = Classifier::load(triage::NAME, &weights)?;
            let needs = || StartError::Usage("--folder needs --data: texts to test it on".to_owned());
            let (test, part) = read_test(data.as_ref().ok_or_else(needs)?, classifier.outputs())?;
            let flags = flags(&card, &test, classifier.outputs(), |example| classifier.score(&example.text))?;
            (card.reference().to_string(), part, TextReport { flags, ..tested(&classifier, &test) })
        }
    };
    bar.finish_and_clear();
    if report.labels.texts == 0 {
        return Err(StartError::Usage(format!("there is no text to test on: {part}")));
    }
    eprintln!("{:<12}{:>8}{:>11}{:>11}{:>13}", "", "texts", "accuracy", "macro F1", "calibration");
    for (name, figures) in [("label", Some(&report.labels)), ("urgency", report.urgencies.as_ref())] {
        if let Some(figures) = figures {
            line(name, figures, args.classes);
        }
    }
    for Flags { of, texts, flagged, by_urgency_alone } in &report.flags {
        eprintln!("{of}: {flagged} of {texts} texts are flagged, {by_urgency_alone} would be by their urgency alone");
    }
    println!("{}", json!({ "model": model, "tested_on": part, "report": report }));
    Ok(())
}

/// A head on an encoder: read from a folder, or trained now.
fn headed(
    data: &Path,
    folder: Option<&Path>,
    args: &Text,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(String, String, TextReport), StartError> {
    let encoder = Encoder::load(args.encoder.as_deref().unwrap_or(Path::new("")))?;
    let (model, head, test, part) = match folder {
        Some(folder) => {
            let Artefact { card, weights, .. } = artefact::read(folder, &Trust::default())?;
            let head = Head::load(card.name.as_str(), &compress::decode(card.name.as_str(), &weights)?)?;
            if head.encoder() != encoder.digest() {
                let why = format!("it was trained on the encoder {}, this one is {}", head.encoder(), encoder.digest());
                return Err(ModelError::Unfit { model: card.name.to_string(), why }.into());
            }
            let (test, part) = read_test(data, head.outputs())?;
            (card.reference().to_string(), head, test, part)
        }
        None => {
            let Split { train, test, test_part } = read_split(data)?;
            let (head, _) = train_head(&train, &encoder, args.seed, args.epochs, progress)?;
            (String::from("trained now"), head, test, test_part)
        }
    };
    let started = Instant::now();
    let answers = answers(&head, &encoder, &test)?;
    let each = started.elapsed().as_secs_f64() * 1e3 / test.len().max(1) as f64;
    let familiar = answers.iter().filter(|answer| answer.is_familiar).count();
    eprintln!("{} of {} texts are unlike all that it learnt from", test.len() - familiar, test.len());
    eprintln!("{each:.1} ms a text, word pieces and all, one after the other");
    for rows in BATCHES {
        eprintln!(
            "{:.1} ms a text in passes of {rows}, as the gateway's workers make them",
            pass_ms(&head, args, &test, rows)?
        );
    }
    let mut scores = answers.into_iter().map(|answer| answer.scores);
    let report = evaluate(&test, head.outputs(), |_| scores.next().unwrap_or_default());
    Ok((model, part, report))
}

/// The median time of a forward pass of so many texts, in milliseconds a text.
fn pass_ms(head: &Head, args: &Text, test: &[Example], rows: usize) -> Result<f64, StartError> {
    let card = Card { label_roles: None, sha256: None, ..catalog::card(triage::NAME, None)? };
    let encoders = Encoders::new(args.encoder.iter().cloned().collect());
    let model = TextTriage::new(&card, &head.to_bytes()?, &encoders)?;
    let mut times = Vec::new();
    for texts in test.chunks_exact(rows).take(PASSES.div_ceil(rows)) {
        let inputs = triage::inputs(&model, texts.iter().map(|example| example.text.as_str()));
        let started = Instant::now();
        model.forward(&inputs, rows, &mut Vec::new())?;
        times.push(started.elapsed().as_secs_f64() * 1e3 / rows as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(0.0))
}

fn tested(classifier: &Classifier, test: &[Example]) -> TextReport {
    evaluate(test, classifier.outputs(), |example| classifier.score(&example.text))
}

fn line(name: &str, figures: &Figures, classes: bool) {
    let Figures { texts, accuracy, macro_f1, calibration_error, .. } = figures;
    eprintln!("{name:<12}{texts:>8}{accuracy:>11.4}{macro_f1:>11.4}{calibration_error:>13.4}");
    if classes {
        eprintln!("  {:<40}{:>8}{:>11}{:>9}{:>9}", "class", "texts", "precision", "recall", "F1");
        for class in &figures.classes {
            let (name, texts) = (&class.name, class.texts);
            eprintln!("  {name:<40}{texts:>8}{:>11.3}{:>9.3}{:>9.3}", class.precision, class.recall, class.f1);
        }
    }
}
