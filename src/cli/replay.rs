//! `nearside replay`: the same stream component over recorded data, as fast as it goes and the same in every run (promise I5).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use nearside_actors::stream::Outputs;
use nearside_privacy::{preview_finding, preview_summary};

use super::check::site_models;
use super::counted;
use super::outputs::{Inputs, apart};
use crate::error::StartError;
use crate::replay::input::{Recorded, read_recorded};
use crate::replay::{Judgement, LookAhead, Replay, ReplayKeys};

/// Replays a recorded file through one stream of a site.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The site's TOML file.
    #[arg(long)]
    config: PathBuf,
    /// The stream definition.
    #[arg(long)]
    stream: String,
    /// What was recorded: .csv, .jsonl or .parquet.
    #[arg(long)]
    input: PathBuf,
    /// A part of the stream's key, for all rows: NAME=VALUE. Without it the column or member of that name counts, and where
    /// there is none the file's name.
    #[arg(long, value_name = "NAME=VALUE")]
    key: Vec<String>,
    /// Writes a CSV line for each input row here: timestamp, value, score, flagged. The score is the highest that a model of
    /// the stream gave the row, from 0 (ordinary) to 1; flagged is 1 where any of them flagged it. Models have thresholds of
    /// their own, so a flagged row need not have the highest score of the file. Both are 0 where the row was set aside.
    #[arg(long)]
    scores: Option<PathBuf>,
    /// Writes the findings here, one JSON object a line, as they would leave for the cloud: what tells of a field that may not leave is
    /// withheld. `privacy = { FIELD = "clear" }` lets it be seen.
    #[arg(long)]
    findings: Option<PathBuf>,
    /// Writes the summaries here as they are before encryption, one JSON object a line.
    #[arg(long)]
    summaries: Option<PathBuf>,
}

/// Where the results go.
struct Sinks {
    scores: Option<csv::Writer<BufWriter<File>>>,
    findings: Option<BufWriter<File>>,
    summaries: Option<BufWriter<File>>,
}

/// Runs the command.
pub fn run(args: &ReplayArgs) -> Result<(), StartError> {
    let outputs = [("--scores", &args.scores), ("--findings", &args.findings), ("--summaries", &args.summaries)]
        .map(|(option, path)| (option, path.as_deref()));
    let inputs = Inputs::default().with("--config", &args.config).with("--input", &args.input);
    for (option, path) in outputs {
        path.map_or(Ok(()), |path| inputs.spare_file(option, path))?;
    }
    apart(&outputs)?;
    let config = nearside_config::load(&args.config)?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    let key_file = base.join(&config.site.data_dir).join(&config.privacy.key_file);
    let models = site_models(&config, base, &key_file)?;
    let (plans, _) = crate::middle::plan(&config, &models, &crate::middle::Recent::new())?;
    let plan = plans.iter().find(|plan| plan.spec.name.as_str() == args.stream).ok_or_else(|| {
        let names: Vec<&str> = plans.iter().map(|plan| plan.spec.name.as_str()).collect();
        StartError::Usage(format!("the site has no stream `{}`; it has: {}", args.stream, names.join(", ")))
    })?;
    let given = given_keys(&args.key)?;
    let keys = ReplayKeys::of_site(&key_file)?;
    let future = config.streams[plan.index].guard.future.get();
    let mut replay = Replay::new(plan.clone(), keys, config.limits.tick.get(), future);
    let mut sinks = Sinks::open(args)?;
    sinks.write_score(["timestamp", "value", "score", "flagged"])?;
    let mut out = Outputs { keep_scores: true, ..Outputs::default() };
    let (mut rows, mut findings, mut summaries, mut refused) = (0u64, 0u64, 0u64, 0u64);
    let mut first_fault = None;
    for row in LookAhead::new(read_recorded(&args.input, &plan.spec, &given)?) {
        let (recorded, next) = row?;
        rows += 1;
        if let Err(why) = &recorded.reading {
            refused += 1;
            first_fault.get_or_insert_with(|| (rows, why.clone()));
        }
        let judgement = replay.push(&recorded, next, &mut out);
        sinks.score(&recorded, judgement)?;
        findings += out.raised.len() as u64;
        summaries += out.summaries.len() as u64;
        sinks.take(&replay, &mut out)?;
    }
    replay.drain(&mut out);
    findings += out.raised.len() as u64;
    summaries += out.summaries.len() as u64;
    sinks.take(&replay, &mut out)?;
    sinks.flush()?;
    if let Some((row, why)) = first_fault {
        eprintln!("warning: {} without a reading; the first is row {row}: {why}", counted(refused, "row"));
    }
    let set_aside = replay.set_aside() + refused;
    let summaries = if summaries == 1 { "1 summary".to_owned() } else { format!("{summaries} summaries") };
    eprintln!("{}, {set_aside} set aside, {}, {summaries}", counted(rows, "row"), counted(findings, "finding"));
    Ok(())
}

fn given_keys(given: &[String]) -> Result<Vec<(String, String)>, StartError> {
    let pair = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    given
        .iter()
        .map(|text| pair(text).ok_or_else(|| StartError::Usage(format!("--key {text}: write NAME=VALUE"))))
        .collect()
}

impl Sinks {
    fn open(args: &ReplayArgs) -> Result<Self, StartError> {
        let create = |path: &Option<PathBuf>| -> Result<Option<BufWriter<File>>, StartError> {
            let Some(path) = path else { return Ok(None) };
            Ok(Some(BufWriter::new(File::create(path).map_err(StartError::file(path))?)))
        };
        Ok(Self {
            scores: create(&args.scores)?.map(csv::Writer::from_writer),
            findings: create(&args.findings)?,
            summaries: create(&args.summaries)?,
        })
    }

    fn score(&mut self, recorded: &Recorded, judgement: Option<Judgement>) -> Result<(), StartError> {
        let Judgement { score, flagged } = judgement.unwrap_or(Judgement { score: 0.0, flagged: false });
        // Ten digits: enough to tell scores apart, the same on every machine.
        let score = format!("{score:.10}");
        let flagged = if flagged { "1" } else { "0" };
        self.write_score([&recorded.timestamp_text, &recorded.value_text, &score, flagged])
    }

    fn write_score(&mut self, cells: [&str; 4]) -> Result<(), StartError> {
        let Some(scores) = &mut self.scores else { return Ok(()) };
        let failed = |error: csv::Error| StartError::file(Path::new("output"))(error.into());
        scores.write_record(cells).map_err(failed)
    }

    /// Writes and empties what the component gave back.
    fn take(&mut self, replay: &Replay, out: &mut Outputs) -> Result<(), StartError> {
        for raised in out.raised.drain(..) {
            let line = preview_finding(&raised.finding, replay.spec())?;
            write_line(&mut self.findings, || line.to_string())?;
        }
        for summary in out.summaries.drain(..) {
            if self.summaries.is_some() {
                let line = preview_summary(&summary, replay.spec(), replay.keys())?;
                write_line(&mut self.summaries, || line.to_string())?;
            }
        }
        out.scores.clear();
        out.closed.clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StartError> {
        if let Some(scores) = &mut self.scores {
            scores.flush().map_err(StartError::file(Path::new("output")))?;
        }
        for sink in [&mut self.findings, &mut self.summaries].into_iter().flatten() {
            sink.flush().map_err(StartError::file(Path::new("output")))?;
        }
        Ok(())
    }
}

fn write_line(sink: &mut Option<BufWriter<File>>, line: impl FnOnce() -> String) -> Result<(), StartError> {
    match sink {
        Some(sink) => writeln!(sink, "{}", line()).map_err(StartError::file(Path::new("output"))),
        None => Ok(()),
    }
}
