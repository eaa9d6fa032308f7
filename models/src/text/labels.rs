//! What a text model's labels are called in findings, and which of them keep a text from being flagged: as the card says, or, for cards of
//! before they could say so, by the names that counted then.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::classifier::Scores;
use crate::ModelError;
use crate::card::{Card, LabelRoles, word_of};

/// Without [`Card::labels`]: the label of what a bag of n-grams has no opinion on.
const NO_OPINION_BY_NAME: &str = "other";
/// Without [`Card::labels`]: labels that ask for nothing.
const QUIET_BY_NAME: [&str; 5] = ["none", "other", "routine", "normal", "praise"];

/// The labels of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels(Vec<Label>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    /// As findings carry it.
    word: &'static str,
    is_no_opinion: bool,
    is_quiet: bool,
}

impl Labels {
    /// Of a card and the labels that its weights know; fails where the card names one that they do not.
    pub(crate) fn of(card: &Card, labels: &[String], is_bag: bool) -> Result<Self, ModelError> {
        if let Some(roles) = &card.label_roles {
            check_roles(roles, labels)
                .map_err(|why| ModelError::Damaged { model: card.name.to_string(), why: format!("its card {why}") })?;
        }
        let label = |label: &String| {
            let word = interned(label);
            let (is_no_opinion, is_quiet) = match &card.label_roles {
                Some(roles) => (roles.no_opinion.contains(label), roles.quiet.contains(label)),
                None => (is_bag && label == NO_OPINION_BY_NAME, QUIET_BY_NAME.contains(&word)),
            };
            Label { word, is_no_opinion, is_quiet }
        };
        Ok(Self(labels.iter().map(label).collect()))
    }

    /// A label as findings carry it.
    pub(super) fn word(&self, label: usize) -> &'static str {
        self.0.get(label).map_or("", |label| label.word)
    }

    /// Whether a label asks for nothing.
    pub(super) fn is_quiet(&self, label: usize) -> bool {
        self.0.get(label).is_some_and(|label| label.is_quiet)
    }

    /// Whether a label stands for what there is no opinion on.
    pub(super) fn means_no_opinion(&self, label: usize) -> bool {
        self.0.get(label).is_some_and(|label| label.is_no_opinion)
    }

    /// Whether a text is more likely one that there is no opinion on than all others together.
    pub(crate) fn is_no_opinion(&self, scores: &Scores) -> bool {
        let of_none = self.0.iter().zip(&scores.labels).filter(|(label, _)| label.is_no_opinion);
        of_none.map(|(_, probability)| probability).sum::<f64>() > 0.5
    }
}

/// Whether a model with these labels can have such roles; else what is wrong with them.
pub(crate) fn check_roles(roles: &LabelRoles, labels: &[String]) -> Result<(), String> {
    let named = roles.no_opinion.iter().chain(&roles.quiet);
    match named.into_iter().find(|named| !labels.contains(named)) {
        Some(unknown) => Err(format!("names the label {unknown:?}; the texts have {}", labels.join(", "))),
        None => Ok(()),
    }
}

/// A label as a word of identifiers, kept for the life of the process: each different one once, however often a model is loaded.
fn interned(label: &str) -> &'static str {
    static KNOWN: OnceLock<Mutex<HashSet<&'static str>>> = OnceLock::new();
    let word = word_of(label);
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = known.get(word.as_str()) {
        return word;
    }
    let word: &'static str = Box::leak(word.into_boxed_str());
    known.insert(word);
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::text::triage::NAME;

    fn labels(roles: Option<LabelRoles>, is_bag: bool) -> Result<Labels, ModelError> {
        let card = Card { label_roles: roles, ..catalog::card(NAME, None).unwrap() };
        Labels::of(&card, &["fire", "other", "lost & found"].map(String::from), is_bag)
    }

    fn roles(no_opinion: &[&str], quiet: &[&str]) -> LabelRoles {
        let owned = |names: &[&str]| names.iter().map(|name| String::from(*name)).collect();
        LabelRoles { no_opinion: owned(no_opinion), quiet: owned(quiet) }
    }

    fn scores(labels: [f64; 3]) -> Scores {
        Scores { labels: labels.to_vec(), urgencies: Vec::new() }
    }

    #[test]
    fn the_card_says_which_labels_are_no_opinion_and_a_name_alone_does_not() {
        let by_card = labels(Some(roles(&["lost & found"], &["fire"])), true).unwrap();
        assert!(!by_card.is_no_opinion(&scores([0.1, 0.8, 0.1])), "`other` is a label like any other");
        assert!(by_card.is_no_opinion(&scores([0.1, 0.3, 0.6])));
        assert_eq!([0, 1, 2].map(|label| by_card.is_quiet(label)), [true, false, false]);
        assert_eq!(by_card.word(2), "lost___found");
        // Several are one: together they are more likely than the rest.
        let two = labels(Some(roles(&["other", "lost & found"], &[])), false).unwrap();
        assert!(two.is_no_opinion(&scores([0.4, 0.3, 0.3])));
    }

    #[test]
    fn a_card_of_before_goes_by_the_names_that_counted_then() {
        let bag = labels(None, true).unwrap();
        assert!(bag.is_no_opinion(&scores([0.4, 0.6, 0.0])) && !bag.is_no_opinion(&scores([0.6, 0.4, 0.0])));
        assert!(bag.is_quiet(1) && !bag.is_quiet(0));
        assert!(!labels(None, false).unwrap().is_no_opinion(&scores([0.1, 0.9, 0.0])), "of a head it never counted");
    }

    #[test]
    fn a_card_that_names_a_label_which_there_is_not_is_refused() {
        let error = labels(Some(roles(&["sonstiges"], &[])), true).unwrap_err().to_string();
        assert!(error.contains("sonstiges") && error.contains("fire, other"), "{error}");
    }
}
