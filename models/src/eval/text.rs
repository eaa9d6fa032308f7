//! How good a text classifier is: accuracy, macro F1, and how true its probabilities are.

use serde::Serialize;

use super::text_data::Example;
use crate::ModelError;
use crate::card::Card;
use crate::text::classifier::{Outputs, Scores};
use crate::text::labels::Labels;

/// Bins of the calibration error.
const BINS: usize = 15;

/// The figures of one part of the outputs, labels or urgencies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Texts.
    pub texts: usize,
    /// Share of texts whose most probable class is the true one.
    pub accuracy: f64,
    /// Mean of the classes' F1, over the classes that occur as truth or answer.
    pub macro_f1: f64,
    /// Expected calibration error: how far the probability of the answer is from the share that is right, in 15 bins (Guo et al., 2017).
    pub calibration_error: f64,
    /// Each class that occurs.
    pub classes: Vec<Class>,
}

/// The figures of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Texts that are of it.
    pub texts: usize,
    /// Of the texts that were given it, the share that are of it.
    pub precision: f64,
    /// Of the texts that are of it, the share that were given it.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// What was said of texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextReport {
    /// What they are about.
    pub labels: Figures,
    /// How urgent they are, where that is known.
    pub urgencies: Option<Figures>,
    /// What triage flags of them; empty where there are no urgencies, or it was not asked.
    pub flags: Vec<Flags>,
}

/// How many texts of a kind triage flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flags {
    /// Which texts.
    pub of: String,
    /// How many.
    pub texts: usize,
    /// How many of them are flagged.
    pub flagged: usize,
    /// How many would be by their urgency alone, if there were no label without an opinion.
    pub by_urgency_alone: usize,
}

/// Holds what `score` says of each text against the truth.
pub fn evaluate(examples: &[Example], outputs: &Outputs, mut score: impl FnMut(&Example) -> Scores) -> TextReport {
    let (mut labels, mut urgencies) = (Vec::new(), Vec::new());
    for example in examples {
        let scores = score(example);
        labels.push((example.label, scores.label()));
        if let (Some(truth), Some(said)) = (example.urgency, scores.urgency()) {
            urgencies.push((truth, said));
        }
    }
    TextReport {
        labels: Figures::of(&labels, &outputs.labels),
        urgencies: (!urgencies.is_empty()).then(|| Figures::of(&urgencies, &outputs.urgencies)),
        flags: Vec::new(),
    }
}

/// What triage with this card flags: of the most urgent texts, of the others, and of those whose urgency is not given.
pub fn flags(
    card: &Card,
    examples: &[Example],
    outputs: &Outputs,
    mut score: impl FnMut(&Example) -> Scores,
) -> Result<Vec<Flags>, ModelError> {
    let Some(highest) = outputs.urgencies.len().checked_sub(1) else { return Ok(Vec::new()) };
    let labels = Labels::of(card, &outputs.labels, true)?;
    let names =
        [format!("urgency {}", outputs.urgencies[highest]), "less urgent".to_owned(), "no urgency given".to_owned()];
    let mut flags = names.map(|of| Flags { of, texts: 0, flagged: 0, by_urgency_alone: 0 });
    for example in examples {
        let scores = score(example);
        let is_urgent = scores.urgencies.last().is_some_and(|urgency| *urgency >= card.threshold);
        let kind = match example.urgency {
            Some(urgency) if urgency == highest => 0,
            Some(_) => 1,
            None => 2,
        };
        flags[kind].texts += 1;
        flags[kind].by_urgency_alone += usize::from(is_urgent);
        flags[kind].flagged += usize::from(is_urgent && !labels.is_no_opinion(&scores));
    }
    Ok(flags.into_iter().filter(|kind| kind.texts > 0).collect())
}

impl Figures {
    /// Of pairs of truth and answer with its probability.
    fn of(pairs: &[(usize, (usize, f64))], names: &[String]) -> Self {
        let texts = pairs.len();
        let share = |count: usize, of: usize| if of == 0 { 0.0 } else { count as f64 / of as f64 };
        let count = |wanted: &dyn Fn(usize, usize) -> bool| {
            pairs.iter().filter(|(truth, (said, _))| wanted(*truth, *said)).count()
        };
        let mut classes = Vec::new();
        for (class, name) in names.iter().enumerate() {
            let (are, said) = (count(&|truth, _| truth == class), count(&|_, said| said == class));
            if are + said == 0 {
                continue;
            }
            let both = count(&|truth, said| truth == class && said == class);
            let (precision, recall, f1) = (share(both, said), share(both, are), share(2 * both, are + said));
            classes.push(Class { name: name.clone(), texts: are, precision, recall, f1 });
        }
        let macro_f1 = classes.iter().map(|class| class.f1).sum::<f64>() / classes.len().max(1) as f64;
        let accuracy = share(count(&|truth, said| truth == said), texts);
        Self { texts, accuracy, macro_f1, calibration_error: calibration_error(pairs), classes }
    }
}

fn calibration_error(pairs: &[(usize, (usize, f64))]) -> f64 {
    let mut bins = [(0_usize, 0.0, 0.0); BINS];
    for (truth, (said, probability)) in pairs {
        let bin = &mut bins[((probability * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += 1;
        bin.1 += probability;
        bin.2 += if truth == said { 1.0 } else { 0.0 };
    }
    let gap: f64 = bins.iter().map(|(_, probability, right)| (probability - right).abs()).sum();
    gap / pairs.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_an_opinion_is_flagged_by_its_urgency_alone_only() {
        let outputs = Outputs {
            labels: ["fire", "chat"].map(String::from).to_vec(),
            urgencies: ["routine", "now"].map(String::from).to_vec(),
        };
        let labels = crate::card::LabelRoles { no_opinion: vec![String::from("chat")], quiet: Vec::new() };
        let card =
            Card { label_roles: Some(labels), threshold: 0.6, ..crate::catalog::card("text-triage", None).unwrap() };
        let example = |text: &str, urgency| Example { text: text.to_owned(), label: 0, urgency };
        let texts = [example("ab", Some(1)), example("b", Some(1)), example("a", Some(0)), example("cab", None)];
        // The letters say what is scored: b is urgent, c is chat.
        let score = |example: &Example| {
            let has = |letter: char| if example.text.contains(letter) { 0.9 } else { 0.1 };
            Scores { labels: vec![1.0 - has('c'), has('c')], urgencies: vec![1.0 - has('b'), has('b')] }
        };
        let flags = flags(&card, &texts, &outputs, score).unwrap();
        let counted: Vec<_> = flags.iter().map(|one| (one.texts, one.flagged, one.by_urgency_alone)).collect();
        assert_eq!(counted, [(2, 2, 2), (1, 0, 0), (1, 0, 1)]);
        assert_eq!(flags[0].of, "urgency now");
    }

    #[test]
    fn figures_are_those_of_a_small_table_done_by_hand() {
        // Truth a a b c; answers a b b b, with their probabilities.
        let pairs = [(0, (0, 0.9)), (0, (1, 0.6)), (1, (1, 0.8)), (2, (1, 0.4))];
        let names = ["a", "b", "c", "d"].map(String::from);
        let figures = Figures::of(&pairs, &names);
        assert_eq!((figures.texts, figures.accuracy, figures.classes.len()), (4, 0.5, 3), "d does not occur");
        let f1: Vec<f64> = figures.classes.iter().map(|class| class.f1).collect();
        assert_eq!(f1, [2.0 / 3.0, 0.5, 0.0]);
        assert!((figures.macro_f1 - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
        assert!((figures.calibration_error - (0.1 + 0.6 + 0.2 + 0.4) / 4.0).abs() < 1e-12);
    }
}
