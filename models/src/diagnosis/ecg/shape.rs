//! The shape of a beat in one lead, held against the shapes that this patient's beats usually have.
//!
//! A beat is cut out from 0.26 s before its middle to 0.43 s after it, put over the usual amplitude, and joins the one of up to
//! [`MOST_TEMPLATES`] templates that it correlates with in the QRS complex, or begins a new one. The *dominant* template is
//! the one with the most beats of late, where beats that come early and are broad count less: in bigeminy half of them are ectopic.
//! [`Shape::values`] are numbers without a unit that say how the beat differs from the dominant template, and by how much more
//! than this patient's beats usually do.
//!
//! Promises: constant memory, about 4 KB a lead; depends on the samples and complexes alone, never on what a network said.

use std::collections::VecDeque;

use super::RATE_HZ;
use super::filter::{Biquad, Ring};
use super::qrs::median;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Samples of a beat that is cut out, every second of the signal.
const LEN: usize = 63;
/// Samples of the signal from the first one to the middle of the beat.
const BEFORE: usize = 46;
/// Samples of the signal that must have come after a beat's middle.
pub(super) const AFTER: u64 = 2 * (LEN as u64 - 1) - BEFORE as u64 + MOST_LAG as u64;
/// Most that a beat is moved to fit a template, in samples of the signal.
const MOST_LAG: usize = 3;
/// Where the P wave, the QRS complex and the T wave lie; and what templates are compared by.
const P_WAVE: std::ops::Range<usize> = 0..15;
const QRS: std::ops::Range<usize> = 14..32;
const T_WAVE: std::ops::Range<usize> = 32..63;
const COMPARED: std::ops::Range<usize> = 13..40;
/// Where the width is measured.
const WIDTH: std::ops::Range<usize> = 11..37;
const BROAD_WIDTH: std::ops::Range<usize> = 8..40;
/// How many numbers describe a shape.
pub(super) const VALUES: usize = 28;
/// Samples of the signal that are kept: 3 s, for complexes that are found late.
const KEPT: usize = 540;
/// Base line wander below this is taken out.
const BASE_LINE_HZ: f64 = 0.5;
/// Templates of a patient.
const MOST_TEMPLATES: usize = 5;
/// Correlation from which on a beat belongs to a template.
const SAME: f32 = 0.85;
/// What a template keeps of its weight at each beat, and how slowly it moves.
const KEEP: f32 = 0.98;
const SLOWEST: f32 = 0.04;
/// Beats over which the usual amplitude and the usual differences are taken.
const USUAL: usize = 40;
/// Differences whose usual size is kept.
const DIFFERENCES: usize = 5;

/// A beat's shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    /// What it is, for the network.
    pub values: [f32; VALUES],
    /// Its peak to peak amplitude in the unit of the samples.
    pub amplitude: f32,
}

/// The mean of beats that look alike.
#[derive(Clone, Debug)]
struct Template {
    mean: [f32; LEN],
    /// Beats of late.
    weight: f32,
    /// Beats ever, as far as it matters.
    count: f32,
    /// The mean interval before them over the usual one, and their mean width.
    interval: f32,
    width: f32,
}

/// The shapes of one lead.
#[derive(Clone, Debug)]
pub(super) struct LeadShapes {
    high_pass: Biquad,
    raw: Ring,
    amplitudes: VecDeque<f32>,
    differences: VecDeque<[f32; DIFFERENCES]>,
    templates: Vec<Template>,
}

impl LeadShapes {
    pub(super) fn new() -> Self {
        Self {
            high_pass: Biquad::high_pass(BASE_LINE_HZ, RATE_HZ),
            raw: Ring::new(KEPT),
            amplitudes: VecDeque::new(),
            differences: VecDeque::new(),
            templates: Vec::new(),
        }
    }

    /// Forgets the signal after a gap, but not the templates.
    pub(super) fn restart(&mut self) {
        self.high_pass = Biquad::high_pass(BASE_LINE_HZ, RATE_HZ);
        self.raw = Ring::new(KEPT);
    }

    pub(super) fn push(&mut self, sample: f64) {
        self.raw.push(self.high_pass.next(sample) as f32);
    }

    /// The beat cut out with its middle `back` samples before the newest, moved by `lag`.
    fn cut(&self, back: usize, lag: usize) -> [f32; LEN] {
        std::array::from_fn(|index| self.raw.newest((back + BEFORE + MOST_LAG).saturating_sub(2 * index + lag)))
    }

    /// Takes the beat whose middle lies `back` samples before the newest. `interval` is the one before it over the usual.
    pub(super) fn describe(&mut self, back: usize, interval: f32) -> Shape {
        let cuts: [[f32; LEN]; 2 * MOST_LAG + 1] = std::array::from_fn(|lag| self.cut(back, lag));
        let amplitude = range(&cuts[MOST_LAG][QRS]);
        push_bounded(&mut self.amplitudes, amplitude, USUAL);
        let usual = median(self.amplitudes.make_contiguous()).unwrap_or(amplitude).max(1e-6);
        let own = self.join(&cuts, usual, interval.min(1.5));
        let total: f32 = self.templates.iter().map(|template| template.weight).sum();
        let dominant = self.dominant();
        let template = &self.templates[dominant];
        let (correlation, lag) = best_lag(&cuts, &template.mean);
        let beat = normalised(&cuts[lag], usual);
        let fast = self.steepest(back) / usual;
        let shares =
            [f32::from(u8::from(own == dominant)), self.templates[own].weight / total, self.templates[own].interval];
        let amplitude_ratio = ((amplitude + 1e-6) / usual).ln().clamp(-2.0, 2.0);
        let (values, differences) =
            compare(&beat, template, correlation, shares, [amplitude_ratio, fast], &self.differences);
        push_bounded(&mut self.differences, differences, USUAL);
        Shape { values, amplitude }
    }

    /// The same for a beat that the beginning or the end of the signal cuts: nothing is learnt from it.
    pub(super) fn describe_cut(&self, back: usize, interval: f32) -> Shape {
        self.clone().describe(back, interval)
    }

    /// The template that the beat belongs to, made where there is none.
    fn join(&mut self, cuts: &[[f32; LEN]], usual: f32, interval: f32) -> usize {
        self.templates.iter_mut().for_each(|template| template.weight *= KEEP);
        // The heaviest that fits, not the best: noise would split a template into many.
        let mut order: Vec<usize> = (0..self.templates.len()).collect();
        order.sort_by(|a, b| self.templates[*b].weight.total_cmp(&self.templates[*a].weight));
        for index in order {
            let (correlation, lag) = best_lag(cuts, &self.templates[index].mean);
            if correlation >= SAME {
                let beat = normalised(&cuts[lag], usual);
                self.templates[index].learn(&beat, interval);
                return index;
            }
        }
        let beat = normalised(&cuts[MOST_LAG], usual);
        let template = Template { mean: beat, weight: 1.0, count: 1.0, interval, width: width(&beat[WIDTH]) };
        if self.templates.len() < MOST_TEMPLATES {
            self.templates.push(template);
            return self.templates.len() - 1;
        }
        let lightest =
            (0..MOST_TEMPLATES).min_by(|a, b| self.templates[*a].weight.total_cmp(&self.templates[*b].weight));
        let lightest = lightest.unwrap_or(0);
        self.templates[lightest] = template;
        lightest
    }

    fn dominant(&self) -> usize {
        let standing = |template: &Template| {
            template.weight * (4.0 * (template.interval.min(1.2) - 1.0)).exp() / template.width.max(0.02)
        };
        let all = self.templates.iter().enumerate();
        all.max_by(|(_, a), (_, b)| standing(a).total_cmp(&standing(b))).map_or(0, |(index, _)| index)
    }

    /// The largest step between two samples around a beat.
    fn steepest(&self, back: usize) -> f32 {
        let newest = back.saturating_sub(14);
        (newest..back + 14).map(|back| (self.raw.newest(back) - self.raw.newest(back + 1)).abs()).fold(0.0, f32::max)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.high_pass.write(writer);
        self.raw.write(writer);
        writer.u32(self.amplitudes.len() as u32);
        self.amplitudes.iter().for_each(|value| writer.f32(*value));
        writer.u32(self.differences.len() as u32);
        self.differences.iter().flatten().for_each(|value| writer.f32(*value));
        writer.u32(self.templates.len() as u32);
        for template in &self.templates {
            template.mean.iter().for_each(|value| writer.f32(*value));
            [template.weight, template.count, template.interval, template.width]
                .iter()
                .for_each(|value| writer.f32(*value));
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut lead = Self::new();
        lead.high_pass.read(reader)?;
        lead.raw.read(reader)?;
        let count = reader.count(USUAL)?;
        lead.amplitudes = (0..count).map(|_| reader.f32()).collect::<Result<_, _>>()?;
        for _ in 0..reader.count(USUAL)? {
            lead.differences.push_back(floats(reader)?);
        }
        for _ in 0..reader.count(MOST_TEMPLATES)? {
            let mean = floats(reader)?;
            let [weight, count, interval, width] = floats(reader)?;
            lead.templates.push(Template { mean, weight, count, interval, width });
        }
        Ok(lead)
    }
}

impl Template {
    fn learn(&mut self, beat: &[f32; LEN], interval: f32) {
        self.count += 1.0;
        self.weight += 1.0;
        let rate = (1.0 / self.count).max(SLOWEST);
        self.mean.iter_mut().zip(beat).for_each(|(mean, value)| *mean += rate * (value - *mean));
        let rate = rate.max(0.1);
        self.interval += rate * (interval - self.interval);
        self.width += rate * (width(&beat[WIDTH]) - self.width);
    }
}

/// The values of a shape, and those whose usual size is kept.
fn compare(
    beat: &[f32; LEN],
    template: &Template,
    correlation: f32,
    shares: [f32; 3],
    [amplitude, steepest]: [f32; 2],
    usual: &VecDeque<[f32; DIFFERENCES]>,
) -> ([f32; VALUES], [f32; DIFFERENCES]) {
    let mean = &template.mean;
    let p_wave = correlate(&beat[P_WAVE], &mean[P_WAVE]);
    let t_wave = correlate(&beat[T_WAVE], &mean[T_WAVE]);
    let apart = |correlation: f32| (1.0 - correlation).max(2e-3).ln();
    let ratio = |a: f32, b: f32| ((a + 0.01) / (b + 0.01)).ln();
    let (narrow, broad) = (width(&beat[WIDTH]), width(&beat[BROAD_WIDTH]));
    let (up, down) = (highest(&beat[QRS]), -highest(&beat[QRS].iter().map(|value| -value).collect::<Vec<_>>()));
    let (usual_up, usual_down) =
        (highest(&mean[QRS]), -highest(&mean[QRS].iter().map(|value| -value).collect::<Vec<_>>()));
    let differences = [
        distance(&beat[COMPARED], &mean[COMPARED], 0.0),
        distance(&beat[P_WAVE], &mean[P_WAVE], middle(&beat[P_WAVE]) - middle(&mean[P_WAVE])),
        distance(&beat[T_WAVE], &mean[T_WAVE], 0.0),
        apart(correlation),
        apart(p_wave),
    ];
    let usual = |index: usize| {
        let past: Vec<f32> = usual.iter().map(|one| one[index]).collect();
        median(&past).unwrap_or(differences[index])
    };
    let relative = |index: usize| ((differences[index] + 0.005) / (usual(index) + 0.005)).max(1e-3).ln();
    let values = [
        correlation,
        p_wave,
        t_wave,
        amplitude,
        10.0 * narrow,
        10.0 * broad,
        shares[0],
        shares[1],
        shares[2],
        up,
        down,
        differences[3],
        differences[4],
        ratio(narrow, width(&mean[WIDTH])),
        ratio(broad, width(&mean[BROAD_WIDTH])),
        up - usual_up,
        down - usual_down,
        range(&beat[P_WAVE]) - range(&mean[P_WAVE]),
        range(&beat[T_WAVE]) - range(&mean[T_WAVE]),
        differences[0],
        differences[1],
        differences[2],
        relative(0),
        relative(1),
        relative(2),
        differences[3] - usual(3),
        differences[4] - usual(4),
        4.0 * steepest,
    ];
    (values, differences)
}

/// The lag at which a beat fits a template best, and the correlation there.
fn best_lag(cuts: &[[f32; LEN]], mean: &[f32; LEN]) -> (f32, usize) {
    let fits = cuts.iter().enumerate().map(|(lag, cut)| (correlate(&cut[COMPARED], &mean[COMPARED]), lag));
    fits.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, MOST_LAG))
}

/// Over the usual amplitude, about its own middle.
fn normalised(cut: &[f32; LEN], usual: f32) -> [f32; LEN] {
    let middle = middle(cut);
    cut.map(|value| ((value - middle) / usual).clamp(-10.0, 10.0))
}

/// Pearson's correlation; 0 where one does not change.
fn correlate(a: &[f32], b: &[f32]) -> f32 {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len().max(1) as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut left, mut right) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        left += a * a;
        right += b * b;
    }
    let size = (left * right).sqrt();
    if size > 1e-9 { both / size } else { 0.0 }
}

/// Area about the middle over the largest distance from it, in seconds.
fn width(values: &[f32]) -> f32 {
    let middle = middle(values);
    let off = values.iter().map(|value| (value - middle).abs());
    let most = off.clone().fold(0.0, f32::max);
    if most > 1e-9 { 2.0 * off.sum::<f32>() / most / RATE_HZ as f32 } else { 0.0 }
}

fn middle(values: &[f32]) -> f32 {
    median(values).unwrap_or(0.0)
}

fn highest(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::MIN, f32::max)
}

fn range(values: &[f32]) -> f32 {
    highest(values) - values.iter().copied().fold(f32::MAX, f32::min)
}

fn distance(a: &[f32], b: &[f32], offset: f32) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b - offset).abs()).sum::<f32>() / a.len().max(1) as f32
}

fn push_bounded<T>(values: &mut VecDeque<T>, value: T, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

fn floats<const N: usize>(reader: &mut Reader<'_>) -> Result<[f32; N], ModelError> {
    let mut values = [0.0; N];
    for value in &mut values {
        *value = reader.f32()?;
    }
    Ok(values)
}
