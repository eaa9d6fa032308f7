//! The encoder on tiny folders made here: what is read, what is refused, and that a batch changes nothing.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::card::WeightsFormat;
use crate::compress::{Compression, compress};
use crate::text::classifier::Outputs;
use crate::text::head::{Head, Meaning};

const HIDDEN: usize = 8;
const VOCABULARY: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "water", "in", "the", "cellar", "gas", "smell", "##s", "水"];

fn config() -> serde_json::Value {
    serde_json::json!({
        "model_type": "bert", "vocab_size": VOCABULARY.len(), "hidden_size": HIDDEN, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 16, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "max_position_embeddings": 16, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "pad_token_id": 0
    })
}

fn tokenizer() -> serde_json::Value {
    let vocab: serde_json::Map<String, serde_json::Value> =
        VOCABULARY.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), id.into())).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                       { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] } }
        },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocab }
    })
}

fn weights() -> Vec<u8> {
    let mut tensors = std::collections::BTreeMap::new();
    let mut put = |name: String, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let salt = name.len();
        let values: Vec<f32> = (0..count).map(|at| ((at * 31 + salt * 17) as f32 * 0.61).sin() * 0.5).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap());
    };
    for (name, rows) in [("word", VOCABULARY.len()), ("position", 16), ("token_type", 2)] {
        put(format!("embeddings.{name}_embeddings.weight"), &[rows, HIDDEN]);
    }
    let mut both = |name: &str, shape: &[usize]| {
        put(format!("{name}.weight"), shape);
        put(format!("{name}.bias"), &shape[..1]);
    };
    both("embeddings.LayerNorm", &[HIDDEN]);
    for layer in 0..2 {
        let at = format!("encoder.layer.{layer}");
        for part in ["query", "key", "value"] {
            both(&format!("{at}.attention.self.{part}"), &[HIDDEN, HIDDEN]);
        }
        both(&format!("{at}.attention.output.dense"), &[HIDDEN, HIDDEN]);
        both(&format!("{at}.attention.output.LayerNorm"), &[HIDDEN]);
        both(&format!("{at}.intermediate.dense"), &[16, HIDDEN]);
        both(&format!("{at}.output.dense"), &[HIDDEN, 16]);
        both(&format!("{at}.output.LayerNorm"), &[HIDDEN]);
    }
    safetensors::serialize(tensors, None).unwrap()
}

/// A tiny encoder's folder, with random weights.
pub(crate) fn write(folder: &Path) {
    std::fs::write(folder.join("config.json"), config().to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), weights()).unwrap();
}

fn tiny() -> (tempfile::TempDir, Arc<Encoder>) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let encoder = Encoder::load(folder.path()).unwrap();
    (folder, encoder)
}

#[test]
fn pieces_words_and_what_was_cut() {
    let (folder, encoder) = tiny();
    let pieces = encoder.pieces("Smells: Water 水").unwrap();
    assert_eq!(pieces.ids, [2, 9, 10, 1, 4, 11, 3]);
    let words: Vec<&str> = pieces.words.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(
        (words, pieces.words[0].1.clone(), pieces.is_truncated),
        (vec!["smells", ":", "water", "水"], 1..3, false)
    );
    let long = encoder.pieces(&"water ".repeat(100)).unwrap();
    assert!(long.is_truncated && long.ids.len() == encoder.most_pieces() && long.ids.last() == Some(&3));
    assert!(encoder.pieces(&"x".repeat(1 << 20)).unwrap().is_truncated);
    assert!(Arc::ptr_eq(&encoder, &Encoder::load(folder.path()).unwrap()), "one in use is shared");
}

#[test]
fn an_embedding_is_of_length_one_and_the_text_alone_decides() {
    let (_folder, encoder) = tiny();
    let (gas, cut) = encoder.embed("gas in the cellar").unwrap();
    assert!(!cut && (gas.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!(
        gas,
        encoder.embed("Gas, in the CELLAR").map(|_| encoder.embed("GAS in the cellar").unwrap().0).unwrap()
    );
    assert_ne!(gas, encoder.embed("water in the cellar").unwrap().0);
    assert!(encoder.embed("").unwrap().0.iter().all(|value| value.is_finite()), "an empty text has its two marks");
    assert!(encoder.layer(&[]).is_err() && encoder.layer(&[99]).is_err() && encoder.layer(&[4; 17]).is_err());
}

#[test]
fn a_folder_that_is_not_an_encoder_is_refused_with_what_to_do() {
    let refused = |change: &dyn Fn(&Path), expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        change(folder.path());
        let error = Encoder::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        refused(&|folder| std::fs::remove_file(folder.join(name)).unwrap(), "Hugging Face layout");
        refused(&|folder| std::fs::write(folder.join(name), b"[[[[").unwrap(), name);
        refused(&|folder| std::fs::write(folder.join(name), b"").unwrap(), name);
    }
    for (key, value, expected) in [
        ("vocab_size", serde_json::json!(u64::MAX), "vocab_size"),
        ("vocab_size", serde_json::json!(500_000), "does not hold what config.json states"),
        ("vocab_size", serde_json::json!(11), "not of the same model"),
        ("num_hidden_layers", serde_json::json!(1_000_000), "num_hidden_layers"),
        ("num_hidden_layers", serde_json::json!(3), "does not hold what config.json states"),
        ("hidden_size", serde_json::json!(16), "does not hold what config.json states"),
        ("num_attention_heads", serde_json::json!(0), "num_attention_heads"),
        ("num_attention_heads", serde_json::json!(3), "no multiple"),
        ("model_type", serde_json::json!("roberta"), "only \"bert\""),
        ("hidden_act", serde_json::json!("swish"), "config.json"),
        ("layer_norm_eps", serde_json::json!(-1.0), "layer_norm_eps"),
    ] {
        let mut changed = config();
        changed[key] = value;
        refused(&|folder| std::fs::write(folder.join("config.json"), changed.to_string()).unwrap(), expected);
    }
    refused(&|folder| std::fs::write(folder.join("config.json"), " ".repeat(1 << 17)).unwrap(), "too large");
    let cut = weights().len() - 40;
    refused(
        &|folder| std::fs::write(folder.join("model.safetensors"), &weights()[..cut]).unwrap(),
        "model.safetensors",
    );
}

#[test]
fn a_model_finds_its_own_encoder_and_a_row_is_the_same_in_every_batch() {
    let (folder, encoder) = tiny();
    let outputs = Outputs { labels: vec!["water".into(), "gas".into()], urgencies: Vec::new() };
    let meaning = Meaning { outputs, encoder: encoder.digest().to_owned(), familiar: -1.0 };
    let weights = (0..HIDDEN * 2).map(|at| (at as f32).sin()).collect();
    let head = Head { meaning, weights, bias: vec![0.1, -0.1], centres: vec![0.25; 2 * HIDDEN] };
    let bytes = head.to_bytes().unwrap();
    let mut card = crate::catalog::card("text-triage", None).unwrap();
    (card.sha256, card.label_roles) = (Some(crate::card::digest(&bytes)), None);
    let error = crate::catalog::build(card.clone(), &bytes).err().unwrap().to_string();
    assert!(error.contains("[models] encoders"), "{error}");
    let model = crate::catalog::build_on(card, &bytes, &Encoders::new(vec![folder.path().to_owned()])).unwrap();
    let (from, to) = (model.input_width(), model.output_width());
    assert_eq!((from, to), (17, 2 + 1 + 16));
    let mut inputs = vec![0.0; 9 * from];
    for (row, inputs) in inputs.chunks_exact_mut(from).enumerate().skip(1) {
        inputs[0] = row as f32;
        inputs[1..=row].iter_mut().enumerate().for_each(|(at, id)| *id = ((row * 5 + at) % VOCABULARY.len()) as f32);
    }
    let (mut all, mut alone) = (Vec::new(), Vec::new());
    model.forward(&inputs, 9, &mut all).unwrap();
    for (row, expected) in inputs.chunks_exact(from).zip(all.chunks_exact(to)) {
        model.forward(row, 1, &mut alone).unwrap();
        assert!(alone.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()) && alone.len() == to);
    }
}

#[test]
fn a_head_that_was_made_smaller_finds_its_encoder_and_says_nearly_the_same() {
    let (folder, encoder) = tiny();
    let outputs = Outputs { labels: vec!["water".into(), "gas".into()], urgencies: vec!["soon".into(), "now".into()] };
    let meaning = Meaning { outputs, encoder: encoder.digest().to_owned(), familiar: 0.5 };
    let weights = (0..HIDDEN * 4).map(|at| 3.0 * (at as f32).sin()).collect();
    let centres = (0..2 * HIDDEN).map(|at| 0.35 * (at as f32 * 1.7).cos()).collect();
    let head = Head { meaning, weights, bias: vec![0.1, -0.1, 0.5, 0.0], centres };
    let bytes = head.to_bytes().unwrap();
    let mut card = crate::catalog::card("text-triage", None).unwrap();
    (card.sha256, card.label_roles) = (None, None);
    let encoders = Encoders::new(vec![folder.path().to_owned()]);
    let how = |quantize| Compression { prune: None, distill: None, quantize: Some(quantize), epochs: 1, seed: 1 };
    for (format, within) in [(WeightsFormat::F16, 2e-3), (WeightsFormat::Q8_0, 0.02), (WeightsFormat::Q4_0, 0.3)] {
        let small = compress(&card, &bytes, &how(format), None, &mut |_| ()).unwrap();
        assert!(small.weights.len() < bytes.len() || bytes.len() < 1_024, "{} bytes", small.weights.len());
        assert!(crate::catalog::build_on(small.card, &small.weights, &encoders).is_ok());
        let read = Head::load("m", &crate::compress::decode("m", &small.weights).unwrap()).unwrap();
        assert_eq!(read.meaning, head.meaning);
        for text in ["gas in the cellar", "water", "smells", ""] {
            let embedding = encoder.embed(text).unwrap().0;
            let (was, is) = (head.judge(&embedding), read.judge(&embedding));
            assert!((was.likeness - is.likeness).abs() < within, "{format:?} {text}: {was:?} {is:?}");
            let both = was.scores.labels.iter().zip(&is.scores.labels);
            assert!(both.into_iter().all(|(a, b)| (a - b).abs() < f64::from(within)), "{format:?}: {was:?} {is:?}");
        }
    }
    let pruned = Compression { prune: Some(0.5), ..how(WeightsFormat::F16) };
    let error = compress(&card, &bytes, &pruned, None, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("can be quantised"), "{error}");
}

/// Weights of 16 bits, as some models are published, are read as they are: an encoder needs no compression of ours.
#[test]
fn an_encoder_of_16_bits_is_half_as_large_and_embeds_nearly_the_same() {
    let (folder, encoder) = tiny();
    let half = tempfile::tempdir().unwrap();
    write(half.path());
    let halves = candle_core::safetensors::load_buffer(&weights(), &Device::Cpu).unwrap().into_iter();
    let halves: std::collections::BTreeMap<String, Tensor> =
        halves.map(|(name, tensor)| (name, tensor.to_dtype(DType::F16).unwrap())).collect();
    std::fs::write(half.path().join("model.safetensors"), safetensors::serialize(halves, None).unwrap()).unwrap();
    let small = Encoder::load(half.path()).unwrap();
    assert_ne!(small.digest(), encoder.digest(), "a head names the encoder that it was trained on");
    let size = |folder: &tempfile::TempDir| folder.path().join("model.safetensors").metadata().unwrap().len() as f64;
    assert!(size(&folder) / size(&half) > 1.3);
    for text in ["gas in the cellar", "water"] {
        let (was, is) = (encoder.embed(text).unwrap().0, small.embed(text).unwrap().0);
        let cosine: f32 = was.iter().zip(&is).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999, "{text}: {cosine}");
    }
}
