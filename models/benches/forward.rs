//! Times the forward pass of a model that ships, as the gateway calls it. `benches/inference.py` drives it in turns with ONNX Runtime.
//!
//! `forward MODEL ROWS INPUTS OUTPUTS`: INPUTS is a file of `[ROWS, input_width]` little-endian 32-bit floats; OUTPUTS is written with
//! the outputs of one pass, `[ROWS, output_width]`. Then each line of standard input is a count of passes, answered with a line that holds
//! the nanoseconds of one. `text-triage` has no batches: INPUTS is one text a line, and OUTPUTS holds for each a line of JSON with its bag
//! (buckets and values), which the other side is given too; a pass is from bags to probabilities.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use nearside_models::catalog;
use nearside_models::text::classifier::Classifier;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.as_slice() {
        [model, rows, inputs, outputs] if model == "text-triage" => text(model, rows.parse()?, inputs, outputs),
        [model, rows, inputs, outputs] => network(model, rows.parse()?, inputs, outputs),
        _ => {
            eprintln!("forward MODEL ROWS INPUTS OUTPUTS; see benches/inference.py, which calls it");
            Ok(())
        }
    }
}

fn network(name: &str, rows: usize, inputs: &str, outputs: &str) -> Outcome<()> {
    let model = catalog::load(name, None)?;
    let bytes = std::fs::read(inputs)?;
    let inputs: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if inputs.len() != rows * model.input_width() {
        return Err(format!("{} inputs, {rows} × {} expected", inputs.len(), model.input_width()).into());
    }
    let mut given = Vec::new();
    model.forward(&inputs, rows, &mut given)?;
    std::fs::write(outputs, given.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    in_turns(|| {
        // The gateway's workers give each pass a new vector.
        let mut given = Vec::new();
        model.forward(black_box(&inputs), rows, &mut given)?;
        black_box(given);
        Ok(())
    })
}

fn text(name: &str, rows: usize, inputs: &str, outputs: &str) -> Outcome<()> {
    let (_, weights) = catalog::parts(name, None)?;
    let classifier = Classifier::load(name, &weights)?;
    let texts = std::fs::read_to_string(inputs)?;
    let bags: Vec<_> = texts.lines().take(rows).map(|text| classifier.bag(text)).collect();
    let mut file = std::fs::File::create(outputs)?;
    for bag in &bags {
        let scores = classifier.score_bag(bag);
        writeln!(
            file,
            "{}",
            serde_json::json!({ "bag": bag, "labels": scores.labels, "urgencies": scores.urgencies })
        )?;
    }
    in_turns(|| {
        black_box(&bags).iter().for_each(|bag| {
            black_box(classifier.score_bag(bag));
        });
        Ok(())
    })
}

fn in_turns(mut pass: impl FnMut() -> Outcome<()>) -> Outcome<()> {
    for line in std::io::stdin().lock().lines() {
        let passes: u32 = line?.trim().parse()?;
        let started = Instant::now();
        for _ in 0..passes {
            pass()?;
        }
        println!("{}", started.elapsed().as_secs_f64() * 1e9 / f64::from(passes.max(1)));
        std::io::stdout().flush()?;
    }
    Ok(())
}
