//! Weights in fewer bits and back: every network that ships, any others, files of the layout before, damaged ones.

use proptest::prelude::*;

use super::*;
use crate::card::Card;
use crate::catalog;

const FORMATS: [WeightsFormat; 3] = [WeightsFormat::F16, WeightsFormat::Q8_0, WeightsFormat::Q4_0];

/// The largest difference of two files' numbers, over the largest number.
fn difference(a: &[u8], b: &[u8]) -> f32 {
    let ((a, _), (b, _)) = (load(a).unwrap(), load(b).unwrap());
    assert_eq!(a.len(), b.len());
    let (mut most, mut far) = (0.0_f32, 0.0_f32);
    for (name, tensor) in &a {
        assert_eq!(tensor.dims(), b[name].dims(), "{name}");
        for (a, b) in numbers(tensor).unwrap().iter().zip(numbers(&b[name]).unwrap()) {
            most = most.max(a.abs());
            far = far.max((a - b).abs());
        }
    }
    far / most
}

/// The networks that ship, but for the classifier of texts, which ships in 16 bits.
fn networks() -> impl Iterator<Item = (Card, Vec<u8>)> {
    let parts = catalog::names().map(|name| catalog::parts(name, None).unwrap());
    parts
        .filter(|(card, weights)| !weights.is_empty() && card.name.as_str() != "text-triage")
        .map(|(card, weights)| (card, weights.into_owned()))
}

#[test]
fn every_network_that_ships_becomes_so_much_smaller_and_comes_back_nearly_the_same() {
    assert_eq!(networks().count(), 7);
    for (card, weights) in networks() {
        let name = card.name.as_str();
        for (format, within, smaller) in [(FORMATS[0], 1e-3, 1.6), (FORMATS[1], 4e-3, 3.0), (FORMATS[2], 0.08, 3.5)] {
            let encoded = encode(name, &weights, format).unwrap();
            assert_eq!(encoded, encode(name, &weights, format).unwrap(), "the same bytes each time");
            let far = difference(&weights, &decode(name, &encoded).unwrap());
            assert!(far <= within, "{name} {format:?}: {far}");
            let ratio = weights.len() as f64 / encoded.len() as f64;
            assert!(ratio >= smaller, "{name} {format:?}: {} to {} bytes", weights.len(), encoded.len());
        }
    }
}

/// Promise I5, for quantised weights too: they are put into force by their digest, and a row meets the same arithmetic in every batch.
#[test]
fn a_quantised_network_says_nearly_the_same_and_bit_for_bit_in_every_batch() {
    const ROWS: usize = 9;
    for (card, weights) in networks() {
        let model = |weights: &[u8]| catalog::build(card.clone(), weights).unwrap();
        let (whole, small) = (model(&weights), model(&encode("m", &weights, WeightsFormat::Q8_0).unwrap()));
        let width = whole.input_width();
        let inputs: Vec<f32> = (0..ROWS * width).map(|n| (n as f32 * 0.37).sin()).collect();
        let pass = |model: &dyn crate::row_model::RowModel, inputs: &[f32]| {
            let mut outputs = Vec::new();
            model.forward(inputs, inputs.len() / width, &mut outputs).unwrap();
            outputs
        };
        let (expected, together) = (pass(whole.as_ref(), &inputs), pass(small.as_ref(), &inputs));
        let alone: Vec<f32> = inputs.chunks(width).flat_map(|row| pass(small.as_ref(), row)).collect();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&together), bits(&alone), "{}", card.name);
        let most = expected.iter().fold(0.1_f32, |most, value| most.max(value.abs()));
        let far = expected.iter().zip(&together).fold(0.0_f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(far / most < 0.05, "{}: {far} of {most}", card.name);
    }
}

/// A file of the layout before, as it was written then.
fn before(weights: &[u8], kind: GgmlDType) -> Vec<u8> {
    let (mut shapes, mut quantised) = (Vec::new(), Vec::new());
    for (name, tensor) in load(weights).unwrap().0 {
        if let [rows, columns] = *tensor.dims() {
            let mut flat = numbers(&tensor).unwrap();
            flat.resize(flat.len().next_multiple_of(BLOCK), 0.0);
            shapes.push(format!("{name}={rows}x{columns}"));
            quantised.push((name, QTensor::quantize(&Tensor::new(flat, &Device::Cpu).unwrap(), kind).unwrap()));
        } else {
            let kind = if name.ends_with(".bias") { GgmlDType::F16 } else { GgmlDType::F32 };
            quantised.push((name, QTensor::quantize(&tensor, kind).unwrap()));
        }
    }
    let mut out = Cursor::new(Vec::new());
    let named: Vec<(&str, &QTensor)> = quantised.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut out, &[(SHAPES, &Value::String(shapes.join(" ")))], &named).unwrap();
    out.into_inner()
}

#[test]
fn files_of_the_layout_before_are_read_and_are_larger() {
    for (card, weights) in networks() {
        let name = card.name.as_str();
        for (kind, within) in [(GgmlDType::Q8_0, 4e-3), (GgmlDType::Q4_0, 0.08)] {
            let old = before(&weights, kind);
            assert!(difference(&weights, &decode(name, &old).unwrap()) <= within, "{name} {kind:?}");
            assert!(catalog::build(card.clone(), &old).is_ok());
            assert!((0..old.len()).step_by(97).all(|end| decode(name, &old[..end.max(4)]).is_err()));
        }
        let new = encode(name, &weights, WeightsFormat::Q8_0).unwrap();
        assert!(new.len() < before(&weights, GgmlDType::Q8_0).len());
    }
}

#[test]
fn floats_pass_as_they_are_and_damage_is_an_error_that_says_what_to_do() {
    let (_, weights) = catalog::parts("sleep", None).unwrap();
    assert!(matches!(decode("m", &weights).unwrap(), Cow::Borrowed(_)));
    assert!(matches!(decode("m", b"nothing").unwrap(), Cow::Borrowed(_)));
    for format in [WeightsFormat::Q8_0, WeightsFormat::Q4_0] {
        let encoded = encode("m", &weights, format).unwrap();
        for end in MAGIC.len()..encoded.len() {
            let error = decode("m", &encoded[..end]).unwrap_err().to_string();
            assert!(error.contains("fetch the folder again"), "{end}: {error}");
        }
    }
    // Lists that do not fit what is there.
    let encoded = encode("m", &weights, WeightsFormat::Q8_0).unwrap();
    for (said, instead) in [
        ("hidden1.weight=14x16", "hidden1.weight=94x16"),
        ("hidden1.weight=14x16", "hidden1.weight=14y16"),
        ("hidden1.weight=14x16", "hidden2.weight=14x16"),
        ("nearside.blocks", "nearside.blacks"),
    ] {
        let at = encoded.windows(said.len()).position(|window| window == said.as_bytes()).unwrap();
        let mut bytes = encoded.clone();
        bytes[at..at + said.len()].copy_from_slice(instead.as_bytes());
        assert!(matches!(decode("m", &bytes), Err(ModelError::Damaged { .. })), "{instead}");
    }
}

#[test]
fn vectors_that_would_lose_as_16_bits_stay_as_they_are_and_what_does_not_fit_is_refused() {
    let file = |name: &str, shape: &[usize], values: &[f32]| {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        serialize("m", Tensors::from([(name.to_owned(), tensor)]), None).unwrap()
    };
    let scaling = file("input.deviation", &[3], &[1e-6, 3.0, 1e6]);
    for format in FORMATS {
        let encoded = encode("m", &scaling, format).unwrap();
        assert_eq!(difference(&scaling, &decode("m", &encoded).unwrap()), 0.0, "{format:?}");
    }
    let large = file("hidden.weight", &[1, 32], &[1e30; 32]);
    for format in FORMATS {
        let error = encode("m", &large, format).unwrap_err().to_string();
        assert!(error.contains("too large") && error.contains("hidden.weight"), "{error}");
    }
}

/// Tensors of any shapes, such as networks have.
fn tensors() -> impl Strategy<Value = Vec<(String, Vec<usize>, u64)>> {
    let shape =
        prop_oneof![(1_usize..70).prop_map(|n| vec![n]), (1_usize..40, 1_usize..40).prop_map(|(a, b)| vec![a, b])];
    let name = prop_oneof![Just("weight"), Just("bias"), Just("scale")];
    let tensor = (name, shape, any::<u64>());
    proptest::collection::vec(tensor, 1..8).prop_map(|tensors| {
        let numbered = tensors.into_iter().enumerate();
        numbered.map(|(at, (name, shape, seed))| (format!("layer{at}.{name}"), shape, seed)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_network_comes_back_with_its_shapes_and_header_and_what_a_block_loses_is_bounded(
        tensors in tensors(), said in "[ -~]{0,40}"
    ) {
        let number = |seed: u64, at: usize| ((at as f64 + (seed % 1_000) as f64) * 0.83).sin() as f32 * 10.0_f32.powi((seed % 5) as i32 - 2);
        let tensor = |(name, shape, seed): &(String, Vec<usize>, u64)| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|at| number(*seed, at)).collect();
            (name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap())
        };
        let tensors: Tensors = tensors.iter().map(tensor).collect();
        let header = Some(HashMap::from([(String::from("text"), said)]));
        let weights = serialize("m", tensors.clone(), header.clone()).unwrap();
        for (format, of_most) in [(FORMATS[0], 2.0_f32.powi(-11)), (FORMATS[1], 0.57 / 127.0), (FORMATS[2], 0.13)] {
            let encoded = encode("m", &weights, format).unwrap();
            let (decoded, said) = load(&decode("m", &encoded).unwrap()).unwrap();
            prop_assert_eq!(&said, &header);
            prop_assert_eq!(decoded.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
            for (name, tensor) in &tensors {
                prop_assert_eq!(tensor.dims(), decoded[name].dims());
                let (was, is) = (numbers(tensor).unwrap(), numbers(&decoded[name]).unwrap());
                // A small tensor may share a block with its neighbours, none of which has a number above 100.
                let most = if was.len() < BLOCK { 100.0 } else { was.iter().fold(0.0_f32, |most, v| most.max(v.abs())) };
                for (was, is) in was.iter().zip(&is) {
                    prop_assert!((was - is).abs() <= of_most * most + 1e-6, "{name} {format:?}: {was} {is}");
                }
            }
        }
    }

    #[test]
    fn whatever_stands_in_a_damaged_file_nothing_panics(at in 0_usize..880, bytes in proptest::collection::vec(any::<u8>(), 1..12)) {
        let (_, weights) = catalog::parts("sleep", None).unwrap();
        let mut encoded = encode("m", &weights, WeightsFormat::Q8_0).unwrap();
        let at = at % encoded.len();
        let count = bytes.len().min(encoded.len() - at);
        encoded[at..at + count].copy_from_slice(&bytes[..count]);
        let _ = decode("m", &encoded);
    }
}
