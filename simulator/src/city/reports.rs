//! What citizens write to their city, in English and Chinese. No names: personal text is the ward's.

use nearside_schemas::Timestamp;

use crate::random::Random;

/// What can wait for a day.
const ORDINARY: [&str; 22] = [
    "The street light at the corner has been flickering since yesterday evening.",
    "Large pothole in the right lane, cyclists swerve into the traffic.",
    "Rubbish bins by the playground are overflowing again.",
    "Water is leaking from a manhole cover and running down the pavement.",
    "The pedestrian signal stays red for far too long.",
    "A fallen branch blocks half of the bicycle path.",
    "The bus shelter's glass is broken, shards on the ground.",
    "Graffiti on the school wall needs to be removed.",
    "Construction noise started before six in the morning.",
    "Thank you for repairing the bench so quickly!",
    "The parking machine takes coins but prints no ticket.",
    "Drain is blocked, the crossing floods whenever it rains.",
    "An abandoned trolley has been standing on the lawn for a week.",
    "路口的红绿灯坏了,车辆乱成一团,请尽快派人维修。",
    "小区门口的垃圾桶已经满了三天,没有人清理。",
    "人行道上的地砖松动,下雨天会溅水。",
    "夜里十一点以后工地还在施工,噪音太大。",
    "公交站的电子屏一直黑屏,看不到到站时间。",
    "河边的路灯有一半不亮,散步的人看不清路。",
    "下雨以后桥下积水很深,电动车过不去。",
    "感谢环卫工人,今天的街道非常干净。",
    "停车场的出口堵了半个小时,没有人指挥。",
];

/// What cannot.
const URGENT: [&str; 10] = [
    "Strong smell of gas near the bakery, please check.",
    "A power line came down after the storm and is sparking on the pavement.",
    "There is smoke and fire in a flat on the third floor!",
    "A cyclist has been hit by a car and is bleeding, we need an ambulance.",
    "Water main burst, the underpass is flooded and a car is trapped.",
    "树枝压到了电线,风一吹就冒火花。",
    "楼道里有很重的煤气味,可能是燃气泄漏。",
    "三号楼有一户着火了,冒着浓烟,请派消防。",
    "十字路口发生车祸,有人受伤,快叫救护车。",
    "路面突然塌陷,井盖也不见了,有人差点掉进去。",
];

/// One report as a JSON object.
pub(crate) fn report(at: Timestamp, is_urgent: bool, random: &mut Random) -> Vec<u8> {
    crate::payload::text(at, if is_urgent { random.pick(&URGENT) } else { random.pick(&ORDINARY) })
}
