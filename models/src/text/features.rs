//! A text as a sparse vector: n-grams of words and of characters, hashed into a fixed number of buckets (Weinberger et al., *Feature
//! Hashing for Large Scale Multitask Learning*, ICML 2009), so that there is no vocabulary and no tokenizer file.
//!
//! Text is folded first: lower case, full-width forms as ASCII, digits all alike. Languages that put spaces between words give
//! words, pairs of words (neighbours and next but one) and the 3- to 5-grams of each word's characters, which bear typing
//! errors and endings; Chinese, Japanese and Korean give the 1- to 4-grams of characters.
//!
//! How large a number is says nothing by itself, and much beside what it measures: `SpO2 82` is not `SpO2 98`. So a number also gives
//! its size, in steps of 3 % and of 15 %, paired with each word or pair of ideographs shortly before it, and with the next after it.

use std::ops::Range;

/// Units (words, ideographs) of a text that are looked at; the rest is not.
pub const MOST_UNITS: usize = 600;
/// Characters of a word that are looked at.
const MOST_WORD: usize = 40;
/// Lengths of the character n-grams of words, and of ideographs.
const WORD_GRAMS: Range<usize> = 3..6;
const IDEOGRAPH_GRAMS: Range<usize> = 1..5;
/// Units before a number that may say what it measures.
const BEFORE_NUMBER: usize = 8;
/// The steps of a number's size, as ratios, and the kinds of n-gram that they give.
const NUMBER_STEPS: [(f32, u8); 2] = [(1.03, b'n'), (1.15, b'm')];

/// Which n-grams of a text are taken: weights know those that they learnt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Features {
    /// Of words and of characters.
    Words,
    /// And of numbers with what they measure.
    #[default]
    WordsAndNumbers,
}

/// A word, an ideograph or a mark that carries meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Its characters, folded.
    pub text: String,
    /// Whether it is one character of a language written without spaces.
    pub is_ideograph: bool,
    /// The number that begins in it.
    pub number: Option<f32>,
}

/// The units of a text in reading order, at most [`MOST_UNITS`].
pub fn units(text: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut word = String::new();
    let mut length = 0;
    // Whether a point has just ended a word of digits, so that digits which follow are its fraction.
    let mut has_point = false;
    for character in text.chars().flat_map(fold) {
        if units.len() >= MOST_UNITS {
            return units;
        }
        let is_ideograph = is_ideograph(character);
        if character.is_alphanumeric() && !is_ideograph {
            if length < MOST_WORD {
                word.push(character);
            }
            length += 1;
            continue;
        }
        let ends_digits = word.ends_with(|last: char| last.is_ascii_digit());
        if !word.is_empty() {
            push_word(&mut units, &std::mem::take(&mut word), has_point);
            length = 0;
        }
        has_point = ends_digits && character == '.';
        if is_ideograph || matches!(character, '?' | '!') {
            units.push(Unit { text: character.to_string(), is_ideograph, number: None });
        }
    }
    if !word.is_empty() && units.len() < MOST_UNITS {
        push_word(&mut units, &word, has_point);
    }
    units
}

/// A word with its digits all alike, and the number at its beginning (`38c`) or its end (`hr120`). Behind a point it may begin with the
/// fraction of the number before it.
fn push_word(units: &mut Vec<Unit>, word: &str, has_point: bool) {
    let is_digit = |character: char| character.is_ascii_digit();
    let first = &word[..word.len() - word.trim_start_matches(is_digit).len()];
    let last = &word[word.trim_end_matches(is_digit).len()..];
    let whole = units.last_mut().filter(|_| has_point && !first.is_empty()).and_then(|unit| unit.number.as_mut());
    let number = match whole {
        Some(whole) => {
            *whole += format!("0.{first}").parse::<f32>().unwrap_or(0.0);
            None
        }
        None => [first, last].into_iter().find_map(|digits| digits.parse().ok()),
    };
    let text = word.chars().map(|character| if is_digit(character) { '0' } else { character }).collect();
    units.push(Unit { text, is_ideograph: false, number });
}

/// Lower case; full-width forms and the ideographic space as ASCII. An apostrophe joins (`can't` is one word).
fn fold(character: char) -> impl Iterator<Item = char> {
    let narrow = match character {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(character) - 0xFEE0).unwrap_or(character),
        '\u{3000}' => ' ',
        other => other,
    };
    let kept = (!matches!(narrow, '\'' | '\u{2019}')).then_some(narrow);
    kept.into_iter().flat_map(char::to_lowercase)
}

/// Ideographs, kana and Hangul syllables.
const fn is_ideograph(character: char) -> bool {
    matches!(character,
        '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7AF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{2FA1F}')
}

/// One n-gram: its hash, and the units it spans (first and last, both within).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gram {
    /// 64 bits; the bucket is its remainder.
    pub hash: u64,
    /// The first unit.
    pub first: usize,
    /// The last unit.
    pub last: usize,
}

/// All n-grams of a text.
pub fn grams(units: &[Unit], features: Features) -> Vec<Gram> {
    let mut grams = Vec::with_capacity(units.len() * 16);
    for (at, unit) in units.iter().enumerate() {
        if let (Features::WordsAndNumbers, Some(number)) = (features, unit.number) {
            number_grams(units, at, number, &mut grams);
        }
        if unit.is_ideograph {
            ideograph_grams(units, at, &mut grams);
            continue;
        }
        let mut gram = |kind, parts: &[&str], last| grams.push(Gram { hash: hash(kind, parts), first: at, last });
        gram(b'w', &[&unit.text], at);
        for (kind, distance) in [(b'b', 1), (b's', 2)] {
            if let Some(next) = units.get(at + distance).filter(|next| !next.is_ideograph) {
                gram(kind, &[&unit.text, &next.text], at + distance);
            }
        }
        let marked: Vec<char> = std::iter::once('<').chain(unit.text.chars()).chain(std::iter::once('>')).collect();
        for length in WORD_GRAMS {
            for piece in marked.windows(length) {
                gram(b'c', &[&piece.iter().collect::<String>()], at);
            }
        }
    }
    grams
}

/// The n-grams that begin with the ideograph at `at`.
fn ideograph_grams(units: &[Unit], at: usize, grams: &mut Vec<Gram>) {
    let run = units.iter().skip(at).take(IDEOGRAPH_GRAMS.end - 1).take_while(|unit| unit.is_ideograph);
    let run: Vec<&str> = run.map(|unit| unit.text.as_str()).collect();
    for length in IDEOGRAPH_GRAMS.take_while(|length| *length <= run.len()) {
        grams.push(Gram { hash: hash(b'i', &run[..length]), first: at, last: at + length - 1 });
    }
}

/// A number's size with the words around it. What stands before the number before it may be meant too (`BP 120/80`), in a way of its own;
/// what stands before two is not.
fn number_grams(units: &[Unit], at: usize, number: f32, grams: &mut Vec<Gram>) {
    let is_number = |unit: &Unit| unit.text.chars().all(|character| character == '0');
    let letters = units[at].text.trim_matches('0');
    let sizes = NUMBER_STEPS.map(|(ratio, kind)| {
        let size = if number > 0.0 { (number.ln() / ratio.ln()).round() as i32 } else { i32::MIN };
        (kind, size.to_string())
    });
    let mut pair = |relation: &str, words: &[&str], first: usize, last: usize| {
        for (kind, size) in &sizes {
            let parts: Vec<&str> = [relation, size.as_str()].into_iter().chain(words.iter().copied()).collect();
            grams.push(Gram { hash: hash(*kind, &parts), first, last });
        }
    };
    if !letters.is_empty() {
        pair("of", &[letters], at, at);
    }
    let mut relation = "of";
    for before in (at.saturating_sub(BEFORE_NUMBER)..at).rev() {
        let unit = &units[before];
        if is_number(unit) {
            if relation != "of" {
                break;
            }
            relation = "second of";
        } else if !unit.is_ideograph {
            pair(relation, &[&unit.text], before, at);
        } else if let Some(next) = units.get(before + 1).filter(|next| next.is_ideograph) {
            pair(relation, &[&unit.text, &next.text], before, at);
        }
    }
    if let Some(next) = units.get(at + 1).filter(|next| !is_number(next)) {
        pair("then", &[&next.text], at, at + 1);
    }
}

/// FNV-1a over kind and parts, mixed once more (Stafford's variant 13, as in SplitMix64) so that low bits are as good as high ones.
fn hash(kind: u8, parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    eat(kind);
    for part in parts {
        part.bytes().for_each(&mut eat);
        eat(0);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// How often each bucket occurs in a text, as 1 + ln(count), by ascending bucket. `buckets` is a power of two.
pub fn counts(grams: &[Gram], buckets: usize) -> Vec<(usize, f32)> {
    let mut all: Vec<usize> = grams.iter().map(|gram| bucket(gram.hash, buckets)).collect();
    all.sort_unstable();
    all.chunk_by(|a, b| a == b).map(|same| (same[0], 1.0 + (same.len() as f32).ln())).collect()
}

/// The bucket of a hash.
pub const fn bucket(hash: u64, buckets: usize) -> usize {
    (hash % buckets as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<String> {
        units(text).into_iter().map(|unit| unit.text).collect()
    }

    #[test]
    fn case_width_digits_and_apostrophes_are_folded() {
        assert_eq!(texts("The Pump's AT 17:45!"), ["the", "pumps", "at", "00", "00", "!"]);
        assert_eq!(texts("ＡＢＣ　１２？"), ["abc", "00", "?"]);
        assert_eq!(texts("路灯坏了,LED灯"), ["路", "灯", "坏", "了", "led", "灯"]);
    }

    #[test]
    fn n_grams_know_which_units_they_span() {
        let units = units("no chest pain 胸痛");
        let spans: Vec<(usize, usize)> =
            grams(&units, Features::Words).iter().map(|gram| (gram.first, gram.last)).collect();
        for expected in [(0, 0), (0, 1), (0, 2), (3, 3), (3, 4)] {
            assert!(spans.contains(&expected), "{expected:?}");
        }
        assert!(!spans.contains(&(2, 3)), "words and ideographs are not paired");
    }

    #[test]
    fn numbers_are_read_with_their_fractions_and_wherever_they_stand_in_a_word() {
        let numbers = |text: &str| units(text).into_iter().filter_map(|unit| unit.number).collect::<Vec<f32>>();
        assert_eq!(numbers("BP 70/40, HR138 RR:28"), [70.0, 40.0, 138.0, 28.0]);
        assert_eq!(numbers("体温39.5℃，K7.25 38c"), [39.5, 7.25, 38.0]);
        assert_eq!(numbers("1.5. 2 . 5"), [1.5, 2.0, 5.0]);
        assert!(numbers(&"9".repeat(400)).iter().all(|number| *number > 1e38));
    }

    #[test]
    fn a_number_is_told_by_its_size_and_what_it_measures() {
        let of = |text: &str, features| -> Vec<u64> {
            let units = units(text);
            grams(&units, features).into_iter().map(|gram| gram.hash).collect()
        };
        let number = |text: &str| -> Vec<u64> {
            let words = of(text, Features::Words);
            of(text, Features::WordsAndNumbers).into_iter().filter(|hash| !words.contains(hash)).collect()
        };
        assert_eq!(of("SpO2 82", Features::Words), of("SpO2 98", Features::Words));
        let shared = |a: &str, b: &str| number(a).iter().filter(|hash| number(b).contains(hash)).count();
        assert_eq!(shared("SpO2 82", "SpO2 98"), 2, "the 2 in the name alone");
        assert!(shared("SpO2 82", "SpO2 is still 82") > 2);
        assert!(shared("血氧82", "血氧仍只有82") > 0);
        assert_eq!(shared("血氧82", "血氧98"), 0);
        assert_eq!(shared("pulse 82", "respiration 82"), 0);
        assert!(shared("BP 120/80", "BP 140/80") > 0, "the second is of it too");
    }

    proptest! {
        #[test]
        fn any_text_is_bounded_and_means_the_same_in_upper_case(text in "\\PC{0,200}") {
            let units = units(&text);
            prop_assert!(units.len() <= MOST_UNITS);
            let counts = counts(&grams(&units, Features::default()), 1 << 10);
            prop_assert!(counts.is_sorted_by(|a, b| a.0 < b.0));
            if text.is_ascii() {
                prop_assert_eq!(texts(&text), texts(&text.to_uppercase()));
            }
        }
    }

    #[test]
    fn a_long_text_costs_no_more_than_its_bound() {
        assert_eq!(units(&"字".repeat(100_000)).len(), MOST_UNITS);
        assert_eq!(
            units(&"x".repeat(100_000)),
            [Unit { text: "x".repeat(MOST_WORD), is_ideograph: false, number: None }]
        );
    }
}
