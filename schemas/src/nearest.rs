//! "Did you mean": the known name that somebody who misspelt one probably meant.

/// The known name that is nearest to `name`, if it is near: one mistake, and one more for every three bytes.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let scored = known.into_iter().map(|other| (distance(name, other), other));
    scored.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= 1 + name.len() / 3).map(|(_, n)| n)
}

/// `what` `name`, with the nearest known name, or all of them where none is near.
pub fn unknown_name<'k>(what: &str, name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("{what} `{name}`; did you mean `{near}`?"),
        None => format!("{what} `{name}`; known: {}", known.join(", ")),
    }
}

/// Levenshtein's distance, where two neighbours that changed places are one mistake too.
fn distance(a: &str, b: &str) -> usize {
    let [a, b]: [Vec<char>; 2] = [a, b].map(|text| text.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mistake_is_near_and_another_word_is_not() {
        for (name, known, expected) in [
            ("maen", ["max", "mean"], Some("mean")),
            ("lable", ["text", "label"], Some("label")),
            ("spikes", ["spike", "drop"], Some("spike")),
            ("", ["max", "mean"], None),
            ("temperature", ["max", "mean"], None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
