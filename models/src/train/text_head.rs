//! Trains a head on a sentence encoder: each text is embedded once, then softmax regression as for the bag of n-grams.
//!
//! What is too unlike the texts of every label to be believed is found on the texts held back: all but one of a hundred of them are
//! familiar.

use std::path::Path;

use super::fit::{Epoch, TrainReport};
use super::text::{TextTrained, card_of, check_labels, words_of};
use super::text_fit::{Sample, TextFit, fit};
use crate::ModelError;
use crate::card::{self, Card, LabelRoles};
use crate::eval::text::evaluate;
use crate::eval::text_data::{Example, Labelled, Split, is_held_out, read_split};
use crate::text::Encoder;
use crate::text::classifier::Classifier;
use crate::text::head::{Answer, Head, Meaning};
use crate::text::triage::NAME;

/// Share of the texts held back that count as unfamiliar.
const UNFAMILIAR: f64 = 0.01;

/// Trains and writes the folder.
pub(super) fn train(
    data: &Path,
    encoder: &Path,
    labels: &LabelRoles,
    out: &Path,
    how: TextFit<'_>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TextTrained, ModelError> {
    let encoder = Encoder::load(encoder)?;
    let Split { train, test, test_part } = read_split(data)?;
    check_labels(labels, &train.outputs)?;
    let TextFit { seed, epochs, .. } = how;
    let (head, mut training) = fit_head(&train, &encoder, how, progress)?;
    let bytes = head.to_bytes()?;
    training.sha256 = card::digest(&bytes);
    let answers = answers(&head, &encoder, &test)?;
    let mut scores = answers.into_iter().map(|answer| answer.scores);
    let report = evaluate(&test, head.outputs(), |_| scores.next().unwrap_or_default());
    let trained = TextTrained { training, test_part, test: report };
    let said = words_of(labels);
    let command = format!(
        "nearside train text --data FOLDER --encoder ENCODER{said} --seed {seed} --epochs {epochs} --out FOLDER"
    );
    let mut card = card_of(&trained, Some(data), head.outputs(), seed, command)?;
    card.label_roles = Some(labels.clone());
    card::write_folder(out, &described(card, out, &encoder)?, &bytes)?;
    Ok(trained)
}

/// What differs from the bag's card.
fn described(mut card: Card, out: &Path, encoder: &Encoder) -> Result<Card, ModelError> {
    let folder = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // A folder's name is the name that streams use; one that could be no name leaves the method's.
    if let Ok(name) = nearside_schemas::ModelName::new(&folder)
        && crate::catalog::names().all(|shipped| shipped != folder)
    {
        card.name = name;
        card.method = Some(String::from(NAME));
    }
    card.version = format!("encoder-{}", card.version);
    card.summary = String::from(
        "What a short text is about, by a head on a sentence encoder; a text unlike all that it learnt from is not flagged.",
    );
    card.inputs = vec![format!(
        "one text field; the first of the stream is judged, its first {} word pieces",
        encoder.most_pieces()
    )];
    card.sources = vec![
        String::from("J. Devlin et al.: BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019"),
        String::from("N. Reimers, I. Gurevych: Sentence-BERT, EMNLP 2019"),
    ];
    card.from = Some(format!("encoder sha256 {}", encoder.digest()));
    card.limits = vec![
        String::from("It suggests; whoever is on duty decides."),
        String::from("It needs its encoder: the folder with that SHA-256 must stand in [models] encoders."),
        String::from(
            "It knows the languages of its encoder and the labels of its texts. A text unlike those may be urgent all the same: it is not flagged.",
        ),
    ];
    Ok(card)
}

/// Trains a head on texts; one of ten is held back for the number of passes, the temperatures and what is familiar.
pub fn train_head(
    data: &Labelled,
    encoder: &Encoder,
    seed: u64,
    epochs: usize,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Head, TrainReport), ModelError> {
    fit_head(data, encoder, TextFit { seed, epochs, checkpoint: None }, progress)
}

fn fit_head(
    data: &Labelled,
    encoder: &Encoder,
    how: TextFit<'_>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Head, TrainReport), ModelError> {
    let is_held_back = |example: &Example| is_held_out(&example.text, "held back");
    let (held_back, kept): (Vec<&Example>, Vec<&Example>) = data.examples.iter().partition(|e| is_held_back(e));
    let (held_back, kept) = (samples(&held_back, encoder)?, samples(&kept, encoder)?);
    let hidden = encoder.hidden();
    let centres = centres(&kept, data.outputs.labels.len(), hidden);
    let fresh = Classifier::new(data.outputs.clone(), vec![1.0; hidden]);
    let embeddings: Vec<Vec<f32>> = held_back.iter().map(|sample| dense(sample, hidden)).collect();
    let (classifier, report) = fit(&fresh, kept, held_back, how, progress)?;
    let meaning = Meaning { outputs: data.outputs.clone(), encoder: encoder.digest().to_owned(), familiar: -1.0 };
    let mut head = Head { meaning, weights: classifier.weights, bias: classifier.bias, centres };
    let mut likeness: Vec<f32> = embeddings.iter().map(|embedding| head.likeness(embedding)).collect();
    likeness.sort_by(f32::total_cmp);
    head.meaning.familiar =
        likeness.get((likeness.len() as f64 * UNFAMILIAR) as usize).copied().unwrap_or(-1.0).clamp(-1.0, 1.0);
    Ok((head, report))
}

/// What a head says of texts, in their order.
pub fn answers(head: &Head, encoder: &Encoder, examples: &[Example]) -> Result<Vec<Answer>, ModelError> {
    examples.iter().map(|example| Ok(head.judge(&encoder.embed(&example.text)?.0))).collect()
}

fn samples(examples: &[&Example], encoder: &Encoder) -> Result<Vec<Sample>, ModelError> {
    let sample = |example: &&Example| {
        let embedding = encoder.embed(&example.text)?.0;
        let vector = embedding.into_iter().enumerate().collect();
        Ok(Sample { vector, label: example.label, urgency: example.urgency })
    };
    examples.iter().map(sample).collect()
}

fn dense(sample: &Sample, hidden: usize) -> Vec<f32> {
    let mut dense = vec![0.0; hidden];
    for (at, value) in &sample.vector {
        dense[*at] = *value;
    }
    dense
}

/// The mean embedding of each label's texts, of length 1; of a label without texts, zeros.
fn centres(samples: &[Sample], labels: usize, hidden: usize) -> Vec<f32> {
    let mut centres = vec![0.0_f32; labels * hidden];
    for sample in samples {
        let row = &mut centres[sample.label * hidden..(sample.label + 1) * hidden];
        sample.vector.iter().for_each(|(at, value)| row[*at] += value);
    }
    for row in centres.chunks_exact_mut(hidden) {
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        row.iter_mut().for_each(|value| *value /= length);
    }
    centres
}
