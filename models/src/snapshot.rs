//! Model states as bytes: little-endian numbers, one after the other, behind a version byte.
//!
//! Promises: what is read back is what was written, bit for bit; damaged or foreign bytes are an error and never a
//! panic or a large allocation.

use crate::ModelError;

/// Writes a snapshot.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A snapshot of this version.
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    /// Appends a byte.
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Appends 32 bits.
    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends 64 bits.
    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a number of 32 bits.
    pub(crate) fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    /// Appends a number of 64 bits.
    pub(crate) fn f64(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// The bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a snapshot back.
pub(crate) struct Reader<'a> {
    model: &'a str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts to read; fails where the version is another.
    pub(crate) fn new(model: &'a str, version: u8, bytes: &'a [u8]) -> Result<Self, ModelError> {
        let mut reader = Self { model, rest: bytes };
        match reader.u8()? {
            found if found == version => Ok(reader),
            found => Err(reader.damaged(&format!("a state of version {found}, not {version}"))),
        }
    }

    /// Starts to read what one of some versions wrote, and says which.
    pub(crate) fn of_versions(
        model: &'a str,
        versions: std::ops::RangeInclusive<u8>,
        bytes: &'a [u8],
    ) -> Result<(Self, u8), ModelError> {
        let mut reader = Self { model, rest: bytes };
        match reader.u8()? {
            found if versions.contains(&found) => Ok((reader, found)),
            found => Err(reader.damaged(&format!(
                "a state of version {found}, not {} to {}",
                versions.start(),
                versions.end()
            ))),
        }
    }

    /// An error that says what is wrong.
    pub(crate) fn damaged(&self, why: &str) -> ModelError {
        ModelError::Damaged { model: self.model.to_owned(), why: format!("snapshot: {why}") }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else { return Err(self.damaged("it ends early")) };
        self.rest = rest;
        Ok(*head)
    }

    /// A byte.
    pub(crate) fn u8(&mut self) -> Result<u8, ModelError> {
        Ok(u8::from_le_bytes(self.bytes()?))
    }

    /// 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    /// A count that may be at most `most`.
    pub(crate) fn count(&mut self, most: usize) -> Result<usize, ModelError> {
        let count = self.u32()? as usize;
        if count > most { Err(self.damaged("a count is out of range")) } else { Ok(count) }
    }

    /// A place in a stream of samples: not negative and at most `most`.
    pub(crate) fn index(&mut self, most: u64) -> Result<u64, ModelError> {
        match u64::try_from(self.i64()?) {
            Ok(index) if index <= most => Ok(index),
            _ => Err(self.damaged("a place is out of range")),
        }
    }

    /// 64 bits.
    pub(crate) fn i64(&mut self) -> Result<i64, ModelError> {
        Ok(i64::from_le_bytes(self.bytes()?))
    }

    /// A finite number of 32 bits.
    pub(crate) fn f32(&mut self) -> Result<f32, ModelError> {
        let value = f32::from_bits(self.u32()?);
        if value.is_finite() { Ok(value) } else { Err(self.damaged("a number is not finite")) }
    }

    /// A finite number of 64 bits.
    pub(crate) fn f64(&mut self) -> Result<f64, ModelError> {
        let value = f64::from_bits(u64::from_le_bytes(self.bytes()?));
        if value.is_finite() { Ok(value) } else { Err(self.damaged("a number is not finite")) }
    }

    /// Fails where bytes are left over.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("bytes are left over")) }
    }
}
