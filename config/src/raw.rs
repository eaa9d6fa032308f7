//! The file as it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use nearside_actors::{InferenceConfig, Priority, RollUpConfig, RuleConfig, StreamsConfig};
use nearside_broker::BrokerConfig;
use nearside_console::ConsoleConfig;
use nearside_deadletters::DeadLettersConfig;
use nearside_journal::JournalConfig;
use nearside_models::artefact::ModelsConfig;
use nearside_outbox::OutboxConfig;
use nearside_privacy::PrivacyConfig;
use nearside_schemas::codec::{Format, TimestampUnit};
use nearside_schemas::{ByteSize, FieldKind, FieldPolicy, HumanDuration, SiteId, StreamName};
use nearside_uplink::UplinkConfig;
use nearside_window::WindowConfig;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSite {
    pub(crate) site: RawSiteSection,
    #[serde(default)]
    pub(crate) broker: Option<Spanned<BrokerConfig>>,
    #[serde(default)]
    pub(crate) journal: Option<Spanned<JournalConfig>>,
    #[serde(default)]
    pub(crate) streams: Option<Spanned<StreamsConfig>>,
    #[serde(default)]
    pub(crate) inference: Option<Spanned<InferenceConfig>>,
    #[serde(default)]
    pub(crate) models: Option<Spanned<ModelsConfig>>,
    #[serde(default, rename = "stream")]
    pub(crate) definitions: Vec<Spanned<RawStream>>,
    #[serde(default, rename = "rule")]
    pub(crate) rules: Vec<Spanned<RuleConfig>>,
    #[serde(default)]
    pub(crate) rollup: Option<Spanned<RollUpConfig>>,
    #[serde(default)]
    pub(crate) privacy: PrivacyConfig,
    #[serde(default)]
    pub(crate) deadletters: Option<Spanned<DeadLettersConfig>>,
    #[serde(default)]
    pub(crate) outbox: Option<Spanned<OutboxConfig>>,
    #[serde(default)]
    pub(crate) uplink: Option<Spanned<UplinkConfig>>,
    #[serde(default)]
    pub(crate) console: Option<Spanned<ConsoleConfig>>,
}

/// `[site]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSiteSection {
    /// The site's name: 1 to 64 of a-z A-Z 0-9 _ - .
    pub(crate) id: SiteId,
    /// The folder for journal, outbox and keys, relative to the configuration file.
    #[serde(default = "default_data_dir")]
    pub(crate) data_dir: PathBuf,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("data")
}

/// `[[stream]]`: a kind of sensor stream. Each value of its key is a stream with an actor of its own.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStream {
    /// The definition's name.
    pub(crate) name: Spanned<StreamName>,
    /// The topic, with key parts in braces: `ward/{patient}/ecg`; `+` is any one level that is not part of the key.
    pub(crate) topic: Spanned<String>,
    /// `json`, `number`, `csv`, `cbor`, `senml` or `arrow_ipc`. What a path is follows from it: in JSON and CBOR `$.a.b[0]` (`a.b[0]` is
    /// the same), in CSV the column's number `0`, `1`, … or, where every payload begins with a header line, its name, in SenML the
    /// record's name, in Arrow the column's name; `number` has the one path `$`.
    pub(crate) format: Spanned<Format>,
    /// Where the event time stands: a path, or `{ path = "$.ts", unit = "millis" }` (`auto`, the default, `seconds`, `millis`, `micros`, `nanos`). Without it the time of receipt counts.
    #[serde(default)]
    pub(crate) timestamp: Option<RawTimestamp>,
    /// Where the device's sequence number stands; it tells true repetitions from duplicates.
    #[serde(default)]
    pub(crate) sequence: Option<String>,
    /// Where an array of rows stands in the payload.
    #[serde(default)]
    pub(crate) rows: Option<String>,
    /// For array values: samples a second.
    #[serde(default)]
    pub(crate) rate_hz: Option<Spanned<f64>>,
    /// For array values: where the samples a second stand in the payload.
    #[serde(default)]
    pub(crate) rate: Option<String>,
    /// Key parts that stand in the payload: name and path.
    #[serde(default)]
    pub(crate) key: BTreeMap<String, Spanned<String>>,
    /// The fields: name and path, or `{ path = "$.mv", unit = "mV", kind = "number" }`. The unit is free text that people are shown and
    /// nothing is converted by, best as UCUM writes it; the models of glucose (`mg/dL`, `mmol/L`) and of ECGs (`mV`) read it.
    pub(crate) fields: Spanned<toml::Table>,
    /// The windows.
    pub(crate) windows: Vec<Spanned<WindowConfig>>,
    /// The models that judge each row.
    #[serde(default)]
    pub(crate) models: Vec<Spanned<String>>,
    /// What may leave of a key part or field: `clear`, `encrypt`, `pseudonym` or `drop`. Unnamed key parts leave as
    /// pseudonyms, unnamed text does not leave, unnamed numbers leave as figures of their window. Of a number, `encrypt` lets those figures leave
    /// as ciphertext (`sealed_fields` in the summary, which `nearside open` reads); a number has no pseudonym.
    #[serde(default)]
    pub(crate) privacy: BTreeMap<String, Spanned<FieldPolicy>>,
    /// The group for roll-ups; the definition's name where none is stated.
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// Who goes first where streams wait for the same model: `medical` or `ordinary`. Where nothing is stated a stream with a model for
    /// patients is medical.
    #[serde(default)]
    pub(crate) priority: Option<Priority>,
    /// A window with fewer rows leaves counts only.
    #[serde(default = "default_min_rows")]
    pub(crate) min_rows: u64,
    /// A row whose time is further behind its receipt is set aside as `past`.
    #[serde(default)]
    pub(crate) past: Option<HumanDuration>,
    /// A row whose time is further ahead of its receipt is set aside as `future`.
    #[serde(default)]
    pub(crate) future: Option<HumanDuration>,
    /// A stream without rows for this long closes its windows; a window closes no sooner than its own size and lateness after its last
    /// row, where those are longer.
    #[serde(default)]
    pub(crate) idle: Option<HumanDuration>,
    /// A stream from which nothing has come for this long is told as `silent`, once, until it speaks again; without it silence tells
    /// nothing. The time in which the gateway was away does not count.
    #[serde(default)]
    pub(crate) silent_after: Option<Spanned<HumanDuration>>,
    /// Most rows of one window.
    #[serde(default)]
    pub(crate) max_rows: Option<usize>,
    /// Most open windows of one definition of a stream.
    #[serde(default)]
    pub(crate) max_open: Option<usize>,
    /// The largest payload that is decoded.
    #[serde(default = "default_max_payload")]
    pub(crate) max_payload: Spanned<ByteSize>,
    /// Most readings that one message may carry.
    #[serde(default = "default_max_readings")]
    pub(crate) max_readings: Spanned<usize>,
}

const fn default_min_rows() -> u64 {
    3
}
fn default_max_payload() -> Spanned<ByteSize> {
    unwritten(ByteSize::kib(256))
}
fn default_max_readings() -> Spanned<usize> {
    unwritten(10_000)
}

/// A value that the file does not hold.
fn unwritten<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

#[derive(Clone)]
pub(crate) enum RawTimestamp {
    Path(String),
    Full(FullTimestamp),
}

/// By what stands there, and not by what fits: so an error says what is wrong with it.
impl<'de> Deserialize<'de> for RawTimestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrTable;

        impl<'de> Visitor<'de> for PathOrTable {
            type Value = RawTimestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path such as \"$.ts\", or { path = \"$.ts\", unit = \"millis\" }")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<RawTimestamp, E> {
                Ok(RawTimestamp::Path(path.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<RawTimestamp, A::Error> {
                FullTimestamp::deserialize(MapAccessDeserializer::new(table)).map(RawTimestamp::Full)
            }
        }

        deserializer.deserialize_any(PathOrTable)
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FullTimestamp {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) unit: TimestampUnit,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawField {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) unit: Option<String>,
    #[serde(default)]
    pub(crate) kind: Option<FieldKind>,
}
