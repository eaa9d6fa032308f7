//! Weights in fewer bits: half-precision floats as safetensors, blocks of 8 or 4 bits as GGUF.
//!
//! Matrices are quantised; biases become half-precision floats; other vectors (the scaling of inputs) stay 32-bit floats: they are
//! few, and an error in them is the same for every row. A matrix is laid out flat and filled up with zeros to whole blocks of 32, because rows of a small network are
//! not; its shape stands in the GGUF metadata `nearside.shapes` as `name=rowsxcolumns`, separated by spaces. At load everything
//! becomes 32-bit floats again: products of the size of these networks are faster so, and a row's score stays the same in any batch.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use crate::ModelError;
use crate::card::WeightsFormat;

const SHAPES: &str = "nearside.shapes";
const MAGIC: &[u8] = b"GGUF";
/// Numbers of one tensor; a damaged header must not fill the memory.
const MOST_NUMBERS: usize = 16 << 20;
const BLOCK: usize = 32;

/// A weights file's tensors by name.
type Tensors = BTreeMap<String, Tensor>;

/// A safetensors file of 32-bit floats in another format.
pub fn encode(model: &str, weights: &[u8], format: WeightsFormat) -> Result<Vec<u8>, ModelError> {
    let tensors: Tensors = candle_core::safetensors::load_buffer(weights, &Device::Cpu)?.into_iter().collect();
    match format {
        WeightsFormat::F16 => {
            let halves = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F16)?)));
            serialize(model, halves.collect::<Result<_, ModelError>>()?, None)
        }
        WeightsFormat::Q8_0 => encode_blocks(&tensors, GgmlDType::Q8_0),
        WeightsFormat::Q4_0 => encode_blocks(&tensors, GgmlDType::Q4_0),
    }
}

fn encode_blocks(tensors: &Tensors, kind: GgmlDType) -> Result<Vec<u8>, ModelError> {
    let (mut shapes, mut quantised) = (Vec::new(), Vec::new());
    for (name, tensor) in tensors {
        match *tensor.dims() {
            [rows, columns] => {
                let mut flat = tensor.flatten_all()?.to_vec1::<f32>()?;
                flat.resize(flat.len().next_multiple_of(BLOCK), 0.0);
                let flat = Tensor::new(flat, &Device::Cpu)?;
                shapes.push(format!("{name}={rows}x{columns}"));
                quantised.push((name.as_str(), QTensor::quantize(&flat, kind)?));
            }
            _ => {
                let kind = if name.ends_with(".bias") { GgmlDType::F16 } else { GgmlDType::F32 };
                quantised.push((name.as_str(), QTensor::quantize(tensor, kind)?));
            }
        }
    }
    let mut out = Cursor::new(Vec::new());
    let named: Vec<(&str, &QTensor)> = quantised.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut out, &[(SHAPES, &Value::String(shapes.join(" ")))], &named)?;
    Ok(out.into_inner())
}

/// A weights file of any format as safetensors of 32-bit floats, which is what networks read. A file that is that already, or that is
/// none of these, is given back as it is.
pub fn decode<'a>(model: &str, weights: &'a [u8]) -> Result<Cow<'a, [u8]>, ModelError> {
    if weights.starts_with(MAGIC) {
        return decode_blocks(model, weights).map(Cow::Owned);
    }
    let Ok(file) = safetensors::SafeTensors::deserialize(weights) else { return Ok(Cow::Borrowed(weights)) };
    if file.tensors().iter().all(|(_, view)| view.dtype() != safetensors::Dtype::F16) {
        return Ok(Cow::Borrowed(weights));
    }
    // What a header says besides the tensors is the model's own, such as what its outputs mean.
    let header =
        safetensors::SafeTensors::read_metadata(weights).ok().and_then(|(_, header)| header.metadata().clone());
    let tensors = candle_core::safetensors::load_buffer(weights, &Device::Cpu)?;
    let floats = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?)));
    serialize(model, floats.collect::<Result<_, ModelError>>()?, header).map(Cow::Owned)
}

fn decode_blocks(model: &str, weights: &[u8]) -> Result<Vec<u8>, ModelError> {
    let damaged = |why: &str| ModelError::Damaged { model: model.to_owned(), why: format!("model.gguf: {why}") };
    let mut reader = Cursor::new(weights);
    let content = Content::read(&mut reader)?;
    let shapes = match content.metadata.get(SHAPES) {
        Some(Value::String(shapes)) => shapes.clone(),
        _ => return Err(damaged("it does not say the shapes of its matrices; make it with nearside compress")),
    };
    let shapes: BTreeMap<&str, (usize, usize)> = shapes.split_whitespace().filter_map(shape).collect();
    let mut tensors = Tensors::new();
    for (name, info) in &content.tensor_infos {
        if info.shape.elem_count() > MOST_NUMBERS {
            return Err(damaged("a tensor is larger than any of ours"));
        }
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        let tensor = match shapes.get(name.as_str()) {
            Some(&(rows, columns)) => {
                let numbers = rows.checked_mul(columns).filter(|numbers| *numbers <= tensor.elem_count());
                let numbers = numbers.ok_or_else(|| damaged("a matrix is smaller than it says"))?;
                tensor.flatten_all()?.narrow(0, 0, numbers)?.reshape((rows, columns))?
            }
            None => tensor,
        };
        tensors.insert(name.clone(), tensor);
    }
    serialize(model, tensors, None)
}

fn shape(text: &str) -> Option<(&str, (usize, usize))> {
    let (name, shape) = text.split_once('=')?;
    let (rows, columns) = shape.split_once('x')?;
    Some((name, (rows.parse().ok()?, columns.parse().ok()?)))
}

fn serialize(model: &str, tensors: Tensors, header: Option<HashMap<String, String>>) -> Result<Vec<u8>, ModelError> {
    safetensors::serialize(tensors, header)
        .map_err(|error| ModelError::Damaged { model: model.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    /// The largest difference of two files' numbers, over the largest number.
    fn difference(a: &[u8], b: &[u8]) -> f32 {
        let load = |bytes| candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap();
        let (a, b) = (load(a), load(b));
        assert_eq!(a.len(), b.len());
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (mut most, mut far) = (0.0_f32, 0.0_f32);
        for (name, tensor) in &a {
            assert_eq!(tensor.dims(), b[name].dims(), "{name}");
            for (a, b) in numbers(tensor).iter().zip(numbers(&b[name])) {
                most = most.max(a.abs());
                far = far.max((a - b).abs());
            }
        }
        far / most
    }

    #[test]
    fn what_is_encoded_comes_back_nearly_the_same() {
        for name in ["forecaster", "multivariate", "glucose-forecast", "ecg-rhythm"] {
            let (_, weights) = catalog::parts(name, None).unwrap();
            for (format, within, smaller) in
                [(WeightsFormat::F16, 1e-3, 1.7), (WeightsFormat::Q8_0, 5e-3, 3.0), (WeightsFormat::Q4_0, 0.08, 4.0)]
            {
                let encoded = encode(name, &weights, format).unwrap();
                let decoded = decode(name, &encoded).unwrap();
                let far = difference(&weights, &decoded);
                assert!(far <= within, "{name} {format:?}: {far}");
                let ratio = weights.len() as f64 / encoded.len() as f64;
                assert!(ratio >= smaller, "{name} {format:?}: {ratio}");
            }
        }
    }

    #[test]
    fn floats_pass_as_they_are_and_damage_is_an_error() {
        let (_, weights) = catalog::parts("multivariate", None).unwrap();
        assert!(matches!(decode("m", &weights).unwrap(), Cow::Borrowed(_)));
        assert!(matches!(decode("m", b"nothing").unwrap(), Cow::Borrowed(_)));
        let encoded = encode("m", &weights, WeightsFormat::Q8_0).unwrap();
        for end in [4, 20, 60, encoded.len() / 2] {
            assert!(decode("m", &encoded[..end]).is_err(), "{end}");
        }
    }
}
