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

const fn topic(
    label: &'static str,
    urgency: usize,
    english: &'static [&'static str],
    chinese: &'static [&'static str],
) -> Topic {
    Topic { label, urgency, english, chinese }
}

/// What citizens write.
pub(super) const CITY: &[Topic] = &[
    topic(
        "street_light",
        0,
        &[
            "The street [light|lamp] {place} [is out|does not work|is broken|stays dark]",
            "Street lighting {place} [flickers|keeps flickering|goes on and off] {when}",
            "[Several|Two|Three] lamps {place} have been dark {when}",
            "Lamp post {place} is on all day, the light should be off in daylight",
            "It is too dark {place} at night because a lamp [has failed|burnt out]",
        ],
        &[
            "{place}的路灯[不亮了|坏了|一直不亮]",
            "{place}有[两盏|几盏|一盏]路灯{when}不亮",
            "路灯一闪一闪的,{place}晚上很暗",
            "{place}的路灯白天也亮着,浪费电",
            "{place}晚上太黑,照明灯熄灭了",
        ],
    ),
    topic(
        "road_damage",
        0,
        &[
            "There is a [pothole|hole|crack] in the road {place}",
            "The [pavement|sidewalk|cycle lane|bicycle path] {place} is uneven and [cracked|broken]",
            "[Large|Small|Deep] pothole {place}, cars [swerve|brake] around it",
            "Paving stones are loose {place}",
            "Asphalt {place} has broken up {when} and cyclists avoid it",
        ],
        &[
            "{place}路面有[坑|一个大坑|裂缝]",
            "{place}的人行道地砖[松动|破损]了",
            "路面坑洼不平,{place}骑车很颠",
            "{place}的沥青[开裂|塌陷]了,请修补",
            "{place}道路破损严重,车子要绕着走",
        ],
    ),
    topic(
        "road_damage",
        2,
        &[
            "The road {place} has [collapsed|caved in], [a car could fall in|there is a deep sinkhole]",
            "A manhole cover is missing {place}, [someone will fall in|the hole is open], [urgent|danger]",
            "Sinkhole opening {place}, the ground is [giving way|sinking], keep people away",
            "Open shaft without a cover {place}, children are playing next to it",
            "The bridge {place} is breaking, pieces are falling on the cars below",
        ],
        &[
            "{place}路面[突然塌陷|塌了],有大坑,[非常危险|车快掉进去了]",
            "{place}井盖[不见了|丢失],[有人差点掉下去|非常危险],请马上处理",
            "地面正在下沉,{place}快塌了,赶紧封路",
            "{place}桥面断裂,有石块掉下来,[危险|快来人]",
            "窨井没有盖子,{place}孩子差点掉进去",
        ],
    ),
    topic(
        "waste",
        0,
        &[
            "[Rubbish|Garbage|Trash] bins {place} are [full|overflowing]",
            "Someone dumped [furniture|old mattresses|tyres|bags of rubbish] {place}",
            "The garbage has not been collected {when}",
            "Litter [all over|everywhere] {place}",
            "Waste container {place} smells and needs emptying",
            "An old [fridge|sofa|bicycle] has been left {place} {when}",
        ],
        &[
            "{place}垃圾桶[满了|溢出来了],没人[清理|收]",
            "{place}有人乱倒[垃圾|建筑垃圾]",
            "垃圾{when}没有清运,很臭",
            "{place}堆了[旧沙发|旧家具|杂物]",
            "{place}到处是果皮纸屑,环境脏乱",
            "废品堆在{place}无人处理",
        ],
    ),
    topic(
        "water",
        1,
        &[
            "[Drain|Gully|Sewer] {place} is blocked, the street floods when it rains",
            "Water is [leaking|running|dripping] from a [pipe|hydrant|manhole] {place}",
            "Puddles {place} do not drain away",
            "No water pressure in our house {when}",
            "Sewage smell and standing water {place}",
        ],
        &[
            "{place}下水道[堵了|堵塞],一下雨就积水",
            "{place}水管[漏水|一直在滴水]",
            "{place}积水[很深|排不出去]",
            "我家{when}水压很小",
            "{place}污水外溢,味道难闻",
        ],
    ),
    topic(
        "water",
        2,
        &[
            "A water main has burst {place}, water is [shooting up|flooding the street|running into cellars]",
            "The underpass {place} is flooded and [a car is trapped|people are stuck] in the water",
            "Water is rising fast {place}, [houses|basements] are flooding right now",
            "River is over the bank {place}, people cannot get out",
            "Pipe exploded {place}, a torrent floods the shops",
        ],
        &[
            "{place}水管爆了,水[喷得很高|涌进地下室],[快来|紧急]",
            "{place}被淹,有[车|人]困在水里,[快救人|请马上救援]",
            "水涨得很快,{place}地下室进水了,[紧急|快来人]",
            "河水漫上来了,{place}居民出不去",
            "{place}自来水主管爆裂,街道被淹",
        ],
    ),
    topic(
        "traffic_signal",
        0,
        &[
            "The [pedestrian|cyclist] light {place} stays red too long",
            "Green phase of the traffic light {place} is too short",
            "The button of the crossing light {place} does not [work|react]",
            "The countdown display of the signal {place} is wrong",
            "Waiting time at the traffic lights {place} should be shorter",
        ],
        &[
            "{place}[红灯|行人灯]时间太长",
            "{place}绿灯时间太短,过不完马路",
            "{place}过街按钮[坏了|没反应]",
            "{place}信号灯倒计时显示不对",
            "希望调整{place}红绿灯的时长",
        ],
    ),
    topic(
        "traffic_signal",
        1,
        &[
            "All traffic lights {place} are [out|off|dark], cars [mix up|are in chaos]",
            "The signal {place} is broken and shows [nothing|green to both sides]",
            "Traffic lights {place} failed {when}, please send someone",
            "Lights at the crossroads {place} blink yellow only",
            "The junction {place} has had no working signal {when}",
        ],
        &[
            "{place}红绿灯[坏了|不亮了],车辆很乱",
            "{place}信号灯[失灵|同时亮绿灯]",
            "{place}红绿灯{when}不工作,请派人修",
            "{place}交通灯一直闪黄灯",
            "十字路口{place}信号灯出故障",
        ],
    ),
    topic(
        "noise",
        0,
        &[
            "[Construction|Building] noise {place} [at night|before six|on Sunday]",
            "Loud music {place} {when}, nobody can sleep",
            "A [dog|rooster] barks {place} all night",
            "The bar {place} is too loud after midnight",
            "Motorbikes race {place} and make noise late in the evening",
        ],
        &[
            "{place}工地[半夜|凌晨|夜里]施工,[噪音大|太吵]",
            "{place}{when}放音乐,吵得睡不着",
            "{place}狗叫个不停",
            "{place}的酒吧半夜还很吵",
            "广场舞音响声音太大,{place}扰民",
        ],
    ),
    topic(
        "parking",
        0,
        &[
            "Cars park on the [pavement|cycle lane] {place}",
            "The parking [machine|meter] {place} [takes no coins|prints no ticket|is broken]",
            "A [van|trailer] has been parked {place} {when}",
            "Barrier of the car park {place} does not open",
            "No free [spaces|bays] {place}, cars queue at the garage exit",
            "Somebody blocks my driveway {place}",
        ],
        &[
            "{place}有车[乱停|占道停车]",
            "{place}停车[机|收费机]坏了",
            "一辆[面包车|货车]{when}停在{place}不动",
            "{place}停车场[出口堵了|道闸打不开]",
            "{place}停车位太少",
            "{place}车库门口被人停车挡住",
        ],
    ),
    topic(
        "public_transport",
        0,
        &[
            "The bus {place} [is always late|did not come]",
            "The [timetable|display] at the stop {place} is [blank|dark|wrong]",
            "Glass of the [bus|tram] shelter {place} is [broken|scratched]",
            "The lift of the metro station {place} is out of order",
            "Ticket machine at the station {place} gives no change",
            "Please add a bench at the tram stop {place}",
        ],
        &[
            "{place}公交车[总是晚点|没有来]",
            "{place}公交站[电子屏黑屏|站牌不亮]",
            "{place}候车亭玻璃[碎了|坏了]",
            "{place}地铁站电梯停用",
            "{place}车站售票机坏了",
            "希望{place}增加公交班次",
        ],
    ),
    topic(
        "trees",
        0,
        &[
            "A [branch|tree] has fallen {place} and blocks [the path|half of the road|the footpath]",
            "Trees {place} need [trimming|pruning], they cover the sign",
            "The hedge {place} is overgrown",
            "A dead tree {place} should be cut",
            "Weeds and long grass {place} have not been cut {when}",
        ],
        &[
            "{place}[树枝|大树]倒了,挡住[路|人行道]",
            "{place}的树该修剪了",
            "{place}绿化带[杂草太高|没人打理]",
            "{place}有棵枯树",
            "{place}树枝遮挡了指示牌",
        ],
    ),
    topic(
        "vandalism",
        0,
        &[
            "Graffiti on the [wall|school|bridge] {place}",
            "Someone [smashed|broke|damaged] the [bench|window|sign] {place}",
            "Stickers and paint {place} should be removed",
            "The playground {place} was vandalised {when}",
            "[Swing|Slide|Fence] in the park {place} has been destroyed",
        ],
        &[
            "{place}墙上有[涂鸦|乱涂乱画|小广告]",
            "{place}的[长椅|窗户|标志牌]被人[砸坏|破坏]了",
            "{place}贴满小广告",
            "{place}健身器材被损坏",
            "儿童乐园的设施{place}遭人破坏",
        ],
    ),
    topic(
        "gas",
        2,
        &[
            "[Strong|There is a] smell of gas {place}",
            "I smell gas [in the staircase|in the cellar|in the hallway] {place}",
            "Gas is [leaking|hissing] from a pipe {place}",
            "A digger hit a gas pipe {place}, gas [escapes|leaks]",
            "It stinks of gas {place} and people feel dizzy",
        ],
        &[
            "{place}有[很重的|浓烈的|一股]煤气味",
            "{place}闻到[燃气|天然气|煤气]味道",
            "{place}燃气管道[泄漏|漏气]",
            "挖掘机挖断了{place}的天然气管",
            "煤气漏了,{place}住户头晕",
        ],
    ),
    topic(
        "electrical",
        2,
        &[
            "A power line [is down|has fallen] {place}[, it is sparking|]",
            "[Sparks|Flashes] come from the [cable|transformer|lamp post|wires] {place}",
            "A live cable hangs [over the pavement|down to the ground] {place}",
            "Bare wires {place}, someone got an electric shock",
            "The electricity box {place} is open and crackling, children are close",
        ],
        &[
            "{place}电线[掉下来了|断了],[冒火花|很危险]",
            "{place}变压器[冒火花|打火|爆响]",
            "{place}电缆垂到地上,[怕有人触电|危险]",
            "{place}电箱[敞开|漏电],有人触电",
            "{place}电线杆上火花四溅",
        ],
    ),
    topic(
        "fire",
        2,
        &[
            "[A fire|Flames] [in|at] a [house|flat|container|car] {place}",
            "[Thick|Black] smoke [comes|pours] from [a window|the roof] {place}",
            "Something is burning {place}, [send the fire brigade|please come at once]",
            "A [bin|car|shed] is on fire {place}",
            "Building {place} is ablaze and people shout for help",
        ],
        &[
            "{place}[着火了|起火了],[快来人|请派消防]",
            "{place}冒[黑烟|浓烟],有明火",
            "{place}一辆车[烧起来了|自燃]",
            "{place}居民楼[失火|起火],有人[被困|呼救]",
            "火势很大,{place}屋顶烧着了",
        ],
    ),
    topic(
        "accident",
        2,
        &[
            "[Crash|Accident|Collision] {place}, [a person is injured|someone is bleeding|one driver is trapped]",
            "A [cyclist|child|pedestrian] was [hit|run over] by a car {place}",
            "Somebody [collapsed|lies unconscious|does not move] {place}, we need an ambulance",
            "A man fell [from a scaffold|off the bridge] {place}, he is badly hurt",
            "Bus hit a wall {place}, several passengers are wounded",
        ],
        &[
            "{place}发生[车祸|事故],有人[受伤|流血|被困]",
            "{place}有[小孩|骑车人|行人]被车撞了",
            "{place}有人[晕倒|昏迷|倒地不起],[快叫救护车|需要急救]",
            "有人从{place}高处摔下,伤得很重",
            "{place}公交撞墙,多名乘客受伤",
        ],
    ),
    topic(
        "praise",
        0,
        &[
            "Thank you for [fixing|repairing|cleaning] the [bench|street|park|light] {place} [so quickly|]",
            "[Great|Good] work {place}, everything is [clean|fixed] now",
            "The new [playground|flower beds|cycle lane] {place} [is|are] lovely",
            "Just wanted to say thanks to the [cleaners|team] {place}",
            "Compliments to the crew, {place} looks wonderful again",
        ],
        &[
            "感谢[环卫工人|工作人员],{place}[很干净|修得真快]",
            "{place}修好了,谢谢",
            "{place}新修的[公园|步道]很漂亮",
            "为{place}的工作人员点赞",
            "表扬一下{place}的师傅,辛苦了",
        ],
    ),
];

/// What nurses write.
pub(super) const WARD: &[Topic] = &[
    topic(
        "rest",
        0,
        &[
            "{who} slept [well|through|all night], no complaints [this morning|]",
            "Quiet night, {who} [resting|asleep] in bed",
            "{who} [feels well|has no complaints|is comfortable], no pain, no shortness of breath",
            "{who} denies chest pain and dizziness, [settled|stable]",
            "{who} had a calm evening and is resting comfortably",
            "No fever, no bleeding, {who} is stable and [eats|drinks] well",
            "Uneventful shift, {who} dozed most of the time",
        ],
        &[
            "{who}夜间睡眠[可|好|安稳],[今晨|]无不适[主诉|]",
            "{who}安静休息,[生命体征平稳|无特殊]",
            "{who}[无胸痛|否认胸痛],无呼吸困难,一般情况可",
            "{who}无发热,无出血,[饮食可|进食好]",
            "{who}今日精神好,休息中",
            "{who}病情稳定,无头晕无疼痛",
            "{who}一夜安睡,晨起状态良好",
        ],
    ),
    topic(
        "pain",
        0,
        &[
            "{who} reports [mild|slight|little] [headache|back pain|pain in the knee], given paracetamol",
            "{who} has [mild|light] pain at the wound, [tablet|painkiller] given, [will check again|better now]",
            "Pain [2|3] of 10 {when}, {who} got ibuprofen",
            "{who} says the [shoulder|hip|leg] aches a little when moving",
            "Slight tummy ache after lunch, {who} received medication and it eased",
        ],
        &[
            "{who}诉[轻度|轻微][头痛|腰痛|切口疼痛],[已给予止痛药|给予对症处理]",
            "{who}膝盖有点痛,给药后[缓解|好转]",
            "疼痛评分2分,{who}口服布洛芬",
            "{who}翻身时肩部稍有疼痛",
            "{who}腹部隐痛,给药后减轻",
        ],
    ),
    topic(
        "pain",
        1,
        &[
            "{who} has [strong|severe|bad] [back pain|abdominal pain|headache], tablets do not help, please [review|see] today",
            "Pain [7|8] of 10, {who} cannot sleep, asks for stronger painkillers",
            "{who} cries with pain in the [belly|leg]",
            "Wound pain of {who} is getting worse since noon, doctor informed",
            "{who} groans, the stomach hurts a lot despite morphine",
        ],
        &[
            "{who}诉[腹痛|头痛|腰痛][剧烈|明显加重],[止痛药效果差|请医生查看]",
            "疼痛评分8分,{who}无法入睡",
            "{who}切口疼痛[加重|难忍],已通知医生",
            "{who}腿痛得厉害,哭闹",
            "{who}用药后仍剧痛,要求加药",
        ],
    ),
    topic(
        "chest_pain",
        2,
        &[
            "{who} [has|complains of|reports] [crushing|severe|sudden|strong] chest pain [radiating to the arm|and is sweating|]",
            "{who} says there is [pressure|tightness] in the chest, [pale|cold sweat], [doctor called|ECG needed now]",
            "Sudden pain behind the breastbone, {who} is grey and sweaty",
            "{who} clutches the chest, pain goes into the left arm and jaw",
            "Angina attack, {who} feels like an elephant sits on the breast",
        ],
        &[
            "{who}[突发|诉|出现][剧烈|压榨样]胸痛,[出冷汗|放射至左臂|伴大汗]",
            "{who}诉胸口[压得慌|闷痛],面色苍白,[已叫医生|急做心电图]",
            "{who}胸骨后疼痛,大汗淋漓",
            "{who}捂着胸口说痛,左肩发麻",
            "{who}心前区剧痛,持续不缓解",
        ],
    ),
    topic(
        "breathing",
        2,
        &[
            "{who} [cannot breathe|is gasping|is very short of breath], [lips blue|saturation falling|oxygen started]",
            "[Sudden|Severe] shortness of breath, {who} sits upright and [cannot speak|panics]",
            "{who} is choking and turning blue, help needed [now|at once]",
            "{who} wheezes badly and struggles for air",
            "Airway trouble: {who} fights to get air, skin bluish",
        ],
        &[
            "{who}[呼吸困难|喘不上气|气促明显],[口唇发绀|血氧下降|已吸氧]",
            "{who}突然[憋气|喘得厉害],说不出话",
            "{who}[噎住|呛咳]了,脸色发紫,[快来人|急需帮助]",
            "{who}哮鸣音明显,喘息不止",
            "{who}气道不畅,嘴唇青紫",
        ],
    ),
    topic(
        "bleeding",
        2,
        &[
            "{who} is bleeding [heavily|a lot] from the [wound|nose|drain|line]",
            "The dressing of {who} is soaked with [fresh|bright red] blood",
            "{who} vomits blood[, pressure falling|]",
            "Black stool and {who} is pale, blood pressure drops",
            "Blood everywhere in bed, {who} pulled out the line and it will not stop",
        ],
        &[
            "{who}[伤口|鼻子|引流管]大量[出血|流血]",
            "{who}敷料被鲜血[浸透|渗透]",
            "{who}[呕血|吐血],血压下降",
            "{who}便血,面色苍白",
            "{who}拔了管子,血流不止",
        ],
    ),
    topic(
        "fall",
        1,
        &[
            "{who} [fell|slipped] [in the bathroom|beside the bed|in the corridor], [no injury seen|small bruise], doctor informed",
            "{who} was found sitting on the floor, says [he|she] slid off the chair",
            "Fall {when}: {who} tripped over the drip stand, knee scratched",
            "{who} lost balance on the way to the toilet and went down, no head injury",
            "Found {who} on the ground next to the chair, awake, bruise on the elbow",
        ],
        &[
            "{who}在[卫生间|床边|走廊][滑倒|跌倒],[未见外伤|轻微擦伤],已告知医生",
            "发现{who}坐在地上,自述[滑下|没站稳]",
            "{who}{when}绊倒,膝盖擦伤",
            "{who}上厕所途中摔了一跤,头部未着地",
            "{who}从椅子上滑落,肘部淤青",
        ],
    ),
    topic(
        "fall",
        2,
        &[
            "{who} fell and hit the head, [is drowsy|vomits|bleeds from the head]",
            "{who} fell out of bed and [cannot move the leg|hip looks broken]",
            "{who} collapsed on the floor, [not responding|no answer]",
            "After the fall {who} is unconscious",
            "Head injury after slipping, {who} no longer wakes up properly",
        ],
        &[
            "{who}跌倒[头部着地|撞到头],[嗜睡|呕吐|头部流血]",
            "{who}坠床后[腿不能动|髋部疑似骨折]",
            "{who}突然[倒地|晕倒],呼之不应",
            "{who}摔倒后意识不清",
            "{who}滑倒撞到头,叫不醒",
        ],
    ),
    topic(
        "confusion",
        2,
        &[
            "{who} is suddenly [confused|disoriented] and [slurs the words|one arm is weak|does not know where he is]",
            "Face of {who} droops on one side, speech is slurred, [stroke team called|suspect stroke]",
            "{who} [cannot be woken|does not respond|is unresponsive]",
            "{who} has a seizure, whole body jerking",
            "New weakness of the right arm, {who} talks nonsense since a few minutes",
        ],
        &[
            "{who}突然[意识模糊|神志不清|胡言乱语],[口齿不清|一侧肢体无力]",
            "{who}口角歪斜,说话含糊,疑似[卒中|中风]",
            "{who}[呼之不应|叫不醒|昏迷]",
            "{who}[抽搐|癫痫发作],全身抽动",
            "{who}右手突然无力,答非所问",
        ],
    ),
    topic(
        "fever",
        1,
        &[
            "{who} has a temperature of [38.9|39.4|40] and [shivers|is hot and flushed]",
            "Fever again {when}, {who} [sweats|has chills], blood cultures taken",
            "{who} is hot, red wound with pus, [suspect|possible] infection",
            "Temperature of {who} rises since noon, cool packs given",
            "{who} trembles with chills, thermometer shows 39",
        ],
        &[
            "{who}体温[38.9|39.4|40]度,[寒战|面色潮红]",
            "{who}{when}再次发热,[出汗|畏寒],已抽血培养",
            "{who}伤口红肿[流脓|化脓],疑似感染",
            "{who}体温持续升高,予冰敷",
            "{who}高热不退,发抖",
        ],
    ),
    topic(
        "allergy",
        0,
        &[
            "{who} is allergic to [penicillin|latex|nuts] according to [the family|the file|himself], noted",
            "Allergy [band|label] put on {who}",
            "{who} says [antibiotics|peanuts] gave a rash years ago, GP asked",
            "Known allergy of {who} to contrast medium entered in the chart",
            "Intolerance of aspirin documented for {who}",
        ],
        &[
            "{who}自述对[青霉素|头孢|花生]过敏,已[标记|记录]",
            "已给{who}佩戴过敏[腕带|标识]",
            "{who}既往[药物过敏|皮疹]史,已登记",
            "{who}对造影剂过敏,床头已贴标识",
            "{who}有海鲜过敏史,已告知营养科",
        ],
    ),
    topic(
        "allergy",
        2,
        &[
            "{who} [has|gets] [swollen lips|a swollen face|hives all over] after the [antibiotic|infusion|injection]",
            "Anaphylaxis: {who} [wheezes|throat is closing] minutes after the drug, adrenaline [given|needed]",
            "Allergic reaction, tongue of {who} is swelling",
            "{who} itches everywhere and blood pressure drops after penicillin",
            "Shock after the infusion started, {who} covered in hives and throat tight",
        ],
        &[
            "{who}输液后[嘴唇肿胀|全身荨麻疹|面部水肿]",
            "{who}用药后[喉头水肿|过敏性休克],[急用肾上腺素|血压下降]",
            "{who}过敏反应,舌头肿了",
            "{who}注射后全身发痒,血压下降",
            "{who}打完抗生素喉咙发紧,满身皮疹",
        ],
    ),
    topic(
        "wound_care",
        0,
        &[
            "Dressing changed, wound [clean|dry|clean and dry]",
            "[Stitches|Staples|Drain] of {who} removed, no redness",
            "Plaster renewed on the heel of {who}, heals well",
            "Wound of {who} looks good, new bandage",
            "Suture line inspected, no sign of infection, {who} tolerated it well",
        ],
        &[
            "伤口换药,敷料[干燥|清洁干燥]",
            "{who}已[拆线|拔除引流管],无红肿",
            "{who}压疮处换药,愈合[良好|好转]",
            "{who}切口愈合好,更换纱布",
            "{who}创面清洁,未见渗出",
        ],
    ),
    topic(
        "mobility",
        0,
        &[
            "{who} walked to the [window|door|bathroom] with [help|the frame]",
            "Physiotherapy done, {who} sat on the edge of the bed",
            "{who} [moved|mobilised] into the chair, tired afterwards",
            "{who} did exercises with the therapist",
            "Short stroll on the corridor with a walking stick, {who} managed fine",
        ],
        &[
            "{who}可在[搀扶|助行器]下行走",
            "{who}[床边坐起|下床活动]",
            "{who}做了康复训练",
            "协助{who}翻身,坐轮椅",
            "{who}扶拐在走廊慢走,耐受好",
        ],
    ),
    topic(
        "family",
        0,
        &[
            "Spoke with the [daughter|son|wife|husband] of {who}, asks for a call back",
            "Family of {who} brought [clothes|fruit|glasses]",
            "{who} is worried about the [dog|cat|flat] at home, social services informed",
            "Relatives visit {who} {when}",
            "Brother phoned and wants news of {who}",
        ],
        &[
            "与{who}家属[沟通病情|通电话],对方要求回电",
            "家属送来[换洗衣物|水果|生活用品]",
            "{who}担心家里的[猫|狗|老人],已告知社工",
            "{who}家属{when}探视",
            "{who}的哥哥来电询问情况",
        ],
    ),
    topic(
        "discharge",
        0,
        &[
            "Discharge papers for {who} [are ready|go to the family doctor]",
            "{who} goes home [tomorrow|on Friday], [transport ordered|letter sent]",
            "{who} will be moved to rehabilitation {when}",
            "Copy of the letter sent by mail for {who}",
            "Preparing {who} to leave hospital, home address confirmed",
        ],
        &[
            "{who}[明日|今日]出院,[手续已办|已告知家属]",
            "{who}出院后住址已登记,请社区随访",
            "{who}拟转康复科",
            "{who}出院小结已寄出",
            "给{who}做出院指导",
        ],
    ),
    topic(
        "treatment",
        0,
        &[
            "Blood taken [at bedside|], {who} [tolerated it well|felt faint for a moment, lay down, fine again]",
            "Infusion of {who} changed, [no problems|runs well]",
            "{who} took all tablets, insulin given",
            "X-ray of {who} done {when}",
            "{who} had the scan and is back on the ward",
            "Catheter flushed, medication given as prescribed",
        ],
        &[
            "{who}抽血[顺利|时短暂头晕,平卧后好转]",
            "{who}[输液|补液]已更换,无不适",
            "{who}按时服药,已注射胰岛素",
            "{who}{when}做了X光",
            "{who}检查完回病房,生命体征平稳",
            "遵医嘱给药,{who}导管通畅",
        ],
    ),
    topic(
        "mood",
        1,
        &[
            "{who} is [very sad|hopeless|crying] and [does not want to eat|refuses treatment]",
            "{who} is anxious and [restless|afraid of the operation], needs somebody to talk to",
            "{who} wants to leave against advice, [angry|upset]",
            "Low mood, {who} refuses visitors and meals",
            "{who} weeps a lot and says nothing makes sense any more",
        ],
        &[
            "{who}情绪[低落|烦躁],[不愿进食|拒绝治疗]",
            "{who}焦虑,[害怕手术|睡不着],需要陪伴",
            "{who}要求[自动出院|拔管],情绪激动",
            "{who}不说话,拒绝探视",
            "{who}一直流泪,觉得没有希望",
        ],
    ),
    topic(
        "self_harm",
        2,
        &[
            "{who} says [he|she] wants to [die|kill himself|end it all]",
            "{who} [cut the wrists|took a handful of pills]",
            "{who} stands at the open window and threatens to jump",
            "{who} talks of suicide, [one to one watch|psychiatrist called]",
            "Found {who} with a cord round the neck",
        ],
        &[
            "{who}说[不想活了|要自杀|想死]",
            "{who}[割腕|吞了一把药]",
            "{who}站在窗边说要跳下去",
            "{who}有自杀念头,[专人看护|已请精神科]",
            "发现{who}用绳子勒脖子",
        ],
    ),
];

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
