//! GGUF files, as far as ours go: strings as metadata, tensors of floats and of blocks
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! Promises: a damaged or hostile file is an error that says what is wrong with it, never a panic; what is read takes no more memory than
//! [`MOST_NUMBERS`] numbers, whatever its header announces (promise I4). What other tools put into a GGUF file and no model of ours has is
//! refused, not guessed at.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"GGUF";
/// Numbers of all tensors together: as many 16-bit ones as the largest weights file holds.
pub(super) const MOST_NUMBERS: usize = 32 << 20;
/// Numbers of a block.
pub(super) const BLOCK: usize = 32;
/// What the data of a tensor begin at a multiple of, unless the metadata say otherwise.
const ALIGNMENT: usize = 32;
const MOST_DIMENSIONS: u32 = 4;
/// GGUF's numbers for types of metadata.
const UINT32: u32 = 4;
const STRING: u32 = 8;

/// How a tensor's numbers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Q4_0,
    Q8_0,
}

impl Kind {
    /// By GGML's number for it.
    fn of(number: u32) -> Result<Self, String> {
        match number {
            0 => Ok(Self::F32),
            1 => Ok(Self::F16),
            2 => Ok(Self::Q4_0),
            8 => Ok(Self::Q8_0),
            other => Err(format!("a tensor is of the type {other}, which no model of ours has")),
        }
    }

    /// Numbers that are kept together, and in how many bytes.
    const fn unit(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 => (1, 2),
            Self::Q4_0 => (BLOCK, 2 + BLOCK / 2),
            Self::Q8_0 => (BLOCK, 2 + BLOCK),
        }
    }
}

/// A tensor as it stands in the file.
pub(super) struct Stored<'a> {
    kind: Kind,
    /// Rows before columns.
    pub(super) shape: Vec<usize>,
    bytes: &'a [u8],
}

impl Stored<'_> {
    /// Its numbers, one after another.
    pub(super) fn numbers(&self) -> Result<Vec<f32>, candle_core::Error> {
        let floats = |bytes: &[u8], kind: DType| {
            let count = bytes.len() / kind.size_in_bytes();
            Tensor::from_raw_buffer(bytes, kind, &[count], &Device::Cpu)?.to_dtype(DType::F32)?.to_vec1::<f32>()
        };
        let (_, unit) = self.kind.unit();
        // A block is its scale, as a 16-bit float, and its numbers.
        let blocks = || self.bytes.chunks_exact(unit).map(|block| block.split_at(2));
        let scales = || floats(&blocks().flat_map(|(scale, _)| scale).copied().collect::<Vec<u8>>(), DType::F16);
        match self.kind {
            Kind::F32 => floats(self.bytes, DType::F32),
            Kind::F16 => floats(self.bytes, DType::F16),
            Kind::Q8_0 => {
                let of_block = |((_, numbers), scale): ((_, &[u8]), f32)| {
                    numbers.iter().map(move |number| f32::from(number.cast_signed()) * scale).collect::<Vec<f32>>()
                };
                Ok(blocks().zip(scales()?).flat_map(of_block).collect())
            }
            Kind::Q4_0 => {
                // The low halves of the bytes are the first numbers, the high halves the rest; 8 is zero.
                let of_block = |((_, pairs), scale): ((_, &[u8]), f32)| {
                    let number = move |half: u8| (f32::from(half) - 8.0) * scale;
                    let low = pairs.iter().map(move |pair| number(pair & 15));
                    low.chain(pairs.iter().map(move |pair| number(pair >> 4))).collect::<Vec<f32>>()
                };
                Ok(blocks().zip(scales()?).flat_map(of_block).collect())
            }
        }
    }
}

/// A file, read but for its numbers.
pub(super) struct File<'a> {
    pub(super) strings: BTreeMap<&'a str, &'a str>,
    pub(super) tensors: BTreeMap<&'a str, Stored<'a>>,
}

impl<'a> File<'a> {
    /// Reads the bytes of a file; fails with what is wrong with it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader { bytes, at: 0 };
        let (magic, version) = (reader.take(4)?, reader.u32()?);
        // Between versions 2 and 3 nothing differs but that 3 may be big-endian, which its version would then show.
        if magic != MAGIC || !(2..=3).contains(&version) {
            return Err(format!("it is no GGUF file of version 2 or 3 but of {version}"));
        }
        let (tensors, entries) = (reader.u64()?, reader.u64()?);
        let (mut strings, mut alignment) = (BTreeMap::new(), ALIGNMENT);
        // Each of them takes bytes of the file, so a count that is damaged ends with the file.
        for _ in 0..entries {
            let (key, kind) = (reader.text()?, reader.u32()?);
            match kind {
                STRING if strings.insert(key, reader.text()?).is_some() => return Err(twice(key)),
                STRING => {}
                UINT32 if key == "general.alignment" => alignment = reader.u32()? as usize,
                kind => return Err(format!("`{}` is of the type {kind}, which no model of ours has", short(key))),
            }
        }
        if !alignment.is_multiple_of(8) || !(8..=1 << 16).contains(&alignment) {
            return Err(format!("an alignment of {alignment} is not possible"));
        }
        let infos = (0..tensors).map(|_| Info::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let data = bytes.get(reader.at.next_multiple_of(alignment)..).ok_or_else(cut)?;
        let (mut tensors, mut numbers) = (BTreeMap::new(), 0);
        for info in infos {
            numbers += info.numbers()?;
            if numbers > MOST_NUMBERS {
                return Err(format!("it holds more than {MOST_NUMBERS} numbers, which no model of ours does"));
            }
            let stored = info.stored(data, alignment)?;
            if tensors.insert(info.name, stored).is_some() {
                return Err(twice(info.name));
            }
        }
        Ok(Self { strings, tensors })
    }
}

/// What a file says of a tensor.
struct Info<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: Kind,
    offset: usize,
}

impl<'a> Info<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, String> {
        let (name, dimensions) = (reader.text()?, reader.u32()?);
        if dimensions > MOST_DIMENSIONS {
            return Err(format!("`{}` has {dimensions} dimensions", short(name)));
        }
        // In the file columns come before rows.
        let mut shape = (0..dimensions).map(|_| reader.length()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        Ok(Self { name, shape, kind: Kind::of(reader.u32()?)?, offset: reader.length()? })
    }

    fn numbers(&self) -> Result<usize, String> {
        let product = self.shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
        let numbers = product.filter(|numbers| *numbers <= MOST_NUMBERS);
        numbers.ok_or_else(|| format!("`{}` is larger than any tensor of ours", short(self.name)))
    }

    fn stored(&self, data: &'a [u8], alignment: usize) -> Result<Stored<'a>, String> {
        let ((together, unit), numbers) = (self.kind.unit(), self.numbers()?);
        if !numbers.is_multiple_of(together) || !self.offset.is_multiple_of(alignment) {
            return Err(format!("`{}` is no whole number of blocks, or begins within one", short(self.name)));
        }
        let bytes = numbers / together * unit;
        // What fills it up to a multiple of the alignment belongs to the file.
        let rest = data.get(self.offset..).filter(|rest| rest.len() >= bytes.next_multiple_of(alignment));
        Ok(Stored { kind: self.kind, shape: self.shape.clone(), bytes: &rest.ok_or_else(cut)?[..bytes] })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count)).ok_or_else(cut)?;
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take(4).map(|bytes| bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.take(8).map(|bytes| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A length or offset, which cannot be beyond what this machine addresses.
    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.u64()?).map_err(|_| cut())
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| String::from("a name in it is not UTF-8"))
    }
}

fn cut() -> String {
    String::from("it ends before all that it announces")
}

fn twice(name: &str) -> String {
    format!("`{}` stands in it twice", short(name))
}

/// A name from a file, as far as an error repeats it.
fn short(name: &str) -> String {
    name.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use candle_core::quantized::gguf_file::{self, Content, Value};
    use candle_core::quantized::{GgmlDType, QTensor};
    use proptest::prelude::*;

    use super::*;

    fn file(kind: GgmlDType, numbers: &[f32]) -> Vec<u8> {
        let tensor = QTensor::quantize(&Tensor::new(numbers, &Device::Cpu).unwrap(), kind).unwrap();
        let mut out = Cursor::new(Vec::new());
        gguf_file::write(&mut out, &[("a.key", &Value::String("said".into()))], &[("t", &tensor)]).unwrap();
        out.into_inner()
    }

    #[test]
    fn numbers_are_those_that_the_library_reads() {
        let numbers: Vec<f32> = (0..96).map(|n| (n as f32 * 0.71).sin() * 10.0_f32.powi(n / 32 - 1)).collect();
        for kind in [GgmlDType::F32, GgmlDType::F16, GgmlDType::Q4_0, GgmlDType::Q8_0] {
            let bytes = file(kind, &numbers);
            let mut reader = Cursor::new(&bytes);
            let content = Content::read(&mut reader).unwrap();
            let tensor = content.tensor(&mut reader, "t", &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
            let read = File::read(&bytes).unwrap();
            assert_eq!((read.strings["a.key"], &read.tensors["t"].shape), ("said", &vec![96]));
            let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
            assert_eq!(bits(read.tensors["t"].numbers().unwrap()), bits(tensor.to_vec1().unwrap()), "{kind:?}");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_announces_too_much_is_refused() {
        let whole = file(GgmlDType::Q8_0, &[1.0; 96]);
        for end in 0..whole.len() {
            assert!(File::read(&whole[..end]).is_err(), "{end}");
        }
        // The counts of tensors and of metadata, the lengths of a key and of a value.
        for at in [8, 16, 24, 41] {
            let mut bytes = whole.clone();
            bytes[at + 4] = 0xFF;
            assert!(File::read(&bytes).is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_it_nothing_panics(at in 0_usize..240, bytes in proptest::collection::vec(any::<u8>(), 1..16)) {
            let mut whole = file(GgmlDType::Q4_0, &[1.0; 96]);
            let at = at.min(whole.len() - 1);
            let count = bytes.len().min(whole.len() - at);
            whole[at..at + count].copy_from_slice(&bytes[..count]);
            if let Ok(file) = File::read(&whole) {
                for stored in file.tensors.values() {
                    prop_assert_eq!(stored.numbers().unwrap().len(), stored.shape.iter().product::<usize>());
                }
            }
        }
    }
}
