//! One connection: items are published and answered until it ends.

use std::time::Duration;

use nearside_outbox::{DeadReason, Entry, Take};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::config::{CloudUrl, UplinkError};
use crate::flight::{Flying, InFlight, Mismatch};
use crate::link::{Link, LinkEvent};
use crate::pacing::Lane;
use crate::refusals::{Refusal, Verdict};
use crate::uplink::{PACKET_OVERHEAD, Uplink};

/// How long a cloud may take to acknowledge before the connection counts as dead.
const STALLED: Duration = Duration::from_secs(30);
/// How long a look at the first address may take.
const PROBE: Duration = Duration::from_secs(5);

pub(crate) struct Session<'u> {
    uplink: &'u mut Uplink,
    link: Link,
    flight: InFlight,
    online: bool,
    /// The largest packet that the cloud says it takes.
    max_packet: usize,
    /// When anything was last acknowledged, or nothing was in flight.
    moving_at: Instant,
    acknowledged: u64,
    /// The outbox is worth a look.
    look: bool,
    /// A live alert may wait there.
    alerts_wait: bool,
    leaving: Leaving,
}

/// Whether and why the session comes to its end in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The gateway stops; not later than this.
    Stop(Instant),
    /// The first address is back; not later than this.
    FirstIsBack(Instant),
}

impl Leaving {
    const fn until(self) -> Option<Instant> {
        match self {
            Self::No => None,
            Self::Stop(until) | Self::FirstIsBack(until) => Some(until),
        }
    }

    const fn result(self) -> Result<(), UplinkError> {
        match self {
            Self::FirstIsBack(_) => Err(UplinkError::FirstIsBack),
            Self::No | Self::Stop(_) => Ok(()),
        }
    }
}

impl<'u> Session<'u> {
    pub(crate) fn new(uplink: &'u mut Uplink, link: Link) -> Self {
        Self {
            uplink,
            link,
            flight: InFlight::default(),
            online: false,
            max_packet: usize::MAX,
            moving_at: Instant::now(),
            acknowledged: 0,
            look: false,
            alerts_wait: true,
            leaving: Leaving::No,
        }
    }

    pub(crate) const fn has_progress(&self) -> bool {
        self.acknowledged > 0
    }

    pub(crate) async fn run(&mut self, stop: &mut watch::Receiver<bool>, grace: Duration) -> Result<(), UplinkError> {
        let outbox = self.uplink.outbox.clone();
        let mut probe = None;
        let mut probe_at = Instant::now() + self.uplink.config.failback_every.get();
        loop {
            let now = Instant::now();
            if self.leaving == Leaving::No && std::mem::take(&mut self.look) {
                self.fill(now).await?;
            }
            let idle = self.flight.is_empty();
            if idle {
                self.moving_at = now;
                if self.leaving != Leaving::No {
                    self.link.disconnect();
                    return self.leaving.result();
                }
            }
            let staying = self.leaving == Leaving::No;
            let wake = self.wake_at(now);
            tokio::select! {
                event = self.link.next() => self.on_event(event?).await?,
                () = outbox.arrival(), if self.online && staying => {
                    self.look = true;
                    self.alerts_wait = true;
                }
                () = sleep_until(wake), if wake.is_some() && self.online && staying => {
                    self.look = true;
                    self.alerts_wait = true;
                }
                () = tokio::time::sleep_until(self.moving_at + STALLED), if self.online && !idle => {
                    return Err(UplinkError::Away(format!("no acknowledgement for {STALLED:?}")));
                }
                () = sleep_until(self.leaving.until()), if !staying => return self.leaving.result(),
                () = tokio::time::sleep_until(probe_at), if self.uplink.endpoints.is_fallback() && staying => {
                    probe_at = Instant::now() + self.uplink.config.failback_every.get();
                    probe = Some(look_at(self.uplink.endpoints.first().clone()));
                }
                reached = answer(&mut probe), if probe.is_some() && staying => {
                    probe = None;
                    if reached {
                        self.leaving = Leaving::FirstIsBack(Instant::now() + STALLED);
                    }
                }
                _ = stop.changed(), if !matches!(self.leaving, Leaving::Stop(_)) => {
                    self.leaving = Leaving::Stop(Instant::now() + grace);
                }
            }
        }
    }

    /// When to look at the outbox though nothing happened.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.uplink.pacer.wake_at(now).into_iter().chain(self.uplink.refusals.wake_at(now)).min()
    }

    /// Publishes items until as many are in flight as may be.
    async fn fill(&mut self, now: Instant) -> Result<(), UplinkError> {
        let classes = self.uplink.pacer.open_classes(now);
        for lane in Lane::ALL {
            if lane == Lane::LiveAlerts && !self.alerts_wait {
                continue;
            }
            let Some(take) = self.uplink.pacer.ask(lane, &classes, now, &self.flight) else { continue };
            let got = self.publish_lane(&take, now).await?;
            self.uplink.pacer.took(lane, &take, got);
            if lane == Lane::LiveAlerts {
                self.alerts_wait = got == take.most;
            }
        }
        self.uplink.metrics.in_flight.set(self.flight.len() as f64);
        Ok(())
    }

    async fn publish_lane(&mut self, take: &Take<'_>, now: Instant) -> Result<usize, UplinkError> {
        let entries = {
            let (flight, refusals) = (&self.flight, &self.uplink.refusals);
            self.uplink.outbox.take(take, &|sequence| flight.holds(sequence) || refusals.defers(sequence, now))?
        };
        let got = entries.len();
        for Entry { sequence, item } in entries {
            let (class, bytes) = (item.class(), item.bytes().len());
            let topic = self.uplink.topic(class);
            if let Some(detail) = self.too_large(bytes, topic.len()) {
                tracing::error!(item = %item.id(), detail, "an item is too large for the cloud and becomes a dead letter");
                self.uplink.count_refused(class, DeadReason::TooLarge.label());
                self.uplink.outbox.reject(sequence, DeadReason::TooLarge, detail).await;
                continue;
            }
            if !self.link.publish(&topic, item.content_type(), item.bytes()) {
                break;
            }
            let backlog = self.uplink.pacer.is_backlog(sequence.number());
            self.flight.queue(Flying { sequence, class, bytes, since: now, backlog });
        }
        Ok(got)
    }

    fn too_large(&self, bytes: usize, topic: usize) -> Option<String> {
        let max_item = self.uplink.config.max_item;
        if bytes as u64 > max_item.bytes() {
            return Some(format!("{bytes} bytes, uplink.max_item is {max_item}"));
        }
        let packet = bytes + topic + PACKET_OVERHEAD;
        (packet > self.max_packet).then(|| {
            format!(
                "{bytes} bytes and its topic make a packet above the {} bytes that the cloud takes",
                self.max_packet
            )
        })
    }

    async fn on_event(&mut self, event: LinkEvent) -> Result<(), UplinkError> {
        let mismatch = |_: Mismatch| UplinkError::Away("its acknowledgements fit no item".to_owned());
        match event {
            LinkEvent::Connected { receive_maximum, max_packet } => {
                self.online = true;
                self.look = true;
                self.max_packet = max_packet.map_or(usize::MAX, |most| most as usize);
                let window = self.uplink.config.inflight.min(receive_maximum.unwrap_or(u16::MAX));
                self.uplink.pacer.connected(self.uplink.outbox.next_number(), window.into());
                self.uplink.count_connect();
                tracing::info!("the cloud is connected");
            }
            LinkEvent::Written(packet) => {
                nearside_schemas::failpoint("uplink-sent");
                self.flight.written(packet).map_err(mismatch)?;
            }
            LinkEvent::Answered(packet, answer) => {
                let item = self.flight.answered(packet).map_err(mismatch)?;
                self.moving_at = Instant::now();
                self.look = true;
                match answer {
                    None => self.on_acknowledged(item).await,
                    Some(refusal) => self.on_refused(item, refusal).await,
                }
            }
            LinkEvent::Other => {}
        }
        Ok(())
    }

    async fn on_acknowledged(&mut self, item: Flying) {
        if self.acknowledged == 0 {
            self.uplink.endpoints.works();
        }
        self.acknowledged += 1;
        let metrics = &self.uplink.metrics;
        metrics.sent[item.class as usize].inc();
        metrics.bytes.inc_by(item.bytes as u64);
        metrics.acknowledge[item.class as usize].observe(item.since.elapsed().as_secs_f64());
        self.uplink.pacer.accepted(item.class, self.moving_at);
        self.uplink.refusals.accepted(&item.sequence);
        self.uplink.outbox.acknowledge(vec![item.sequence]).await;
    }

    async fn on_refused(&mut self, item: Flying, refusal: Refusal) {
        let now = self.moving_at;
        self.uplink.count_refused(item.class, refusal.label());
        match self.uplink.refusals.refused(item.sequence, refusal, now) {
            Verdict::Defer => {}
            Verdict::Hold { long } => {
                tracing::warn!(
                    class = item.class.label(),
                    reason = refusal.label(),
                    "the cloud refuses a class for now"
                );
                self.uplink.pacer.hold(item.class, long, now);
            }
            Verdict::Dead => {
                tracing::error!(
                    reason = refusal.label(),
                    "the cloud refused an item for good; it becomes a dead letter"
                );
                self.uplink.outbox.reject(item.sequence, DeadReason::Refused, refusal.label().to_owned()).await;
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Whether an address can be reached at all. Only a TCP connection: a second MQTT connection under the same client id could end the first.
fn look_at(url: CloudUrl) -> oneshot::Receiver<bool> {
    let (answer, reached) = oneshot::channel();
    tokio::spawn(async move {
        let connect = TcpStream::connect((url.host.as_str(), url.port));
        let reached = matches!(tokio::time::timeout(PROBE, connect).await, Ok(Ok(_)));
        // Whoever asked may have gone on.
        let _ = answer.send(reached);
    });
    reached
}

async fn answer(probe: &mut Option<oneshot::Receiver<bool>>) -> bool {
    match probe {
        Some(probe) => probe.await.unwrap_or(false),
        None => false,
    }
}
