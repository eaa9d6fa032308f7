//! One connection of the load generator: one task that fills, writes, reads and books, without locks.

use std::sync::Arc;
use std::time::Duration;

use nearside_schemas::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::histogram::Histogram;
use super::packets::Packets;
use super::{LoadConfig, LoadLimit, wire};
use crate::error::SimulatorError;

/// The part of a load that one connection carries.
pub(super) struct Plan {
    host: String,
    port: u16,
    login: Option<(String, String)>,
    client_id: String,
    packets: Packets,
    inflight: u64,
    rate: Option<f64>,
    /// Messages to send; `None`: until told to stop.
    messages: Option<u64>,
    drain: Duration,
}

impl Plan {
    pub(super) fn new(config: &LoadConfig, number: usize, connections: usize) -> Self {
        let share = |total: u64| {
            let (all, more) = (total / connections as u64, total % connections as u64);
            all + u64::from((number as u64) < more)
        };
        Self {
            host: config.broker.host.clone(),
            port: config.broker.port,
            login: config.broker.login.clone(),
            client_id: format!("{}-{number}", config.client_prefix),
            packets: Packets::new((number..config.streams).step_by(connections), config.seed),
            inflight: u64::from(config.inflight),
            rate: config.rate.map(|rate| rate / connections as f64),
            messages: match config.limit {
                LoadLimit::Messages(total) => Some(share(total)),
                LoadLimit::Duration(_) => None,
            },
            drain: config.drain,
        }
    }
}

/// What a connection did.
pub(super) struct Outcome {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) bytes: u64,
    pub(super) out_of_order: u64,
    pub(super) latencies: Histogram,
    /// The first message and the last acknowledgement, or the end where there was none.
    pub(super) span: Option<(Instant, Instant)>,
    pub(super) error: Option<SimulatorError>,
}

/// Connects, sends by plan until told to stop, waits for the last acknowledgements.
pub(super) async fn run(plan: Plan, clock: Arc<dyn Clock>, stopped: watch::Receiver<bool>) -> Outcome {
    let mut outcome = Outcome {
        sent: 0,
        acknowledged: 0,
        bytes: 0,
        out_of_order: 0,
        latencies: Histogram::new(),
        span: None,
        error: None,
    };
    match connect(&plan).await {
        Ok(socket) => {
            let mut session = Session::new(plan, clock, &mut outcome);
            let ended = session.drive(socket, stopped).await;
            let span = session.span();
            outcome.error = ended.err();
            outcome.span = span;
        }
        Err(error) => outcome.error = Some(error),
    }
    outcome
}

/// How long a broker may take to accept us.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

async fn connect(plan: &Plan) -> Result<TcpStream, SimulatorError> {
    let connecting = async {
        let mut socket = TcpStream::connect((plan.host.as_str(), plan.port)).await?;
        // Batches are written whole, so waiting for more would only add latency.
        socket.set_nodelay(true)?;
        socket.write_all(&wire::connect(&plan.client_id, plan.login.as_ref())).await?;
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).await?;
        wire::read_connack(answer)?;
        Ok(socket)
    };
    match time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// Bytes that are prepared ahead of the socket.
const WRITE_AHEAD: usize = 64 * 1024;
const READ_BUFFER: usize = 64 * 1024;
/// A message that is later than this against its due time was held up by the broker, not by the timer.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

struct Session<'o> {
    plan: Plan,
    clock: Arc<dyn Clock>,
    outcome: &'o mut Outcome,
    started: Instant,
    last_ack: Option<Instant>,
    out: Vec<u8>,
    written: usize,
    /// For each packet id when its message was sent, in nanoseconds after `started`, plus 1; 0: not in flight.
    sent_at: Box<[u64]>,
    next_id: u16,
    next_ack: u16,
    inflight: u64,
    stopping: bool,
}

impl<'o> Session<'o> {
    fn new(plan: Plan, clock: Arc<dyn Clock>, outcome: &'o mut Outcome) -> Self {
        Self {
            plan,
            clock,
            outcome,
            started: Instant::now(),
            last_ack: None,
            out: Vec::with_capacity(WRITE_AHEAD + 1_024),
            written: 0,
            sent_at: vec![0; usize::from(u16::MAX) + 1].into_boxed_slice(),
            next_id: 1,
            next_ack: 1,
            inflight: 0,
            stopping: false,
        }
    }

    fn span(&self) -> Option<(Instant, Instant)> {
        (self.outcome.sent > 0).then(|| (self.started, self.last_ack.unwrap_or_else(Instant::now)))
    }

    async fn drive(&mut self, socket: TcpStream, mut stopped: watch::Receiver<bool>) -> Result<(), SimulatorError> {
        let mut buffer = vec![0; READ_BUFFER];
        let mut held = 0;
        let mut give_up: Option<Instant> = None;
        loop {
            let now = Instant::now();
            self.stopping = self.stopping || *stopped.borrow() || self.remaining() == 0;
            if self.stopping {
                if self.inflight == 0 && self.written == self.out.len() {
                    return self.farewell(socket).await;
                }
                let give_up = *give_up.get_or_insert(now + self.plan.drain);
                if now >= give_up {
                    // What is missing shows in the report.
                    return Ok(());
                }
            } else {
                self.fill(now);
            }
            self.write(&socket)?;
            let interest = if self.written < self.out.len() {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let ready = tokio::select! {
                ready = socket.ready(interest) => Some(ready?),
                () = sleep_until(self.wake(give_up)) => None,
                _ = stopped.changed(), if !self.stopping => None,
            };
            if ready.is_some_and(|ready| ready.is_readable()) {
                held = self.read(&socket, &mut buffer, held)?;
            }
        }
    }

    fn remaining(&self) -> u64 {
        self.plan.messages.map_or(u64::MAX, |total| total.saturating_sub(self.outcome.sent))
    }

    /// When there is something to do even if the socket has nothing to say.
    fn wake(&self, give_up: Option<Instant>) -> Option<Instant> {
        match self.plan.rate {
            _ if self.stopping => give_up,
            // What waits for room waits for the socket, however long ago it was due.
            Some(rate) if self.has_room() => Some(self.due(self.outcome.sent + 1, rate)),
            _ => None,
        }
    }

    /// When the message with this number is due, from 1 on.
    fn due(&self, number: u64, rate: f64) -> Instant {
        self.started + Duration::from_secs_f64((number as f64 / rate).min(1e8))
    }

    /// Prepares as many packets as limit, rate, room in flight and buffer allow.
    fn fill(&mut self, now: Instant) {
        let room = self.plan.inflight - self.inflight;
        let due = match self.plan.rate {
            // Few large batches cost less than many small ones: wait until an eighth of the window is free.
            None if self.inflight > 0 && room < self.plan.inflight / 8 => 0,
            None => room,
            Some(rate) => {
                let by_now = now.duration_since(self.started).as_secs_f64() * rate;
                (by_now as u64).saturating_sub(self.outcome.sent).min(room)
            }
        };
        let mut left = due.min(self.remaining());
        if left == 0 {
            return;
        }
        self.plan.packets.set_time(self.clock.now().as_micros().div_euclid(1_000));
        let before = self.out.len();
        let now_nanos = nanos(now.duration_since(self.started));
        while left > 0 && self.out.len() - self.written < WRITE_AHEAD && !self.is_taken(self.next_id) {
            let sent_at = match self.plan.rate {
                Some(rate) => {
                    let due = nanos(self.due(self.outcome.sent + 1, rate).duration_since(self.started));
                    if due + nanos(TIMER_GRAIN) < now_nanos { due } else { now_nanos }
                }
                None => now_nanos,
            };
            self.plan.packets.push(&mut self.out, self.next_id);
            if let Some(slot) = self.sent_at.get_mut(usize::from(self.next_id)) {
                *slot = sent_at + 1;
            }
            self.next_id = following(self.next_id);
            self.inflight += 1;
            self.outcome.sent += 1;
            left -= 1;
        }
        self.outcome.bytes += (self.out.len() - before) as u64;
    }

    /// Whether a due message could be prepared now.
    fn has_room(&self) -> bool {
        self.inflight < self.plan.inflight && self.written == self.out.len() && !self.is_taken(self.next_id)
    }

    fn is_taken(&self, id: u16) -> bool {
        self.sent_at.get(usize::from(id)).is_none_or(|sent_at| *sent_at != 0)
    }

    fn write(&mut self, socket: &TcpStream) -> Result<(), SimulatorError> {
        while let Some(pending) = self.out.get(self.written..).filter(|pending| !pending.is_empty()) {
            match socket.try_write(pending) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what is there and books it; `held` bytes of an unfinished packet stand at the front of the buffer.
    /// Returns how many stand there afterwards.
    fn read(&mut self, socket: &TcpStream, buffer: &mut [u8], held: usize) -> Result<usize, SimulatorError> {
        let count = match socket.try_read(buffer.get_mut(held..).unwrap_or_default()) {
            Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(held),
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        let now_nanos = nanos(now.duration_since(self.started));
        let filled = held + count;
        let taken = wire::read_pubacks(buffer.get(..filled).unwrap_or_default(), |id| self.book(id, now_nanos))?;
        if taken > 0 {
            self.last_ack = Some(now);
        }
        buffer.copy_within(taken..filled, 0);
        Ok(filled - taken)
    }

    fn book(&mut self, id: u16, now: u64) -> Result<(), SimulatorError> {
        let unknown = SimulatorError::Protocol { what: "it acknowledged a packet id that was not in flight" };
        let Some(slot) = self.sent_at.get_mut(usize::from(id)).filter(|slot| **slot != 0) else {
            return Err(unknown);
        };
        let sent_at = std::mem::take(slot) - 1;
        self.outcome.latencies.add(now.saturating_sub(sent_at));
        self.outcome.acknowledged += 1;
        self.inflight -= 1;
        if id != self.next_ack {
            self.outcome.out_of_order += 1;
        }
        self.next_ack = following(id);
        Ok(())
    }

    async fn farewell(&mut self, mut socket: TcpStream) -> Result<(), SimulatorError> {
        // All is acknowledged: a broker that has gone by now has done its work.
        let _ = socket.write_all(&wire::DISCONNECT).await;
        let _ = socket.shutdown().await;
        Ok(())
    }
}

/// Packet ids go from 1 to 65,535.
const fn following(id: u16) -> u16 {
    if id == u16::MAX { 1 } else { id + 1 }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
