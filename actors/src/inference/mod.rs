//! Inference: for each model one or more worker threads, each with its queue, that put rows of many streams into one forward pass.
//!
//! Promises: a forward pass has at most `max_batch` rows and waits at most `max_wait` for more; streams of patients go first
//! (`lanes.rs`); a stream's jobs are answered in the order they were given, for they all go to one worker; a panic in a network fails its
//! batch, not the worker (promise I3); a job gets the outputs of its own rows or none (`pass.rs`); a queue holds at most `queue` rows for each priority: rows beyond it stay unjudged and are
//! counted (I4). Credit keeps it far below that unless a network cannot keep up.
//! Never: a worker looks at a stream's state; a row's outputs depend on its neighbours (I5, the model's contract).

mod lanes;
mod pass;
mod queue;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use actix::Addr;
use nearside_models::row_model::RowModel;
use nearside_schemas::StreamId;
use nearside_telemetry::{Counter, Gauge, Histogram, Metric, Telemetry};

pub use self::lanes::Priority;
use self::lanes::{Bounds, Work};
use self::pass::Pass;
use self::queue::{Receiver, Sender, Sent};
use crate::config::InferenceConfig;
use crate::credit::Admission;
use crate::fence::fenced;
use crate::stream::{Judged, Shard, ShardJudged};

/// Rows of one stream for one model.
pub struct Job {
    /// Whose they are.
    pub stream: StreamId,
    /// The model's position in the stream's plan, for the answer.
    pub model: usize,
    /// The number of its first input among all that the stream had for the model, for the answer.
    pub first: u64,
    /// How many inputs.
    pub inputs: usize,
    /// The inputs, one after the other; none where there was no room for them.
    pub data: Vec<f32>,
    /// Who goes first.
    pub priority: Priority,
    /// The credit of the readings, held until they are judged.
    pub admission: Option<Arc<Admission>>,
    /// The shard that the stream lives on, and its number.
    pub reply: Addr<Shard>,
    /// See `reply`.
    pub shard: usize,
}

impl Work for Job {
    fn rows(&self) -> usize {
        if self.is_shed() { 0 } else { self.inputs }
    }

    fn priority(&self) -> Priority {
        self.priority
    }

    fn drop_rows(&mut self) {
        self.data = Vec::new();
    }
}

impl Job {
    /// Whether it lost its rows.
    fn is_shed(&self) -> bool {
        self.data.is_empty()
    }
}

/// The queues of one model's workers.
#[derive(Clone)]
struct Queue {
    workers: Vec<Sender<Job>>,
    rows: Gauge,
    shed: Counter,
}

/// The queues of all models, in the order they were given.
#[derive(Clone, Default)]
pub struct InferenceQueues(Vec<Queue>);

impl InferenceQueues {
    /// Puts a job into a queue; gives it back where the workers are gone.
    pub fn submit(&self, queue: usize, job: Job) -> Option<Job> {
        let Some(queue) = self.0.get(queue) else { return Some(job) };
        let Some(worker) = queue.workers.get(worker_of(&job.stream, queue.workers.len())) else { return Some(job) };
        let rows = job.inputs;
        queue.rows.inc_by(rows as f64);
        match worker.send(job, Instant::now()) {
            Sent::Waits => None,
            Sent::Shed => {
                queue.rows.dec_by(rows as f64);
                queue.shed.inc_by(rows as u64);
                None
            }
            Sent::Back(job) => {
                queue.rows.dec_by(rows as f64);
                Some(job)
            }
        }
    }

    /// Whether every worker is there.
    pub fn is_alive(&self) -> bool {
        self.0.iter().flat_map(|queue| &queue.workers).all(Sender::has_worker)
    }

    /// Jobs waiting in all queues.
    pub fn depth(&self) -> usize {
        self.0.iter().flat_map(|queue| &queue.workers).map(Sender::len).sum()
    }
}

/// Which worker judges a stream. The streams of a shard share the remainder by the number of shards; by a large prime they do not.
fn worker_of(stream: &StreamId, workers: usize) -> usize {
    stream.bucket(65_521) % workers.max(1)
}

struct Worker {
    model: Arc<dyn RowModel>,
    jobs: Receiver<Job>,
    max_batch: usize,
    waiting: Gauge,
    rows: Counter,
    batch: Histogram,
    time: Histogram,
    errors: Counter,
}

/// Starts the workers of each model. They end when all clones of the queues are dropped.
pub fn start(
    models: &[Arc<dyn RowModel>],
    config: &InferenceConfig,
    telemetry: &Telemetry,
) -> std::io::Result<(InferenceQueues, Vec<JoinHandle<()>>)> {
    let bounds = Bounds {
        max_batch: config.max_batch.max(1),
        max_wait: config.max_wait.get(),
        rows: config.queue.div_ceil(config.threads.max(1)),
    };
    let mut queues = Vec::new();
    let mut threads = Vec::new();
    for model in models {
        let name = model.reference().name.to_string();
        let labels = [name.as_str()];
        let mut workers = Vec::new();
        let waiting = telemetry.gauge(Metric::InferenceQueue, &labels);
        for n in 0..config.threads.max(1) {
            let (sender, jobs) = queue::queue(bounds);
            workers.push(sender);
            let worker = Worker {
                model: model.clone(),
                jobs,
                max_batch: bounds.max_batch,
                waiting: waiting.clone(),
                rows: telemetry.counter(Metric::InferenceRows, &labels),
                batch: telemetry.histogram(Metric::InferenceBatch, &labels),
                time: telemetry.histogram(Metric::InferenceTime, &labels),
                errors: telemetry.counter(Metric::InferenceErrors, &labels),
            };
            threads.push(std::thread::Builder::new().name(format!("{name}-{n}")).spawn(move || worker.run())?);
        }
        let shed = telemetry.counter(Metric::InferenceShed, &labels);
        queues.push(Queue { workers, rows: waiting, shed });
    }
    Ok((InferenceQueues(queues), threads))
}

impl Worker {
    fn run(self) {
        let mut batch = Vec::new();
        while self.jobs.take(&mut batch) {
            self.waiting.dec_by(batch.iter().map(Work::rows).sum::<usize>() as f64);
            self.judge(&mut batch);
        }
    }

    fn judge(&self, batch: &mut Vec<Job>) {
        let width = self.model.input_width();
        let pass = Pass::gather(batch.iter().map(|job| (job.inputs, job.data.as_slice())), width);
        let mut outputs = Some(Vec::new());
        for chunk in pass.inputs.chunks(self.max_batch * width.max(1)) {
            let part = self.forward(chunk, chunk.len() / width.max(1));
            outputs = outputs.zip(part).map(|(all, part)| [all, part].concat());
            if outputs.is_none() {
                break;
            }
        }
        answer(batch, pass.deal(outputs.as_deref(), self.model.output_width()));
    }

    fn forward(&self, inputs: &[f32], rows: usize) -> Option<Vec<f32>> {
        let started = Instant::now();
        let mut outputs = Vec::new();
        let result = fenced(|| self.model.forward(inputs, rows, &mut outputs));
        self.time.observe(started.elapsed().as_secs_f64());
        self.batch.observe(rows as f64);
        self.rows.inc_by(rows as u64);
        let fits = outputs.len() == rows * self.model.output_width();
        match result {
            Ok(Ok(())) if fits => {
                // They cost the jobs they belong to; the other rows of the pass are as good as they are.
                if outputs.iter().any(|output| !output.is_finite()) {
                    self.failed("outputs that are not finite");
                }
                Some(outputs)
            }
            Ok(Ok(())) => self.failed("outputs of the wrong shape"),
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_) => self.failed("a panic"),
        }
    }

    fn failed(&self, why: &str) -> Option<Vec<f32>> {
        self.errors.inc();
        tracing::error!(model = %self.model.reference(), why, "a forward pass failed; the rows it failed on stay unjudged");
        None
    }
}

/// Hands each job its outputs, `None` where there are none. The answers for one shard travel as one message: each message to
/// another thread may have to wake it.
fn answer<'a>(batch: &mut Vec<Job>, outputs: impl Iterator<Item = Option<&'a [f32]>>) {
    type Answers = Vec<(StreamId, Judged)>;
    let mut shards: Vec<(usize, Addr<Shard>, Answers)> = Vec::new();
    for (job, own) in batch.drain(..).zip(outputs) {
        let Job { model, first, inputs, admission, .. } = job;
        let judged = Judged { model, first, inputs, outputs: own.map(<[f32]>::to_vec), admission };
        match shards.iter_mut().find(|(shard, ..)| *shard == job.shard) {
            Some((.., answers)) => answers.push((job.stream, judged)),
            None => shards.push((job.shard, job.reply, vec![(job.stream, judged)])),
        }
    }
    for (_, shard, answers) in shards {
        if shard.try_send(ShardJudged(answers)).is_err() {
            // Credit keeps the mailbox below its bound; this is reached only while the gateway stops.
            tracing::error!("a shard did not take its answers; their rows stay unjudged");
        }
    }
}
