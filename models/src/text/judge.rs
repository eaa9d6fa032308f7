//! The two ways in which a text is judged: the bag of n-grams at once, on the stream's actor; an encoder with a head in a forward pass, on
//! the inference workers.
//!
//! Between the two steps of a forward pass a row is `[count, id …]`, and what comes back is `[logits …, likeness, added …]`: numbers
//! below 2²⁴, which 32-bit floats hold exactly.

use std::sync::Arc;

use super::classifier::{Classifier, Outputs, Scores};
use super::encoder::{Encoder, Encoders, Pieces};
use super::head::Head;
use crate::ModelError;

/// Words that are named.
const TERMS: usize = 4;

/// What judges.
pub(super) enum Judge {
    /// A bag of n-grams.
    Bag(Classifier),
    /// A head on an encoder.
    Encoded(Box<Head>, Arc<Encoder>),
}

/// What is said of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Judgement {
    pub(super) scores: Scores,
    /// Whether the text is like those that were learnt from, as far as a head can tell; to a bag every text is.
    pub(super) is_familiar: bool,
    /// The words that spoke for it, where they may be shown.
    pub(super) terms: Option<String>,
    /// Whether the text was longer than what is looked at.
    pub(super) is_truncated: bool,
}

/// What is kept of a text while its forward pass is away: of a text whose words may not be shown, none.
pub(super) struct Awaited {
    words: Option<Vec<(String, std::ops::Range<usize>)>>,
    is_truncated: bool,
}

impl Judge {
    pub(super) fn load(model: &str, weights: &[u8], encoders: &Encoders) -> Result<Self, ModelError> {
        if !Head::is_head(weights) {
            return Ok(Self::Bag(Classifier::load(model, weights)?));
        }
        let head = Head::load(model, weights)?;
        let encoder = encoders.find(model, head.encoder())?;
        if encoder.hidden() != head.hidden() {
            let why = format!("it takes embeddings {} wide; its encoder gives {}", head.hidden(), encoder.hidden());
            return Err(ModelError::Damaged { model: model.to_owned(), why });
        }
        Ok(Self::Encoded(Box::new(head), encoder))
    }

    /// Whether it is a bag of n-grams.
    pub(super) const fn is_bag(&self) -> bool {
        matches!(self, Self::Bag(_))
    }

    pub(super) const fn outputs(&self) -> &Outputs {
        match self {
            Self::Bag(bag) => bag.outputs(),
            Self::Encoded(head, _) => head.outputs(),
        }
    }

    /// Widths of a row's inputs and outputs; 0 where there is no forward pass.
    pub(super) fn widths(&self) -> (usize, usize) {
        match self {
            Self::Bag(_) => (0, 0),
            Self::Encoded(head, encoder) => {
                (1 + encoder.most_pieces(), head.outputs().len() + 1 + encoder.most_pieces())
            }
        }
    }

    /// Judges a text at once, or writes the row of its forward pass.
    pub(super) fn begin(&self, text: &str, is_clear: bool, inputs: &mut Vec<f32>) -> Result<Judgement, Awaited> {
        let (head, encoder) = match self {
            Self::Bag(bag) => return Ok(of_bag(bag, text, is_clear)),
            Self::Encoded(head, encoder) => (head, encoder),
        };
        // A text that the tokenizer refuses is judged like one without words: as unfamiliar.
        let Ok(Pieces { ids, words, is_truncated }) = encoder.pieces(text) else {
            let scores = head.judge(&vec![0.0; head.hidden()]).scores;
            return Ok(Judgement { scores, ..Judgement::default() });
        };
        let from = inputs.len();
        inputs.push(ids.len() as f32);
        inputs.extend(ids.iter().map(|id| *id as f32));
        inputs.resize(from + self.widths().0, 0.0);
        Err(Awaited { words: is_clear.then_some(words), is_truncated })
    }

    /// The judgement of a row that came back.
    pub(super) fn end(&self, awaited: &Awaited, outputs: &[f32]) -> Option<Judgement> {
        let Self::Encoded(head, _) = self else { return None };
        let width = head.outputs().len();
        let (logits, rest) = outputs.split_at_checked(width)?;
        let (likeness, added) = rest.split_first()?;
        let answer = head.answer(logits, *likeness);
        Some(Judgement {
            scores: answer.scores,
            is_familiar: answer.is_familiar,
            terms: awaited.words.as_ref().map(|words| of_pieces(words, added)),
            is_truncated: awaited.is_truncated,
        })
    }

    /// One forward pass: each row by itself.
    pub(super) fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        outputs.clear();
        let Self::Encoded(head, encoder) = self else { return Ok(()) };
        let (from, to) = self.widths();
        for row in inputs.chunks_exact(from).take(rows) {
            let start = outputs.len();
            let count = (row[0].max(0.0) as usize).min(encoder.most_pieces());
            if count == 0 {
                outputs.extend_from_slice(&head.bias);
                outputs.push(-1.0);
            } else {
                let ids: Vec<u32> = row[1..=count].iter().map(|id| *id as u32).collect();
                let layer = encoder.layer(&ids)?;
                let (embedding, length) = encoder.pooled(&layer);
                let logits = head.logits(&embedding);
                outputs.extend_from_slice(&logits);
                outputs.push(head.likeness(&embedding));
                outputs.extend(head.added(encoder, &layer, length, &logits));
            }
            outputs.resize(start + to, 0.0);
        }
        Ok(())
    }
}

fn of_bag(bag: &Classifier, text: &str, is_clear: bool) -> Judgement {
    let scores = bag.score(text);
    let explained = || {
        let urgency = scores.urgency().map(|(urgency, _)| urgency);
        let terms = bag.explain(text, scores.label().0, urgency, TERMS);
        listed(terms.into_iter().map(|term| (term.text, term.added)))
    };
    Judgement { terms: is_clear.then(explained), is_familiar: true, is_truncated: false, scores }
}

/// The words that spoke most for a judgement, with what their pieces added together.
fn of_pieces(words: &[(String, std::ops::Range<usize>)], added: &[f32]) -> String {
    let sum = |pieces: &std::ops::Range<usize>| added.get(pieces.clone()).map_or(0.0, |part| part.iter().sum::<f32>());
    let mut sums: Vec<(String, f64)> =
        words.iter().map(|(word, pieces)| (word.clone(), f64::from(sum(pieces)))).collect();
    sums.retain(|(_, added)| *added > 0.0);
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    sums.truncate(TERMS);
    listed(sums.into_iter())
}

fn listed(terms: impl Iterator<Item = (String, f64)>) -> String {
    terms.map(|(word, added)| format!("{word} (+{added:.2})")).collect::<Vec<_>>().join(", ")
}
