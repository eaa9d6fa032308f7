//! What is none of a gateway's business: small talk, other languages, strings without meaning. From it the classifier learns to say
//! `other`, and that nothing presses.
//!
//! Never: a cry for help in another language. What it cannot read it must not have learnt to wave through.

use super::phrases::{Topic, topic};

/// The label.
pub(super) const LABEL: &str = "other";

/// All of it asks for nothing.
pub(super) const OTHER: &[Topic] = &[
    topic(LABEL, 0, SMALL_TALK, CHINESE_SMALL_TALK),
    topic(LABEL, 0, TRADE, CHINESE_TRADE),
    topic(LABEL, 0, LANGUAGES, EASTERN_LANGUAGES),
    topic(LABEL, 0, NOISE, CHINESE_NOISE),
];

const SMALL_TALK: &[&str] = &[
    "I am [planning|dreaming of|saving for] a holiday by the sea next summer",
    "The film [was|is] about two brothers who open a [restaurant|bookshop]",
    "My cousin plays the [violin|piano|guitar] in an orchestra",
    "What a [lovely|beautiful] sunset, the clouds were pink and gold",
    "We played cards and listened to old records until late",
    "Our team won the match by [three|two] goals to one",
    "Do you remember the name of that song from the radio",
    "My sister [bakes|makes] the best apple cake, with cinnamon and raisins",
    "The novel has five hundred pages and I finished it in a weekend",
    "Tomorrow will be sunny with a light breeze from the west",
    "Grandmother told us stories about dragons and kings",
    "Happy birthday, may all your wishes come true",
    "Which [colour|size] do you like better, blue or green",
    "The museum shows paintings of the last century",
    "He collects stamps and coins from many countries",
];
const CHINESE_SMALL_TALK: &[&str] = &[
    "[周末|假期]我们打算去[海边|山里]旅行",
    "这部电影讲的是两兄弟开[书店|餐馆]的故事",
    "我表妹在乐团里拉小提琴",
    "夕阳真美,云彩是粉红色的",
    "昨晚和朋友打牌听老歌",
    "我们队以三比一赢了比赛",
    "你还记得那首歌的名字吗",
    "姐姐做的苹果蛋糕最好吃",
    "这本小说五百页,我一个周末就看完了",
    "明天晴,有微风",
    "奶奶给我们讲龙王的故事",
    "祝你生日快乐,心想事成",
    "蓝色和绿色你更喜欢哪个",
    "博物馆里展出上世纪的油画",
    "他收集各国的邮票和硬币",
];
const TRADE: &[&str] = &[
    "Please find attached the invoice for [March|April|May]",
    "The meeting is moved to [Tuesday|Thursday] at 00:00 in the large room",
    "Your parcel has been shipped and arrives within three days",
    "The software update installs a new version of the [printer|database] driver",
    "Share prices rose by two per cent after the quarterly report",
    "Add the flour slowly, stir, and bake for forty minutes",
    "The lecture explains how plants turn sunlight into sugar",
    "Log in with your user name and choose a new password",
    "The train ticket to the capital costs thirty dollars",
    "Sign the contract on page four and send a copy to the lawyer",
    "The file could not be opened because its format is unknown",
    "Buy two shirts and get the third for free",
    "The recipe needs [butter|sugar], three eggs and a lemon",
    "Students hand in their essays before the end of the term",
    "The exchange rate of the euro against the yen fell slightly",
];
const CHINESE_TRADE: &[&str] = &[
    "请查收[三月|四月|五月]的发票",
    "会议改到[周二|周四]下午在大会议室",
    "您的包裹已发货,三天内送达",
    "软件更新会安装新的[打印机|数据库]驱动",
    "季度报告后股价上涨百分之二",
    "慢慢加入面粉搅拌,烤四十分钟",
    "这堂课讲植物怎样把阳光变成糖",
    "请用用户名登录并设置新密码",
    "去首都的火车票三百元",
    "在合同第四页签字,寄一份给律师",
    "文件打不开,格式无法识别",
    "买两件衬衫送一件",
    "食谱需要[黄油|白糖]、三个鸡蛋和一个柠檬",
    "学生在学期结束前交论文",
    "欧元对日元汇率略有下降",
];
const LANGUAGES: &[&str] = &[
    "Wir [fahren|reisen] im Sommer mit dem Zug nach Italien und bleiben zwei Wochen",
    "Nous avons mangé une bonne soupe et puis nous sommes allés au cinéma",
    "Mañana vamos a visitar a mis abuelos y comeremos juntos en el jardín",
    "Domani mattina prendo il caffè al bar e poi leggo il giornale",
    "O livro que você me emprestou é muito interessante, obrigado",
    "Wczoraj kupiłem nowe buty i zjadłem obiad z przyjacielem",
    "Yarın arkadaşlarımla kitapçıya gideceğiz, sonra çay içeriz",
    "Завтра мы едем на дачу, будем пить чай и читать книги",
    "Vi köpte nya möbler till köket och målade väggarna gula",
    "De kinderen spelen in de tuin en de hond slaapt onder de boom",
    "Zítra pojedeme vlakem do Prahy a navštívíme divadlo",
    "Holnap elmegyünk a piacra, és veszünk friss gyümölcsöt",
    "Kami akan pergi ke pantai dan makan ikan bakar bersama keluarga",
    "Ngày mai chúng tôi đi xem phim rồi uống cà phê",
    "Αύριο θα πάμε στη θάλασσα και θα φάμε παγωτό",
];
const EASTERN_LANGUAGES: &[&str] = &[
    "明日は友達と映画を見に行きます",
    "この本はとても面白かったです",
    "駅の前で三時に会いましょう",
    "昨日は家族と一緒に晩ご飯を食べました",
    "夏休みに海へ行きたいと思います",
    "내일 친구와 영화를 보러 갑니다",
    "이 책은 정말 재미있었어요",
    "주말에 가족과 함께 산에 갔습니다",
    "저녁에는 된장찌개를 만들어 먹었어요",
    "여름에 바다로 여행을 가고 싶어요",
];
const NOISE: &[&str] = &[
    "{noise}",
    "{noise} {noise}",
    "{noise} {noise} {noise}",
    "{noise} {noise} 00 {noise}",
    "{noise} {noise} {noise} {noise} {noise}",
    "{noise} {name} {noise}",
    "test {noise} test",
    "{name} {name}",
    "00 {noise} 00",
    "{noise}, {noise}, {noise} {noise}",
];
const CHINESE_NOISE: &[&str] = &[
    "{noise}",
    "{noise}{noise}",
    "{noise},{noise}",
    "{noise}{noise}00{noise}",
    "{noise}{noise}{noise}{noise}",
    "{noise}{name}{noise}",
    "测试{noise}测试",
    "{name},{name}",
    "00{noise}00",
    "{noise},{noise},{noise}{noise}",
];

/// Words of it.
pub(super) const WORDS: (&str, &str) = (
    "holiday|film|violin|sunset|birthday|invoice|meeting|parcel|password|recipe|football|museum|ticket|novel|Sommer|demain|gracias|buongiorno|lorem ipsum|asdf|qwer|xyz",
    "旅行|电影|小提琴|夕阳|生日|发票|会议|包裹|密码|食谱|足球|博物馆|车票|小说|股票|论文|购物|菜谱",
);
