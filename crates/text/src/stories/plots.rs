//! The plots: each is one template over the facts of its tables.
//!
//! `{N}` is the hero and `{M}` a friend, with `{he} {him} {his} {himself}` and `{mhe} {mhim} {mhis}`. To add a plot, add
//! an entry here; a test reads every sentence of it for unset names.

use super::words::{
    FAMILY, FEARS, GAMES, MAKINGS, MISTAKES, NEIGHBORS, PETS, PLACES, PLANTS, RESCUES, SKILLS, SNACKS, TASKS, TOYS,
    TRIPS, Table, WEATHER,
};

/// A family of stories: the tables that settle its facts, in this order, and how it is told.
pub(super) struct Plot {
    pub(super) name: &'static str,
    pub(super) tables: &'static [&'static Table],
    pub(super) telling: &'static str,
}

pub(super) const PLOTS: &[Plot] = &[
    Plot {
        name: "lost and found",
        tables: &[&TOYS, &PLACES, &WEATHER],
        telling: r#"[{N} had {a toy}.|There was a {kid} named {N} who had {a toy}.|{N} loved {his} {toy}.] [{He} liked to {use}.|Every day {he} would {use}.|]
            One {weather} {time}, {N} took the {thing} {to}. [{sky}|]
            [{N} played until {he} was tired, and then {he} ran home.|{He} played for a long time and then went home to eat.]
            [But at home the {thing} was gone!|At home {he} looked into {his} bag. The {thing} was not there!|Then {he} saw that the {thing} was missing.]
            [{N} felt very sad.|{N} began to cry.|{His} heart felt heavy.]
            [{M} saw {him} and asked, "What is wrong?"|"Why are you so sad?" asked {M}.] "I lost my {thing}," said {N}.
            ["Don't worry, we will look for it together," said {M}.|"Let us go back and look for it," said {M}.]
            They went back {to} and looked {decoy}, but it was not there. [Then {M} looked {spot}.|At last they looked {spot}.]
            ["Here it is!" {mhe} shouted.|There was the {toy}!]
            [{N} hugged {his} friend.|] {N} was so happy that {he} [jumped up and down|danced around|laughed out loud]. ["Thank you, {M}," {he} said. "You are a good friend."|From then on {he} always looked after {his} {thing}.|"Now you may play with it too," {he} said to {M}.]"#,
    },
    Plot {
        name: "a thing lent",
        tables: &[&TOYS, &PLACES, &WEATHER],
        telling: r#"[{M} got {a toy} for {mhis} birthday.|{M} had a new toy. It was {a toy}.|One {time}, {M} came {to} with {a toy}.]
            [{N} looked at it for a long time.|{N} had never seen such a fine {thing}.|{N} wished for {a thing} just like that.]
            "[May I borrow your {thing}|Can I have your {thing} for one day|Will you lend me your {thing}]?" {he} asked.
            [{M} thought about it.|{M} was not sure at first.|] "Yes, but please [be careful with it|bring it back tomorrow|take good care of it]," {mhe} said.
            {N} was [glad|full of joy|very happy]. {He} took the {thing} home to {use}. [When it was dark, {he} put it on the shelf beside {his} bed.|In the evening {he} cleaned it with a soft cloth.|{He} did not let it get wet or dirty.]
            The next day was {weather}. {N} met {M} {in} and gave the {thing} back. [It was as good as new.|Nothing was broken.|It was even cleaner than before.]
            ["You kept your promise," said {M}.|"You took good care of it," said {M} with a smile.] ["Next time you may borrow it again."|"Let us play with it together now."|"I am glad that I lent it to you."]"#,
    },
    Plot {
        name: "a shared snack",
        tables: &[&SNACKS, &PLACES, &WEATHER],
        telling: r#"[It was a {weather} {time}.|One {weather} {time}, {N} and {M} met {in}.] [{sky}|]
            {N} [had|had brought] {asnack} [in {his} bag|for lunch]. [It smelled wonderful.|{He} could hardly wait to eat it.|]
            {M} [was hungry too, but {mhe} had left {mhis} lunch at home|had nothing to eat because {mhis} bag was empty|had dropped {mhis} lunch into the mud].
            {M} looked at the {snack} [and said nothing|with big eyes|and swallowed].
            [First {N} wanted to eat it all alone.|{N} thought for a moment.|{N} saw that {mhe} was hungry.]
            Then {he} [broke|cut] the {snack} into two parts and gave [one|the bigger one] to {M}. ["Here, this is for you," {he} said.|"We can share," {he} said.]
            ["Thank you!" said {M}.|{M} smiled and thanked {him}.] The {snack} was {taste}. [They sat side by side and ate.|They ate every bit of it.]
            [The next day {M} brought two cookies and gave one to {N}.|"It tastes better when we share," said {N}.|From that day on they always shared their lunch.]"#,
    },
    Plot {
        name: "helping a neighbor",
        tables: &[&NEIGHBORS, &TASKS, &WEATHER],
        telling: r#"[{neighbor} lived next door to {N}.|{N} had an old neighbor named {neighbor}.|In the house beside {N} lived {neighbor}.]
            One {time}, {neighbor} had to {need}, because {because}. [But {nhe} was tired, and {nhis} back hurt.|But it was too much work for one person.|{Nhe} shook {nhis} head and sighed.]
            {N} [saw {nhim} from the window|was just coming home|heard {nhim} sigh]. "[Can I help you|May I help you|Do you need some help], {neighbor}?" {he} asked.
            ["That would be very kind," said {neighbor}.|"Oh yes, please," said {neighbor}.]
            {N} {help}. [It was hard work, but {he} did not stop.|{He} worked until {his} arms were tired.|{He} sang a song while {he} worked.] [{M} came by and helped too.|]
            [Soon|After an hour|Before it was dark,] {done}.
            {neighbor} [was very happy|smiled from ear to ear|clapped {nhis} hands]. ["You are a wonderful helper," {nhe} said, and {nhe} gave {him} [a warm cookie|a red apple|a glass of juice|a silver coin].|"I could not have done it without you," {nhe} said.]
            [{N} felt proud all day.|{N} went home with a warm feeling in {his} heart.|"I like to help," said {N}.]"#,
    },
    Plot {
        name: "a skill learned",
        tables: &[&FAMILY, &SKILLS],
        telling: r#"{N} wanted to learn to {skill}. [All of {his} friends could do it.|{M} could do it already.|{He} dreamed of it every night.]
            On the first day {he} {fail}. ["I will never learn it," {he} said.|{He} was angry and wanted to give up.|{M} laughed, and that made {N} sad.]
            {His} {adult} [sat down beside {him}|had watched {him}|came and took {his} hand]. "[It was hard for me too|Nobody can do it the first time|Everyone has to practice]," {ahe} said. "{tip}."
            So {N} tried again. [The second day was a little better.|The next day {he} still made mistakes, but not so many.|{He} practiced every {time}, even when {he} was tired.]
            [After one week|At the end of the month|On the last day of the summer], {N} {win}. ["Look at me!" {he} shouted.|{He} could hardly believe it.]
            {His} {adult} [was very proud|clapped and cheered|gave {him} a big hug]. [Now {N} is teaching {M}'s little brother.|"I did not give up," said {N}.|Then {N} knew that practice helps.]"#,
    },
    Plot {
        name: "a trip",
        tables: &[&FAMILY, &TRIPS],
        telling: r#"One {time} {N} and {his} {adult} [made a trip|went] to {dest}. They went {way}. [{N} had packed {his} bag the night before.|{N} was so excited that {he} had hardly slept.|{M} came along too.]
            [There they saw {saw}.|When they arrived, they saw {saw}.] ["Look at that!" cried {N}.|{N} had never seen anything so beautiful.|{N} did not know where to look first.]
            [But then {trouble}.|Everything was fine until {trouble}.] [{N} was worried.|"Oh no! What can we do?" asked {N}.|{N} felt like crying.]
            ["Stay calm," said {his} {adult}.|"Do not be afraid," said {his} {adult}.] And [soon|after a while] {fixed}. [They both laughed.|What luck!|{N} was very glad.]
            [In the evening they went home.|When the sun went down, it was time to go home.] ["What did you like best?" asked {his} {adult}. "{Best}," said {N}.|{N} liked {best} most of all.] [That night {he} dreamed of {dest}.|{He} fell asleep on the way.|"Can we go there again?" {he} asked.]"#,
    },
    Plot {
        name: "a mistake and an apology",
        tables: &[&FAMILY, &MISTAKES],
        telling: r#"[{N} knew that {he} should {rule}.|{His} {adult} had told {N} to {rule}.] But one {time} {N} [did not think|forgot the rule|was in a hurry]. {He} {did}.
            [{N} was scared.|"Oh no!" cried {N}.|{His} face turned red.] [First {he} wanted to hide.|{He} thought about telling a lie.|{M} said, "Just say that it was the cat."]
            But {he} [knew that a lie would make it worse|did not want to lie|felt bad about it]. So {he} went to {his} {adult} and said, "[I am sorry|I am so sorry]. [It was my fault|I did it|I was not careful]."
            {His} {adult} [looked at {owned}|was quiet for a moment|was not happy about {owned}]. "[Thank you for telling me the truth|I am glad that you told me|It was brave of you to tell me]," {ahe} said. "[How can you make it good again|What can you do now]?"
            {N} {repair}. [It took a long time.|It was a lot of work.|{M} helped {him}.]
            [In the end {his} {adult} was not angry anymore.|Then {his} {adult} gave {him} a hug.] [{N} had learned {lesson}.|From that day on {N} remembered {lesson}.]"#,
    },
    Plot {
        name: "making something",
        tables: &[&MAKINGS, &WEATHER],
        telling: r#"[{N} and {M} wanted to make {made}.|One {time} {N} had an idea. "Let us make {made}!" {he} said to {M}.] [They needed {stuff}.|First they looked for {stuff}.|They found {stuff}.]
            They {how}. [{N} did one half of the work, and {M} did the other half.|They worked together the whole {time}.|It was a lot of fun.]
            But [something was wrong|there was a problem]: {snag}. ["Now everything is spoiled," said {M}.|{M} wanted to stop.|{N} looked at it and frowned.]
            ["Wait, I have an idea," said {N}.|"We can fix it," said {N}.|{N} thought hard.] They {mend}. [Now it was much better.|It worked!|That was the answer.]
            [In the end, {end}.|And in the end, {end}.] ["We are a good team," said {M}.|{N} and {M} were very proud.|"Tomorrow we will make another one," said {N}.]"#,
    },
    Plot {
        name: "an animal in trouble",
        tables: &[&RESCUES, &PLACES, &WEATHER],
        telling: r#"One {weather} {time}, {N} was walking {in}. [{sky}|] [Suddenly {he} heard {cry}.|Then there was {cry}.]
            [{He} stopped and listened.|{He} followed the sound.|"Who is there?" {he} asked.] It was {a animal}. The {animal} {plight}. [It looked very scared.|It was shaking.|Its eyes were wide.]
            ["Poor little {animal}," said {N}. "I will help you."|"Do not be afraid," whispered {N}.|{N} wanted to help at once.]
            {He} {rescue}. [{He} was very careful.|It was not easy, but {he} did it.|{M} held {his} bag while {he} worked.|]
            The {animal} [was free and safe|was safe again]. It {thanks}. [That was its way to say thank you.|{N} laughed.|]
            [At home {N} told {M} all about it.|{N} never forgot the {animal}.|The next day {N} came back, and the {animal} was waiting for {him}.]"#,
    },
    Plot {
        name: "an animal friend",
        tables: &[&PETS, &PLACES, &FAMILY],
        telling: r#"{N} had {a pet} named {pname}. {pname} was not like other animals. It {trick}. [Everyone in the street knew {pname}.|{N} thought that {pname} was the best {pet} in the world.|Every {time} {N} gave it {food}.]
            One day {pname} was gone. [{N} looked everywhere.|The gate was open, and {pname} was nowhere to be seen.] "[{pname}, where are you|Has anyone seen my {pet}]?" {he} called.
            [{His} {adult} helped {him} to look.|{M} helped {him} to look.] They went {to}. [They called and called.|They looked {decoy}.] Then {N} had an idea. {He} held up {food} [and waited|and stood very still].
            [Something moved.|There was a small sound.] Out came {pname}! It had been hiding {spot}. [It was hungry and a little dirty.|It ran straight to {N}.]
            [{N} held it close.|{N} laughed and cried at the same time.] "[Do not run away again|I missed you so much|I am so glad that you are back]," {he} said. [{pname} ate {food} and fell asleep.|That night {pname} slept right beside {his} bed.]"#,
    },
    Plot {
        name: "a fear",
        tables: &[&FAMILY, &FEARS],
        telling: r#"[{N} was a {kind} {kid}, but {he} was afraid {fear}.|{N} was afraid {fear}.] [{He} did not tell anyone.|{M} was not afraid at all.|{He} did not like to talk about it.]
            One evening {he} saw {saw}. [{His} heart beat fast.|{He} wanted to run away.|{He} could not move.] "[Help|Come quickly]!" {he} cried.
            {His} {adult} came [at once|running]. "[I am here, {N}.|What is it, {N}?]" [{N} pointed with {his} finger.|{N} told {ahim} everything.]
            ["Let us look at it together," said {his} {adult}.|{His} {adult} took {his} hand.] It was {was}. [{N} had to laugh.|{N} felt a little better.]
            ["I was afraid too when I was small," {ahe} said.|"Everyone is afraid sometimes," {ahe} said.] Then they {comfort}. [It helped a lot.|With every minute {N} felt braver.]
            [The next time {N} was not so afraid.|Now {N} helps {M} when {mhe} is afraid.|"I think I am brave now," said {N}.]"#,
    },
    Plot {
        name: "a rainy day",
        tables: &[&GAMES, &PLACES, &FAMILY],
        telling: r#"{N} and {M} wanted to play {game} {in}. [They had waited for it all week.|They had made a plan.|They put on their shoes and opened the door.]
            But [it started to rain|dark clouds came, and it began to rain|the rain was falling hard]. ["What a pity!" said {M}.|{M} looked out of the window and sighed.|"Now our day is ruined," said {M}.]
            [{N} was sad for a moment.|{N} did not give up.] Then {he} had an idea. ["We can play inside," {he} said.|"Let us do something new," {he} said.]
            They {rainy}. [{His} {adult} brought them warm milk.|{His} {adult} came in and played along.|They forgot the rain.] [They laughed so much that their stomachs hurt.|It was more fun than playing {game}.]
            In the evening the rain stopped, [and a rainbow stood in the sky|and the sun came out for a moment|and the air smelled fresh]. ["I hope that it rains tomorrow," said {M}.|"Tomorrow we can go {to}," said {N}.|"That was the best rainy day ever," said {N}.]"#,
    },
    Plot {
        name: "a present",
        tables: &[&TOYS, &FAMILY, &PLACES],
        telling: r#"[Tomorrow was {M}'s birthday.|{M} was going to have a birthday party.] {N} wanted to give {mhim} {a toy}. [But {he} had only a few coins.|But the {thing} in the shop cost too much.]
            {N} asked {his} {adult}, "[What can I do|How can I get more coins]?" ["You can earn some coins if you help me," {ahe} said.|"There is a lot of work today. Help me, and I will pay you," {ahe} said.]
            So {N} [swept the yard|washed the car|carried water|cleaned the shed] [all {time}|until the evening]. [{He} was tired but happy.|{He} counted the coins twice.] Then {he} [ran to the shop and bought|bought] the {toy}.
            At the party {M} opened the box. ["{A thing}! That is just what I wanted!" {mhe} cried.|{M}'s eyes grew big when {mhe} saw the {thing}.] ["Now I can {use}," {mhe} said.|{Mhe} began to {use} right away.]
            [{N} was as happy as {M}.|"It is fun to give," said {N}.|{N} knew that the work had been worth it.]"#,
    },
    Plot {
        name: "a quarrel",
        tables: &[&TOYS, &PLACES, &FAMILY],
        telling: r#"{N} and {M} were best friends. One {time} they found {a toy} {in}. It was lying {spot}. ["I saw it first!" said {N}. "No, I saw it first!" said {M}.|Both of them wanted to have it.]
            [They pulled and pushed.|They shouted at each other.] [{M} went home without a word.|In the end both of them were angry.] [{N} played alone, but it was no fun.|{N} tried to {use}, but alone it was boring.]
            {His} {adult} asked, "[Why are you alone|Where is {M}]?" {N} told {ahim} about the {thing}. "[What is worth more, {a thing} or a friend|Do you want to be right, or do you want to have a friend]?" asked {his} {adult}.
            {N} [understood|thought about it]. {He} went to {M} and said, "[I am sorry|I was wrong]. [The {thing} can belong to both of us|You can have the {thing} first]."
            ["I am sorry too," said {M}.|{M} smiled. "I missed you," {mhe} said.] [Now they take turns.|After that they played with the {thing} together.|They were friends again, and the {thing} was forgotten.]"#,
    },
    Plot {
        name: "a seed",
        tables: &[&FAMILY, &PLANTS],
        telling: r#"{N} found {seed} [in {his} pocket|in a drawer|on the path]. ["What is it?" {he} asked.|{He} showed it to {his} {adult}.] "[Put it into the earth and wait|Plant it and give it water]," said {his} {adult}.
            {N} dug a small hole [in the garden|beside the house|in a big pot] and put it in. Every {time} {he} gave it water. [But for days nothing happened.|After one week there was still only earth.|{He} looked at it ten times a day.]
            ["Your seed is sleeping," said {M}.|"It will never grow," said {M}.|{M} laughed at the empty earth.] [But {N} did not give up.|{N} waited and waited.|"I can wait," said {N}.]
            Then the sun grew warm, and {grew}. ["It is alive!" cried {N}.|{N} called everyone to come and see.] [In the end there was {crop}.|At the end of the summer there was {crop}.|And one day there was {crop}.]
            [{N} showed it to {M} first of all.|{His} {adult} was amazed.|"Good things need time," said {his} {adult}.] [Next year {N} will plant a whole row.|{N} felt like a real gardener.|]"#,
    },
    Plot {
        name: "a new friend",
        tables: &[&GAMES, &SNACKS, &PLACES],
        telling: r#"{M} was new in town. [{Mhe} did not know anyone.|Everything was strange to {mhim}.] [On the first day {mhe} sat all alone {in}.|{Mhe} stood {in} and watched the other children.]
            {N} [saw {mhim}|noticed it]. [{He} remembered how it felt to be alone.|"{Mhe} looks lonely," {he} thought.] {N} walked over and said, "[Hello, I am {N}|Hi, my name is {N}]. [What is your name|Who are you]?" "[I am {M}|My name is {M}]," {mhe} said [quietly|in a low voice].
            ["Do you want to play {game} with us?" asked {N}.|"We are playing {game}. Do you want to play too?" asked {N}.] {M} [nodded|smiled a little]. [At first {mhe} was shy.|{Mhe} did not know the rules, but {N} showed {mhim} how it worked.]
            Soon {M} was [laughing|running and laughing] with the others. [Later {N} gave {mhim} half of {his} {snack}.|Later they ate {asnack} together. It was {taste}.]
            ["Will you come again tomorrow?" asked {N}. "Yes!" said {M}.|From that day on {M} was not alone anymore.|That {time} two new friends walked home together.]"#,
    },
];
