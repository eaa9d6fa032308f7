//! Weights in fewer bits: half-precision floats as safetensors, blocks of 8 or 4 bits as GGUF.
//!
//! What a GGUF file of ours holds is at most three tensors, however many the network has, because the networks are so small that names,
//! offsets and filling would outweigh the numbers:
//!
//! ```text
//! blocks   Q8_0 or Q4_0   the matrices, and of Q8_0 the biases too
//! halves   F16            the other vectors, such as the scaling of inputs
//! floats   F32            vectors of which a number would lose more than one part in 2,048 as F16
//! ```
//! The metadata `nearside.blocks` (`.halves`, `.floats`) lists what is in it, in order, as `name=16 name=14x16`. Tensors lie flat, one after
//! another, because rows of a small network are no multiple of a block of 32: in `blocks` a tensor of 32 numbers or more has its blocks, and
//! so their scales, to itself; smaller ones that follow each other share. `nearside.header.KEY` is what the header of the safetensors file said.
//! A file of the layout before has each tensor by its name, matrices flat, and their shapes in `nearside.shapes`; it is still read.
//!
//! At load everything becomes 32-bit floats again: products of the size of these networks are faster so, and a row's score stays the same in
//! any batch (promise I5).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::RangeInclusive;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use super::gguf::{BLOCK, File, MAGIC, MOST_NUMBERS};
use crate::ModelError;
use crate::card::WeightsFormat;

/// What the packed tensors are called.
const BLOCKS: &str = "blocks";
const HALVES: &str = "halves";
const FLOATS: &str = "floats";
/// What keys of ours begin with, and those of a safetensors header.
const KEY: &str = "nearside.";
const HEADER: &str = "nearside.header.";
/// Where the layout before keeps shapes.
const SHAPES: &str = "nearside.shapes";
/// The least and the largest number that a 16-bit float holds with all of its digits.
const HALF: RangeInclusive<f32> = 6.103_515_6e-5..=65_504.0;

/// A weights file's tensors by name.
type Tensors = BTreeMap<String, Tensor>;
/// What its header says besides: the model's own, such as what its outputs mean.
type Header = Option<HashMap<String, String>>;

/// A safetensors file of floats in another format.
pub fn encode(model: &str, weights: &[u8], format: WeightsFormat) -> Result<Vec<u8>, ModelError> {
    let (tensors, header) = load(weights)?;
    let encoded = match format {
        WeightsFormat::F16 => {
            let half = |(name, tensor): (&String, &Tensor)| {
                let is_half = tensor.rank() != 1 || fits_half(name, &numbers(tensor)?);
                let tensor = if is_half { tensor.to_dtype(DType::F16)? } else { tensor.clone() };
                Ok((name.clone(), tensor))
            };
            serialize(model, tensors.iter().map(half).collect::<Result<_, ModelError>>()?, header)?
        }
        WeightsFormat::Q8_0 => pack(&tensors, header, GgmlDType::Q8_0)?,
        WeightsFormat::Q4_0 => pack(&tensors, header, GgmlDType::Q4_0)?,
    };
    let (decoded, _) = load(&decode(model, &encoded)?)?;
    for (name, tensor) in &tensors {
        let is_whole = |decoded: &Tensor| Ok::<_, ModelError>(decoded.dims() == tensor.dims() && is_finite(decoded)?);
        if !decoded.get(name).map_or(Ok(false), is_whole)? {
            let why = format!("{name} holds numbers too large for this format; leave --quantize out, or take q8_0");
            return Err(ModelError::Unfit { model: model.to_owned(), why });
        }
    }
    Ok(encoded)
}

/// The tensors of a safetensors file as 32-bit floats, and its header.
fn load(weights: &[u8]) -> Result<(Tensors, Header), ModelError> {
    let header =
        safetensors::SafeTensors::read_metadata(weights).ok().and_then(|(_, header)| header.metadata().clone());
    let tensors = candle_core::safetensors::load_buffer(weights, &Device::Cpu)?;
    let floats = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?)));
    Ok((floats.collect::<Result<_, ModelError>>()?, header))
}

fn is_finite(tensor: &Tensor) -> Result<bool, ModelError> {
    Ok(numbers(tensor)?.iter().all(|number| number.is_finite()))
}

/// Whether a vector can be of 16-bit floats. A bias is added: what it loses there is as small as it is. What others lose they pass on to
/// all that they are multiplied with or divided by.
fn fits_half(name: &str, values: &[f32]) -> bool {
    let is_bias = name.ends_with(".bias");
    let fits = |value: f32| HALF.contains(&value) || value == 0.0 || is_bias && value < *HALF.start();
    values.iter().all(|value| fits(value.abs()))
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

/// A packed tensor as it comes to be: the numbers, and the list of what they are.
#[derive(Default)]
struct Packed {
    numbers: Vec<f32>,
    list: Vec<String>,
}

impl Packed {
    fn add(&mut self, name: &str, shape: &[usize], values: &[f32], is_blocks: bool) {
        let (start, end) = place(self.numbers.len(), values.len(), is_blocks);
        self.numbers.resize(start, 0.0);
        self.numbers.extend_from_slice(values);
        self.numbers.resize(end, 0.0);
        let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
        self.list.push(format!("{name}={}", shape.join("x")));
    }
}

/// Where a tensor of `count` numbers begins and where the next may, after `end` numbers before it.
const fn place(end: usize, count: usize, is_blocks: bool) -> (usize, usize) {
    if !is_blocks || count < BLOCK {
        return (end, end + count);
    }
    let start = end.next_multiple_of(BLOCK);
    (start, (start + count).next_multiple_of(BLOCK))
}

fn pack(tensors: &Tensors, header: Header, kind: GgmlDType) -> Result<Vec<u8>, ModelError> {
    let mut packed = BTreeMap::from([BLOCKS, HALVES, FLOATS].map(|name| (name, Packed::default())));
    for (name, tensor) in tensors {
        let values = numbers(tensor)?;
        let into = match tensor.rank() {
            2 => BLOCKS,
            1 if name.ends_with(".bias") && kind == GgmlDType::Q8_0 => BLOCKS,
            _ if fits_half(name, &values) => HALVES,
            _ => FLOATS,
        };
        packed.entry(into).or_default().add(name, tensor.dims(), &values, into == BLOCKS);
    }
    let (mut quantised, mut metadata) = (Vec::new(), Vec::new());
    for (name, Packed { mut numbers, list }) in packed.into_iter().filter(|(_, packed)| !packed.list.is_empty()) {
        let kind = match name {
            BLOCKS => kind,
            HALVES => GgmlDType::F16,
            _ => GgmlDType::F32,
        };
        numbers.resize(numbers.len().next_multiple_of(kind.block_size()), 0.0);
        quantised.push((name, QTensor::quantize(&Tensor::new(numbers, &Device::Cpu)?, kind)?));
        metadata.push((format!("{KEY}{name}"), Value::String(list.join(" "))));
    }
    // In one order: the same weights give the same bytes.
    let header: BTreeMap<String, String> = header.into_iter().flatten().collect();
    metadata.extend(header.into_iter().map(|(key, said)| (format!("{HEADER}{key}"), Value::String(said))));
    let mut out = Cursor::new(Vec::new());
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let quantised: Vec<(&str, &QTensor)> = quantised.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut out, &metadata, &quantised)?;
    Ok(out.into_inner())
}

/// A weights file of any format as safetensors of 32-bit floats, which is what networks read. A file that is that already, or that is
/// none of these, is given back as it is.
pub fn decode<'a>(model: &str, weights: &'a [u8]) -> Result<Cow<'a, [u8]>, ModelError> {
    if weights.starts_with(MAGIC) {
        let (tensors, header) = unpack(weights).map_err(|why| ModelError::Damaged {
            model: model.to_owned(),
            why: format!("model.gguf: {why}; fetch the folder again, or make it again with nearside compress"),
        })?;
        return serialize(model, tensors, header).map(Cow::Owned);
    }
    let Ok(file) = safetensors::SafeTensors::deserialize(weights) else { return Ok(Cow::Borrowed(weights)) };
    if file.tensors().iter().all(|(_, view)| view.dtype() != safetensors::Dtype::F16) {
        return Ok(Cow::Borrowed(weights));
    }
    let (tensors, header) = load(weights)?;
    serialize(model, tensors, header).map(Cow::Owned)
}

/// Tensors and header of a GGUF file of ours, of this layout or the one before; fails with what is wrong with it.
fn unpack(weights: &[u8]) -> Result<(Tensors, Header), String> {
    let file = File::read(weights)?;
    if let Some(shapes) = file.strings.get(SHAPES) {
        return Ok((unpack_named(&file, shapes)?, None));
    }
    let mut tensors = Tensors::new();
    for packed in [BLOCKS, HALVES, FLOATS] {
        let Some(list) = file.strings.get(format!("{KEY}{packed}").as_str()) else { continue };
        let stored =
            file.tensors.get(packed).ok_or_else(|| format!("it lists what is in `{packed}`, which is missing"))?;
        let (numbers, mut end) = (stored.numbers().map_err(|error| error.to_string())?, 0);
        for entry in list.split(' ') {
            let (name, shape, count) = listed(entry).ok_or("a tensor's shape is not one")?;
            let start;
            (start, end) = place(end, count, packed == BLOCKS);
            let numbers = numbers.get(start..start + count).ok_or("a tensor is smaller than its shape says")?;
            put(&mut tensors, name, numbers, &shape)?;
        }
    }
    if tensors.is_empty() {
        return Err(String::from("it does not say which tensors it holds"));
    }
    let said = file.strings.iter().filter_map(|(key, said)| Some((key.strip_prefix(HEADER)?, *said)));
    let header: HashMap<String, String> = said.map(|(key, said)| (key.to_owned(), said.to_owned())).collect();
    Ok((tensors, Some(header).filter(|header| !header.is_empty())))
}

/// Of the layout before: each tensor by its name, matrices flat and filled up to whole blocks.
fn unpack_named(file: &File<'_>, shapes: &str) -> Result<Tensors, String> {
    let shapes: BTreeMap<&str, (Vec<usize>, usize)> = shapes
        .split_whitespace()
        .map(|entry| listed(entry).map(|(name, shape, count)| (name, (shape, count))))
        .collect::<Option<_>>()
        .ok_or("a matrix's shape is not one")?;
    let mut tensors = Tensors::new();
    for (name, stored) in &file.tensors {
        let numbers = stored.numbers().map_err(|error| error.to_string())?;
        match shapes.get(name) {
            Some((shape, count)) => {
                let numbers = numbers.get(..*count).ok_or("a matrix is smaller than its shape says")?;
                put(&mut tensors, name, numbers, shape)?;
            }
            None => put(&mut tensors, name, &numbers, &stored.shape)?,
        }
    }
    Ok(tensors)
}

fn put(tensors: &mut Tensors, name: &str, numbers: &[f32], shape: &[usize]) -> Result<(), String> {
    let tensor = Tensor::from_slice(numbers, shape, &Device::Cpu).map_err(|error| error.to_string())?;
    match tensors.insert(name.to_owned(), tensor) {
        None => Ok(()),
        Some(_) => Err(String::from("a tensor stands in it twice")),
    }
}

/// The name, shape and count of numbers of an entry of a list: `name=14x16`.
fn listed(entry: &str) -> Option<(&str, Vec<usize>, usize)> {
    let (name, shape) = entry.split_once('=')?;
    let shape = shape.split('x').map(|length| length.parse().ok()).collect::<Option<Vec<usize>>>()?;
    let count = shape.iter().try_fold(1_usize, |count, length| count.checked_mul(*length))?;
    (count <= MOST_NUMBERS).then_some((name, shape, count))
}

fn serialize(model: &str, tensors: Tensors, header: Header) -> Result<Vec<u8>, ModelError> {
    safetensors::serialize(tensors, header)
        .map_err(|error| ModelError::Damaged { model: model.to_owned(), why: error.to_string() })
}

#[cfg(test)]
#[path = "quantize_tests.rs"]
mod tests;
