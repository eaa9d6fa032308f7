//! What nurses write: text full of personal data, all of it invented. Whatever stands here must never leave a gateway.

use nearside_schemas::Timestamp;

use crate::payload::text;
use crate::random::Random;

/// An invented person.
struct Person {
    name: &'static str,
    phone: &'static str,
    address: &'static str,
    relative: &'static str,
    chinese: bool,
}

/// Telephone numbers of the ranges kept free for fiction, or of a form that is never given out; mail addresses of
/// example domains (RFC 2606).
const PEOPLE: [Person; 8] = [
    Person {
        name: "Margarete Ollenhauer",
        phone: "+1 202-555-0143",
        address: "18 Quarry Lane, Eastmere",
        relative: "m.ollenhauer@example.org",
        chinese: false,
    },
    Person {
        name: "李思远",
        phone: "139-0000-4471",
        address: "青槐市梧桐路88号3单元502室",
        relative: "李慕白",
        chinese: true,
    },
    Person {
        name: "Tobias Wrenfield",
        phone: "+44 1632 960172",
        address: "4 Saddler's Yard, Brackenholt",
        relative: "tobias.wrenfield@example.com",
        chinese: false,
    },
    Person {
        name: "王雅琴",
        phone: "138-0000-9265",
        address: "云溪县石桥镇海棠巷12号",
        relative: "赵立群",
        chinese: true,
    },
    Person {
        name: "Adaeze Nwankwo-Hale",
        phone: "+1 415-555-0187",
        address: "227 Lantern Street, Port Ellery",
        relative: "adaeze.nh@example.net",
        chinese: false,
    },
    Person {
        name: "欧阳建国",
        phone: "137-0000-3318",
        address: "临江区望月街7号",
        relative: "欧阳晓彤",
        chinese: true,
    },
    Person {
        name: "Ingrid Sørhaug",
        phone: "+44 1632 960844",
        address: "9 Fennel Court, Holmvik",
        relative: "ingrid.sorhaug@example.org",
        chinese: false,
    },
    Person {
        name: "陈若溪", phone: "136-0000-5527", address: "锦川市南湖路156号", relative: "陈广平", chinese: true
    },
];

const ENGLISH: [&str; 8] = [
    "{name} slept well, no complaints this morning. Family can be reached at {phone}.",
    "Spoke with the daughter of {name}; she asks for a call back on {phone} after six.",
    "{name} reports mild headache, given paracetamol 500 mg, will check again in an hour.",
    "Discharge papers for {name} go to {address}; copy by mail to {relative}.",
    "Dressing changed, wound clean and dry. {name} walked to the window with help.",
    "{name} is worried about the dog at home, {address}. Social services informed.",
    "Blood taken at bedside. {name} felt dizzy for a moment, lay down, recovered quickly.",
    "Allergic to penicillin according to {name}; GP contacted at {relative}.",
];

const CHINESE: [&str; 8] = [
    "患者{name}夜间睡眠可,今晨无不适主诉。家属电话{phone}。",
    "{name}诉轻度头痛,已给予对乙酰氨基酚,一小时后复查。",
    "与{name}家属{relative}沟通病情,对方要求晚上回电{phone}。",
    "{name}出院后住址:{address},请社区护士随访。",
    "伤口换药,敷料干燥,{name}可在搀扶下行走。",
    "{name}自述对青霉素过敏,已在床头做标记,并告知{relative}。",
    "抽血时{name}短暂头晕,平卧后缓解。",
    "家属{relative}送来换洗衣物,联系电话{phone}。",
];

/// What a nurse writes of a patient in danger.
const ALARMING_ENGLISH: [&str; 5] = [
    "{name} complains of crushing chest pain, cold sweat. Daughter informed on {phone}.",
    "{name} is very short of breath, lips blue, oxygen started.",
    "Dressing of {name} soaked with fresh blood, bleeding does not stop.",
    "{name} suddenly confused, slurred speech, right arm weak. Family: {relative}.",
    "{name} has swollen lips and hives after the antibiotic infusion.",
];
const ALARMING_CHINESE: [&str; 5] = [
    "{name}突发剧烈胸痛,出冷汗,已通知家属{phone}。",
    "{name}呼吸困难,口唇发绀,已吸氧。",
    "{name}伤口大量出血,敷料被鲜血浸透。",
    "{name}突然口齿不清,右侧肢体无力,已告知{relative}。",
    "{name}输液后全身荨麻疹,嘴唇肿胀。",
];

/// Everything personal that notes may hold: full names, telephone numbers, addresses, mail addresses. A test of a
/// gateway looks for each of them in whatever leaves the site. Patients' keys are personal too: see
/// [`crate::Fleet::personal_markers`].
pub fn personal_markers() -> Vec<&'static str> {
    PEOPLE.iter().flat_map(|person| [person.name, person.phone, person.address, person.relative]).collect()
}

/// One note about the patient with this number as a JSON object.
pub(crate) fn note(at: Timestamp, patient: usize, is_alarming: bool, random: &mut Random) -> Vec<u8> {
    let person = &PEOPLE[patient % PEOPLE.len()];
    let template = match (is_alarming, person.chinese) {
        (false, false) => random.pick(&ENGLISH),
        (false, true) => random.pick(&CHINESE),
        (true, false) => random.pick(&ALARMING_ENGLISH),
        (true, true) => random.pick(&ALARMING_CHINESE),
    };
    let note = template
        .replace("{name}", person.name)
        .replace("{phone}", person.phone)
        .replace("{address}", person.address)
        .replace("{relative}", person.relative);
    text(at, &note)
}
