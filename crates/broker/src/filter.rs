//! Topic filters: their form, what they match, and a tree of all filters that anybody subscribed to.

use ahash::AHashMap;
use nearside_schemas::FEEDBACK_TOPIC;

/// Whether a filter has the form of section 4.7.1 of MQTT 5.
pub(crate) fn is_valid(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
        return false;
    }
    if filter.starts_with("$share/") {
        let named = share(filter)
            .is_some_and(|(name, rest)| !name.is_empty() && !name.contains(['+', '#']) && !rest.is_empty());
        if !named {
            return false;
        }
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

/// Whether what is said on a topic is the gateway's to say (section 4.7.2): clients may not, not even as a will.
pub(crate) fn is_ours(topic: &str) -> bool {
    topic.starts_with("$SYS/") || topic.starts_with("$nearside/") && topic != FEEDBACK_TOPIC
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

/// The group's name and the filter of a shared subscription `$share/NAME/FILTER` (section 4.8.2).
pub(crate) fn share(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// The filter itself, without the group in front.
pub(crate) fn unshared(filter: &str) -> &str {
    share(filter).map_or(filter, |(_, filter)| filter)
}

struct Node<T> {
    children: AHashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    /// Whose filter ends here, and whose ends here with `#`.
    here: Vec<T>,
    rest: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { children: AHashMap::new(), any: None, here: Vec::new(), rest: Vec::new() }
    }
}

/// Filters and whose they are: answers whether anybody may want a topic, and who.
pub(crate) struct FilterTree<T> {
    root: Node<T>,
    filters: usize,
}

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        Self { root: Node::default(), filters: 0 }
    }
}

impl<T: PartialEq> FilterTree<T> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.filters == 0
    }

    pub(crate) fn insert(&mut self, filter: &str, whose: T) {
        self.filters += 1;
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => {
                    node.rest.push(whose);
                    return;
                }
                "+" => node = node.any.get_or_insert_default(),
                level => node = node.children.entry(level.into()).or_default(),
            }
        }
        node.here.push(whose);
    }

    pub(crate) fn remove(&mut self, filter: &str, whose: &T) {
        let levels: Vec<&str> = filter.split('/').collect();
        if self.root.remove(&levels, whose) {
            self.filters -= 1;
        }
    }

    pub(crate) fn matches_any(&self, topic: &str) -> bool {
        if self.filters == 0 {
            return false;
        }
        self.root.find(Some(topic), topic.starts_with('$'), &mut |_| true)
    }

    /// Shows whose filters match, once for each filter.
    pub(crate) fn for_each_match(&self, topic: &str, mut found: impl FnMut(&T)) {
        if self.filters == 0 {
            return;
        }
        self.root.find(Some(topic), topic.starts_with('$'), &mut |whose| {
            found(whose);
            false
        });
    }
}

fn take_out<T: PartialEq>(from: &mut Vec<T>, whose: &T) -> bool {
    let found = from.iter().position(|other| other == whose);
    found.map(|at| from.swap_remove(at)).is_some()
}

impl<T: PartialEq> Node<T> {
    fn is_unused(&self) -> bool {
        self.here.is_empty() && self.rest.is_empty() && self.any.is_none() && self.children.is_empty()
    }

    fn remove(&mut self, levels: &[&str], whose: &T) -> bool {
        let Some((level, rest)) = levels.split_first() else { return take_out(&mut self.here, whose) };
        match *level {
            "#" => take_out(&mut self.rest, whose),
            "+" => {
                let found = self.any.as_mut().is_some_and(|any| any.remove(rest, whose));
                if self.any.as_ref().is_some_and(|any| any.is_unused()) {
                    self.any = None;
                }
                found
            }
            level => {
                let found = self.children.get_mut(level).is_some_and(|child| child.remove(rest, whose));
                if self.children.get(level).is_some_and(Self::is_unused) {
                    self.children.remove(level);
                }
                found
            }
        }
    }

    /// Shows whose filters match until one says that it is enough; gives back whether one did. `levels` are those of the topic that are
    /// left, none at its end. As deep as the deepest filter, which the configuration bounds.
    fn find(&self, levels: Option<&str>, system: bool, enough: &mut impl FnMut(&T) -> bool) -> bool {
        if !system && self.rest.iter().any(&mut *enough) {
            return true;
        }
        let Some(levels) = levels else { return self.here.iter().any(enough) };
        let (level, rest) = levels.split_once('/').map_or((levels, None), |(level, rest)| (level, Some(rest)));
        self.children.get(level).is_some_and(|child| child.find(rest, false, enough))
            || (!system && self.any.as_ref().is_some_and(|any| any.find(rest, false, enough)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_are_checked() {
        for good in ["#", "+", "a/#", "+/+", "/", "城市/+/车速", "$SYS/#", "a//b", "$share/g/#", "$share/g//a"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in
            ["", "a/#/b", "a#", "a/b+", "#/a", "a\0", "$share/g", "$share//a", "$share/g/", "$share/+/a", "$share/#"]
        {
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
        fn the_tree_agrees_with_matching_each(
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
            let mut tree = FilterTree::default();
            filters.iter().for_each(|filter| tree.insert(filter, filter.clone()));
            if !filters.is_empty() {
                let filter = filters.remove(gone.index(filters.len()));
                tree.remove(&filter, &filter);
            }
            tree.remove("never/there", &String::new());
            prop_assume!(!topic.is_empty());
            let mut expected: Vec<String> = filters.iter().filter(|filter| matches(filter, &topic)).cloned().collect();
            let mut found = Vec::new();
            tree.for_each_match(&topic, |filter| found.push(filter.clone()));
            expected.sort();
            found.sort();
            prop_assert_eq!(tree.matches_any(&topic), !expected.is_empty());
            prop_assert_eq!(found, expected);
            filters.iter().for_each(|filter| tree.remove(filter, filter));
            prop_assert!(tree.is_empty() && tree.root.is_unused());
        }
    }
}
