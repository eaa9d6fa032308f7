//! Patterns of topics that somebody may publish or subscribe to.

use serde::Deserialize;

use crate::filter;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Level {
    Literal(Box<str>),
    /// `+`.
    Any,
    /// `#`.
    Rest,
    /// `{user}`.
    User,
    /// `{client}`.
    Client,
}

/// A topic filter whose levels may be `{user}` or `{client}`: whoever it is checked for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pattern(Vec<Level>);

impl TryFrom<String> for Pattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if !filter::is_valid(&text) || text.starts_with("$share/") {
            return Err(format!("`{text}` is no topic filter"));
        }
        let level = |level: &str| match level {
            "+" => Ok(Level::Any),
            "#" => Ok(Level::Rest),
            "{user}" => Ok(Level::User),
            "{client}" => Ok(Level::Client),
            level if level.contains(['{', '}']) => {
                Err(format!("`{level}` in `{text}`: a level may be {{user}} or {{client}}, and nothing else in braces"))
            }
            level => Ok(Level::Literal(level.into())),
        };
        text.split('/').map(level).collect::<Result<_, _>>().map(Self)
    }
}

impl Pattern {
    /// Whether it matches every topic that `filter` matches; a topic is a filter for itself. A level that starts with `$` in
    /// front is only covered by the same text.
    pub(crate) fn covers(&self, filter: &str, user: Option<&str>, client: &str) -> bool {
        let system = filter.starts_with('$');
        let mut wanted = filter.split('/');
        for (depth, level) in self.0.iter().enumerate() {
            let wild = !(depth == 0 && system);
            let covered = match (level, wanted.next()) {
                (Level::Rest, _) => return wild,
                (Level::Any, Some(level)) => wild && level != "#",
                (Level::Literal(text), Some(level)) => text.as_ref() == level,
                (Level::User, Some(level)) => wild && user.is_some_and(|user| is_one_level(user) && user == level),
                (Level::Client, Some(level)) => wild && is_one_level(client) && client == level,
                (_, None) => false,
            };
            if !covered {
                return false;
            }
        }
        wanted.next().is_none()
    }
}

/// A name that would be a wildcard or an empty level stands for no topic.
fn is_one_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#'])
}

/// What a role or a user may do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Grant {
    pub(crate) publish: Vec<Pattern>,
    pub(crate) subscribe: Vec<Pattern>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(pattern: &str, filter: &str) -> bool {
        Pattern::try_from(pattern.to_owned()).unwrap().covers(filter, Some("p1"), "c#1")
    }

    #[test]
    fn what_a_pattern_covers() {
        for (pattern, filter, expected) in [
            ("ward/{user}/#", "ward/p1/ecg", true),
            ("ward/{user}/#", "ward/p1/#", true),
            ("ward/{user}/#", "ward/p1", true),
            ("ward/{user}/#", "ward/p2/ecg", false),
            ("ward/{user}/#", "ward/+/ecg", false),
            ("ward/{user}/#", "#", false),
            ("ward/+/ecg", "ward/p2/ecg", true),
            ("ward/+/ecg", "ward/+/ecg", true),
            ("ward/+/ecg", "ward/#", false),
            ("ward/+", "ward/#", false),
            ("#", "$SYS/broker/uptime", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/broker/uptime", true),
            ("a/{client}", "a/c#1", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
        ] {
            assert_eq!(covers(pattern, filter), expected, "{pattern} {filter}");
        }
        assert!(!Pattern::try_from("{user}".to_owned()).unwrap().covers("p1", None, "p1"), "nobody is not a user");
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["", "a/{usr}", "a/{user}x", "a#", "$share/g/a"] {
            assert!(Pattern::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    fn text(levels: &'static str) -> impl Strategy<Value = String> {
        prop::collection::vec(levels, 1..4).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        /// Whoever may subscribe to a filter gets nothing that the pattern does not match.
        #[test]
        fn what_is_covered_is_matched(pattern in text("[ab+#]"), filter in text("[ab+#$]"), topic in text("[ab$]")) {
            prop_assume!(filter::is_valid(&pattern) && filter::is_valid(&filter));
            if covers(&pattern, &filter) && filter::matches(&filter, &topic) {
                prop_assert!(filter::matches(&pattern, &topic));
            }
        }
    }
}
