//! From rows of a stream to the network's inputs: one row of [`INPUTS`] for each field that is ready and has a value.

use super::field::{Distance, Field, LONG, SHORT, SPANS};
use super::relation::Relation;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Width of the network's input: 5 distances and their sizes, 2 of roughness, 2 of wandering, 2 given the other fields, the
/// peak, 2 of the other fields' distances, the number of fields.
pub const INPUTS: usize = 2 * SPANS.len() + 2 + 2 + 2 + 1 + 2 + 1;

/// A field of a row that waits for its verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Taken {
    /// Which of the stream's numeric fields.
    pub(super) field: usize,
    pub(super) value: f64,
    /// What the field's past and the other fields say.
    pub(super) expected: f64,
    /// How far from it is still ordinary, to either side.
    pub(super) margin: f64,
    /// Usual deviations of the 12-row mean from its baseline.
    pub(super) distance: f64,
    /// The same from what the other fields say.
    pub(super) unexplained: f64,
    /// How many times rougher than usual the last 32 rows were.
    pub(super) roughness: f64,
}

/// Usual deviations of a value that are ordinary.
const ORDINARY: f64 = 3.0;

/// What is known of a stream before any verdict: it depends on rows alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    fields: Vec<Field>,
    relation: Relation,
    warm_up: u32,
}

impl Watch {
    /// Nothing seen yet of this many fields.
    pub fn new(fields: usize, warm_up: u32) -> Self {
        Self { fields: vec![Field::default(); fields], relation: Relation::new(fields), warm_up }
    }

    /// Takes a row's values, in the order of the fields, and appends the inputs of those that are ready; says which they are.
    pub fn observe(&mut self, values: impl Iterator<Item = Option<f64>>, inputs: &mut Vec<f32>) -> Vec<usize> {
        self.take(values, inputs).into_iter().map(|taken| taken.field).collect()
    }

    /// [`Watch::observe`] with what the verdict needs.
    pub(super) fn take(&mut self, values: impl Iterator<Item = Option<f64>>, inputs: &mut Vec<f32>) -> Vec<Taken> {
        let values: Vec<Option<f64>> = values.collect();
        let rows = self.fields.iter_mut().zip(&values);
        let seen: Vec<Option<Distance>> =
            rows.map(|(field, value)| value.and_then(|value| field.observe(value, self.warm_up))).collect();
        let at = |span: usize| -> Vec<f64> {
            let rows = self.fields.iter().zip(&values);
            rows.map(|(field, value)| value.map_or(0.0, |_| field.z(span))).collect()
        };
        let (short, long) = (at(SHORT), at(LONG));
        let mut taken = Vec::new();
        if seen.iter().any(Option::is_some) {
            let conditional = self.relation.conditional();
            let (from_short, from_long) = (conditional.apply(&short), conditional.apply(&long));
            for (index, distance) in seen.iter().enumerate() {
                let (Some(distance), Some(value)) = (distance, values[index]) else { continue };
                let precision = conditional.precision(index);
                let unexplained = [from_short[index], from_long[index]].map(|z| z / precision.sqrt());
                let others = [&short, &long].map(|all| mean_of_others(all, index));
                write_inputs(distance, unexplained, others, self.fields.len(), inputs);
                let field = &self.fields[index];
                taken.push(Taken {
                    field: index,
                    value,
                    expected: field.value_at(short[index] - from_short[index] / precision),
                    margin: ORDINARY * field.usual_deviation(),
                    distance: distance.z[SHORT],
                    unexplained: unexplained[0],
                    roughness: distance.rough[1].exp(),
                });
            }
        }
        self.relation.learn(short.into_iter());
        taken
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.fields.iter().for_each(|field| field.write(writer));
        self.relation.write(writer);
    }

    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        for field in &mut self.fields {
            *field = Field::read(reader)?;
        }
        self.relation = Relation::read(self.fields.len(), reader)?;
        Ok(())
    }
}

fn mean_of_others(all: &[f64], index: usize) -> f64 {
    let sum: f64 = all.iter().map(|z| z.abs()).sum();
    (sum - all[index].abs()) / (all.len() - 1).max(1) as f64
}

/// Every input is `sign(v) · ln(1 + |v|)` of what it stands for.
fn write_inputs(distance: &Distance, unexplained: [f64; 2], others: [f64; 2], fields: usize, inputs: &mut Vec<f32>) {
    let mut put = |value: f64| inputs.push(value.abs().ln_1p().copysign(value) as f32);
    distance.z.iter().chain(&distance.rough).chain(&distance.wander).for_each(|value| put(*value));
    unexplained.iter().chain([&distance.peak]).chain(&others).for_each(|value| put(*value));
    put((fields as f64).ln());
    distance.z.iter().for_each(|value| put(value.abs()));
}
