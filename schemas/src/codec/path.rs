//! Paths such as `$.a.b[0]`: a subset of JSONPath (RFC 9535) that names one place.

use super::CodecError;
use super::tree::Tree;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// A path to one place in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    text: String,
    steps: Vec<Step>,
}

impl Path {
    /// Reads `$`, `$.name`, `$['name']`, `$[0]` and any sequence of those; a bare `name` is `$.name`.
    pub(super) fn parse(text: &str) -> Result<Self, CodecError> {
        let wrong =
            |why: &str| CodecError { what: format!("`{text}` is not a path: {why}; write one such as $.a.b[0]") };
        let mut rest = text.strip_prefix('$').unwrap_or_else(|| text.trim());
        let bare = !text.starts_with('$');
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let mut steps = Vec::new();
        let mut first = bare;
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix('[') {
                let (inside, tail) = tail.split_once(']').ok_or_else(|| wrong("`]` is missing"))?;
                let quoted = inside.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
                steps.push(match quoted {
                    Some(name) => Step::Name(name.to_owned()),
                    None => Step::Index(inside.parse().map_err(|_| wrong("an index is a number"))?),
                });
                rest = tail;
            } else {
                let name = if first { Some(rest) } else { rest.strip_prefix('.') };
                let name = name.ok_or_else(|| wrong("a name follows a dot"))?;
                let end = name.find(['.', '[']).unwrap_or(name.len());
                if end == 0 {
                    return Err(wrong("a name is empty"));
                }
                steps.push(Step::Name(name[..end].to_owned()));
                rest = &name[end..];
            }
            first = false;
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// The path as written, for error texts.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The name, where the path is one name of the top level.
    pub(super) fn top_level_name(&self) -> Option<&str> {
        match self.steps.as_slice() {
            [Step::Name(name)] => Some(name),
            _ => None,
        }
    }

    /// What stands there.
    pub(super) fn find<'t>(&self, tree: &'t Tree) -> Option<&'t Tree> {
        let mut at = tree;
        for step in &self.steps {
            at = match (step, at) {
                (Step::Name(name), Tree::Map(entries)) => &entries.iter().find(|(key, _)| key == name)?.1,
                (Step::Index(index), Tree::Array(items)) => items.get(*index)?,
                _ => return None,
            };
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_wrong_ones_refused() {
        let tree: Tree = serde_json::from_str(r#"{"a":{"b":[1,{"c d":2}]},"x":3}"#).unwrap();
        let find = |path: &str| Path::parse(path).unwrap().find(&tree).cloned();
        assert_eq!(find("$.a.b[0]"), Some(Tree::Number(1.0)));
        assert_eq!(find("$.a.b[1]['c d']"), Some(Tree::Number(2.0)));
        assert_eq!(find("x"), Some(Tree::Number(3.0)));
        assert_eq!(find("$"), Some(tree.clone()));
        assert_eq!(find("$.a.z"), None);
        for bad in ["", "$.a[", "$..a", "$.a[x]", "$a.b[1"] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
    }
}
