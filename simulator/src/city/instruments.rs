//! The instruments of a city, each with its own small physics. All values stay ordinary unless an effect says otherwise.

use std::time::Duration;

use nearside_schemas::Timestamp;

use super::Surroundings;
use crate::incident::{Effect, IncidentKind, SensorFault, level_of};
use crate::payload::millis;
use crate::random::{Random, SlowNoise};
use crate::rhythm;

/// Time passed since a device was last read, in seconds.
struct Elapsed(Timestamp);

impl Elapsed {
    fn take(&mut self, at: Timestamp) -> f64 {
        let dt = at.since(self.0).as_secs_f64();
        self.0 = at;
        dt
    }
}

/// A loop detector under two lanes.
pub(crate) struct Junction {
    number: usize,
    elapsed: Elapsed,
    own: SlowNoise,
    /// Vehicles a minute that pass before speed suffers.
    capacity: f64,
    /// Speed on an empty road, km/h.
    free_speed: f64,
}

impl Junction {
    pub(crate) fn new(number: usize, start: Timestamp, random: &mut Random) -> Self {
        Self {
            number,
            elapsed: Elapsed(start),
            own: SlowNoise::new(300.0, random),
            capacity: random.between(42.0, 60.0),
            free_speed: random.between(58.0, 78.0),
        }
    }

    /// Its place on the road.
    pub(crate) const fn number(&self) -> usize {
        self.number
    }

    /// `{"ts":ms,"vehicles":per min,"speed":km/h,"occupancy":%}`. Speed falls with the fourth power of demand over
    /// capacity (the curve of the Bureau of Public Roads, 1964); occupancy is density times the length of a vehicle.
    pub(crate) fn read(
        &mut self,
        at: Timestamp,
        city: &Surroundings,
        effects: &[Effect],
        random: &mut Random,
    ) -> Vec<u8> {
        let own = self.own.step(self.elapsed.take(at), random);
        let noise = 0.10 * city.traffic.value() + 0.08 * city.traffic_near(self.number) + 0.04 * own;
        let demand = 0.85 * self.capacity * rhythm::road_demand(at) * noise.exp();
        let crash = level_of(effects, at, |kind| kind == IncidentKind::Crash);
        let flow = demand * (1.0 - 0.65 * crash);
        let easy = self.free_speed / (1.0 + 0.45 * (demand / self.capacity).powi(4)) * (1.0 + 0.02 * own);
        // In the queue behind a crash cars creep at 7 km/h whatever the road was like before.
        let speed = (easy * (1.0 - crash) + 7.0 * crash + random.normal() * (1.8 - 0.8 * crash)).max(1.0);
        let vehicles = random.poisson(flow);
        // km/h and vehicles per minute over two lanes to vehicles per km and lane; each covers 6.5 m of it.
        let moving = flow * 60.0 / speed / 2.0 * 0.65;
        let occupancy = moving * (1.0 - crash) + 68.0 * crash;
        let occupancy = (occupancy * (1.0 + 0.05 * random.normal()) + 0.3 * random.normal().abs()).clamp(0.0, 100.0);
        format!(r#"{{"ts":{},"vehicles":{vehicles},"speed":{speed:.1},"occupancy":{occupancy:.1}}}"#, millis(at))
            .into_bytes()
    }
}

/// An air station with an optical and two electrochemical sensors.
pub(crate) struct Station {
    number: usize,
    elapsed: Elapsed,
    own: SlowNoise,
    /// How much of the road's exhaust reaches it.
    roadside: f64,
    /// The last true reading, which a stuck sensor repeats.
    last: Option<[f64; 3]>,
}

impl Station {
    pub(crate) fn new(number: usize, start: Timestamp, random: &mut Random) -> Self {
        Self {
            number,
            elapsed: Elapsed(start),
            own: SlowNoise::new(1_800.0, random),
            roadside: random.between(0.6, 1.2),
            last: None,
        }
    }

    /// `{"ts":ms,"pm25":µg/m3,"no2":µg/m3,"o3":µg/m3}`. Still air keeps particles and exhaust; ozone comes with the
    /// sun and is eaten by the nitrogen monoxide of exhaust.
    pub(crate) fn read(
        &mut self,
        at: Timestamp,
        city: &Surroundings,
        effects: &[Effect],
        random: &mut Random,
    ) -> Vec<u8> {
        let own = self.own.step(self.elapsed.take(at), random);
        let air = 0.30 * city.stillness.value() + 0.14 * city.air_near(self.number) + 0.06 * own;
        let road = rhythm::road_demand(at) * self.roadside;
        let pm25 = (15.0 + 7.0 * road) * air.exp();
        let no2 = (13.0 + 30.0 * road) * (0.8 * air).exp();
        let o3 = (34.0 + 62.0 * rhythm::sunlight(at) - 0.35 * no2).max(4.0) * (-0.15 * air).exp();
        let sensed = |truth: f64, random: &mut Random| truth * (1.0 + 0.025 * random.normal()) + 0.4 * random.normal();
        let truth = [pm25, no2, o3].map(|value| sensed(value, random));
        let values = self.faulty(truth, at, effects, random).map(|value| value.max(0.1));
        let [pm25, no2, o3] = values;
        format!(r#"{{"ts":{},"pm25":{pm25:.1},"no2":{no2:.1},"o3":{o3:.1}}}"#, millis(at)).into_bytes()
    }

    fn faulty(&mut self, truth: [f64; 3], at: Timestamp, effects: &[Effect], random: &mut Random) -> [f64; 3] {
        let active = effects.iter().find_map(|effect| match effect.kind {
            IncidentKind::AirSensorFault(fault) if effect.level(at) > 0.0 => Some((fault, effect.level(at))),
            _ => None,
        });
        let [pm25, no2, o3] = truth;
        match active {
            None => {
                self.last = Some(truth);
                truth
            }
            Some((SensorFault::FlatLine, _)) => *self.last.get_or_insert(truth),
            Some((SensorFault::Spikes, _)) if random.chance(0.35) => {
                [pm25 + random.between(120.0, 320.0), no2 + random.between(60.0, 180.0), o3]
            }
            Some((SensorFault::Spikes, _)) => truth,
            Some((SensorFault::Drift, level)) => [pm25 + 110.0 * level, no2 + 45.0 * level, o3],
            Some((SensorFault::Scatter, _)) => [
                (pm25 + 30.0 * random.normal()).abs(),
                (no2 + 30.0 * random.normal()).abs(),
                (o3 + 30.0 * random.normal()).abs(),
            ],
        }
    }
}

/// A microphone on a lamp post.
pub(crate) struct Microphone {
    elapsed: Elapsed,
    own: SlowNoise,
    base: f64,
}

impl Microphone {
    pub(crate) fn new(start: Timestamp, random: &mut Random) -> Self {
        Self { elapsed: Elapsed(start), own: SlowNoise::new(240.0, random), base: random.between(45.0, 50.0) }
    }

    /// A bare number, dB(A).
    pub(crate) fn read(&mut self, at: Timestamp, effects: &[Effect], random: &mut Random) -> Vec<u8> {
        let own = self.own.step(self.elapsed.take(at), random);
        let street = self.base + 15.0 * rhythm::road_demand(at).min(1.0) + 1.2 * own;
        // Something drives by in one reading of eight.
        let passing = if random.chance(0.12) { random.between(0.5, 3.5) } else { 0.0 };
        let event = level_of(effects, at, |kind| kind == IncidentKind::NoiseEvent);
        // Sound adds as power, not as level.
        let ordinary = street + passing + 0.7 * random.normal();
        let level = if event > 0.0 {
            let loud = street + 26.0 * event + 2.0 * random.normal();
            10.0 * (10f64.powf(ordinary / 10.0) + 10f64.powf(loud / 10.0)).log10()
        } else {
            ordinary
        };
        format!("{level:.1}").into_bytes()
    }
}

/// A building's meter.
pub(crate) struct Building {
    number: usize,
    elapsed: Elapsed,
    load: SlowNoise,
    /// W at night.
    base: f64,
    /// W more when everybody is at work.
    office: f64,
    /// The air conditioning's cycle: seconds and where in it the building stands.
    cycle: f64,
    phase: f64,
}

impl Building {
    pub(crate) fn new(number: usize, start: Timestamp, random: &mut Random) -> Self {
        let base = random.between(12_000.0, 30_000.0);
        Self {
            number,
            elapsed: Elapsed(start),
            load: SlowNoise::new(900.0, random),
            base,
            office: base * random.between(1.2, 2.4),
            cycle: random.between(600.0, 1_100.0),
            phase: random.between(0.0, std::f64::consts::TAU),
        }
    }

    /// A SenML pack (RFC 8428): power in W and voltage in V.
    pub(crate) fn read(
        &mut self,
        name: &str,
        at: Timestamp,
        city: &Surroundings,
        effects: &[Effect],
        random: &mut Random,
    ) -> Vec<u8> {
        let dt = self.elapsed.take(at);
        let load = self.load.step(dt, random);
        let cooling = 0.03 * (std::f64::consts::TAU * at.as_secs_f64() / self.cycle + self.phase).sin();
        let wanted = (self.base + self.office * rhythm::office_hours(at)) * (1.0 + 0.03 * load + cooling);
        let surge = level_of(effects, at, |kind| kind == IncidentKind::PowerSurge);
        let sag = level_of(effects, at, |kind| kind == IncidentKind::VoltageSag);
        let power = wanted * (1.0 + 1.4 * surge) * (1.0 - 0.12 * sag) * (1.0 + 0.008 * random.normal());
        let evening = 1.5 * rhythm::daily(rhythm::hour(at), 3.0);
        let feeder = 0.7 * city.grid_voltage.value() + 0.4 * city.feeder_near(self.number);
        let voltage = 230.5 + evening + feeder - 4.0 * surge - 34.0 * sag + 0.25 * random.normal();
        let ms = millis(at);
        let (secs, fraction) = (ms.div_euclid(1_000), ms.rem_euclid(1_000));
        format!(
            r#"[{{"bn":"{name}:","bt":{secs}.{fraction:03},"n":"power","u":"W","v":{power:.0}}},{{"n":"voltage","u":"V","v":{voltage:.1}}}]"#,
        )
        .into_bytes()
    }
}

/// A car park that counts in and out.
pub(crate) struct Lot {
    spaces: u32,
    taken: u32,
    /// Up to when cars have come and gone.
    counted: Timestamp,
}

/// Before its first batch a lot has counted for this long.
const LOT_STEP: Duration = Duration::from_secs(30);

impl Lot {
    pub(crate) fn new(start: Timestamp, random: &mut Random) -> Self {
        let spaces = 80 + random.below(420) as u32;
        let taken = random.poisson(f64::from(spaces) * Self::wanted(start)).min(spaces);
        Self { spaces, taken, counted: start.minus(LOT_STEP) }
    }

    /// The share of spaces that people want at this time.
    fn wanted(at: Timestamp) -> f64 {
        0.12 + 0.62 * rhythm::office_hours(at) + 0.12 * rhythm::bell(rhythm::hour(at), 20.0, 2.0)
    }

    /// Lets cars come and go until `at`: each parked one leaves after two hours on average, and as many come as keep
    /// the lot as full as it is wanted. Returns the free spaces.
    fn count(&mut self, at: Timestamp, random: &mut Random) -> u32 {
        let stays = 2.0 * 3_600.0;
        let dt = at.since(self.counted).as_secs_f64().min(stays);
        self.counted = self.counted.max(at);
        let leave = random.poisson(f64::from(self.taken) * dt / stays).min(self.taken);
        let come = random.poisson(f64::from(self.spaces) * Self::wanted(at) * dt / stays);
        self.taken = (self.taken - leave + come).min(self.spaces);
        self.spaces - self.taken
    }

    /// `[{"ts":ms,"free":…},{"ts":ms,"free":…}]`: halfway since the batch before, and now.
    pub(crate) fn read(&mut self, at: Timestamp, random: &mut Random) -> Vec<u8> {
        let earlier = at.minus(at.since(self.counted) / 2);
        let before = self.count(earlier, random);
        let now = self.count(at, random);
        format!(r#"[{{"ts":{},"free":{before}}},{{"ts":{},"free":{now}}}]"#, millis(earlier), millis(at)).into_bytes()
    }
}
