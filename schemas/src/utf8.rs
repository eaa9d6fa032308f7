//! Text from bytes that somebody's editor wrote.

/// Bytes that are no UTF-8, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte 0x{value:02X} (line {line}, byte {offset} of the file) is not UTF-8: save the file as UTF-8")]
pub struct NotUtf8 {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Place in the file, from 0.
    pub offset: usize,
    /// The byte.
    pub value: u8,
}

/// The bytes as text.
///
/// # Errors
/// With the first byte that is not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, NotUtf8> {
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, rest) = bytes.split_at_checked(error.valid_up_to()).unwrap_or((bytes, &[]));
        let line_start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        NotUtf8 {
            line: good.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: String::from_utf8_lossy(&good[line_start..]).chars().count() + 1,
            offset: good.len(),
            value: rest.first().copied().unwrap_or_default(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_byte_is_named() {
        assert_eq!(utf8("城市".as_bytes()), Ok("城市"));
        let error = utf8(b"a\n\xC3\xA9 \xE9\n\xE9").unwrap_err();
        assert_eq!((error.line, error.column, error.offset, error.value), (2, 3, 5, 0xE9));
        assert_eq!(utf8(&[0xE5]).unwrap_err().offset, 0, "a character that is cut off");
    }
}
