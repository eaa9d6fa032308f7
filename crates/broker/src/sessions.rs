//! The sessions of all clients: which are there, which connection each has, and when one without a connection ends.
//!
//! A session has at most one connection. A new one for the same client id ends the old one and waits until it is through with
//! everything (section 3.1.4), so no two ever act on one session. A session belongs to the user who made it: nobody else's
//! connection gets it, whatever client id it names. What its user may not have any more it does not get either, also while it is away; where
//! the user is gone, the session ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nearside_schemas::{ClientId, Timestamp};
use nearside_telemetry::{Gauge, Metric, Telemetry};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::access::{Holder, Principal};
use crate::config::BrokerConfig;
use crate::filter;
use crate::flush::Bell;
use crate::front_door::Shared;
use crate::packet::{Connect, Reason, Will};
use crate::peer::PeerLimits;
use crate::session::Session;
use crate::store::{Change, SavedSession, SessionRecord};
use crate::will::{self, Owner};

/// How long the old connection of a client may take to be through.
const TAKEOVER: Duration = Duration::from_secs(10);

/// The connection that a session has.
pub(crate) struct Live {
    pub(crate) number: u64,
    /// Set to end it, with the reason.
    pub(crate) kick: watch::Sender<Option<Reason>>,
    pub(crate) bell: Arc<Bell>,
    principal: Arc<Principal>,
    gone: watch::Sender<bool>,
}

impl Live {
    /// Waits until the connection is to end, and says why.
    pub(crate) async fn kicked(&self) -> Reason {
        let mut kick = self.kick.subscribe();
        let reason = kick.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| *reason).unwrap_or(Reason::Administrative)
    }
}

struct Entry {
    session: Arc<Session>,
    owner: Owner,
    live: Option<Arc<Live>>,
    expiry_secs: u32,
    /// What is published when the connection ends, or later, unless the client takes it back or is back in time.
    will: Option<Will>,
    offline_since: Option<Timestamp>,
    /// Whether the store knows it.
    stored: bool,
    /// Waits until the will is due and the session ends.
    lingering: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Entries {
    of: HashMap<ClientId, Entry>,
    /// How many outlive their connection, and whose those are.
    durable: usize,
    held: HashMap<Holder, usize>,
}

/// All sessions.
pub(crate) struct Sessions {
    entries: Mutex<Entries>,
    next_number: AtomicU64,
    kept: Gauge,
}

/// A session that a connection has opened.
pub(crate) struct Opened {
    pub(crate) session: Arc<Session>,
    pub(crate) live: Arc<Live>,
    /// Whether it was there before.
    pub(crate) present: bool,
    pub(crate) expiry_secs: u32,
}

/// A session that is over, with the will that goes with it.
struct Ended {
    session: Arc<Session>,
    owner: Owner,
    will: Option<Will>,
    stored: bool,
}

/// What one look at the entries came to.
enum Look {
    /// The session has a connection.
    Busy(Arc<Live>),
    Opened(Opened, Option<Ended>),
    Refused(Reason),
}

impl Sessions {
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        Self { entries: Mutex::default(), next_number: AtomicU64::new(1), kept: telemetry.gauge(Metric::Sessions, &[]) }
    }

    /// A number that no session, connection or group has had.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// The session of a client.
    pub(crate) fn find(&self, client: &ClientId) -> Option<Arc<Session>> {
        self.entries.lock().of.get(client).map(|entry| entry.session.clone())
    }

    /// An id for a client that has none.
    pub(crate) fn new_client_id(&self) -> ClientId {
        loop {
            let id = ClientId::new(&format!("nearside-{}", self.next_number()));
            if !self.entries.lock().of.contains_key(&id) {
                return id;
            }
        }
    }

    /// Puts back what the store had. Sessions that had a connection when the process died lost it then. Wills are published once all
    /// sessions are there to get them.
    pub(crate) async fn restore(shared: &Arc<Shared>, saved: Vec<SavedSession>) {
        let now = shared.clock.now();
        let highest = saved.iter().map(|saved| saved.record.number).max().unwrap_or(0);
        shared.sessions.next_number.fetch_max(highest + 1, Ordering::Relaxed);
        let (mut waiting, mut over) = (Vec::new(), Vec::new());
        for SavedSession { record, queue, taken, journalled } in saved {
            let client = ClientId::new(&record.client);
            let session = shared.new_session(record.number, client.clone(), true);
            let holder = Holder::of(record.owner.as_deref());
            let owner = Owner { user: record.owner, holder, last: None };
            let offline_since = record.offline_since.unwrap_or(now);
            let away = now.since(offline_since);
            session.restore(record.subscriptions.clone(), queue, record.sent);
            session.restore_taken(taken, journalled);
            for subscription in &record.subscriptions {
                shared.routes.subscribe(&session, subscription, true, || shared.sessions.next_number()).await;
            }
            if record.expiry_secs < u32::MAX && away >= Duration::from_secs(u64::from(record.expiry_secs)) {
                // Its time was over while we were not there. What it leaves to its groups goes to others, once all are there.
                over.push(Ended { session, owner, will: record.will, stored: true });
                continue;
            }
            let entry = Entry {
                session,
                owner,
                live: None,
                expiry_secs: record.expiry_secs,
                will: record.will,
                offline_since: Some(offline_since),
                stored: true,
                lingering: None,
            };
            shared.sessions.entries.lock().insert(client.clone(), entry);
            waiting.push((client, away));
        }
        for (client, away) in waiting {
            if let Some(entry) = shared.sessions.entries.lock().of.get_mut(&client) {
                entry.linger(shared, away);
            }
        }
        shared.sessions.count();
        // The user file may have been changed meanwhile.
        Self::enforce_rights(shared).await;
        // The intake may not take anything yet.
        let shared = shared.clone();
        tokio::spawn(async move {
            for ended in over {
                ended.finish(&shared).await;
            }
        });
    }

    /// Opens the session of a client: its own, where it has one and does not ask for a fresh start, or a new one.
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        client: &ClientId,
        connect: &Connect,
        principal: &Arc<Principal>,
    ) -> Result<Opened, Reason> {
        loop {
            match shared.sessions.look(shared, client, connect, principal) {
                Look::Busy(other) => {
                    other.kick.send_replace(Some(Reason::TakenOver));
                    let mut gone = other.gone.subscribe();
                    if timeout(TAKEOVER, gone.wait_for(|gone| *gone)).await.is_err() {
                        return Err(Reason::ServerBusy);
                    }
                }
                Look::Refused(reason) => return Err(reason),
                Look::Opened(opened, ended) => {
                    shared.sessions.count();
                    if let Some(ended) = ended {
                        ended.finish(shared).await;
                    }
                    if opened.present {
                        forget_what_is_forbidden(shared, &opened.session, Some(principal)).await;
                    }
                    if !shared.access.still_holds(principal) || !shared.trusts(principal) {
                        // A file was changed between: who looked for such connections then may not have seen this one.
                        opened.live.kick.send_replace(Some(Reason::NotAuthorized));
                    }
                    let mut changes: Vec<Change> = shared.sessions.record(client).into_iter().collect();
                    if !opened.present && opened.session.durable {
                        changes.push(Change::Journalled(opened.session.number, shared.recovery.reached()));
                    }
                    shared.store.send(changes, None);
                    return Ok(opened);
                }
            }
        }
    }

    fn look(&self, shared: &Shared, client: &ClientId, connect: &Connect, principal: &Arc<Principal>) -> Look {
        let limits = PeerLimits {
            version: connect.version,
            receive_maximum: connect.receive_maximum,
            max_packet: connect.max_packet,
            topic_alias_maximum: connect.topic_alias_maximum,
        };
        let cap = u32::try_from(shared.config.session_expiry_cap.get().as_secs()).unwrap_or(u32::MAX);
        let expiry_secs = connect.session_expiry_secs.min(cap);
        let mut entries = self.entries.lock();
        let known = entries.of.get_mut(client);
        if known.as_ref().is_some_and(|entry| entry.owner.user != principal.user) {
            return Look::Refused(Reason::NotAuthorized);
        }
        if let Some(live) = known.as_ref().and_then(|entry| entry.live.clone()) {
            return Look::Busy(live);
        }
        let live = Arc::new(Live {
            number: self.next_number(),
            kick: watch::channel(None).0,
            bell: Arc::default(),
            principal: principal.clone(),
            gone: watch::channel(false).0,
        });
        if let Some(entry) = known.filter(|_| !connect.clean) {
            // Back in time: the old will is not published (section 3.1.3.2.2).
            entry.will = connect.will.clone();
            entry.stop_lingering();
            entry.live = Some(live.clone());
            entry.owner.last = Some(principal.clone());
            entry.offline_since = None;
            entry.expiry_secs = expiry_secs;
            entry.stored |= entry.will.is_some();
            let session = entry.session.clone();
            session.attach(live.number, &limits, live.bell.clone());
            return Look::Opened(Opened { session, live, present: true, expiry_secs }, None);
        }
        let durable = expiry_secs > 0;
        let holder = principal.holder();
        if durable && let Some(why) = entries.objection(client, holder.as_ref(), &shared.config) {
            shared.refusals.say(principal.address, principal.user.as_deref(), why);
            return Look::Refused(Reason::QuotaExceeded);
        }
        let ended = entries.remove(client);
        let session = shared.new_session(self.next_number(), client.clone(), durable);
        session.attach(live.number, &limits, live.bell.clone());
        let entry = Entry {
            session: session.clone(),
            owner: Owner { user: principal.user.clone(), holder, last: Some(principal.clone()) },
            live: Some(live.clone()),
            expiry_secs,
            will: connect.will.clone(),
            offline_since: None,
            stored: durable || connect.will.is_some(),
            lingering: None,
        };
        entries.insert(client.clone(), entry);
        Look::Opened(Opened { session, live, present: false, expiry_secs }, ended)
    }

    /// The connection is through. Its session ends with it, or waits for the client; so does its will, which a client that said
    /// goodbye takes back.
    pub(crate) async fn close(shared: &Arc<Shared>, opened: &Opened, expiry_secs: u32, goodbye: bool) {
        let session = &opened.session;
        session.detach();
        let mut ended = None;
        let mut due = None;
        {
            let mut entries = shared.sessions.entries.lock();
            if let Some(entry) = entries.of.get_mut(&session.client) {
                if goodbye {
                    entry.will = None;
                }
                if session.durable && expiry_secs > 0 {
                    due = entry.will.take_if(|will| will.delay_secs == 0).map(|will| (entry.owner.clone(), will));
                    entry.expiry_secs = expiry_secs;
                    entry.live = None;
                    entry.offline_since = Some(shared.clock.now());
                    entry.linger(shared, Duration::ZERO);
                } else {
                    ended = entries.remove(&session.client);
                }
            }
        }
        if let Some(ended) = ended {
            ended.finish(shared).await;
            shared.sessions.count();
        }
        if let Some((owner, will)) = due {
            will::publish(shared, session, &owner, will).await;
        }
        if !shared.access.still_holds(&opened.live.principal) {
            // It may have subscribed since the user file was taken over.
            Self::enforce(shared, &session.client).await;
        }
        // A will that is published is not to be published again after a crash; one that is not, is.
        shared.store.send(shared.sessions.record(&session.client).into_iter().collect(), None);
        opened.live.gone.send_replace(true);
    }

    /// The record of a client's session as it is now, where it is kept.
    pub(crate) fn record(&self, client: &ClientId) -> Option<Change> {
        let entries = self.entries.lock();
        let entry = entries.of.get(client).filter(|entry| entry.stored)?;
        Some(Change::Session(Box::new(SessionRecord {
            number: entry.session.number,
            client: client.as_str().to_owned(),
            owner: entry.owner.user.clone(),
            expiry_secs: entry.expiry_secs,
            offline_since: entry.offline_since,
            will: entry.will.clone(),
            subscriptions: entry.session.subscriptions(),
            sent: entry.offline_since.map(|_| entry.session.sent()),
        })))
    }

    /// Ends the connections of those who may not be here any more, or may do something else now.
    pub(crate) fn recheck(&self, holds: impl Fn(&Principal) -> bool) {
        for live in self.entries.lock().of.values().filter_map(|entry| entry.live.as_ref()) {
            if !holds(&live.principal) {
                live.kick.send_replace(Some(Reason::NotAuthorized));
            }
        }
    }

    fn count(&self) {
        self.kept.set(self.entries.lock().of.len() as f64);
    }

    /// The will of a session whose client stays away is due.
    async fn will_is_due(shared: &Arc<Shared>, client: &ClientId, number: u64) {
        let due = {
            let mut entries = shared.sessions.entries.lock();
            let entry = entries.of.get_mut(client).filter(|entry| entry.waits(number));
            entry.and_then(|entry| Some((entry.session.clone(), entry.owner.clone(), entry.will.take()?)))
        };
        if let Some((session, owner, will)) = due {
            will::publish(shared, &session, &owner, will).await;
            shared.store.send(shared.sessions.record(client).into_iter().collect(), None);
        }
    }

    /// A session whose client stays away is over. Gives back whether the client is away.
    async fn expire(shared: &Arc<Shared>, client: &ClientId, number: u64) -> bool {
        let ended = {
            let mut entries = shared.sessions.entries.lock();
            let over = entries.of.get(client).is_some_and(|entry| entry.waits(number));
            if over { entries.remove(client) } else { None }
        };
        let Some(ended) = ended else { return false };
        ended.finish(shared).await;
        shared.sessions.count();
        true
    }

    /// Holds every session against the user file as it is now, whether its client is here or away.
    pub(crate) async fn enforce_rights(shared: &Arc<Shared>) {
        if shared.access.users().is_none() {
            return;
        }
        let clients: Vec<ClientId> = shared.sessions.entries.lock().of.keys().cloned().collect();
        for client in clients {
            Self::enforce(shared, &client).await;
            // There may be many.
            tokio::task::yield_now().await;
        }
    }

    async fn enforce(shared: &Arc<Shared>, client: &ClientId) {
        let found = {
            let entries = shared.sessions.entries.lock();
            entries.of.get(client).map(|entry| (entry.session.clone(), entry.owner.user.clone()))
        };
        let Some((session, user)) = found else { return };
        let now = shared.access.of_absent(user.as_deref(), client.as_str());
        // Who is here is told to go, and its session ends then.
        if now.is_none() && Self::expire(shared, client, session.number).await {
            return;
        }
        if forget_what_is_forbidden(shared, &session, now.as_ref()).await {
            shared.store.send(shared.sessions.record(client).into_iter().collect(), None);
        }
    }
}

impl Entries {
    /// Why a client may not have a session that outlives its connection, if it may not.
    fn objection(&self, client: &ClientId, holder: Option<&Holder>, config: &BrokerConfig) -> Option<&'static str> {
        let before = self.of.get(client).filter(|entry| entry.session.durable);
        if self.durable - usize::from(before.is_some()) >= config.max_sessions {
            return Some("a client was not let in: there are as many sessions as there may be (max_sessions)");
        }
        let holder = holder?;
        let its_before = before.is_some_and(|entry| entry.owner.holder.as_ref() == Some(holder));
        let its = self.held.get(holder).copied().unwrap_or_default() - usize::from(its_before);
        (its >= config.share_of(config.max_sessions)).then_some(
            "a client was not let in: its user, or its address, has as many sessions as one may have (user_share_percent)",
        )
    }

    fn insert(&mut self, client: ClientId, entry: Entry) {
        if entry.session.durable {
            self.durable += 1;
            if let Some(holder) = &entry.owner.holder {
                *self.held.entry(holder.clone()).or_default() += 1;
            }
        }
        self.of.insert(client, entry);
    }

    fn remove(&mut self, client: &ClientId) -> Option<Ended> {
        let mut entry = self.of.remove(client)?;
        entry.stop_lingering();
        let Entry { session, owner, will, stored, .. } = entry;
        if session.durable {
            self.durable -= 1;
            if let Some(holder) = &owner.holder
                && let Some(count) = self.held.get_mut(holder)
            {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(holder);
                }
            }
        }
        Some(Ended { session, owner, will, stored })
    }
}

impl Entry {
    fn waits(&self, number: u64) -> bool {
        self.session.number == number && self.live.is_none()
    }

    fn stop_lingering(&mut self) {
        if let Some(lingering) = self.lingering.take() {
            lingering.abort();
        }
    }

    /// Waits for the client, who has been away for `away` already: first for the will's delay, then until the session ends.
    fn linger(&mut self, shared: &Arc<Shared>, away: Duration) {
        let secs = |secs: u32| Duration::from_secs(u64::from(secs)).saturating_sub(away);
        let will_after = self.will.as_ref().map(|will| secs(will.delay_secs));
        let ends_after = (self.expiry_secs < u32::MAX).then(|| secs(self.expiry_secs));
        let (client, number) = (self.session.client.clone(), self.session.number);
        // Whoever waits does not keep the front door from going.
        let shared = Arc::downgrade(shared);
        self.lingering = Some(tokio::spawn(async move {
            let will_after = will_after.filter(|will| ends_after.is_none_or(|end| *will < end));
            if let Some(after) = will_after {
                sleep(after).await;
                let Some(shared) = shared.upgrade() else { return };
                // In a task of its own, for this one ends when the client is back.
                let client = client.clone();
                tokio::spawn(async move { Sessions::will_is_due(&shared, &client, number).await });
            }
            let Some(end) = ends_after else { return };
            sleep(end.saturating_sub(will_after.unwrap_or_default())).await;
            let Some(shared) = shared.upgrade() else { return };
            tokio::spawn(async move { Sessions::expire(&shared, &client, number).await });
        }));
    }
}

impl Ended {
    /// Forgets the session everywhere; what it leaves to its groups goes to others. Its will is due at the latest now (section 3.1.3.2.2).
    async fn finish(self, shared: &Arc<Shared>) {
        shared.routes.detach(&self.session).await;
        let mut changes = Vec::new();
        for (group, message) in self.session.left_to_groups() {
            shared.routes.offer_to_group(&group, message, &mut changes);
        }
        // Before the will, which may have to wait: whoever gets them may answer them at once.
        shared.store.send(changes, None);
        if let Some(will) = self.will {
            will::publish(shared, &self.session, &self.owner, will).await;
        }
        if self.stored {
            shared.store.send(vec![Change::End(self.session.number)], None);
        }
    }
}

/// Takes back subscriptions that the client may not have any more, and what waits for them; all, where it is nobody any more. What came by a
/// group goes to others of it. Gives back whether there were such subscriptions.
async fn forget_what_is_forbidden(shared: &Shared, session: &Arc<Session>, principal: Option<&Principal>) -> bool {
    let may_have = |filter: &str| principal.is_some_and(|principal| principal.may_subscribe(filter));
    let mut changed = false;
    for filter in session.filters() {
        if !may_have(filter::unshared(&filter)) && session.unsubscribe(&filter) {
            shared.routes.unsubscribe(session, &filter).await;
            changed = true;
        }
    }
    // Behind the subscriptions, so that nothing more comes.
    let mut changes = Vec::new();
    for (group, message) in session.drop_forbidden(may_have, &mut changes) {
        shared.routes.offer_to_group(&group, message, &mut changes);
    }
    shared.store.send(changes, None);
    changed
}
