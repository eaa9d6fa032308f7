//! A text as a sparse vector: n-grams of words and of characters, hashed into a fixed number of buckets (Weinberger et al., *Feature
//! Hashing for Large Scale Multitask Learning*, ICML 2009), so that there is no vocabulary and no tokenizer file.
//!
//! Text is folded first: lower case, full-width forms as ASCII, digits all alike. Languages that put spaces between words give
//! words, pairs of words (neighbours and next but one) and the 3- to 5-grams of each word's characters, which bear typing
//! errors and endings; Chinese, Japanese and Korean give the 1- to 4-grams of characters.

use std::ops::Range;

/// Units (words, ideographs) of a text that are looked at; the rest is not.
pub const MOST_UNITS: usize = 600;
/// Characters of a word that are looked at.
const MOST_WORD: usize = 40;
/// Lengths of the character n-grams of words, and of ideographs.
const WORD_GRAMS: Range<usize> = 3..6;
const IDEOGRAPH_GRAMS: Range<usize> = 1..5;

/// A word, an ideograph or a mark that carries meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its characters, folded.
    pub text: String,
    /// Whether it is one character of a language written without spaces.
    pub is_ideograph: bool,
}

/// The units of a text in reading order, at most [`MOST_UNITS`].
pub fn units(text: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut word = String::new();
    let mut length = 0;
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
        if !word.is_empty() {
            units.push(Unit { text: std::mem::take(&mut word), is_ideograph: false });
            length = 0;
        }
        if is_ideograph || matches!(character, '?' | '!') {
            units.push(Unit { text: character.to_string(), is_ideograph });
        }
    }
    if !word.is_empty() && units.len() < MOST_UNITS {
        units.push(Unit { text: word, is_ideograph: false });
    }
    units
}

/// Lower case; full-width forms and the ideographic space as ASCII; every digit 0: a number's size says little, that there is one
/// may say something. An apostrophe joins (`can't` is one word).
fn fold(character: char) -> impl Iterator<Item = char> {
    let narrow = match character {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(character) - 0xFEE0).unwrap_or(character),
        '\u{3000}' => ' ',
        other => other,
    };
    let kept = (!matches!(narrow, '\'' | '\u{2019}')).then_some(narrow);
    kept.into_iter().flat_map(char::to_lowercase).map(|folded| if folded.is_ascii_digit() { '0' } else { folded })
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
pub fn grams(units: &[Unit]) -> Vec<Gram> {
    let mut grams = Vec::with_capacity(units.len() * 16);
    for (at, unit) in units.iter().enumerate() {
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
        let spans: Vec<(usize, usize)> = grams(&units).iter().map(|gram| (gram.first, gram.last)).collect();
        for expected in [(0, 0), (0, 1), (0, 2), (3, 3), (3, 4)] {
            assert!(spans.contains(&expected), "{expected:?}");
        }
        assert!(!spans.contains(&(2, 3)), "words and ideographs are not paired");
    }

    proptest! {
        #[test]
        fn any_text_is_bounded_and_means_the_same_in_upper_case(text in "\\PC{0,200}") {
            let units = units(&text);
            prop_assert!(units.len() <= MOST_UNITS);
            let counts = counts(&grams(&units), 1 << 10);
            prop_assert!(counts.is_sorted_by(|a, b| a.0 < b.0));
            if text.is_ascii() {
                prop_assert_eq!(texts(&text), texts(&text.to_uppercase()));
            }
        }
    }

    #[test]
    fn a_long_text_costs_no_more_than_its_bound() {
        assert_eq!(units(&"字".repeat(100_000)).len(), MOST_UNITS);
        assert_eq!(units(&"x".repeat(100_000)), [Unit { text: "x".repeat(MOST_WORD), is_ideograph: false }]);
    }
}
