//! The one table of metrics. Adding a metric is adding a row.
//!
//! Names follow the Prometheus conventions: base units in the name (`_seconds`, `_bytes`), counters end in `_total`.

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// Only ever rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The full name as exported.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, in the order their values are given.
    pub labels: &'static [&'static str],
    /// What it tells, in one sentence.
    pub help: &'static str,
}

/// From 50 µs to 10 s.
const LATENCY_SECONDS: &[f64] =
    &[5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// From 1 to 4096 items.
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

macro_rules! table {
    ($($variant:ident, $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        /// A metric, as a row of [`TABLE`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        /// All metrics, in the order of [`Metric`].
        pub const TABLE: &[Row] = &[
            $(Row { name: $name, kind: $kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

use Kind::{Counter, Gauge, Histogram};

table! {
    Connections, "nearside_broker_connections", Gauge, [], "Open MQTT connections.";
    ConnectionsRefused, "nearside_broker_connections_refused_total", Counter, ["reason"], "Connections closed before or at CONNECT, by reason.";
    PublishesReceived, "nearside_broker_publishes_received_total", Counter, ["qos"], "PUBLISH packets taken from clients.";
    BytesReceived, "nearside_broker_received_bytes_total", Counter, [], "Bytes read from clients.";
    PublishesAcknowledged, "nearside_broker_publishes_acknowledged_total", Counter, [], "QoS 1 and 2 publishes acknowledged as durable.";
    PublishesDelivered, "nearside_broker_publishes_delivered_total", Counter, [], "PUBLISH packets written to subscribers.";
    PublishesDropped, "nearside_broker_publishes_dropped_total", Counter, ["reason"], "Publishes to subscribers that were shed, by reason.";
    ProtocolErrors, "nearside_broker_protocol_errors_total", Counter, ["reason"], "Connections ended for breaking the protocol.";
    RouterRestarts, "nearside_broker_router_restarts_total", Counter, [], "Times the message router was replaced.";
    Subscriptions, "nearside_broker_subscriptions", Gauge, [], "Active subscriptions.";
    Sessions, "nearside_broker_sessions", Gauge, [], "MQTT sessions, connected or waiting for their client.";
    SessionBytes, "nearside_broker_session_bytes", Gauge, [], "Bytes of messages held for subscribers, on their way or waiting.";
    SessionCommit, "nearside_broker_session_commit_seconds", Histogram(LATENCY_SECONDS), [], "Time of one commit of the session store.";
    SessionStoreErrors, "nearside_broker_session_store_errors_total", Counter, [], "Failed commits of the session store.";
    AccessDenied, "nearside_broker_access_denied_total", Counter, ["what"], "Publishes and subscriptions that a client had no right to or that met a limit.";
    ConnectionsThrottled, "nearside_broker_throttled_total", Counter, [], "Times a connection was read more slowly because it published faster than it may.";

    JournalRecords, "nearside_journal_records_total", Counter, [], "Records written to the journal.";
    JournalBytes, "nearside_journal_written_bytes_total", Counter, [], "Bytes written to the journal.";
    JournalSync, "nearside_journal_sync_seconds", Histogram(LATENCY_SECONDS), [], "Time of one fsync of the journal.";
    JournalBatch, "nearside_journal_commit_records", Histogram(BATCH), [], "Records made durable by one fsync.";
    JournalQueue, "nearside_journal_queue_bytes", Gauge, [], "Bytes waiting to be written to the journal.";
    JournalSize, "nearside_journal_size_bytes", Gauge, [], "Bytes of journal segments on disk.";
    JournalSegments, "nearside_journal_segments", Gauge, [], "Journal segments on disk.";
    JournalShed, "nearside_journal_segments_shed_total", Counter, ["reason"], "Segments removed, by reason.";
    JournalDamage, "nearside_journal_damage_total", Counter, ["kind"], "Damaged places found when a journal was read.";
    JournalErrors, "nearside_journal_errors_total", Counter, [], "Failed writes or fsyncs of the journal.";
    JournalFailing, "nearside_journal_failing", Gauge, [], "1 while the journal cannot write and nothing is acknowledged.";

    CheckpointStates, "nearside_checkpoint_states_total", Counter, [], "States of streams written to checkpoints.";
    CheckpointBytes, "nearside_checkpoint_written_bytes_total", Counter, [], "Bytes of states written to checkpoints.";
    CheckpointErrors, "nearside_checkpoint_errors_total", Counter, [], "Rounds of checkpoints that could not be written.";
    CheckpointCovers, "nearside_checkpoint_covers", Gauge, [], "The journal record from which on a start would replay.";
    Replayed, "nearside_replayed_records_total", Counter, [], "Journal records taken in again at the start.";

    Readings, "nearside_readings_total", Counter, ["stream"], "Readings decoded, by stream definition.";
    SetAside, "nearside_readings_set_aside_total", Counter, ["stream", "reason"], "Readings or messages set aside, by stream definition and reason.";
    Credit, "nearside_ingest_credit_used", Gauge, ["shard"], "Readings admitted and not yet handled, by shard.";
    CreditWaits, "nearside_ingest_credit_waits_total", Counter, [], "Times a connection waited because its streams were full.";
    Streams, "nearside_streams_active", Gauge, ["stream"], "Streams with an actor, by stream definition; after a start or a reload a stream has one from its next reading on.";
    StreamsRetired, "nearside_streams_retired_total", Counter, ["stream"], "Idle streams put to rest, by stream definition.";
    StreamPanics, "nearside_stream_panics_total", Counter, ["stage"], "Panics caught, by stage.";
    StreamsParked, "nearside_streams_parked_total", Counter, ["stream"], "Streams given up after too many panics.";
    StreamsParkedNow, "nearside_streams_parked", Gauge, ["stream"], "Streams that are given up now, those of earlier runs among them.";
    WindowsClosed, "nearside_windows_closed_total", Counter, ["stream", "cause"], "Windows closed, by stream definition and cause.";

    InferenceQueue, "nearside_inference_queue_rows", Gauge, ["model"], "Rows waiting for a model.";
    InferenceRows, "nearside_inference_rows_total", Counter, ["model"], "Rows judged by a model.";
    InferenceBatch, "nearside_inference_batch_rows", Histogram(BATCH), ["model"], "Rows in one forward pass.";
    InferenceTime, "nearside_inference_forward_seconds", Histogram(LATENCY_SECONDS), ["model"], "Time of one forward pass.";
    InferenceShed, "nearside_inference_shed_rows_total", Counter, ["model"], "Rows that stay unjudged because the model's queue was full.";
    InferenceErrors, "nearside_inference_errors_total", Counter, ["model"], "Forward passes that failed.";
    ModelInForce, "nearside_model_in_force", Gauge, ["model", "version"], "1 while this version of a model judges, 0 once another does.";
    ModelChanges, "nearside_model_changes_total", Counter, ["model", "outcome"], "What became of versions of models while the gateway ran: loaded and tried, in force, refused, rolled back.";
    OnlineSteps, "nearside_online_steps_total", Counter, ["model", "outcome"], "Steps of models that learn online, by what they came to.";
    Unjudged, "nearside_windows_unjudged_total", Counter, ["stream"], "Windows summarised without every model's verdict.";
    Feedback, "nearside_feedback_total", Counter, ["stream", "verdict", "outcome"], "Operators' feedback on findings, by stream definition, verdict and what became of it.";
    FindingsWithheld, "nearside_findings_withheld_total", Counter, ["stream"], "Episodes that count into an earlier finding because so many of their kind were told in one window.";
    Findings, "nearside_findings_total", Counter, ["stream", "label", "severity"], "Findings, by stream definition, label and severity.";

    RulesFired, "nearside_rules_fired_total", Counter, ["rule"], "Times a rule's condition held.";
    RuleErrors, "nearside_rule_errors_total", Counter, ["rule"], "Times a rule could not be evaluated.";
    Commands, "nearside_commands_total", Counter, ["rule", "outcome"], "Commands to devices, by rule and outcome.";

    Summaries, "nearside_summaries_sealed_total", Counter, ["class"], "Items sealed for the cloud, by class.";
    SealedBytes, "nearside_sealed_bytes_total", Counter, ["class"], "Bytes sealed for the cloud, by class.";
    SealErrors, "nearside_seal_errors_total", Counter, ["class"], "Items that could not be sealed and do not leave the site.";
    OutboxItems, "nearside_outbox_items", Gauge, ["class"], "Sealed items waiting for the cloud, by class.";
    OutboxBytes, "nearside_outbox_bytes", Gauge, [], "Bytes waiting for the cloud.";
    OutboxOldest, "nearside_outbox_oldest_age_seconds", Gauge, [], "Age of the oldest item that waits for the cloud.";
    OutboxShed, "nearside_outbox_shed_total", Counter, ["class"], "Items removed because the outbox met its quota or the disk was full.";
    OutboxReplaced, "nearside_outbox_replaced_total", Counter, ["class"], "Items whose place a higher revision took before they were acknowledged.";
    OutboxRepeated, "nearside_outbox_repeated_total", Counter, ["state"], "Items put again that wait already or that the cloud has acknowledged.";
    OutboxDead, "nearside_outbox_dead_letters_total", Counter, ["reason"], "Items that became dead letters, by reason.";
    OutboxDeadItems, "nearside_outbox_dead_letters", Gauge, [], "Dead letters that wait for somebody to look.";
    OutboxDeadShed, "nearside_outbox_dead_letters_shed_total", Counter, [], "Dead letters removed because they met their quota.";
    OutboxRefused, "nearside_outbox_refused_total", Counter, [], "Items that could not be put because the outbox had failed; what they were made of stays in the journal.";
    OutboxReserve, "nearside_outbox_reserve_set", Gauge, [], "1 while disk space is set aside for a full disk.";
    OutboxTrouble, "nearside_outbox_failing", Gauge, [], "1 while the outbox cannot write.";
    OutboxCommit, "nearside_outbox_commit_seconds", Histogram(LATENCY_SECONDS), [], "Time of one commit of the outbox.";
    OutboxErrors, "nearside_outbox_errors_total", Counter, [], "Failed commits of the outbox.";
    UplinkSent, "nearside_uplink_sent_total", Counter, ["class"], "Items the cloud acknowledged, by class.";
    UplinkBytes, "nearside_uplink_sent_bytes_total", Counter, [], "Payload bytes the cloud acknowledged.";
    UplinkConnected, "nearside_uplink_connected", Gauge, [], "1 while the cloud is connected.";
    UplinkErrors, "nearside_uplink_errors_total", Counter, ["kind"], "Failures of the uplink, by kind.";
    UplinkEndpoint, "nearside_uplink_endpoint", Gauge, [], "The address in use: 0 the first, 1 the first fallback, and so on.";
    UplinkConnects, "nearside_uplink_connects_total", Counter, ["endpoint"], "Connections that the cloud accepted, by address.";
    UplinkInFlight, "nearside_uplink_in_flight_items", Gauge, [], "Items sent and not yet acknowledged.";
    UplinkAcknowledge, "nearside_uplink_acknowledge_seconds", Histogram(LATENCY_SECONDS), ["class"], "Time from sending an item to the cloud's acknowledgement.";
    UplinkRefused, "nearside_uplink_refused_total", Counter, ["class", "reason"], "Items that the cloud refused, by reason; each try counts.";

    DeadLetters, "nearside_deadletters", Gauge, [], "Messages set aside for inspection.";
    DeadLetterBytes, "nearside_deadletters_bytes", Gauge, [], "Bytes of messages set aside for inspection.";
    DeadLettersKept, "nearside_deadletters_total", Counter, ["stream", "reason"], "Messages set aside for inspection, by stream definition and reason.";
    DeadLettersShed, "nearside_deadletters_shed_total", Counter, ["reason"], "Messages set aside that were not kept: the oldest past the quota, new ones while the disk was behind or failed, or those that the journal no longer holds.";

    MailboxDepth, "nearside_stage_queue_depth", Gauge, ["stage"], "Messages waiting in a stage of the pipeline.";
    StageWaits, "nearside_stage_waits_total", Counter, ["stage"], "Times a stage waited because the next one was full.";
    StageShed, "nearside_stage_shed_total", Counter, ["stage"], "Messages a full stage shed.";
    ComponentUp, "nearside_component_up", Gauge, ["component"], "1 while a part of the gateway is there, 0 once it has ended.";
    ComponentRestarts, "nearside_component_restarts_total", Counter, ["component"], "Times a part was started again after a panic.";
    Reloads, "nearside_reloads_total", Counter, ["outcome"], "Configurations put in force or refused while the gateway ran.";
    Ready, "nearside_ready", Gauge, [], "1 once the gateway takes readings.";
    BuildInfo, "nearside_build_info", Gauge, ["version"], "1, with the version as a label.";
    StartTime, "nearside_start_time_seconds", Gauge, [], "When the gateway started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = std::collections::HashSet::new();
        for row in TABLE {
            assert!(seen.insert(row.name), "{} stands twice", row.name);
            assert!(row.name.starts_with("nearside_"), "{}", row.name);
            assert_eq!(row.name.ends_with("_total"), row.kind == Counter, "{}", row.name);
            assert!(row.help.ends_with('.'), "{}", row.name);
        }
    }
}
