//! Incidents of the city show in its numbers, and ordinary days hold none.

use std::time::Duration;

use nearside_schemas::Timestamp;
use nearside_simulator::{Fleet, FleetConfig, Incident, IncidentKind, Message, Profile, SensorFault};

use crate::{HALF_HOUR, around, config, each_incident, json, mean, series};

/// A pack of the energy stream as one record's values.
fn senml(messages: &[Message], topic: &str, name: &str) -> Vec<(Timestamp, f64)> {
    messages
        .iter()
        .filter(|message| message.topic == topic)
        .map(|message| {
            let pack = json(message);
            let record = pack.as_array().unwrap().iter().find(|record| record["n"] == name).unwrap();
            let time = pack[0]["bt"].as_f64().unwrap();
            (Timestamp::from_millis((time * 1_000.0).round() as i64), record["v"].as_f64().unwrap())
        })
        .collect()
}

#[test]
fn a_crash_stops_the_road_and_reaches_the_junction_behind() {
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::Crash,
        |crash, messages| {
            let (before, during) = around(&series(messages, &crash.topics[0], "speed"), crash);
            assert!(mean(before.clone()) > 35.0, "{}", mean(before));
            assert!(mean(during.clone()) < 12.0, "{}", mean(during));
            let (before, during) = around(&series(messages, &crash.topics[0], "occupancy"), crash);
            assert!(mean(during) > 2.0 * mean(before));
            let (before, during) = around(&series(messages, &crash.topics[1], "speed"), crash);
            let (before, during) = (mean(before), mean(during));
            assert!(during < 0.75 * before && during > 12.0, "{before} to {during}");
        },
    );
}

#[test]
fn ordinary_traffic_has_no_crash_in_it() {
    let fleet = Fleet::new(FleetConfig {
        incidents: false,
        duration: Some(Duration::from_secs(86_400)),
        ..config(Profile::City, 8, 2)
    });
    let messages: Vec<Message> = fleet.collect();
    let speeds = series(&messages, "city/ring-1/traffic", "speed");
    assert!(speeds.iter().all(|(_, speed)| *speed > 18.0), "{:?}", speeds.iter().map(|(_, s)| *s).fold(99.0, f64::min));
    // But there is a day in it: the rush hour is slower than the night.
    let at = |hour: i64| {
        let from = Timestamp::from_secs(1_704_186_000 + (hour - 9) * 3_600);
        mean(speeds.iter().filter(|(at, _)| *at >= from && *at < from.plus(HALF_HOUR)).map(|(_, speed)| *speed))
    };
    assert!(at(17) + 4.0 < at(26), "{} {}", at(17), at(26));
}

#[test]
fn air_sensors_fail_in_four_ways() {
    let fault = |wanted: SensorFault| move |kind| kind == IncidentKind::AirSensorFault(wanted);
    let spread = |values: &[f64]| {
        let centre = mean(values.iter().copied());
        mean(values.iter().map(|value| (value - centre).powi(2))).sqrt()
    };
    let around_all = |incident: &Incident, messages: &[Message]| {
        let all = series(messages, &incident.topics[0], "pm25");
        let inside: Vec<f64> =
            all.iter().filter(|(at, _)| *at >= incident.from && *at < incident.until).map(|(_, v)| *v).collect();
        (around(&all, incident).0, inside)
    };
    each_incident(Profile::City, 30, fault(SensorFault::FlatLine), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        assert!(spread(&before) > 0.2 && spread(&during) < 1e-9, "{before:?} {during:?}");
    });
    each_incident(Profile::City, 30, fault(SensorFault::Spikes), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        let top = before.iter().copied().fold(0.0, f64::max);
        assert!(during.iter().filter(|value| **value > 2.0 * top).count() >= 2, "{during:?}");
    });
    each_incident(Profile::City, 30, fault(SensorFault::Drift), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        assert!(*during.last().unwrap() > 3.0 * mean(before));
    });
    each_incident(Profile::City, 30, fault(SensorFault::Scatter), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        assert!(spread(&during) > 4.0 * spread(&before));
    });
}

#[test]
fn noise_power_and_voltage_leave_their_usual_range() {
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::NoiseEvent,
        |incident, messages| {
            let levels: Vec<(Timestamp, f64)> = messages
                .iter()
                .filter(|message| message.topic == incident.topics[0])
                .map(|message| (message.at, std::str::from_utf8(&message.payload).unwrap().parse().unwrap()))
                .collect();
            let (before, during) = around(&levels, incident);
            assert!(mean(during) > before.iter().copied().fold(0.0, f64::max) + 10.0);
        },
    );
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::PowerSurge,
        |incident, messages| {
            let (before, during) = around(&senml(messages, &incident.topics[0], "power"), incident);
            assert!(mean(during) > 1.5 * before.iter().copied().fold(0.0, f64::max));
        },
    );
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::VoltageSag,
        |incident, messages| {
            let (before, during) = around(&senml(messages, &incident.topics[0], "voltage"), incident);
            assert!(
                before.iter().all(|volts| *volts > 222.0) && during.iter().all(|volts| *volts < 207.0),
                "{during:?}"
            );
        },
    );
}
