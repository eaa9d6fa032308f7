//! Topic filters: their form, what they match, and an index of all filters that anybody subscribed to.

use std::collections::HashMap;

/// Whether a filter has the form of section 4.7.1 of MQTT 5.
pub(crate) fn is_valid(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.contains(['+', '#']);
        if wild && (level.len() > 1 || (level == "#" && levels.peek().is_some())) {
            return false;
        }
    }
    true
}

/// Whether `topic` matches `filter`; a first level that starts with `$` matches no wildcard (section 4.7.2).
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Filters that end here, and those that end here with `#`.
    here: usize,
    rest: usize,
}

/// All filters with the number of their subscriptions: answers whether anybody may want a topic.
#[derive(Default)]
pub(crate) struct FilterIndex {
    root: Node,
    filters: usize,
}

impl FilterIndex {
    pub(crate) const fn is_empty(&self) -> bool {
        self.filters == 0
    }

    pub(crate) fn insert(&mut self, filter: &str) {
        self.filters += 1;
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => {
                    node.rest += 1;
                    return;
                }
                "+" => node = node.any.get_or_insert_default(),
                level => node = node.children.entry(level.into()).or_default(),
            }
        }
        node.here += 1;
    }

    pub(crate) fn remove(&mut self, filter: &str) {
        let levels: Vec<&str> = filter.split('/').collect();
        if self.root.remove(&levels) {
            self.filters -= 1;
        }
    }

    pub(crate) fn matches_any(&self, topic: &str) -> bool {
        if self.filters == 0 {
            return false;
        }
        let levels: Vec<&str> = topic.split('/').collect();
        self.root.matches(&levels, topic.starts_with('$'))
    }
}

impl Node {
    fn is_unused(&self) -> bool {
        self.here == 0 && self.rest == 0 && self.any.is_none() && self.children.is_empty()
    }

    fn remove(&mut self, levels: &[&str]) -> bool {
        let Some((level, rest)) = levels.split_first() else {
            let found = self.here > 0;
            self.here -= usize::from(found);
            return found;
        };
        match *level {
            "#" => {
                let found = self.rest > 0;
                self.rest -= usize::from(found);
                found
            }
            "+" => {
                let found = self.any.as_mut().is_some_and(|any| any.remove(rest));
                if self.any.as_ref().is_some_and(|any| any.is_unused()) {
                    self.any = None;
                }
                found
            }
            level => {
                let found = self.children.get_mut(level).is_some_and(|child| child.remove(rest));
                if self.children.get(level).is_some_and(Self::is_unused) {
                    self.children.remove(level);
                }
                found
            }
        }
    }

    fn matches(&self, levels: &[&str], system: bool) -> bool {
        if self.rest > 0 && !system {
            return true;
        }
        let Some((level, rest)) = levels.split_first() else { return self.here > 0 };
        self.children.get(*level).is_some_and(|child| child.matches(rest, false))
            || (!system && self.any.as_ref().is_some_and(|any| any.matches(rest, false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_are_checked() {
        for good in ["#", "+", "a/#", "+/+", "/", "城市/+/车速", "$SYS/#", "a//b"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a/#/b", "a#", "a/b+", "#/a", "a\0"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn examples_of_the_standard() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    fn level(wild: bool) -> impl Strategy<Value = String> {
        if wild { "[ab$+]|" } else { "[ab$]|" }.prop_map(|level: String| level)
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_matching_each(
            filters in prop::collection::vec((prop::collection::vec(level(true), 1..4), any::<bool>()), 0..6),
            gone in any::<prop::sample::Index>(),
            topic in prop::collection::vec(level(false), 1..4),
        ) {
            let topic = topic.join("/");
            let mut filters: Vec<String> = filters
                .into_iter()
                .map(|(levels, rest)| if rest { format!("{}/#", levels.join("/")) } else { levels.join("/") })
                .filter(|filter| is_valid(filter))
                .collect();
            let mut index = FilterIndex::default();
            filters.iter().for_each(|filter| index.insert(filter));
            if !filters.is_empty() {
                let filter = filters.remove(gone.index(filters.len()));
                index.remove(&filter);
            }
            index.remove("never/there");
            prop_assume!(!topic.is_empty());
            prop_assert_eq!(index.matches_any(&topic), filters.iter().any(|filter| matches(filter, &topic)));
            filters.iter().for_each(|filter| index.remove(filter));
            prop_assert!(index.is_empty() && index.root.is_unused());
        }
    }
}
