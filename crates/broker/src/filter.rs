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

/// A place in the tree. What only one filter has behind it is one node, however many levels it is: a deep filter takes its own length in
/// memory and one comparison in time, so that a crowd of them costs what their bytes cost (promise I4).
struct Node<T> {
    /// The levels that all filters of this node go on with, behind the one that it was found by; each with its `/` in front.
    run: Box<str>,
    /// By their next level.
    children: AHashMap<Box<str>, Node<T>>,
    /// Behind `+`.
    any: Option<Box<Node<T>>>,
    /// Whose filter ends here, and whose ends here with `#`.
    here: Vec<T>,
    rest: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { run: Box::default(), children: AHashMap::new(), any: None, here: Vec::new(), rest: Vec::new() }
    }
}

/// Filters and whose they are: answers whether anybody may want a topic, and who.
pub(crate) struct FilterTree<T> {
    /// Without levels of its own.
    root: Node<T>,
    filters: usize,
}

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        Self { root: Node::default(), filters: 0 }
    }
}

/// A filter's levels, each with its `/` in front, and whether `#` follows them.
fn path(filter: &str) -> (String, bool) {
    let mut path = format!("/{filter}");
    let is_open = path.ends_with("/#");
    if is_open {
        path.truncate(path.len() - 2);
    }
    (path, is_open)
}

impl<T: PartialEq> FilterTree<T> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.filters == 0
    }

    pub(crate) fn insert(&mut self, filter: &str, whose: T) {
        self.filters += 1;
        let (path, is_open) = path(filter);
        let node = self.root.reach(&path);
        if is_open { &mut node.rest } else { &mut node.here }.push(whose);
    }

    pub(crate) fn remove(&mut self, filter: &str, whose: &T) {
        let (path, is_open) = path(filter);
        if self.root.remove(&path, is_open, whose) {
            self.filters -= 1;
        }
    }

    pub(crate) fn matches_any(&self, topic: &str) -> bool {
        self.search(topic, &mut 0, &mut |_| true)
    }

    /// Shows whose filters match, once for each filter. Gives back how many nodes were looked at.
    pub(crate) fn for_each_match(&self, topic: &str, mut found: impl FnMut(&T)) -> usize {
        let mut looks = 0;
        self.search(topic, &mut looks, &mut |whose| {
            found(whose);
            false
        });
        looks
    }

    /// Shows whose filters match until one says that it is enough; gives back whether one did.
    fn search(&self, topic: &str, looks: &mut usize, enough: &mut impl FnMut(&T) -> bool) -> bool {
        if self.filters == 0 {
            return false;
        }
        // What begins with `$` no wildcard in front matches (section 4.7.2).
        let is_system = topic.starts_with('$');
        if !is_system && self.root.rest.iter().any(&mut *enough) {
            return true;
        }
        let (level, below) = topic.split_at(topic.find('/').unwrap_or(topic.len()));
        self.root.descend(level, below, is_system, looks, enough)
    }
}

fn take_out<T: PartialEq>(from: &mut Vec<T>, whose: &T) -> bool {
    let found = from.iter().position(|other| other == whose);
    found.map(|at| from.swap_remove(at)).is_some()
}

/// The first level of a path, and what follows it; `None` at its end, and where it is not one.
fn first_level(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

/// How many bytes at the front of two paths are the same whole levels.
fn in_common(one: &str, other: &str) -> usize {
    let same = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    let is_whole = |path: &str| path.as_bytes().get(same).is_none_or(|next| *next == b'/');
    if is_whole(one) && is_whole(other) {
        return same;
    }
    one.as_bytes()[..same].iter().rposition(|byte| *byte == b'/').unwrap_or(0)
}

/// What of a topic is left behind the levels of a run, where they match.
fn behind<'t>(run: &str, topic: &'t str) -> Option<&'t str> {
    // `+` stands alone in its level.
    let mut parts = run.split('+');
    let mut left = topic.strip_prefix(parts.next()?)?;
    for part in parts {
        left = &left[left.find('/').unwrap_or(left.len())..];
        left = left.strip_prefix(part)?;
    }
    (left.is_empty() || left.starts_with('/')).then_some(left)
}

impl<T: PartialEq> Node<T> {
    fn with_run(run: &str) -> Self {
        Self { run: run.into(), ..Self::default() }
    }

    fn ends_none(&self) -> bool {
        self.here.is_empty() && self.rest.is_empty()
    }

    fn is_unused(&self) -> bool {
        self.ends_none() && self.any.is_none() && self.children.is_empty()
    }

    /// The node of a path from here, made where there is none.
    fn reach(&mut self, mut path: &str) -> &mut Self {
        let mut node = self;
        loop {
            let common = in_common(&node.run, path);
            node.split(common);
            let Some((level, below)) = first_level(&path[common..]) else { return node };
            node = match level {
                "+" => &mut **node.any.get_or_insert_with(|| Box::new(Self::with_run(below))),
                level => node.children.entry(level.into()).or_insert_with(|| Self::with_run(below)),
            };
            path = below;
        }
    }

    /// Leaves the first `at` bytes of its run to this node, and the rest, with all that it had, to one below it.
    fn split(&mut self, at: usize) {
        let run = std::mem::take(&mut self.run);
        let (front, back) = run.split_at(at);
        let Some((level, below)) = first_level(back) else {
            self.run = run;
            return;
        };
        let lower = Self { run: below.into(), ..std::mem::take(self) };
        self.run = front.into();
        if level == "+" {
            self.any = Some(Box::new(lower));
        } else {
            self.children.insert(level.into(), lower);
        }
    }

    /// Takes in the only node below, where nothing ends here.
    fn join(&mut self) {
        if !self.ends_none() || self.children.len() + usize::from(self.any.is_some()) != 1 {
            return;
        }
        let (level, lower) = match self.any.take() {
            Some(any) => ("+".into(), *any),
            None => match self.children.drain().next() {
                Some(only) => only,
                None => return,
            },
        };
        let run = [&*self.run, "/", &*level, &*lower.run].concat();
        *self = Self { run: run.into(), ..lower };
    }

    fn remove(&mut self, path: &str, is_open: bool, whose: &T) -> bool {
        let Some(path) = path.strip_prefix(&*self.run) else { return false };
        if path.is_empty() {
            return take_out(if is_open { &mut self.rest } else { &mut self.here }, whose);
        }
        let Some((level, below)) = first_level(path) else { return false };
        let child = if level == "+" { self.any.as_deref_mut() } else { self.children.get_mut(level) };
        let Some(child) = child else { return false };
        let found = child.remove(below, is_open, whose);
        if !child.is_unused() {
            child.join();
        } else if level == "+" {
            self.any = None;
        } else {
            self.children.remove(level);
        }
        found
    }

    /// `topic` is what is left of it, each level with its `/` in front. As deep as the deepest filter, which the configuration bounds.
    fn find(&self, topic: &str, looks: &mut usize, enough: &mut impl FnMut(&T) -> bool) -> bool {
        *looks += 1 + self.run.len() / 64;
        let Some(topic) = behind(&self.run, topic) else { return false };
        if self.rest.iter().any(&mut *enough) {
            return true;
        }
        let Some((level, below)) = first_level(topic) else { return self.here.iter().any(enough) };
        self.descend(level, below, false, looks, enough)
    }

    fn descend(
        &self,
        level: &str,
        below: &str,
        is_system: bool,
        looks: &mut usize,
        enough: &mut impl FnMut(&T) -> bool,
    ) -> bool {
        self.children.get(level).is_some_and(|child| child.find(below, looks, enough))
            || (!is_system && self.any.as_ref().is_some_and(|any| any.find(below, looks, enough)))
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

    fn nodes<T>(node: &Node<T>) -> usize {
        1 + node.children.values().chain(node.any.as_deref()).map(nodes).sum::<usize>()
    }

    /// A crowd of deep filters takes two nodes each, not one for every level, and what is looked at for a topic is likewise few.
    #[test]
    fn deep_filters_cost_no_more_than_their_bytes() {
        let mut tree = FilterTree::default();
        let level = |n: usize, depth: usize| if ((n * 2_654_435_761) >> (depth % 24)) & 1 == 0 { "a" } else { "+" };
        let filter = |n: usize| (0..127).map(|depth| level(n, depth)).chain(["z"]).collect::<Vec<_>>().join("/");
        (0..1_000).for_each(|n| tree.insert(&filter(n), n));
        assert!(nodes(&tree.root) < 2_100, "{}", nodes(&tree.root));
        let topic = vec!["a"; 128].join("/");
        let looks = tree.for_each_match(&topic, |_| panic!("no filter ends like this topic"));
        assert!(looks < 10_000, "{looks}");
        let mut found = Vec::new();
        tree.for_each_match(&format!("{}/z", vec!["a"; 127].join("/")), |n| found.push(*n));
        assert_eq!(found.len(), 1_000);
        (0..1_000).for_each(|n| tree.remove(&filter(n), &n));
        assert!(tree.is_empty() && tree.root.is_unused());
    }

    #[test]
    fn what_is_taken_out_leaves_no_seams() {
        let mut tree = FilterTree::default();
        for filter in ["a/b/c", "a/b/d/#", "a", "a/+/c/d", "ab/c"] {
            tree.insert(filter, filter);
        }
        let before = nodes(&tree.root);
        for filter in ["a/b", "a/bc", "a/b/c/d/e", "#", "+", "a/#"] {
            tree.insert(filter, filter);
        }
        for filter in ["a/b", "a/bc", "a/b/c/d/e", "#", "+", "a/#"] {
            tree.remove(filter, &filter);
        }
        assert_eq!(nodes(&tree.root), before);
        for (topic, expected) in
            [("a/b/c", "a/b/c"), ("a/b/d", "a/b/d/#"), ("a", "a"), ("a/x/c/d", "a/+/c/d"), ("ab/c", "ab/c")]
        {
            let mut found = Vec::new();
            tree.for_each_match(topic, |filter| found.push(*filter));
            assert_eq!(found, [expected], "{topic}");
        }
        assert!(!tree.matches_any("a/b") && !tree.matches_any("ab") && !tree.matches_any("a/b/cx"));
    }
}
