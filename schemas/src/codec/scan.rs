//! Reads a flat JSON object (RFC 8259) in one pass, without a tree and without copies.
//!
//! Promises: what it reads is what serde_json would read; whatever it is not sure of it leaves to serde_json, which also
//! words the errors.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// A value of the top level.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'p> {
    Null,
    Integer(i64),
    Number(f64),
    Text(Cow<'p, str>),
    /// An array or an object.
    Other,
}

/// Shows each name and value of an object to `each`; `None` where the payload is not one object, or `each` has seen enough.
pub(super) fn object<'p>(payload: &'p [u8], mut each: impl FnMut(&str, Scalar<'p>)) -> Option<()> {
    let mut scan = Scan { bytes: payload, at: 0 };
    scan.token(b'{')?;
    if scan.peek() != Some(b'}') {
        loop {
            scan.space();
            let name = scan.text()?;
            scan.token(b':')?;
            let value = scan.value()?;
            each(&name, value);
            if scan.peek()? != b',' {
                break;
            }
            scan.at += 1;
        }
    }
    scan.token(b'}')?;
    scan.peek().is_none().then_some(())
}

struct Scan<'p> {
    bytes: &'p [u8],
    at: usize,
}

impl<'p> Scan<'p> {
    fn here(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.here(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.here()
    }

    fn token(&mut self, token: u8) -> Option<()> {
        let is_next = self.peek()? == token;
        self.at += usize::from(is_next);
        is_next.then_some(())
    }

    fn value(&mut self) -> Option<Scalar<'p>> {
        match self.peek()? {
            b'"' => self.text().map(Scalar::Text),
            b'-' | b'0'..=b'9' => self.number(),
            b'n' => self.word(b"null", Scalar::Null),
            b't' => self.word(b"true", Scalar::Number(1.0)),
            b'f' => self.word(b"false", Scalar::Number(0.0)),
            _ => self.nested(),
        }
    }

    fn word(&mut self, word: &[u8], value: Scalar<'p>) -> Option<Scalar<'p>> {
        self.bytes[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    /// Passes over an array or an object.
    fn nested(&mut self) -> Option<Scalar<'p>> {
        let mut values = serde_json::Deserializer::from_slice(&self.bytes[self.at..]).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(Scalar::Other)
    }

    fn text(&mut self) -> Option<Cow<'p, str>> {
        if self.here()? != b'"' {
            return None;
        }
        let start = self.at;
        loop {
            self.at += 1;
            match self.here()? {
                b'"' => break,
                // The escaped byte is passed over: it may be a quotation mark.
                b'\\' => self.at += 1,
                _ => {}
            }
        }
        self.at += 1;
        let quoted = &self.bytes[start..self.at];
        let inner = &quoted[1..quoted.len() - 1];
        if inner.iter().any(|byte| *byte == b'\\' || *byte < b' ') {
            return serde_json::from_slice(quoted).ok().map(Cow::Owned);
        }
        std::str::from_utf8(inner).ok().map(Cow::Borrowed)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.here(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Option<Scalar<'p>> {
        let start = self.at;
        self.at += usize::from(self.here() == Some(b'-'));
        let leading_zero = self.here() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (leading_zero && digits > 1) {
            return None;
        }
        let mut is_whole = true;
        if self.here() == Some(b'.') {
            is_whole = false;
            self.at += 1;
            if self.digits() == 0 {
                return None;
            }
        }
        if matches!(self.here(), Some(b'e' | b'E')) {
            is_whole = false;
            self.at += 1;
            self.at += usize::from(matches!(self.here(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return None;
            }
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).ok()?;
        // Not -0, which is a float of its own.
        if is_whole
            && !(leading_zero && text.len() > 1)
            && let Ok(integer) = text.parse()
        {
            return Some(Scalar::Integer(integer));
        }
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(Scalar::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn read(payload: &[u8]) -> Option<Vec<(String, Scalar<'_>)>> {
        let mut pairs = Vec::new();
        object(payload, |name, value| pairs.push((name.to_owned(), value))).map(|()| pairs)
    }

    /// What serde_json makes of the same value.
    fn expected(value: &Value) -> Scalar<'_> {
        match value {
            Value::Null => Scalar::Null,
            Value::Bool(value) => Scalar::Number(f64::from(u8::from(*value))),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Scalar::Integer(integer),
                (None, float) => Scalar::Number(float.unwrap()),
            },
            Value::String(text) => Scalar::Text(Cow::Borrowed(text)),
            Value::Array(_) | Value::Object(_) => Scalar::Other,
        }
    }

    fn agrees(payload: &[u8]) -> Result<(), TestCaseError> {
        let known = serde_json::from_slice::<std::collections::BTreeMap<String, Value>>(payload);
        let read = read(payload);
        prop_assert_eq!(read.is_some(), known.is_ok(), "{}", String::from_utf8_lossy(payload));
        for (name, value) in read.iter().flatten() {
            // Of equal names the map keeps the last.
            let unique = read.iter().flatten().filter(|(other, _)| other == name).count() == 1;
            if let (true, Ok(known)) = (unique, &known) {
                prop_assert_eq!(value, &expected(&known[name]));
                if let (Scalar::Number(a), Scalar::Number(b)) = (value, expected(&known[name])) {
                    prop_assert_eq!(a.to_bits(), b.to_bits());
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_odd_ones() {
        for payload in [
            r#"{}"#,
            r#" { } "#,
            r#"{"a":-0}"#,
            r#"{"a":0}"#,
            r#"{"a":-0.0}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e5}"#,
            r#"{"a":1E+05}"#,
            r#"{"a":1e}"#,
            r#"{"a":1e999}"#,
            r#"{"a":1e-999}"#,
            r#"{"a":9223372036854775807}"#,
            r#"{"a":9223372036854775808}"#,
            r#"{"a":-9223372036854775809}"#,
            r#"{"a":123456789012345678901234567890}"#,
            r#"{"a":+1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":nul}"#,
            r#"{"a":nullx}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a" 1}"#,
            r#"{"a":1}x"#,
            r#"{"a":1"#,
            r#"["a"]"#,
            "",
            " ",
            r#"{"#,
            r#"{"a":"\""}"#,
            r#"{"a":"\u57ce"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"\u0061":1}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\"#,
            "{\"a\":\"\u{1}\"}",
            "{\"a\n\":1}",
            "{\"a\":\t1\r\n}",
            r#"{"城":"市"}"#,
            r#"{"a":[1,{"b":"]"}],"c":{}}"#,
            r#"{"a":[1,}"#,
            r#"{"a":{"b":1},"c":2}"#,
            r#"{a:1}"#,
            r#"{"a":1,"a":2}"#,
        ] {
            agrees(payload.as_bytes()).unwrap();
        }
        for payload in [&b"{\"a\":\"\xFF\"}"[..], b"{\"\xFF\":1}", b"{\"a\":[\"\xC3\"]}\xFF"] {
            agrees(payload).unwrap();
        }
    }

    proptest! {
        #[test]
        fn reads_what_serde_json_reads(
            values in prop::collection::btree_map(
                ".{0,4}",
                prop_oneof![
                    any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
                    any::<i64>().prop_map(Value::from),
                    any::<u64>().prop_map(Value::from),
                    any::<bool>().prop_map(Value::from),
                    ".{0,6}".prop_map(Value::from),
                    Just(Value::Null),
                    prop::collection::vec(any::<i8>(), 0..3).prop_map(Value::from),
                ],
                0..5,
            ),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut payload = serde_json::to_vec(&values).unwrap();
            agrees(&payload)?;
            agrees(&payload[..cut.index(payload.len())])?;
            let at = flip.index(payload.len());
            payload[at] = byte;
            agrees(&payload)?;
        }
    }
}
