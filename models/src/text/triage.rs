//! Triage: a stream's text field, judged message by message.
//!
//! The classifier says what a text is about and how urgent it is. A text is flagged where the probability of the highest urgency
//! reaches the card's threshold; a classifier trained without urgencies flags a text whose label is at least that probable, unless the
//! card says that the label is `quiet`. A text that is unlike all that the classifier learnt from (a head on an encoder), or more likely one of the
//! labels that the card gives as `no_opinion` than all others together, is flagged by neither ([`crate::card::LabelRoles`]). Where such a label is
//! the most probable one but not more probable than the rest together, an urgent text is told, as one of no topic that is known.
//!
//! Promise I2: the words that spoke for a judgement are pieces of the text. They stand in the sighting only where the field's policy is
//! `clear`; of any other field, encrypted ones too, they are not computed: a sighting also goes to rules, console and checkpoint.
//! The label and the urgency are the judgement and always stand there.

use std::collections::VecDeque;
use std::sync::Arc;

use nearside_schemas::{Contribution, FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, ModelRef, Severity};

use super::encoder::Encoders;
use super::judge::{Awaited, Judge, Judgement};
use super::labels::Labels;
use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "text-triage";
/// The probability of the highest urgency from which on someone must look now.
const CRITICAL: f64 = 0.9;
const VERSION: u8 = 1;

/// The classifier as a row model.
pub struct TextTriage {
    reference: ModelRef,
    threshold: f64,
    judge: Arc<Judge>,
    labels: Arc<Labels>,
}

impl TextTriage {
    /// With the version and threshold of the card; an encoder that the weights refer to is among `encoders`.
    pub fn new(card: &Card, weights: &[u8], encoders: &Encoders) -> Result<Self, ModelError> {
        let judge = Judge::load(card.name.as_str(), weights, encoders)?;
        let labels = Arc::new(Labels::of(card, &judge.outputs().labels, judge.is_bag())?);
        Ok(Self { reference: card.reference(), threshold: card.threshold, judge: Arc::new(judge), labels })
    }
}

/// The inputs of a forward pass of texts, as a stream's states write them; none for a bag, which has no pass.
pub fn inputs<'a>(model: &TextTriage, texts: impl Iterator<Item = &'a str>) -> Vec<f32> {
    let mut inputs = Vec::new();
    for text in texts {
        // A text that the tokenizer refuses has no row.
        let _ = model.judge.begin(text, false, &mut inputs);
    }
    inputs
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
        Box::new(TriageState {
            field: TextField::of(fields),
            judge: self.judge.clone(),
            labels: self.labels.clone(),
            threshold: self.threshold,
            pending: VecDeque::new(),
        })
    }

    fn input_width(&self) -> usize {
        self.judge.widths().0
    }

    fn output_width(&self) -> usize {
        self.judge.widths().1
    }

    fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        self.judge.forward(inputs, rows, outputs)
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        Reader::new(self.reference.name.as_str(), VERSION, snapshot)?.finish()?;
        Ok(self.new_state(fields))
    }
}

/// Verdicts that wait for their turn. Of a text nothing is kept, but the words of a clear one while its forward pass is away.
struct TriageState {
    field: Option<TextField>,
    judge: Arc<Judge>,
    labels: Arc<Labels>,
    threshold: f64,
    pending: VecDeque<Pending>,
}

enum Pending {
    Judged(RowVerdict),
    Away(Awaited),
}

/// A probability for people: a classifier is never certain.
fn percent(probability: f64) -> String {
    format!("{:.0} %", (100.0 * probability).min(99.0))
}

impl TriageState {
    fn verdict(&self, judgement: Option<&Judgement>) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let (Some(field), Some(judgement)) = (&self.field, judgement) else { return verdict };
        verdict.score = self.score(judgement);
        verdict.flagged = verdict.score >= self.threshold;
        if verdict.flagged {
            verdict.sightings.push(self.sighting(field, judgement, verdict.score));
        }
        verdict
    }

    /// 0 (ordinary) to 1: see the module.
    fn score(&self, judgement: &Judgement) -> f64 {
        let (label, probability) = judgement.scores.label();
        match judgement.scores.urgencies.last() {
            _ if !judgement.is_familiar || self.labels.is_no_opinion(&judgement.scores) => 0.0,
            Some(highest) => *highest,
            None if self.labels.is_quiet(label) => 0.0,
            None => probability,
        }
    }

    fn sighting(&self, field: &TextField, judgement: &Judgement, score: f64) -> Sighting {
        let Judgement { scores, terms, is_truncated, .. } = judgement;
        let (label, probability) = scores.label();
        // A text can press although it is like no topic: then that is what is said of it.
        let about = if self.labels.means_no_opinion(label) {
            String::from("no topic that is known")
        } else {
            format!("\"{}\"", self.labels.word(label).replace('_', " "))
        };
        let label = self.labels.word(label);
        let named = |(urgency, probability): (usize, f64)| {
            let name = self.judge.outputs().urgencies.get(urgency).map_or("", String::as_str);
            format!(", urgency \"{name}\" ({})", percent(probability))
        };
        let urgency = scores.urgency().map(named).unwrap_or_default();
        let severity = match scores.urgencies.last() {
            Some(highest) if *highest >= CRITICAL => Severity::Critical,
            Some(_) => Severity::Warning,
            None => Severity::Notice,
        };
        let mut note = terms.as_ref().map_or_else(
            || String::from("the words that spoke for it are not shown: the field is not `clear`"),
            |terms| format!("words that spoke for it: {terms}"),
        );
        if *is_truncated {
            note.push_str("; the text is longer than what was looked at");
        }
        Sighting {
            label,
            // Each text is one.
            begins: true,
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
            text: format!("A text came that suggests {about} ({}){urgency}: please read it.", percent(probability)),
        }
    }
}

impl RowState for TriageState {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let begun = match &self.field {
            Some(field) => match row.values.get(field.column) {
                Some(FieldValue::Text(text)) => Some(self.judge.begin(text.expose(), field.is_clear, inputs)),
                _ => None,
            },
            None => None,
        };
        let (pending, rows) = match begun {
            Some(Err(awaited)) => (Pending::Away(awaited), 1),
            Some(Ok(judgement)) => (Pending::Judged(self.verdict(Some(&judgement))), 0),
            None => (Pending::Judged(self.verdict(None)), 0),
        };
        self.pending.push_back(pending);
        rows
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        match self.pending.pop_front() {
            Some(Pending::Judged(verdict)) => verdict,
            Some(Pending::Away(awaited)) => self.verdict(self.judge.end(&awaited, outputs).as_ref()),
            None => RowVerdict::default(),
        }
    }

    fn skip(&mut self) {
        self.pending.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        Writer::new(VERSION).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
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

    pub(in crate::text) fn is_flagged(text: &str) -> bool {
        verdict(FieldPolicy::Clear, text).flagged
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

    /// None of it is in what the classifier learnt from.
    #[test]
    fn of_other_languages_and_strings_without_meaning_it_says_nothing() {
        for text in [
            "La réunion de demain est reportée à la semaine prochaine",
            "Der Hund liegt im Schatten unter dem Baum und schläft",
            "El gato duerme en la silla de la cocina",
            "Il treno per Roma parte alle otto dal binario due",
            "Поезд прибыл на станцию по расписанию",
            "Kuvat ovat kauniita ja värikkäitä",
            "ネコは窓のそばで眠っています",
            "The poem has fourteen lines that rhyme in pairs",
            "My neighbour paints landscapes in watercolour",
            "今晚我们吃火锅吧",
            "这首诗写得很有意境",
            "xqzt vplm wrrg",
            "asdkjh qwoeiu zmxncb lkjhgf",
            "鎏鬟黻 齉龘",
            "......",
        ] {
            let score = verdict(FieldPolicy::Clear, text).score;
            assert!(score < 0.5, "{text}: {score}");
        }
    }

    #[test]
    fn a_card_of_before_it_said_what_labels_mean_judges_as_it_did() {
        let (card, weights) = catalog::parts(NAME, None).unwrap();
        assert!(card.label_roles.is_some());
        let score = |labels: Option<crate::card::LabelRoles>, text: &str| {
            let model = catalog::build(Card { label_roles: labels, ..card.clone() }, &weights).unwrap();
            let mut state = model.new_state(&fields(FieldPolicy::Clear));
            let values = [FieldValue::Text(Personal::new(Arc::from(text)))];
            state.take(&Row { time: Timestamp::from_secs(0), values: &values }, &mut Vec::new());
            state.judge(&[]).score
        };
        for text in
            ["El gato duerme en la silla de la cocina", "xqzt vplm wrrg", "Strong smell of gas in the staircase!"]
        {
            assert_eq!(score(None, text).to_bits(), score(card.label_roles.clone(), text).to_bits(), "{text}");
        }
        let no_such = crate::card::LabelRoles::default();
        assert!(score(Some(no_such), "xqzt vplm wrrg") > 0.0, "where no label means that, none does");
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
