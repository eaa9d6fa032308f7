//! Triage: a stream's text field, judged message by message.
//!
//! The classifier says what a text is about and how urgent it is. A text is flagged where the probability of the highest urgency
//! reaches the card's threshold; a classifier trained without urgencies flags a text whose label is at least that probable, unless the
//! label is one of [`QUIET`].
//!
//! Promise I2: the words that spoke for a judgement are pieces of the text. They stand in the sighting only where the field's policy is
//! `clear`; of any other field, encrypted ones too, they are not computed: a sighting also goes to rules, console and checkpoint.
//! The label and the urgency are the judgement and always stand there.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, OnceLock, PoisonError};

use nearside_schemas::{Contribution, FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, ModelRef, Severity};

use super::classifier::{Classifier, Scores};
use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "text-triage";
/// Labels that ask for nothing.
pub const QUIET: [&str; 5] = ["none", "other", "routine", "normal", "praise"];
/// The probability of the highest urgency from which on someone must look now.
const CRITICAL: f64 = 0.9;
/// Words that are named.
const TERMS: usize = 4;
const VERSION: u8 = 1;

/// The classifier as a row model.
pub struct TextTriage {
    reference: ModelRef,
    threshold: f64,
    judge: std::sync::Arc<Judge>,
}

struct Judge {
    classifier: Classifier,
    /// The labels as findings carry them.
    labels: Vec<&'static str>,
}

impl TextTriage {
    /// With the version and threshold of the card.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        let classifier = Classifier::load(card.name.as_str(), weights)?;
        let labels = classifier.outputs().labels.iter().map(|label| interned(label)).collect();
        let judge = std::sync::Arc::new(Judge { classifier, labels });
        Ok(Self { reference: card.reference(), threshold: card.threshold, judge })
    }
}

/// A label as a word of identifiers, kept for the life of the process: each different one once, however often a model is loaded.
fn interned(label: &str) -> &'static str {
    static KNOWN: OnceLock<Mutex<HashSet<&'static str>>> = OnceLock::new();
    let word: String = label.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = known.get(word.as_str()) {
        return word;
    }
    let word: &'static str = Box::leak(word.into_boxed_str());
    known.insert(word);
    word
}

/// The field that is judged: the first that holds text.
#[derive(Clone)]
struct TextField {
    column: usize,
    name: FieldName,
    is_clear: bool,
}

impl TextField {
    fn of(fields: &[FieldSpec]) -> Option<Self> {
        let (column, field) = fields.iter().enumerate().find(|(_, field)| field.kind == FieldKind::Text)?;
        Some(Self { column, name: field.name.clone(), is_clear: field.policy == FieldPolicy::Clear })
    }
}

impl RowModel for TextTriage {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        if TextField::of(fields).is_some() {
            return Ok(());
        }
        let why = String::from("it needs a field with kind = \"text\"");
        Err(ModelError::Unfit { model: self.reference.name.to_string(), why })
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        let (field, judge, threshold) = (TextField::of(fields), self.judge.clone(), self.threshold);
        Box::new(TriageState { field, judge, threshold, pending: VecDeque::new() })
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        Reader::new(self.reference.name.as_str(), VERSION, snapshot)?.finish()?;
        Ok(self.new_state(fields))
    }
}

/// Verdicts that wait for their turn; of a text nothing is kept.
struct TriageState {
    field: Option<TextField>,
    judge: std::sync::Arc<Judge>,
    threshold: f64,
    pending: VecDeque<RowVerdict>,
}

impl TriageState {
    fn verdict(&self, values: &[FieldValue]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let Some(field) = &self.field else { return verdict };
        let Some(FieldValue::Text(text)) = values.get(field.column) else { return verdict };
        let scores = self.judge.classifier.score(text.expose());
        verdict.score = self.judge.score(&scores);
        verdict.flagged = verdict.score >= self.threshold;
        if verdict.flagged {
            let terms = field.is_clear.then(|| self.judge.terms(text.expose(), &scores));
            verdict.sightings.push(self.judge.sighting(field, &scores, verdict.score, terms));
        }
        verdict
    }
}

impl Judge {
    /// 0 (ordinary) to 1: see the module.
    fn score(&self, scores: &Scores) -> f64 {
        let (label, probability) = scores.label();
        let is_quiet = self.labels.get(label).is_some_and(|label| QUIET.contains(label));
        match scores.urgencies.last() {
            Some(highest) => *highest,
            None if is_quiet => 0.0,
            None => probability,
        }
    }

    /// The words that spoke for the label and the urgency.
    fn terms(&self, text: &str, scores: &Scores) -> String {
        let urgency = scores.urgency().map(|(urgency, _)| urgency);
        let terms = self.classifier.explain(text, scores.label().0, urgency, TERMS);
        terms.iter().map(|term| format!("{} (+{:.2})", term.text, term.added)).collect::<Vec<_>>().join(", ")
    }

    fn sighting(&self, field: &TextField, scores: &Scores, score: f64, terms: Option<String>) -> Sighting {
        let (label, probability) = scores.label();
        let label = self.labels.get(label).copied().unwrap_or("other");
        let words = label.replace('_', " ");
        let named = |(urgency, probability): (usize, f64)| {
            let name = self.classifier.outputs().urgencies.get(urgency).map_or("", String::as_str);
            format!("; urgency: {name} ({:.0} %)", 100.0 * probability)
        };
        let urgency = scores.urgency().map(named).unwrap_or_default();
        let severity = match scores.urgencies.last() {
            Some(highest) if *highest >= CRITICAL => Severity::Critical,
            Some(_) => Severity::Warning,
            None => Severity::Notice,
        };
        let note = terms.map_or_else(
            || String::from("the words that spoke for it are not shown: the field is not `clear`"),
            |terms| format!("words that spoke for it: {terms}"),
        );
        Sighting {
            label,
            severity,
            score,
            contributions: vec![Contribution {
                field: field.name.clone(),
                seen: probability,
                expected: None,
                band: None,
                share: 1.0,
                note: Some(note),
            }],
            text: format!("Suggests {words} ({:.0} %){urgency}.", 100.0 * probability),
        }
    }
}

impl RowState for TriageState {
    fn take(&mut self, row: &Row<'_>, _inputs: &mut Vec<f32>) -> usize {
        let verdict = self.verdict(row.values);
        self.pending.push_back(verdict);
        0
    }

    fn judge(&mut self, _outputs: &[f32]) -> RowVerdict {
        self.pending.pop_front().unwrap_or_default()
    }

    fn skip(&mut self) {
        self.pending.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        Writer::new(VERSION).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nearside_schemas::{Personal, Timestamp};

    use super::*;
    use crate::catalog;

    fn fields(policy: FieldPolicy) -> Vec<FieldSpec> {
        let name = FieldName::new("note").unwrap();
        vec![FieldSpec { name, kind: FieldKind::Text, unit: None, policy }]
    }

    fn verdict(policy: FieldPolicy, text: &str) -> RowVerdict {
        let mut state = catalog::load(NAME, None).unwrap().new_state(&fields(policy));
        let values = [FieldValue::Text(Personal::new(Arc::from(text)))];
        assert_eq!(state.take(&Row { time: Timestamp::from_secs(0), values: &values }, &mut Vec::new()), 0);
        state.judge(&[])
    }

    #[test]
    fn danger_is_flagged_and_an_ordinary_day_is_not() {
        for (text, expected) in [
            ("Strong smell of gas in the staircase!", Some("gas")),
            ("楼道里有很重的煤气味", Some("gas")),
            ("Patient cannot breathe, lips are blue", Some("breathing")),
            ("The patient slept well, no complaints this morning", None),
            ("患者夜间睡眠可,今晨无不适", None),
            ("No chest pain, no shortness of breath, feels well", None),
            ("Rubbish bins are full again", None),
            ("", None),
            ("qwertz uiop", None),
        ] {
            let verdict = verdict(FieldPolicy::Clear, text);
            assert_eq!(verdict.sightings.first().map(|sighting| sighting.label), expected, "{text}: {verdict:?}");
            assert_eq!(verdict.flagged, verdict.score >= verdict.threshold);
        }
    }

    #[test]
    fn words_are_shown_only_where_the_field_is_clear() {
        let text = "Zoltan Quibble cannot breathe, lips are blue";
        let told = format!("{:?}", verdict(FieldPolicy::Clear, text));
        assert!(["breathe", "blue", "lips"].iter().any(|word| told.contains(word)), "{told}");
        for policy in [FieldPolicy::Encrypt, FieldPolicy::Pseudonym, FieldPolicy::Drop] {
            let told = format!("{:?}", verdict(policy, text)).to_lowercase();
            for word in ["zoltan", "quibble", "breathe", "lips", "blue"] {
                assert!(!told.contains(word), "{policy:?}: {told}");
            }
        }
    }

    #[test]
    fn a_missing_text_is_no_finding_and_a_stream_without_text_is_refused() {
        let model = catalog::load(NAME, None).unwrap();
        let mut state = model.restore(&fields(FieldPolicy::Drop), &model.new_state(&[]).snapshot()).unwrap();
        state.take(&Row { time: Timestamp::from_secs(0), values: &[FieldValue::Missing] }, &mut Vec::new());
        assert!(!state.judge(&[]).flagged);
        let mut numbers = fields(FieldPolicy::Clear);
        numbers[0].kind = FieldKind::Number;
        assert!(matches!(model.accepts(&numbers), Err(ModelError::Unfit { .. })));
    }
}
