//! What of a line may be shown. An error shows the line that it is about, and a line may hold a password where none belongs.
//!
//! Promises: what stands in front of an `@`, as a user and a password do in an address, and the value of a key that is called password,
//! secret or token are left out of what is shown (promise I2), as is what looks like the digits of a key; the rest keeps its place, so that
//! a mark under it can be set.

use std::ops::Range;

/// What stands for what is left out.
const LEFT_OUT: char = '…';
/// Keys whose values are left out …
const SECRET_KEYS: [&str; 6] = ["password", "passwd", "passphrase", "pwd", "secret", "token"];
/// … unless they end like this: then the value says where the secret is.
const SAYS_WHERE: [&str; 2] = ["_file", "_path"];

/// A line without what may be secret.
pub(crate) struct Shown {
    pub(crate) text: String,
    left_out: Vec<Range<usize>>,
}

impl Shown {
    /// Of one line, of a file or of an error's text.
    pub(crate) fn of(line: &str) -> Self {
        let mut left_out: Vec<Range<usize>> = Vec::new();
        let mut next = 0;
        while next < line.len() {
            let value = value_at(line, next);
            if is_secret_key(&line[..value.start]) || is_key_material(&line[value.clone()]) {
                left_out.push(value.clone());
            } else if let Some(at) = line[value.clone()].rfind('@') {
                let whole = &line[value.start..value.start + at];
                let from = whole.find("://").map_or(0, |scheme| scheme + "://".len());
                left_out.push(value.start + from..value.start + at);
            }
            next = match line[value.end..].chars().next() {
                // It opens the next one.
                Some(quote) if is_quote(quote) && value.start == next => value.end,
                Some(sign) => value.end + sign.len_utf8(),
                None => line.len(),
            };
        }
        left_out.retain(|range| !range.is_empty());
        let mut text = String::with_capacity(line.len());
        let mut shown_to = 0;
        for range in &left_out {
            text.push_str(&line[shown_to..range.start]);
            text.push(LEFT_OUT);
            shown_to = range.end;
        }
        text.push_str(&line[shown_to..]);
        Self { text, left_out }
    }

    /// How many characters are shown in front of this place of the line.
    pub(crate) fn chars_before(&self, line: &str, place: usize) -> usize {
        let hidden = self.left_out.iter().filter(|range| range.start < place);
        let chars = |range: Range<usize>| line.get(range).map_or(0, |text| text.chars().count());
        let lost: usize = hidden.clone().map(|range| chars(range.start..range.end.min(place))).sum();
        // Within what is left out the place is that of the sign that stands for it.
        let signs = hidden.filter(|range| range.end <= place).count();
        chars(0..place).saturating_sub(lost) + signs
    }
}

const fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

/// The value at `start`: within quotes up to those that close them, else what ends with a space, a sign or quotes; it may be empty. In an
/// address without quotes signs may belong to the password.
fn value_at(line: &str, start: usize) -> Range<usize> {
    let rest = &line[start..];
    if let Some(quote) = rest.chars().next().filter(|first| is_quote(*first)) {
        let from = start + quote.len_utf8();
        return from..closing(&line[from..], quote).map_or(line.len(), |end| from + end);
    }
    let until =
        |signs: &str| rest.find(|c: char| c.is_whitespace() || is_quote(c) || signs.contains(c)).unwrap_or(rest.len());
    let end = until("=,[]{}()#");
    start..start + if rest[..end].contains("://") { until("") } else { end }
}

/// Where the quotes close; in `"` a backslash takes the next character's meaning.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if quote == '"' => is_escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// Whether it is the 32 bytes of a key, or more, in hexadecimal. A public key has `ed25519:` in front.
fn is_key_material(value: &str) -> bool {
    value.len() >= 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether what stands in front of a value is the name of a key whose value is secret, and `=` or `:`.
fn is_secret_key(before: &str) -> bool {
    let before = before.trim_end_matches(is_quote).trim_end();
    let Some(key) = before.strip_suffix(['=', ':']) else { return false };
    let key = key.trim_end().trim_end_matches(is_quote);
    let start = key.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).map_or(0, |at| at + 1);
    let key = key.get(start..).unwrap_or(key).to_lowercase();
    SECRET_KEYS.iter().any(|secret| key.contains(secret)) && !SAYS_WHERE.iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_however_they_are_written() {
        for (line, shown) in [
            (r#"url = "mqtt://user:hunter2@host:1883""#, r#"url = "mqtt://…@host:1883""#),
            (r#"url = "user:hunter2@host""#, r#"url = "…@host""#),
            ("url = mqtt://user:hun#ter2@host # x", "url = mqtt://…@host # x"),
            ("url=mqtt://user:hunter2@host", "url=mqtt://…@host"),
            (r#"url = "mqtt://user:hunter2@host"#, r#"url = "mqtt://…@host"#),
            (r#"url = "mqtt://user:hun\"ter2@host""#, r#"url = "mqtt://…@host""#),
            ("fallback = ['mqtt://a', 'mqtt://b:hunter2@c']", "fallback = ['mqtt://a', 'mqtt://…@c']"),
            ("invalid type: string \"mqtt://u:hunter2@h\", expected", "invalid type: string \"mqtt://…@h\", expected"),
            ("it isn't `mqtt://u:hunter2@h`", "it isn't `mqtt://…@h`"),
            (r#"password = "hunter2"  # mine"#, r#"password = "…"  # mine"#),
            (r#"uplink = { passwd = 'hunter2', inflight = 0 }"#, r#"uplink = { passwd = '…', inflight = 0 }"#),
            ("uplink.\"api-token\" = hunter2", "uplink.\"api-token\" = …"),
            ("Password: hunter2", "Password: …"),
        ] {
            assert_eq!(Shown::of(line).text, shown, "{line}");
        }
        let digits = "0a".repeat(32);
        assert_eq!(Shown::of(&format!("key = \"{digits}\"")).text, "key = \"…\"");
        let public = format!("trusted_keys = [\"ed25519:{digits}\"]");
        assert_eq!(Shown::of(&public).text, public);
        for line in [
            r#"password_file = "cloud.password""#,
            r#"topic = "ward/{patient}/vitals"   # one stream"#,
            "missing field `when`",
            "站点 = '温室'",
            "",
        ] {
            assert_eq!(Shown::of(line).text, line);
        }
    }

    #[test]
    fn marks_stand_under_what_they_mean() {
        let line = r#"u = "mqtt://é:hunter2@h", x = 1"#;
        let shown = Shown::of(line);
        assert_eq!(shown.text, r#"u = "mqtt://…@h", x = 1"#);
        let column = |of: &str| shown.chars_before(line, line.find(of).unwrap());
        assert_eq!((column("u"), column("hunter2"), column("@h"), column("x")), (0, 12, 13, 18));
    }
}
