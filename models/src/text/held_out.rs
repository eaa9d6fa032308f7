//! What the shipped classifier is worth on texts that were written apart from its phrases, and that they stay apart.

use std::collections::BTreeSet;

use crate::text::features::{Unit, units};

/// A text of the list.
struct HeldOut {
    urgency: &'static str,
    language: &'static str,
    text: &'static str,
}

fn held_out() -> Vec<HeldOut> {
    let lines = include_str!("held_out.tsv").lines().filter(|line| !line.starts_with('#'));
    let read = |line: &'static str| {
        let parts: Vec<&str> = line.split('\t').collect();
        HeldOut { urgency: parts[0], language: parts[1], text: parts[3] }
    };
    lines.map(read).collect()
}

/// Words of four letters or more, and pairs of ideographs.
fn pieces(text: &str) -> BTreeSet<String> {
    let units = units(text);
    let piece = |(at, unit): (usize, &Unit)| match units.get(at + 1) {
        Some(next) if unit.is_ideograph && next.is_ideograph => Some(format!("{}{}", unit.text, next.text)),
        _ => (!unit.is_ideograph && unit.text.chars().count() > 3).then(|| unit.text.clone()),
    };
    units.iter().enumerate().filter_map(piece).collect()
}

#[test]
fn no_urgent_text_of_the_list_is_learnt_from() {
    let learnt: Vec<BTreeSet<String>> = crate::train::generated(1).iter().map(|text| pieces(text)).collect();
    let urgent = held_out().into_iter().filter(|text| text.urgency == "now");
    let shares: Vec<(f64, &str)> = urgent
        .map(|HeldOut { text, .. }| {
            let own = pieces(text);
            let most = learnt.iter().map(|learnt| own.intersection(learnt).count()).max().unwrap_or(0);
            (if own.len() < 3 { 0.0 } else { most as f64 / own.len() as f64 }, text)
        })
        .collect();
    for (share, text) in &shares {
        assert!(*share < 0.85, "{text}: {share:.2} of its words stand in one generated text");
    }
    let mean = shares.iter().map(|(share, _)| share).sum::<f64>() / shares.len() as f64;
    assert!(mean < 0.4, "{mean:.2} of their words stand in one generated text, on average");
}

#[test]
fn of_what_is_urgent_most_is_flagged_and_little_else() {
    let flagged = |text: &str| super::triage::tests::is_flagged(text);
    let share = |urgency: &str, languages: &[&str]| {
        let mut texts = held_out();
        texts.retain(|text| text.urgency == urgency && languages.contains(&text.language));
        assert!(texts.len() >= 36, "{urgency}: {}", texts.len());
        let count = texts.iter().filter(|text| flagged(text.text)).count();
        (count, count as f64 / texts.len() as f64)
    };
    let (english, chinese) = (share("now", &["en"]), share("now", &["zh"]));
    let others = ["soon", "routine", "none"].map(|urgency| share(urgency, &["en", "zh", "xx"]));
    println!("now: {english:?} in English, {chinese:?} in Chinese; soon, routine, none of ours: {others:?}");
    assert!(english.1 >= 0.8 && chinese.1 >= 0.8, "{english:?} {chinese:?}");
    let right = english.0 + chinese.0;
    let precision = right as f64 / (right + others.iter().map(|(count, _)| count).sum::<usize>()) as f64;
    assert!(precision >= 0.82, "{precision}: {others:?}");
    assert!(others[2].0 <= 2, "other languages and small talk: {:?}", others[2]);
}
