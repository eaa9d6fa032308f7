//! A city: a ring road, air stations, microphones, buildings, car parks and citizens who write.
//!
//! What neighbours share (congestion, weather, the grid's voltage) moves in [`Surroundings`]; what is a device's own
//! stands with the device.

mod instruments;
mod reports;

use std::time::Duration;

use nearside_schemas::Timestamp;

use crate::incident::{Effect, Incident, IncidentKind, Places, SensorFault, Slot, detectable_by, level_of};
use crate::random::{Random, SlowNoise};
use crate::site::{Cadence, Grid, Outline, Site};
use instruments::{Building, Junction, Lot, Microphone, Station};

/// What the devices of a city share, each as a slow process of variance 1.
pub(crate) struct Surroundings {
    grid: Grid,
    random: Random,
    /// How full the roads are, all over the city and in each zone.
    pub(crate) traffic: SlowNoise,
    traffic_zones: Vec<SlowNoise>,
    /// How still the air is: still air keeps what is in it.
    pub(crate) stillness: SlowNoise,
    air_zones: Vec<SlowNoise>,
    /// The voltage of the medium-voltage grid.
    pub(crate) grid_voltage: SlowNoise,
    feeders: Vec<SlowNoise>,
}

/// Neighbouring devices share a zone; a city has this many.
const ZONES: usize = 16;
const STEP: Duration = Duration::from_secs(10);

impl Surroundings {
    fn new(seed: u64, start: Timestamp) -> Self {
        let mut random = Random::new(seed, u64::MAX - 1);
        let zones = |tau: f64, random: &mut Random| (0..ZONES).map(|_| SlowNoise::new(tau, random)).collect::<Vec<_>>();
        Self {
            grid: Grid::new(start, STEP),
            traffic: SlowNoise::new(2_400.0, &mut random),
            traffic_zones: zones(1_200.0, &mut random),
            stillness: SlowNoise::new(14_400.0, &mut random),
            air_zones: zones(3_600.0, &mut random),
            grid_voltage: SlowNoise::new(900.0, &mut random),
            feeders: zones(420.0, &mut random),
            random,
        }
    }

    fn advance(&mut self, at: Timestamp) {
        let dt = STEP.as_secs_f64();
        while self.grid.step_to(at).is_some() {
            for process in [&mut self.traffic, &mut self.stillness, &mut self.grid_voltage]
                .into_iter()
                .chain(&mut self.traffic_zones)
                .chain(&mut self.air_zones)
                .chain(&mut self.feeders)
            {
                process.step(dt, &mut self.random);
            }
        }
    }

    /// The congestion around the device with this number: a blend of two zones, so that neighbours are alike.
    pub(crate) fn traffic_near(&self, number: usize) -> f64 {
        blend(&self.traffic_zones, number)
    }

    /// The same of the air.
    pub(crate) fn air_near(&self, number: usize) -> f64 {
        blend(&self.air_zones, number)
    }

    /// The load of the feeder that a building hangs on.
    pub(crate) fn feeder_near(&self, number: usize) -> f64 {
        blend(&self.feeders, number)
    }
}

/// Most of one zone and some of the next; variance 1 again.
fn blend(zones: &[SlowNoise], number: usize) -> f64 {
    let zone = |i: usize| zones.get(i % ZONES).map_or(0.0, SlowNoise::value);
    0.8 * zone(number / 2) + 0.6 * zone(number.div_ceil(2) + 1)
}

enum Instrument {
    Junction(Junction),
    Station(Station),
    Microphone(Microphone),
    Building(Building),
    Lot(Lot),
    Citizens,
}

struct Device {
    instrument: Instrument,
    random: Random,
    effects: Vec<Effect>,
}

/// The city as a [`Site`].
pub(crate) struct City {
    surroundings: Surroundings,
    outlines: Vec<Outline>,
    devices: Vec<Device>,
    /// The junctions of the ring road, by device, in driving order.
    ring: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Traffic,
    Air,
    Noise,
    Energy,
    Parking,
    Reports,
    TrafficZh,
}

/// The first devices: one of each kind, and a second junction so that a crash has a neighbour.
const FIRST: [Kind; 8] =
    [Kind::Traffic, Kind::Air, Kind::Noise, Kind::Energy, Kind::Traffic, Kind::Parking, Kind::Reports, Kind::TrafficZh];
/// All further ones, again and again.
const FURTHER: [Kind; 14] = [
    Kind::Traffic,
    Kind::Noise,
    Kind::Air,
    Kind::Energy,
    Kind::Traffic,
    Kind::Noise,
    Kind::Parking,
    Kind::Traffic,
    Kind::Air,
    Kind::Noise,
    Kind::Energy,
    Kind::Traffic,
    Kind::Reports,
    Kind::Noise,
];
/// The junctions whose sensors speak Chinese.
const CHINESE_JUNCTIONS: [&str; 2] = ["二环", "三环"];
/// The device at this index is the second of them.
const SECOND_CHINESE: usize = 20;

fn kind_of(device: usize) -> Kind {
    match (FIRST.get(device), device) {
        (Some(kind), _) => *kind,
        (None, SECOND_CHINESE) => Kind::TrafficZh,
        (None, _) => FURTHER[(device - FIRST.len()) % FURTHER.len()],
    }
}

const DISTRICTS: [&str; 8] =
    ["harbour", "old-town", "north", "riverside", "university", "market", "hillside", "airport"];

impl City {
    pub(crate) fn new(streams: usize, seed: u64, start: Timestamp) -> Self {
        let mut city = Self {
            surroundings: Surroundings::new(seed, start),
            outlines: Vec::with_capacity(streams),
            devices: Vec::with_capacity(streams),
            ring: Vec::new(),
        };
        let mut counts = [0usize; 7];
        for device in 0..streams {
            let kind = kind_of(device);
            let number = counts[kind as usize];
            counts[kind as usize] += 1;
            let mut random = Random::new(seed, 2 * device as u64);
            let instrument = build(kind, number, start, &mut random);
            if kind == Kind::Traffic {
                city.ring.push(device);
            }
            city.outlines.push(outline(kind, number));
            city.devices.push(Device { instrument, random, effects: Vec::new() });
        }
        city
    }

    fn where_kind(&self, wanted: fn(&Instrument) -> bool) -> Vec<usize> {
        (0..self.devices.len()).filter(|i| self.devices.get(*i).is_some_and(|d| wanted(&d.instrument))).collect()
    }

    /// The junction that drivers come from before they reach this one.
    fn behind(&self, junction: usize) -> Option<usize> {
        let place = self.ring.iter().position(|device| *device == junction)?;
        let behind = *self.ring.get((place + 1) % self.ring.len())?;
        (behind != junction).then_some(behind)
    }

    fn strike(&mut self, device: usize, effect: Effect) {
        if let Some(device) = self.devices.get_mut(device) {
            device.effects.push(effect);
        }
    }
}

fn outline(kind: Kind, number: usize) -> Outline {
    let (stream, key, topic, cadence) = match kind {
        Kind::Traffic => ("traffic", format!("ring-{}", number + 1), "city/{}/traffic", Cadence::every(10)),
        Kind::Air => ("air", format!("air-{}", number + 1), "city/{}/air", Cadence::every(30)),
        Kind::Noise => ("noise", format!("mic-{}", number + 1), "city/{}/noise", Cadence::every(10)),
        Kind::Energy => ("energy", format!("tower-{}", number + 1), "city/{}/energy", Cadence::every(30)),
        Kind::Parking => ("parking", format!("lot-{}", number + 1), "city/{}/parking", Cadence::every(60)),
        Kind::Reports => {
            let name = DISTRICTS[number % DISTRICTS.len()];
            let key = match number / DISTRICTS.len() {
                0 => name.to_owned(),
                round => format!("{name}-{}", round + 1),
            };
            ("reports", key, "city/{}/report", Cadence::NowAndThen { mean: Duration::from_secs(420) })
        }
        Kind::TrafficZh => {
            let key = CHINESE_JUNCTIONS[number % CHINESE_JUNCTIONS.len()].to_owned();
            ("traffic-zh", key, "城市/{}/交通", Cadence::every(10))
        }
    };
    Outline { stream, topic: topic.replace("{}", &key), key, cadence }
}

fn build(kind: Kind, number: usize, start: Timestamp, random: &mut Random) -> Instrument {
    match kind {
        Kind::Traffic => Instrument::Junction(Junction::new(number, start, random)),
        // Their own part of the city.
        Kind::TrafficZh => Instrument::Junction(Junction::new(number + 7, start, random)),
        Kind::Air => Instrument::Station(Station::new(number, start, random)),
        Kind::Noise => Instrument::Microphone(Microphone::new(start, random)),
        Kind::Energy => Instrument::Building(Building::new(number, start, random)),
        Kind::Parking => Instrument::Lot(Lot::new(start, random)),
        Kind::Reports => Instrument::Citizens,
    }
}

impl Site for City {
    fn devices(&self) -> &[Outline] {
        &self.outlines
    }

    fn advance(&mut self, at: Timestamp) {
        self.surroundings.advance(at);
    }

    fn read(&mut self, device: usize, at: Timestamp) -> Vec<u8> {
        let (Some(device), Some(outline)) = (self.devices.get_mut(device), self.outlines.get(device)) else {
            return Vec::new();
        };
        let Device { instrument, random, effects } = device;
        match instrument {
            Instrument::Junction(junction) => junction.read(at, &self.surroundings, effects, random),
            Instrument::Station(station) => station.read(at, &self.surroundings, effects, random),
            Instrument::Microphone(microphone) => microphone.read(at, effects, random),
            Instrument::Building(building) => building.read(&outline.key, at, &self.surroundings, effects, random),
            Instrument::Lot(lot) => lot.read(at, random),
            Instrument::Citizens => {
                let is_urgent = level_of(effects, at, |kind| kind == IncidentKind::UrgentReport) > 0.0;
                reports::report(at, is_urgent, random)
            }
        }
    }

    fn places(&self, variant: u64) -> Vec<Places> {
        const FAULTS: [SensorFault; 4] =
            [SensorFault::FlatLine, SensorFault::Spikes, SensorFault::Drift, SensorFault::Scatter];
        let buildings = self.where_kind(|i| matches!(i, Instrument::Building(_)));
        let stations = self.where_kind(|i| matches!(i, Instrument::Station(_)));
        let first = variant as usize % FAULTS.len();
        // One fault is certain; a city with stations to spare shows a second.
        let faults = if stations.len() > 1 { 2 } else { 1 };
        let mut places = vec![
            Places { kind: IncidentKind::Crash, devices: self.ring.clone() },
            Places {
                kind: IncidentKind::NoiseEvent,
                devices: self.where_kind(|i| matches!(i, Instrument::Microphone(_))),
            },
            Places { kind: IncidentKind::PowerSurge, devices: buildings.clone() },
            Places { kind: IncidentKind::VoltageSag, devices: buildings },
        ];
        places.extend(
            FAULTS
                .iter()
                .cycle()
                .skip(first)
                .take(faults)
                .map(|fault| Places { kind: IncidentKind::AirSensorFault(*fault), devices: stations.clone() }),
        );
        places.push(Places {
            kind: IncidentKind::UrgentReport,
            devices: self.where_kind(|i| matches!(i, Instrument::Citizens)),
        });
        places
    }

    fn group(&self, device: usize) -> usize {
        // A crash reaches its neighbour, so of three junctions in a row one has a crash at a time.
        match self.devices.get(device).map(|device| &device.instrument) {
            Some(Instrument::Junction(junction)) => self.ring.get(junction.number() / 3 * 3).copied().unwrap_or(device),
            _ => device,
        }
    }

    fn apply(&mut self, slot: Slot, periods: &dyn Fn(usize) -> Duration) -> Option<Incident> {
        let Slot { kind, device, from, until } = slot;
        self.strike(device, Effect { kind, from, until, strength: 1.0 });
        let outline = self.outlines.get(device)?.clone();
        let mut topics = vec![outline.topic];
        let mut name = format!("{kind} at {}", outline.key);
        if kind == IncidentKind::Crash
            && let Some(behind) = self.behind(device)
        {
            // The queue reaches the junction behind two minutes later and is gone when the crash is.
            let late = from.plus(Duration::from_secs(120).min(until.since(from) / 4));
            self.strike(behind, Effect { kind, from: late, until, strength: 0.5 });
            let neighbour = self.outlines.get(behind)?;
            topics.push(neighbour.topic.clone());
            name = format!("{name}, queue back to {}", neighbour.key);
        }
        let detectable_by = detectable_by(kind, from, until, periods(device));
        Some(Incident { kind, name, stream: outline.stream, key: outline.key, topics, from, until, detectable_by })
    }
}
