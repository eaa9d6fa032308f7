//! What the generator puts reports together from: for each label and urgency, phrases in English and in Chinese.
//!
//! `[a|b]` stands for one of its parts, `{place}` and the like for a word of a list.

/// The phrases of one label at one urgency.
pub(super) struct Topic {
    pub(super) label: &'static str,
    /// By its place in `URGENCIES`: 0 routine, 1 soon, 2 now.
    pub(super) urgency: usize,
    pub(super) english: &'static [&'static str],
    pub(super) chinese: &'static [&'static str],
}

pub(super) const fn topic(
    label: &'static str,
    urgency: usize,
    english: &'static [&'static str],
    chinese: &'static [&'static str],
) -> Topic {
    Topic { label, urgency, english, chinese }
}

/// Where, in the middle of a sentence.
pub(super) const PLACES: [&str; 24] = [
    "on {street}",
    "at the corner of {street}",
    "near the school",
    "in front of the supermarket",
    "behind the station",
    "at the bus stop",
    "by the playground",
    "in our street",
    "at number 00 {street}",
    "next to the bridge",
    "near the bakery",
    "in the park",
    "opposite the town hall",
    "at the crossing",
    "along the river",
    "in the harbour",
    "outside the hospital",
    "close to the library",
    "under the railway bridge",
    "at the roundabout",
    "in the back yard",
    "on the square",
    "at the market",
    "here",
];
/// Streets; invented.
pub(super) const STREETS: [&str; 12] = [
    "Station Road",
    "Mill Lane",
    "Church Street",
    "Park Avenue",
    "Elm Street",
    "Market Square",
    "Victoria Road",
    "Harbour Street",
    "King Street",
    "Linden Way",
    "High Street",
    "Garden Row",
];
/// The same in Chinese.
pub(super) const CHINESE_PLACES: [&str; 20] = [
    "小区门口",
    "学校旁边",
    "路口",
    "公园里",
    "菜市场附近",
    "地铁站出口",
    "桥下",
    "河边",
    "我们楼下",
    "幼儿园门前",
    "人民路",
    "建设路与中山路交叉口",
    "医院门口",
    "广场上",
    "超市对面",
    "立交桥下",
    "三号楼",
    "步行街",
    "停车场",
    "巷子里",
];
/// When.
pub(super) const TIMES: [&str; 12] = [
    "since yesterday",
    "for a week",
    "for three days",
    "every night",
    "again",
    "since this morning",
    "for two weeks",
    "this evening",
    "last night",
    "at 00:00",
    "since Monday",
    "today",
];
/// The same in Chinese.
pub(super) const CHINESE_TIMES: [&str; 10] =
    ["昨天起", "三天了", "一周以来", "每天晚上", "今早", "昨晚", "已经两周", "刚才", "今天下午", "这几天"];
/// Whom a note is about. Names are put together of syllables, so none is a sign of anything.
pub(super) const PATIENTS: [&str; 8] =
    ["Patient", "Pt", "{name}", "Mr {name}", "Mrs {name}", "The patient", "{name} {name}", "{name} {name}"];
/// The same in Chinese.
pub(super) const CHINESE_PATIENTS: [&str; 5] = ["患者", "患者{name}", "{name}", "病人", "{name}"];
/// Syllables of invented names.
pub(super) const SYLLABLES: [&str; 28] = [
    "an", "bel", "cor", "dra", "el", "far", "gun", "hal", "in", "jor", "ka", "len", "mar", "nes", "ol", "pe", "qua",
    "ros", "sten", "tor", "ul", "ver", "wen", "xi", "yor", "zel", "smi", "bra",
];
/// Characters of invented names.
pub(super) const CHINESE_NAMES: [&str; 30] = [
    "李", "王", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "建", "国", "芳", "敏", "静", "强", "磊", "军", "洋",
    "艳", "勇", "杰", "娟", "涛", "明", "超", "霞", "平", "刚", "桂",
];
/// What stands before or after and means nothing.
pub(super) const CITY_EXTRAS: [&str; 14] = [
    "Hello, ",
    "Good morning, ",
    "Hi, ",
    "Dear city, ",
    "",
    "",
    "",
    ". Please check.",
    ". Please fix it.",
    ". Can somebody have a look?",
    ". Thanks.",
    ". Many people complain.",
    ".",
    "!",
];
/// The same in Chinese.
pub(super) const CHINESE_CITY_EXTRAS: [&str; 10] =
    ["你好,", "您好,", "请问,", "", "", ",请处理。", ",希望尽快解决。", ",麻烦看一下。", "。", "!"];
/// What stands after a note.
pub(super) const WARD_EXTRAS: [&str; 14] = [
    ".",
    ".",
    ".",
    ". Will check again.",
    ". Family can be reached at 000-0000.",
    ". Doctor informed.",
    ". Noted in the chart.",
    ". Call back on 0000 000000.",
    ". See plan.",
    ". Room 00.",
    ". Handed over to the next shift.",
    ". Address: 00 {street}.",
    ". Contact {name}@example.org.",
    "",
];
/// The same in Chinese.
pub(super) const CHINESE_WARD_EXTRAS: [&str; 8] =
    ["。", "。", "。已告知医生。", "。家属电话000-0000-0000。", "。继续观察。", "。已记录。", "。联系电话000。", ""];
