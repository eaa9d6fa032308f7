//! The contract between stream actors and models that judge row by row.
//!
//! A model is shared and immutable ([`RowModel`]); what it knows of one stream is a [`RowState`] that belongs to the
//! stream's actor. Judging a row has two steps so that rows of many streams share one forward pass: the state *takes*
//! the row and writes the network's inputs; later it *judges* the oldest taken row from the network's outputs. Inputs
//! depend on rows alone, never on outputs, so many rows may be taken before the first is judged. Models without a
//! network have an input width of 0 and are judged at once.

use candle_core::Device;
use nearside_schemas::{Contribution, FieldName, FieldSpec, FieldValue, ModelRef, Severity, Timestamp};
use std::sync::Arc;

use crate::ModelError;

/// One row of a stream as a model sees it. Rows come in event-time order where the device keeps it; a model must bear an
/// out-of-order or repeated time.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Event time.
    pub time: Timestamp,
    /// The values, in the order of the fields the state was made for.
    pub values: &'a [FieldValue],
}

/// A model that judges row by row: weights and thresholds, shared by all streams and threads.
pub trait RowModel: Send + Sync + 'static {
    /// Name and version.
    fn reference(&self) -> &ModelRef;

    /// Whether a stream with these fields can be judged; asked when the configuration is checked.
    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError>;

    /// Whether it judges each field by itself and names the one it flags first; otherwise it judges the row as a whole.
    fn judges_fields(&self) -> bool {
        false
    }

    /// Whether it judges patients. Feedback changes no threshold on a stream that such a model judges, whatever else judges it; so this is
    /// true unless a model says otherwise.
    fn judges_patients(&self) -> bool {
        true
    }

    /// Whether operators' feedback on findings with this label moves its threshold ([`RowState::raise_threshold`]). Not where the label
    /// states a fact, such as a sensor that repeats one value.
    fn heeds_feedback(&self, label: &str) -> bool {
        let _ = label;
        false
    }

    /// Width of one network input; 0 where there is no network.
    fn input_width(&self) -> usize {
        0
    }

    /// Width of one network output.
    fn output_width(&self) -> usize {
        0
    }

    /// A state that has seen nothing.
    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState>;

    /// The state that [`RowState::snapshot`] wrote.
    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError>;

    /// The same model with its network on another device; `None` where it has no network that could go there.
    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn RowModel>>, ModelError> {
        let _ = device;
        Ok(None)
    }

    /// One forward pass: `inputs` is `[rows, input_width]`, `outputs` is cleared and becomes `[rows, output_width]`.
    /// Each row's output is bit-identical whatever the other rows are (promise I5): batches are padded to fixed sizes.
    fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        let _ = (inputs, rows);
        outputs.clear();
        Ok(())
    }
}

/// What a model knows of one stream.
pub trait RowState: Send {
    /// Step 1: takes a row and appends the network's inputs for it to `inputs`. Returns how many inputs of
    /// [`RowModel::input_width`] it appended (one for each numeric field with a value, say; may be 0).
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize;

    /// Step 2: judges the oldest row that was taken and not yet judged, given the outputs of its inputs.
    fn judge(&mut self, outputs: &[f32]) -> RowVerdict;

    /// Instead of step 2, where the forward pass failed or came too late: forgets the oldest taken row.
    fn skip(&mut self);

    /// Rows judged from here on meet a threshold raised by `steps` on this field, or on the row where the model judges it as a whole; 0 is
    /// the card's again. See [`raised_threshold`]. It is not part of a snapshot.
    fn raise_threshold(&mut self, field: Option<&FieldName>, steps: f64) {
        let _ = (field, steps);
    }

    /// The state as bytes, versioned. Rows that were taken and not judged are not part of it.
    fn snapshot(&self) -> Vec<u8>;
}

/// A threshold of scores between 0 and 1 raised by `steps`: each takes the distance to 1 times `1/√2`, which for the forecaster is one in ten
/// times rarer.
pub fn raised_threshold(threshold: f64, steps: f64) -> f64 {
    1.0 - (1.0 - threshold) * (-0.5 * steps).exp2()
}

/// What a model says of one row.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RowVerdict {
    /// 0 (ordinary) to 1.
    pub score: f64,
    /// The score from which on the model flags.
    pub threshold: f64,
    /// Whether it flags this row.
    pub flagged: bool,
    /// What it saw, empty where it does not flag. Usually one.
    pub sightings: Vec<Sighting>,
}

/// Something a model saw in a row; the stream's actor makes a [`nearside_schemas::Finding`] of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// What it is, such as `spike`; a short fixed set of words for each model.
    pub label: &'static str,
    /// Whether it is another one: what was told before under this label, and on this field, was over. Otherwise it goes on with that, where
    /// its window has it.
    pub begins: bool,
    /// How much it matters.
    pub severity: Severity,
    /// 0 to 1.
    pub score: f64,
    /// What contributed, most first.
    pub contributions: Vec<Contribution>,
    /// One sentence for people.
    pub text: String,
}
