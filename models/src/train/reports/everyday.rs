//! An ordinary day, broadly: what is none of a gateway's business, and what citizens and nurses write when nothing presses.

use super::other;
use super::phrases::{Topic, topic};

/// What is none of ours. It holds no cry for help in any language.
pub(super) const CHAT: &[Topic] = &[
    topic(other::LABEL, 0, TALK, CHINESE_TALK),
    topic(other::LABEL, 0, NEWS, CHINESE_NEWS),
    topic(other::LABEL, 0, ROMANCE, SMALL_CHINESE),
    topic(other::LABEL, 0, GERMANIC, EASTERN),
    topic(other::LABEL, 0, FAR, FAR_EASTERN),
];

const TALK: &[&str] = &[
    "[see you|talk to you|call me] [later|tomorrow|at six|next week][, bye|]",
    "[hi|hey|hello] how [are you|was your day|is it going]",
    "[ok|okay|sure|yes|no|maybe|great|thanks a lot|you are welcome|no problem|lol|hm]",
    "I [like|love|prefer|hate] [coffee|tea|chess|jazz|rainy days|long walks|your new haircut|spicy noodles]",
    "[Did you|Have you] [see the match|read that book|try the new cafe|hear the joke|buy the tickets] [yet|already|]",
    "[My|Our] [brother|aunt|teacher|friend|boss] [lives in|moved to|comes from|dreams of] [Canada|the mountains|a small village|Brazil]",
    "[Good night|Good luck|Merry Christmas|Happy new year|Congratulations|Sweet dreams][ everyone|, dear|]",
    "What [time|day|colour|kind of music] [is it|do you like|shall we meet]",
    "[Let us|We should|Shall we] [play cards|have dinner|go dancing|watch a series|bake bread|go hiking] [on Saturday|together|tonight]",
    "I [bought|lost|found|painted|sold] [a bicycle|my umbrella|an old record|two chairs|a green scarf] [yesterday|last summer|]",
    "The [dog|cat|parrot|horse] [sleeps|plays|eats|runs] [on the sofa|in the garden|all afternoon|with a ball]",
    "one two three four [five|test|testing|check]",
];
const CHINESE_TALK: &[&str] = &[
    "[回头见|明天聊|六点给我打电话|下周见|拜拜|晚安]",
    "[嗨|你好呀|在吗],[最近怎么样|今天过得好吗|忙不忙]",
    "[好|好的|行|可以|不用|没关系|不客气|谢谢你|哈哈|嗯嗯|知道了]",
    "我[喜欢|爱|讨厌|想要][喝咖啡|喝茶|下棋|爵士乐|下雨天|散步|你的新发型|吃辣]",
    "[你看了|你买了|你听说了|你试过]那[场比赛|本书|家咖啡馆|个笑话]吗",
    "我[哥哥|阿姨|老师|朋友|同事][住在|搬去了|来自|想去][加拿大|山里|小镇|云南]",
    "[晚安|加油|圣诞快乐|新年快乐|恭喜恭喜|做个好梦][,大家|,亲爱的|]",
    "[现在几点|今天星期几|你喜欢什么颜色|几点见面]",
    "[咱们|我们|要不要]一起[打牌|吃饭|跳舞|追剧|烤面包|去徒步|喝奶茶|唱歌]",
    "我[买了|丢了|找到|卖了][自行车|雨伞|旧唱片|两把椅子|绿围巾]",
    "[小狗|小猫|鹦鹉|马][在沙发上睡觉|在院子里玩|吃东西|追球]",
    "[一二三四|测试一下|试试看|喂喂]",
];
const NEWS: &[&str] = &[
    "[Shares|Prices|Sales|Exports] [rose|fell|closed] [three per cent|slightly|higher] [this quarter|on Monday|]",
    "The [minister|president|company|club] [announced|presented|signed|opened] [a new plan|a museum|the contract|its results]",
    "[Scientists|Researchers] [found|describe|study] [a new beetle|old stars|how birds sing|the moon]",
    "[Boil|Chop|Mix|Fry|Season] the [onions|rice|butter|tomatoes|sugar] [for ten minutes|gently|with salt]",
    "[Version|Release|Update] {2..9} of the [app|game|driver] [adds themes|is available|was delayed]",
    "[Chapter|Lesson|Episode] {2..20}: [the journey begins|verbs and nouns|a letter from home]",
    "[Order|Invoice|Booking] [number|no.] {1000..9999} [is confirmed|was paid|is attached]",
    "The [team|orchestra|author|actor] [won|played|wrote|sang] [the final|a waltz|a short story|beautifully]",
    "[Click|Press|Log in|Download|Subscribe] [here|to continue|for more photos|with your account]",
    "[Red|Blue|White|Dark] [wine|paint|shoes|roses] [on sale|suit you|from Italy]",
];
const CHINESE_NEWS: &[&str] = &[
    "[股价|油价|销量|出口][上涨|下跌|收高][百分之三|不少|]",
    "[部长|公司|俱乐部|总统][宣布|签署|公布|发布][新计划|合同|业绩|新产品]",
    "[科学家|研究人员][发现|研究]了[新甲虫|古老恒星|鸟类的歌声|月球]",
    "[洋葱|米饭|黄油|西红柿|白糖][煮十分钟|切碎|拌匀|小火炒]",
    "[软件|游戏|驱动]第{2..9}版[上线了|推迟发布|新增主题]",
    "第{2..20}[章|课|集]:[旅程开始|动词和名词|家书]",
    "[订单|发票|预订]{1000..9999}[已确认|已付款|见附件]",
    "[球队|乐团|作家|演员][夺冠|演奏圆舞曲|写短篇|唱得真好]",
    "[点击|登录|下载|关注][这里|继续|看更多照片|领优惠]",
    "[红酒|油漆|鞋子|玫瑰][打折|很适合你|意大利进口]",
];
const ROMANCE: &[&str] = &[
    "Je [suis|serai|reste] [à la maison|au bureau|en vacances] [ce soir|demain|jusqu'à lundi]",
    "[Merci beaucoup|À bientôt|Bonne journée|Comment ça va|Bon anniversaire][ mon ami|, madame|]",
    "Nous avons [mangé|acheté|vu] [du pain|un film|des pommes] [hier|avec les enfants]",
    "[Mañana|Hoy|Ayer] [vamos|fuimos] [al cine|a la playa|al mercado] con [mis primos|la familia]",
    "[Buenos días|Hasta luego|Muchas gracias|Feliz cumpleaños|Qué tal][, señor|, amiga|]",
    "Me gusta [bailar|leer|cocinar] [por la tarde|en verano|los domingos]",
    "[Domani|Oggi|Ieri] [andiamo|siamo andati] [al mare|al ristorante|a scuola] con [gli amici|la nonna]",
    "[Buonasera|Grazie mille|Arrivederci|Tanti auguri][, signora|]",
    "[Amanhã|Hoje|Ontem] [vamos|fomos] [à praia|ao mercado|à escola] com [os amigos|a família]",
    "[Bom dia|Obrigada|Até logo|Tudo bem][, senhor|]",
    "[Mâine|Astăzi] mergem [la munte|la piață|acasă] cu [prietenii|copiii]",
    "Le [livre|chat|train|jardin] est [grand|vert|sur la table|très joli]",
    "La [casa|silla|ventana|ciudad] es [grande|bonita|azul]",
    "Il [libro|treno|gatto|giardino] è [bello|sulla tavola|molto grande]",
    "O [menino|livro|gato|trem] está [na mesa|no jardim|bonito]",
];
const SMALL_CHINESE: &[&str] = &[
    "[诗|画|歌|曲子][写得|画得|唱得][真好|很美|一般]",
    "[这家店|那部剧|这首歌|这双鞋]我[很喜欢|不太喜欢|推荐给你]",
    "[今天|明天|周末][天气真好|会下雨|降温|有彩虹]",
    "[包饺子|涮羊肉|做红烧肉|煮面条|烤鱼]吧",
    "[孩子考试考了第一|女儿学钢琴|儿子毕业了|侄子结婚了]",
    "[春天|秋天|夏天|冬天]的[花开了|风很凉|海边人多|雪景漂亮]",
    "[机票|酒店|门票][订好了|太贵|打折]",
    "[老板|同事|客户][开会|请客|出差|发邮件]",
    "[猜猜看|讲个笑话|背首诗|写篇作文]",
    "[历史|数学|语文|英语]课[很有趣|作业多|考完了]",
];
const GERMANIC: &[&str] = &[
    "[Ich|Wir] [gehe|gehen|fahren] [morgen|heute|am Montag] [ins Kino|nach Berlin|zur Arbeit|in den Garten]",
    "[Guten Morgen|Vielen Dank|Bis bald|Alles Gute|Wie geht es dir|Schönes Wochenende][, mein Freund|]",
    "[Der|Mein] [Zug|Bruder|Kuchen|Hund|Garten] ist [schön|pünktlich|groß|in der Küche|sehr lieb]",
    "[Die|Meine] [Katze|Schwester|Blume|Zeitung] [liegt|sitzt|schläft] [auf dem Tisch|am Fenster|im Schatten]",
    "[Morgen|Vandaag|Gisteren] gaan we naar [de markt|het strand|school] met [vrienden|oma]",
    "[Goedemorgen|Dank je wel|Tot ziens|Hoe gaat het][, mevrouw|]",
    "De [trein|kat|tafel|krant] is [groot|mooi|op tijd|in de kamer]",
    "[I dag|I morgen|I går] [går|reser|åker] vi till [stranden|skolan|affären]",
    "[God morgon|Tack så mycket|Hej då|Tusen takk|God jul|Hvordan går det][, min vän|]",
    "[Huomenna|Tänään] [menemme|syömme] [kauppaan|kalaa|kotona|ystävien kanssa]",
    "[Hyvää huomenta|Kiitos paljon|Nähdään pian]",
    "[Jutro|Dzisiaj|Wczoraj] [idziemy|jedziemy|byliśmy] [do kina|nad morze|w szkole] z [rodziną|kolegą]",
    "[Dobrý den|Děkuji|Na shledanou|Dzień dobry|Dobar dan|Hvala lijepa]",
    "[Holnap|Ma] [megyünk|voltunk] [a piacra|a moziban|iskolába]",
    "[Talot|Kirjat|Linnut] ovat [suuria|uusia|punaisia]",
];
const EASTERN: &[&str] = &[
    "[今日|明日|昨日]は[学校|会社|公園|海]に[行きます|行きました]",
    "[ありがとうございます|おはようございます|お元気ですか|おやすみなさい|またね]",
    "[猫|犬|子ども|先生]が[庭で|部屋で][寝ています|遊んでいます|本を読んでいます]",
    "[ラーメン|寿司|お茶|コーヒー]が[好きです|飲みたいです|おいしいです]",
    "[天気|音楽|映画|料理]は[とても|あまり][いいです|楽しいです|好きです]",
    "[오늘|내일|어제] [학교에|회사에|바다에|공원에] [가요|갔어요|갑니다]",
    "[감사합니다|안녕하세요|잘 자요|또 봐요|생일 축하해요]",
    "[고양이가|강아지가|아이가] [방에서|마당에서] [자요|놀아요|책을 읽어요]",
    "[커피를|비빔밥을|음악을] [좋아해요|먹고 싶어요|들어요]",
    "[날씨가|영화가|음식이] [정말|아주] [좋아요|재미있어요|맛있어요]",
];
const FAR: &[&str] = &[
    "[Сегодня|Завтра|Вчера] мы [идём|едем|были] [в кино|на дачу|в школе] с [друзьями|бабушкой]",
    "[Доброе утро|Большое спасибо|До встречи|Как дела|С днём рождения]",
    "[Книга|Кошка|Машина|Погода] [на столе|очень красивая|хорошая]",
    "[Сьогодні|Завтра] ми [йдемо|їдемо] [до школи|на море|у парк]",
    "[Bugün|Yarın|Dün] [okula|denize|sinemaya] [gidiyoruz|gittik] [arkadaşlarla|ailemle]",
    "[Günaydın|Teşekkür ederim|Nasılsın|İyi geceler|Görüşürüz]",
    "[Hôm nay|Ngày mai] [tôi|chúng tôi] đi [học|chợ|biển|xem phim] với [bạn bè|mẹ]",
    "[Xin chào|Cảm ơn bạn|Chúc mừng sinh nhật|Ngủ ngon]",
    "[Hari ini|Besok|Kemarin] [saya|kami] [pergi|makan|belajar] [di pasar|ke sekolah|di rumah]",
    "[Terima kasih|Selamat malam|Sampai jumpa|Magandang umaga|Salamat po]",
    "[Σήμερα|Αύριο] [πάμε|τρώμε] [στη θάλασσα|στο σπίτι|ψάρι] με [φίλους|τη γιαγιά]",
    "[Καλημέρα|Ευχαριστώ πολύ|Τι κάνεις|Καληνύχτα]",
    "[اليوم|غدا] [نذهب|ذهبنا] إلى [المدرسة|السوق|البحر] مع [الأصدقاء|العائلة]",
    "[शुभ रात्रि|धन्यवाद|आप कैसे हैं|कल मिलेंगे|मुझे चाय पसंद है]",
    "[Leo|Kesho] [tunaenda|tunakula] [sokoni|shuleni|nyumbani], [asante sana|habari ya asubuhi]",
];
const FAR_EASTERN: &[&str] = &[
    "[วันนี้|พรุ่งนี้]ไป[ตลาด|โรงเรียน|ทะเล]กับ[เพื่อน|แม่]",
    "[สวัสดีครับ|ขอบคุณมาก|ราตรีสวัสดิ์]",
    "[夏|冬|春]の[花|空|山]は[きれい|静か]ですね",
    "[電車|バス|飛行機]で[京都|東京|北海道]へ行きたい",
    "[책|영화|여행|요리] 이야기를 [했어요|듣고 싶어요]",
    "[주말|방학|휴가]에 [여행을|등산을|낚시를] 가요",
    "[写真|日記|手紙]を[書きました|見せてください|送ります]",
    "[妹|兄|友達]と[テニス|買い物|料理]をしました",
    "[겨울|여름|가을] [노래|바람|하늘]이 [예뻐요|시원해요]",
    "[お誕生日|新年|ご結婚]おめでとうございます",
];

/// What citizens write when nothing presses.
pub(super) const CALM_CITY: &[Topic] = &[
    topic(
        "requests",
        0,
        &[
            "[Please|Could you|Can the city] [add|install|put up|plan] [more trees|a bicycle stand|a drinking fountain|shade|a bus lane|flower pots] {place}",
            "When [is|are|does] the [town hall|pool|office|market|museum] [open|closed on holidays|start in summer]",
            "How do I [apply for a permit|register my dog|get a resident card|report a change of address|book a hall]",
            "[Notice board|Map|Clock|Statue] {place} is [faded|dirty|wrong|switched off|out of date]",
            "I [suggest|propose|wish for] [longer opening hours|a playground|slower traffic|a cycle path] {place}",
            "[Question|Request|Suggestion|Feedback] about the [street festival|new line|water bill|tax form]",
            "[Neighbour|Shop|Cafe] {place} [puts chairs on the path|leaves the light on|feeds pigeons]",
            "[Lane marking|Lettering] {place} [faded|should be renewed]",
        ],
        &[
            "[能否|请|建议|希望]在{place}[加装|增设|种|放][树木|自行车架|饮水机|遮阳棚|花盆]",
            "[市民中心|游泳馆|办事处|集市|博物馆][几点开门|节假日开吗|夏天什么时候开]",
            "怎么[办许可证|给狗登记|办居住证|变更地址|预约场地]",
            "{place}的[公告栏|地图|时钟|雕像][褪色|脏了|不准|没开|过时了]",
            "建议{place}[延长开放时间|建儿童乐园|限速|修自行车道]",
            "[咨询|请求|建议|反馈]关于[街头活动|新线路|水费|税表]",
            "{place}的[邻居|商店|咖啡馆][把椅子摆到路上|灯一直开着|喂鸽子]",
            "{place}的[车道线|字][褪色|该重画了]",
        ],
    ),
    topic(
        "waste",
        0,
        &[
            "[Cigarette ends|Leaves|Bottles|Chewing gum] [on the lawn|on the steps|by the bench] {place}",
            "[Paper|Glass|Bio|Plastic] container {place} [full|not emptied on Monday|lid broken]",
            "Please [sweep|clean|empty|pick up] [the stairs|the bin|the leaves|the path] {place}",
            "[Pigeons|Wasps|Flies] around the bins {place}",
            "[Old bicycle|Shopping trolley|Christmas tree|Carpet] left {place}",
        ],
        &[
            "{place}[草地|台阶|长椅旁]有[烟头|落叶|酒瓶|口香糖]",
            "{place}[废纸|玻璃|厨余|塑料]桶[满了|周一没收|盖子坏了]",
            "请[打扫|清洁|清空|捡走]{place}的[楼梯|垃圾桶|落叶|小路]",
            "{place}垃圾桶旁有[鸽子|黄蜂|苍蝇]",
            "{place}丢着[旧自行车|购物车|圣诞树|地毯]",
        ],
    ),
    topic(
        "praise",
        0,
        &[
            "[Thanks|Thank you|Cheers|Many thanks] for the [quick repair|new lamps|clean park|friendly driver|flowers] {place}",
            "[Very nice|Well done|Great job|Love it], the [square|path|pool|library] {place} [looks great|is a joy]",
            "[Kind|Helpful|Polite] [staff|bus driver|gardener] {place}, [please pass it on|made my day]",
            "[Happy|Pleased|Impressed] with [the service|how fast it went] {place}",
            "[Problem|Lamp|Hole|Leak] {place} [is fixed|was repaired], [no need to come|all good now]",
        ],
        &[
            "谢谢{place}的[快速维修|新路灯|干净公园|友好司机|花]",
            "[很好|干得漂亮|太棒了],{place}的[广场|步道|泳池|图书馆][真漂亮|很舒服]",
            "{place}的[工作人员|公交司机|园丁][很热情|很耐心|有礼貌]",
            "对{place}的[服务|处理速度]很满意",
            "{place}的[问题|路灯|坑|漏水][修好了|已解决],[不用来了|一切正常]",
        ],
    ),
];

/// What nurses write when nothing presses.
pub(super) const CALM_WARD: &[Topic] = &[
    topic(
        "comfort",
        0,
        &[
            "{who} [would like|asks for|wants] [another blanket|the window open|tea|the radio|a newspaper|a single room]",
            "{who} [ate|drank|finished] [well|half of dinner|all of breakfast|soup|two glasses of water]",
            "{who} [smiling|cheerful|chatting with neighbours|doing a puzzle|watching football]",
            "[Washed|Shaved|Showered|Hair combed|Bed changed], {who} [comfortable|pleased|did it alone]",
            "[Passed urine|Good appetite|Normal stool], {who}",
            "{who} [hearing aid|glasses|dentures] [in the drawer|brought by family|labelled]",
        ],
        &[
            "{who}[想要|要求|希望][加条毯子|开窗|喝茶|听收音机|看报纸|单间]",
            "{who}[吃得好|晚餐吃一半|早餐吃完|喝了汤|喝水两杯|食欲好]",
            "{who}[笑容满面|高兴|和病友聊天|拼图|看球赛]",
            "{who}[已擦身|已刮脸|已洗澡|已梳头|已换床单],[舒适|满意|能自理]",
            "{who}[已解小便|二便正常|排便一次]",
            "{who}的[助听器|眼镜|假牙][在抽屉里|家属带来|已贴名]",
        ],
    ),
    topic(
        "wound_care",
        0,
        &[
            "[Wound|Incision|Scar|Ulcer] of {who} [dry|closed|pink|healing|unchanged|smaller], [no pus|no redness|no new blood]",
            "[Dressing|Compression stocking|Plaster] [changed|renewed|dry and intact|in place], {who}",
            "[Drain|Catheter|Cannula] [removed as planned|patent|flushed|site clean], {who}",
            "[Old bruise|Small scab|Graze] [fading|no treatment needed], {who}",
            "Next dressing [on Thursday|in three days], {who} informed",
        ],
        &[
            "{who}[伤口|切口|疤痕|溃疡][干燥|闭合|红润|愈合中|同前|缩小],[无脓|不红|无新鲜渗血]",
            "{who}[敷料|弹力袜|胶布][已换|更新|干燥完整|在位]",
            "{who}[引流管|尿管|留置针][按计划拔除|通畅|已冲管|处清洁]",
            "{who}[旧淤青|小结痂|擦伤][消退|不用处理]",
            "下次换药[周四|三天后],{who}已知晓",
        ],
    ),
    topic(
        "treatment",
        0,
        &[
            "{who} [back from|going to|booked for] [ultrasound|x-ray|physio|dialysis|the dentist|the eye clinic][, all fine|, tomorrow|]",
            "[Consent|Diet|Allergy list|Care plan|Chart] of {who} [updated|signed|reviewed|filed]",
            "[Blood sample|Urine sample|Swab] [sent|taken|collected], {who} [fine|no problems]",
            "[Oxygen|Drip|Antibiotics|Monitor] [stopped as planned|weaned|no longer needed], {who} [well|stable]",
            "[Doctor's round|Handover|Team meeting] [done|at 10|no changes], {who}",
        ],
        &[
            "{who}[做完|去做|预约了][B超|X光|康复|透析|牙科|眼科][,正常|,明天|]",
            "{who}的[同意书|饮食|过敏信息|护理计划|病历][已更新|已签|已核对|已归档]",
            "{who}[血样|尿样|咽拭子][已送|已留|已采],无不适",
            "{who}[氧气|输液|抗生素|监护][按计划停用|已撤|不再需要],[良好|平稳]",
            "[查房|交班|讨论][完毕|十点|无变化],{who}",
        ],
    ),
];
