//! What needs the whole house: the configuration, the states of streams, the weights of models.

use std::path::Path;

use nearside_actors::stream::StreamState;
use nearside_models::compress::decode;
use nearside_models::diagnosis::ecg;
use nearside_models::diagnosis::motion::sleep;
use nearside_models::mlp;
use nearside_models::text::classifier::Classifier;
use nearside_models::text::head::Head;

use crate::targets::Target;

/// These targets.
pub const TARGETS: &[Target] = &[("configuration", configuration), ("checkpoint", checkpoint), ("weights", weights)];

/// A site's file.
fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match nearside_config::parse(text, Path::new("site.toml")) {
        Ok(site) => assert!(!site.streams.is_empty(), "a site has a stream"),
        // Says what is wrong, whatever the text.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The state of a stream in a checkpoint, once it is decrypted.
fn checkpoint(bytes: &[u8]) {
    let Some((name, key, state)) = StreamState::decode(bytes) else { return };
    // Bytes of an earlier version are written as today's: from then on they stay as they are.
    let again = state.encode(&name, &key);
    let Some((name, key, state)) = StreamState::decode(&again) else { panic!("what is written is read") };
    assert_eq!(state.encode(&name, &key), again, "what is read is written as it was");
}

/// A weights file of a model's folder, whose card has its digest: quantised or not, of whatever model.
fn weights(bytes: &[u8]) {
    let floats = match decode("m", bytes) {
        Ok(floats) => floats,
        // Says what is wrong, whatever the bytes.
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let again = decode("m", &floats).map(|again| again.len());
    assert_eq!(again.ok(), Some(floats.len()), "what is decoded is no format but floats");
    if let Ok(network) = mlp::Network::load(sleep::LAYOUT, &floats) {
        let mut outputs = Vec::new();
        assert!(network.forward(&[0.5; 14], 1, &mut outputs).is_ok() && outputs.len() == 1);
    }
    if let Ok(bag) = Classifier::load("m", &floats) {
        assert_eq!(bag.score("some words").labels.len(), bag.outputs().labels.len());
    }
    if let Ok(head) = Head::load("m", &floats) {
        assert_eq!(head.logits(&vec![0.5; head.hidden()]).len(), head.outputs().len());
    }
    let _ = ecg::network::Network::load(&floats);
}
