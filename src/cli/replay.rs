//! `nearside replay`: the same stream component over recorded data, as fast as it goes and the same in every run (promise I5).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use nearside_actors::stream::{Outputs, ScoredRow};
use nearside_privacy::{preview_finding, preview_summary};

use crate::error::StartError;
use crate::replay::input::{Recorded, read_recorded};
use crate::replay::{Replay, ReplayKeys};

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
    /// A key part that is no column of the input: NAME=VALUE. Without it the file's name stands in.
    #[arg(long, value_name = "NAME=VALUE")]
    key: Vec<String>,
    /// Writes timestamp, value, score and flag of every input row here.
    #[arg(long)]
    scores: Option<PathBuf>,
    /// Writes the findings here, one JSON object a line.
    #[arg(long)]
    findings: Option<PathBuf>,
    /// Writes the summaries here as they are before encryption, one JSON object a line.
    #[arg(long)]
    summaries: Option<PathBuf>,
}

/// Where the results go.
struct Sinks {
    scores: Option<BufWriter<File>>,
    findings: Option<BufWriter<File>>,
    summaries: Option<BufWriter<File>>,
}

/// Runs the command.
pub fn run(args: &ReplayArgs) -> Result<(), StartError> {
    let config = nearside_config::load(&args.config)?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    let (plans, _) = crate::middle::plan(&config)?;
    let plan = plans.iter().find(|plan| plan.spec.name.as_str() == args.stream).ok_or_else(|| {
        let names: Vec<&str> = plans.iter().map(|plan| plan.spec.name.as_str()).collect();
        StartError::Usage(format!("the site has no stream `{}`; it has: {}", args.stream, names.join(", ")))
    })?;
    let given = given_keys(&args.key)?;
    let keys = ReplayKeys::of_site(&base.join(&config.site.data_dir).join(&config.privacy.key_file))?;
    let mut replay = Replay::new(plan.clone(), keys, config.limits.tick.get());
    let mut sinks = Sinks::open(args)?;
    sinks.header()?;
    let mut out = Outputs { keep_scores: true, ..Outputs::default() };
    let (mut rows, mut findings, mut summaries, mut refused) = (0u64, 0u64, 0u64, 0u64);
    for recorded in read_recorded(&args.input, &plan.spec, &given)? {
        let recorded = recorded?;
        rows += 1;
        refused += u64::from(recorded.reading.is_err());
        let score = replay.push(&recorded, &mut out);
        sinks.score(&recorded, score.as_ref())?;
        findings += out.raised.len() as u64;
        summaries += out.summaries.len() as u64;
        sinks.take(&replay, &mut out)?;
    }
    replay.drain(&mut out);
    findings += out.raised.len() as u64;
    summaries += out.summaries.len() as u64;
    sinks.take(&replay, &mut out)?;
    sinks.flush()?;
    let set_aside = replay.set_aside() + refused;
    eprintln!("{rows} rows, {set_aside} set aside, {findings} findings, {summaries} summaries");
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
            scores: create(&args.scores)?,
            findings: create(&args.findings)?,
            summaries: create(&args.summaries)?,
        })
    }

    fn header(&mut self) -> Result<(), StartError> {
        write_line(&mut self.scores, || "timestamp,value,score,flagged".to_owned())
    }

    fn score(&mut self, recorded: &Recorded, score: Option<&ScoredRow>) -> Result<(), StartError> {
        write_line(&mut self.scores, || {
            let (score, flagged) = score.map_or((0.0, false), |row| (row.verdict.score, row.verdict.flagged));
            // Ten digits: enough to tell scores apart, the same on every machine.
            format!("{},{},{score:.10},{}", recorded.timestamp_text, recorded.value_text, u8::from(flagged))
        })
    }

    /// Writes and empties what the component gave back.
    fn take(&mut self, replay: &Replay, out: &mut Outputs) -> Result<(), StartError> {
        for finding in out.raised.drain(..) {
            let line = preview_finding(&finding, replay.spec())?;
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
        for sink in [&mut self.scores, &mut self.findings, &mut self.summaries].into_iter().flatten() {
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
