//! Trains the text classifier, a bag of hashed n-grams, on a site's texts or on generated ones: see [`super::text_fit`].

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::fit::{Epoch, TrainReport};
use super::reports::{FOLDS, NO_OPINION, Wording, reports};
use super::text_fit::{Sample, TextFit, fit};
use crate::ModelError;
use crate::card::{self, Card, LabelRoles, Metric, Training, TrainingData};
use crate::catalog;
use crate::eval::text::{TextReport, evaluate, flags};
use crate::eval::text_data::{Example, Labelled, Split, is_held_out, read_split};
use crate::text::classifier::{Classifier, Outputs};
use crate::text::features::{self, Features};
use crate::text::labels::check_roles;
use crate::text::triage::NAME;

/// Buckets of the classifier that ships.
const SHIPPED_BUCKETS: usize = 1 << 16;
/// Those of them that keep a row, the ones that say most: many buckets, so that a word seldom shares one with another, and a small file.
const SHIPPED_ROWS: usize = 40_960;
/// Buckets of a classifier trained on a site's texts, which may have more labels and more words.
const BUCKETS: usize = 1 << 15;
/// Generated texts of each topic and language to learn from, and to measure on.
const GENERATED: usize = 80;
const GENERATED_TEST: usize = 20;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "2";

/// What to train on, and how.
#[derive(Clone, Copy, Debug)]
pub struct TrainText<'a> {
    /// A folder with labelled texts; without it, generated reports and notes.
    pub data: Option<&'a Path>,
    /// A sentence encoder's folder: a head on it is trained in place of a bag of n-grams. It needs `data`.
    pub encoder: Option<&'a Path>,
    /// What some of the data's labels mean; of generated texts it is known.
    pub labels: &'a LabelRoles,
    /// Where the model's folder is written.
    pub out: &'a Path,
    /// Seed of everything random.
    pub seed: u64,
    /// Most passes.
    pub epochs: usize,
    /// Whether it goes on from what an earlier training left in `out`.
    pub resume: bool,
}

/// What training gave, and how good it is on texts that were never seen.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TextTrained {
    /// The passes.
    pub training: TrainReport,
    /// What was tested on.
    pub test_part: String,
    /// The figures there.
    pub test: TextReport,
}

/// Trains the classifier and writes its folder.
///
/// With a site's texts, the test part is never learnt from. Generated texts are tested fold by fold, each by a classifier that has
/// not seen its phrases; what is written has learnt all phrases but those held back.
pub fn train_text(settings: TrainText<'_>, progress: &mut dyn FnMut(&Epoch)) -> Result<TextTrained, ModelError> {
    let TrainText { data, encoder, labels, out, seed, epochs, resume } = settings;
    let checkpoint = Checkpoint::new(out, resume);
    let how = TextFit { seed, epochs, checkpoint: Some(&checkpoint) };
    if let Some(encoder) = encoder {
        let data = data.ok_or_else(|| ModelError::Unfit {
            model: String::from(NAME),
            why: String::from(
                "a head on an encoder needs labelled texts (--data); generated ones are for the bag of n-grams",
            ),
        })?;
        let trained = super::text_head::train(data, encoder, labels, out, how, progress)?;
        checkpoint.remove()?;
        return Ok(trained);
    }
    let (bytes, mut training, test, test_part) = match data {
        Some(data) => {
            let Split { train, test, test_part } = read_split(data)?;
            check_labels(labels, &train.outputs)?;
            let (classifier, training) = train_on_own(&train, how, progress)?;
            // What is written is what is measured: weights of 16 bits.
            let bytes = classifier.to_bytes()?;
            let classifier = Classifier::load(NAME, &bytes)?;
            let report = evaluate(&test, classifier.outputs(), |example| classifier.score(&example.text));
            (bytes, training, report, test_part)
        }
        None => {
            let report = test_folds(how, progress)?;
            let (classifier, training) = train_shipped(how, None, progress)?;
            let bytes = classifier.to_bytes_of(&classifier.in_use())?;
            (bytes, training, report, String::from(GENERATED_PART))
        }
    };
    training.sha256 = card::digest(&bytes);
    let trained = TextTrained { training, test_part, test };
    let from = if data.is_some() { " --data FOLDER" } else { "" };
    let command = format!("nearside train text{from}{} --seed {seed} --epochs {epochs} --out FOLDER", words_of(labels));
    let outputs = Classifier::load(NAME, &bytes)?.outputs().clone();
    let mut card = card_of(&trained, data, &outputs, seed, command)?;
    card.label_roles = Some(match data {
        Some(_) => labels.clone(),
        None => generated_labels(),
    });
    card::write_folder(out, &card, &bytes)?;
    checkpoint.remove()?;
    (0..FOLDS).try_for_each(|fold| checkpoint.part(&part_of(fold)).remove())?;
    Ok(trained)
}

/// What the labels of generated texts mean.
fn generated_labels() -> LabelRoles {
    LabelRoles { no_opinion: vec![String::from(NO_OPINION)], quiet: Vec::new() }
}

/// Whether the texts have the labels that something is said of.
pub(super) fn check_labels(labels: &LabelRoles, outputs: &Outputs) -> Result<(), ModelError> {
    check_roles(labels, &outputs.labels).map_err(|why| ModelError::Unfit {
        model: String::from(NAME),
        why: format!("--no-opinion-label or --quiet-label {why}"),
    })
}

/// What the command says of labels.
pub(super) fn words_of(labels: &LabelRoles) -> String {
    let said = |option: &str, labels: &[String]| -> String {
        labels.iter().map(|label| format!(" --{option} {label:?}")).collect()
    };
    said("no-opinion-label", &labels.no_opinion) + &said("quiet-label", &labels.quiet)
}

/// What the part of a training that tests a fold is called.
fn part_of(fold: usize) -> String {
    format!("fold{fold}")
}

/// What generated texts are tested on.
pub const GENERATED_PART: &str = "generated texts, each judged by a classifier that has not learnt its phrase (5 folds of phrases; single words of topics are learnt)";

/// Tests training on generated texts, fold by fold.
pub fn test_generated(seed: u64, epochs: usize, progress: &mut dyn FnMut(&Epoch)) -> Result<TextReport, ModelError> {
    test_folds(TextFit { seed, epochs, checkpoint: None }, progress)
}

/// A classifier of generated texts, and texts of phrases that it has not learnt.
#[derive(Clone, Debug)]
pub struct Fold {
    /// What was trained.
    pub classifier: Classifier,
    /// What it is tested on.
    pub held_out: Vec<Example>,
}

/// The folds of [`test_generated`].
pub fn folds(seed: u64, epochs: usize, progress: &mut dyn FnMut(&Epoch)) -> Result<Vec<Fold>, ModelError> {
    train_folds(TextFit { seed, epochs, checkpoint: None }, progress)
}

fn train_folds(how: TextFit<'_>, progress: &mut dyn FnMut(&Epoch)) -> Result<Vec<Fold>, ModelError> {
    let train = |fold: usize| {
        let part = how.checkpoint.map(|checkpoint| checkpoint.part(&part_of(fold)));
        let (classifier, _) = train_shipped(TextFit { checkpoint: part.as_ref(), ..how }, Some(fold), progress)?;
        let held_out = reports(Wording::Only(fold), GENERATED_TEST, how.seed.wrapping_add(2)).examples;
        Ok(Fold { classifier, held_out })
    };
    (0..FOLDS).map(train).collect()
}

fn test_folds(how: TextFit<'_>, progress: &mut dyn FnMut(&Epoch)) -> Result<TextReport, ModelError> {
    let (mut test, mut scores) = (Vec::new(), Vec::new());
    for Fold { classifier, held_out } in train_folds(how, progress)? {
        scores.extend(held_out.iter().map(|example| classifier.score(&example.text)));
        test.extend(held_out);
    }
    let outputs = reports(Wording::Only(0), 0, how.seed).outputs;
    let in_turn = || {
        let mut scores = scores.iter().cloned();
        move |_: &Example| scores.next().unwrap_or_default()
    };
    let card = Card { label_roles: Some(generated_labels()), ..catalog::card(NAME, None)? };
    let flags = flags(&card, &test, &outputs, in_turn())?;
    Ok(TextReport { flags, ..evaluate(&test, &outputs, in_turn()) })
}

/// Trains on generated texts: on all phrases, or on all but those of a fold. Passes and temperatures are found on phrases held back,
/// which are learnt last.
fn train_shipped(
    how: TextFit<'_>,
    held_out: Option<usize>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    let seed = how.seed;
    let fold = held_out.unwrap_or(0);
    let mut train = reports(Wording::Without(fold), GENERATED, seed);
    let of_fold = GENERATED / (FOLDS - 2);
    if held_out.is_none() {
        train.examples.extend(reports(Wording::Only(fold), of_fold, seed.wrapping_add(3)).examples);
    }
    let mut held_back = reports(Wording::Only(fold + 1), of_fold, seed.wrapping_add(1)).examples;
    // What is none of a gateway's business presses no one: words of other languages must not add up to an alarm by chance.
    train.examples.iter_mut().chain(&mut held_back).for_each(|example| example.urgency = example.urgency.or(Some(0)));
    let (mut classifier, report) = train_on(&train, &held_back, SHIPPED_BUCKETS, how, progress)?;
    classifier.keep(&classifier.most_important(SHIPPED_ROWS));
    Ok((classifier, report))
}

/// All that [`train_text`] learns from without `data`.
#[cfg(test)]
pub(crate) fn generated(seed: u64) -> Vec<String> {
    let of_fold = GENERATED / (FOLDS - 2);
    let parts = [
        reports(Wording::Without(0), GENERATED, seed),
        reports(Wording::Only(0), of_fold, seed.wrapping_add(3)),
        reports(Wording::Only(1), of_fold, seed.wrapping_add(1)),
    ];
    parts.into_iter().flat_map(|part| part.examples).map(|example| example.text).collect()
}

/// What a classifier of a site's own texts cannot do.
const LIMITS_OF_OWN: [&str; 4] = [
    "It suggests; whoever is on duty decides.",
    "It knows texts like those that it learnt from, and their labels alone: one of another kind, or in another language, gets one of these all the same.",
    "It knows words and their neighbours, not meaning: irony, rare wordings and negation across a sentence mislead it.",
    "The words that spoke for a judgement are shown only for a field whose policy is `clear`.",
];

pub(super) fn card_of(
    trained: &TextTrained,
    data: Option<&Path>,
    outputs: &Outputs,
    seed: u64,
    command: String,
) -> Result<Card, ModelError> {
    let mut card = catalog::card(NAME, None)?;
    let digest = &trained.training.sha256;
    card.sha256 = Some(digest.clone());
    card.version = format!("{METHOD}-{}", &digest[..8]);
    card.outputs =
        vec![format!("labels: {}", outputs.labels.join(", ")), format!("urgencies: {}", outputs.urgencies.join(", "))];
    let source = match data {
        Some(folder) => TrainingData {
            name: card::folder_name(folder, "a site's own texts"),
            licence: String::from("that of the texts"),
        },
        None => TrainingData {
            name: String::from(
                "synthetic: reports and notes in English and Chinese, generated from hand-written phrases",
            ),
            licence: String::from("Apache-2.0, part of this program"),
        },
    };
    card.training = Some(Training { command: command.clone(), seed, data: vec![source] });
    if data.is_some() {
        card.limits = LIMITS_OF_OWN.map(String::from).to_vec();
    }
    let test = &trained.test;
    let metric = |name: &str, value: f64| Metric {
        name: String::from(name),
        value: (value * 1e4).round() / 1e4,
        on: format!("{} texts: {}", test.labels.texts, trained.test_part),
        command: command.clone(),
    };
    card.metrics = vec![
        metric("label: accuracy", test.labels.accuracy),
        metric("label: macro F1", test.labels.macro_f1),
        metric("label: expected calibration error", test.labels.calibration_error),
    ];
    if let Some(urgencies) = &test.urgencies {
        card.metrics.push(metric("urgency: accuracy", urgencies.accuracy));
        card.metrics.push(metric("urgency: macro F1", urgencies.macro_f1));
    }
    Ok(card)
}

/// Trains a classifier on a site's texts; gives it and the passes.
pub fn train_classifier(
    data: &Labelled,
    seed: u64,
    epochs: usize,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    train_on_own(data, TextFit { seed, epochs, checkpoint: None }, progress)
}

pub(super) fn train_on_own(
    data: &Labelled,
    how: TextFit<'_>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    let is_held_back = |example: &Example| is_held_out(&example.text, "held back");
    let (held_back, examples): (Vec<Example>, Vec<Example>) = data.examples.iter().cloned().partition(is_held_back);
    let train = Labelled { outputs: data.outputs.clone(), examples };
    train_on(&train, &held_back, BUCKETS, how, progress)
}

/// Finds the number of passes and the temperatures on what is held back, then trains on all.
fn train_on(
    train: &Labelled,
    held_back: &[Example],
    buckets: usize,
    how: TextFit<'_>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    let fresh = Classifier::new(train.outputs.clone(), inverse_document_frequencies(&train.examples, buckets));
    let sample =
        |example: &Example| Sample { vector: fresh.bag(&example.text), label: example.label, urgency: example.urgency };
    let kept: Vec<Sample> = train.examples.iter().map(sample).collect();
    let held_back: Vec<Sample> = held_back.iter().map(sample).collect();
    super::fit::enough(kept.len(), held_back.len())?;
    fit(&fresh, kept, held_back, how, progress)
}

/// ln((1 + n) / (1 + texts with it)) + 1; an n-gram never seen counts as the rarest, so that a text of unknown words is judged with
/// little confidence.
fn inverse_document_frequencies(examples: &[Example], buckets: usize) -> Vec<f32> {
    let mut documents = vec![0_u32; buckets];
    for example in examples {
        for (bucket, _) in
            features::counts(&features::grams(&features::units(&example.text), Features::default()), buckets)
        {
            documents[bucket] += 1;
        }
    }
    let all = examples.len() as f32;
    documents.into_iter().map(|count| ((1.0 + all) / (1.0 + count as f32)).ln() + 1.0).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::train) fn texts() -> Labelled {
        let outputs = Outputs {
            labels: ["animal", "weather"].map(String::from).to_vec(),
            urgencies: ["routine", "soon", "now"].map(String::from).to_vec(),
        };
        let words = [["cat", "dog", "horse", "cow"], ["rain", "snow", "wind", "storm"]];
        let example = |number: usize| {
            let label = number % 2;
            let text = format!("the {} number {number} {}", words[label][number / 2 % 4], words[label][number / 8 % 4]);
            Example { text, label, urgency: Some(2 * label) }
        };
        Labelled { outputs, examples: (0..200).map(example).collect() }
    }

    /// Trains on a folder with labels a site chose; gives its card.
    fn card(labels: &LabelRoles) -> Result<Card, ModelError> {
        let [data, out] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let line = |at: usize| match at % 2 {
            0 => format!("the cat sat on mat number {at},cats\n"),
            _ => format!("whatever else there is {at},other\n"),
        };
        let lines: String = (0..80).map(line).collect();
        std::fs::write(data.path().join("train.csv"), format!("text,category\n{lines}")).unwrap();
        let (data, out) = (Some(data.path()), out.path());
        let settings = TrainText { data, encoder: None, labels, out, seed: 1, epochs: 2, resume: false };
        train_text(settings, &mut |_| ())?;
        catalog::card(NAME, Some(out))
    }

    #[test]
    fn the_card_says_what_a_label_means_and_its_name_says_nothing() {
        let labels = |no_opinion: &[&str]| LabelRoles {
            no_opinion: no_opinion.iter().map(ToString::to_string).collect(),
            quiet: Vec::new(),
        };
        assert_eq!(card(&labels(&[])).unwrap().label_roles, Some(LabelRoles::default()));
        let said = card(&labels(&["other"])).unwrap();
        assert_eq!(said.label_roles, Some(labels(&["other"])));
        assert!(said.metrics.iter().all(|metric| !metric.on.contains('/')), "a path of this machine: {said:?}");
        let command = said.training.unwrap().command;
        assert!(command.contains(" --no-opinion-label \"other\""), "{command}");
        let error = card(&labels(&["sonstiges"])).unwrap_err().to_string();
        assert!(error.contains("sonstiges") && error.contains("cats, other"), "{error}");
    }

    #[test]
    fn it_learns_and_the_seed_decides() {
        let (data, mut passes) = (texts(), 0);
        let (classifier, report) = train_classifier(&data, 1, 8, &mut |_| passes += 1).unwrap();
        assert_eq!(passes, report.epochs.len());
        assert_eq!(report.samples + report.held_back, data.examples.len());
        for (text, label) in [("a cow and a dog", 0), ("snow, then wind", 1)] {
            let scores = classifier.score(text);
            assert_eq!((scores.label().0, scores.urgency().unwrap().0), (label, 2 * label), "{text}: {scores:?}");
        }
        let again = train_classifier(&data, 1, 8, &mut |_| ()).unwrap().0;
        assert_eq!(again.to_bytes().unwrap(), classifier.to_bytes().unwrap());
    }
}
