//! CBOR (RFC 8949), with the same paths as JSON. Tags are passed over; byte strings count as null.

use super::layout::{Layout, malformed};
use super::tree::Tree;
use super::{Decode, DecodeError, Decoded};
use crate::time::Timestamp;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

pub(super) struct Cbor {
    layout: Layout,
}

impl Cbor {
    pub(super) const fn new(layout: Layout) -> Self {
        Self { layout }
    }
}

/// Reads one CBOR item; bytes after it are an error.
pub(super) fn tree(payload: &[u8]) -> Result<Tree, DecodeError> {
    let mut rest = payload;
    let tree = ciborium::de::from_reader_with_recursion_limit::<Tree, _>(&mut rest, MAX_DEPTH)
        .map_err(|_| malformed("the CBOR is broken, ends too early or nests too deep"))?;
    if rest.is_empty() { Ok(tree) } else { Err(malformed("there are bytes after the CBOR item")) }
}

impl Decode for Cbor {
    fn decode(&self, payload: &[u8], received: Timestamp, out: &mut Decoded) {
        if !self.layout.admits(payload, out) {
            return;
        }
        match tree(payload) {
            Ok(tree) => self.layout.take_tree(&tree, received, out),
            Err(error) => out.errors.push(error),
        }
    }
}
