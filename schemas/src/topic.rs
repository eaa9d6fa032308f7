//! MQTT topics, and topic templates with key parts in braces.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::FieldName;

/// A topic name a message was published to, as UTF-8 text without wildcards. Topics may hold key parts and so may
/// be personal: `Debug` does not print them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks a topic name by MQTT 5 section 4.7: not empty, at most 65,535 bytes, no NUL, no `+` or `#`.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        if name.is_empty() || name.len() > 65_535 {
            return Err(TopicError::Length);
        }
        if name.contains(['+', '#', '\0']) {
            return Err(TopicError::Character);
        }
        Ok(Self(name.into()))
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({} levels)", self.0.split('/').count())
    }
}

/// What is wrong with a topic or a topic template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Empty, or longer than MQTT can carry.
    #[error("a topic has 1 to 65535 bytes")]
    Length,
    /// A character that a topic name may not hold.
    #[error("a topic may not hold `+`, `#` or NUL")]
    Character,
    /// A level that is neither literal text, nor `+`, nor one `{part}`.
    #[error("topic level `{0}`: write plain text, `+`, or one key part such as {{patient}}")]
    Level(String),
    /// The same key part twice.
    #[error("key part `{0}` stands twice in the topic")]
    Twice(String),
    /// A placeholder that has no value.
    #[error("`{{{0}}}` is not a key part of the stream")]
    UnknownPart(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Level {
    Literal(Box<str>),
    Any,
    Part(FieldName),
}

/// A topic with key parts, such as `ward/{patient}/ecg`. A level is literal text, `+` (any one level that is not
/// part of the key) or `{name}` (any one level, which is the key part `name`).
#[derive(Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    levels: Vec<Level>,
}

impl TopicTemplate {
    /// Reads a template. `#` is not allowed: a stream's topics have a fixed depth.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() || text.len() > 65_535 {
            return Err(TopicError::Length);
        }
        let mut levels: Vec<Level> = Vec::new();
        for level in text.split('/') {
            levels.push(Self::parse_level(level, &levels)?);
        }
        Ok(Self { text: text.to_owned(), levels })
    }

    fn parse_level(level: &str, before: &[Level]) -> Result<Level, TopicError> {
        if level == "+" {
            return Ok(Level::Any);
        }
        if let Some(name) = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let name = FieldName::new(name).map_err(|_| TopicError::Level(level.to_owned()))?;
            if before.iter().any(|other| matches!(other, Level::Part(part) if *part == name)) {
                return Err(TopicError::Twice(name.to_string()));
            }
            return Ok(Level::Part(name));
        }
        if level.contains(['+', '#', '\0', '{', '}']) {
            return Err(TopicError::Level(level.to_owned()));
        }
        Ok(Level::Literal(level.into()))
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of the key parts, in topic order.
    pub fn parts(&self) -> impl Iterator<Item = &FieldName> {
        self.levels.iter().filter_map(|level| match level {
            Level::Part(name) => Some(name),
            _ => None,
        })
    }

    /// Where `topic` belongs to the template: the values of the key parts in topic order. A first level that
    /// starts with `$` matches only literal text (MQTT 5 section 4.7.2).
    pub fn matches<'t>(&self, topic: &'t str) -> Option<SmallVec<[&'t str; 2]>> {
        let mut parts = SmallVec::new();
        let mut names = topic.split('/');
        for (depth, level) in self.levels.iter().enumerate() {
            let name = names.next()?;
            let system = depth == 0 && name.starts_with('$');
            match level {
                Level::Literal(text) if text.as_ref() == name => {}
                Level::Any if !system => {}
                Level::Part(_) if !system && !name.is_empty() => parts.push(name),
                _ => return None,
            }
        }
        names.next().is_none().then_some(parts)
    }

    /// Whether some topic could belong to both templates. The configuration refuses two streams that overlap.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.levels.len() == other.levels.len()
            && self.levels.iter().zip(&other.levels).all(|pair| match pair {
                (Level::Literal(a), Level::Literal(b)) => a == b,
                _ => true,
            })
    }

    /// The MQTT filter that subscribes to all topics of the template.
    pub fn filter(&self) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Literal(text) => text,
                _ => "+",
            })
            .collect();
        levels.join("/")
    }

    /// The topic with each key part replaced by its value. `+` levels cannot be filled.
    pub fn fill(&self, values: &HashMap<&str, &str>) -> Result<Topic, TopicError> {
        let mut levels: Vec<&str> = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            levels.push(match level {
                Level::Literal(text) => text,
                Level::Any => return Err(TopicError::Character),
                Level::Part(name) => {
                    values.get(name.as_str()).ok_or_else(|| TopicError::UnknownPart(name.to_string()))?
                }
            });
        }
        Topic::new(&levels.join("/"))
    }
}

impl fmt::Debug for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicTemplate({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> TopicTemplate {
        TopicTemplate::parse(text).unwrap()
    }

    #[test]
    fn key_parts_come_out_in_topic_order() {
        let ecg = template("ward/{patient}/ecg/{lead}");
        assert_eq!(ecg.matches("ward/p1/ecg/II").unwrap().as_slice(), ["p1", "II"]);
        assert_eq!(ecg.matches("ward/p1/ecg"), None);
        assert_eq!(ecg.matches("ward/p1/ecg/II/raw"), None);
        assert_eq!(ecg.matches("ward//ecg/II"), None, "an empty key part is no key");
        assert_eq!(ecg.filter(), "ward/+/ecg/+");
    }

    #[test]
    fn chinese_levels_match() {
        assert_eq!(template("城市/{road}/车速").matches("城市/二环/车速").unwrap().as_slice(), ["二环"]);
    }

    #[test]
    fn dollar_topics_match_only_literally() {
        assert!(template("+/x").matches("$SYS/x").is_none());
        assert!(template("$SYS/x").matches("$SYS/x").is_some());
    }

    #[test]
    fn overlap_is_seen_through_parts() {
        assert!(template("a/{x}").overlaps(&template("{y}/b")));
        assert!(!template("a/{x}").overlaps(&template("b/{x}")));
        assert!(!template("a/{x}").overlaps(&template("a/{x}/c")));
    }

    #[test]
    fn bad_templates_are_refused() {
        for bad in ["", "a/#", "a/b+", "a/{x}y", "a/{x}/{x}", "a/{ }"] {
            assert!(TopicTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filling_refuses_what_would_change_the_depth_of_meaning() {
        let values = HashMap::from([("patient", "a/+")]);
        assert!(template("ward/{patient}").fill(&values).is_err());
        assert!(template("ward/{bed}").fill(&values).is_err());
    }
}
