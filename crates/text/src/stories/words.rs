//! The words of the stories: tables whose rows hang together, so that a story stays consistent.
//!
//! A cell may hold a choice `[a|b]` and names `{...}` that were set before it; both are settled once per story.

/// Rows of cells, set apart by ` / `, and the names under which a plot uses them. A plot draws one row of each of its
/// tables.
pub(crate) struct Table {
    pub(crate) names: &'static [&'static str],
    pub(crate) rows: &'static [&'static str],
}

pub(crate) const GIRLS: &[&str] = &[
    "Lily", "Mia", "Anna", "Emma", "Zoe", "Ruby", "Nora", "Ella", "Rosa", "Clara", "Maya", "Ivy", "Lucy", "Sara",
    "Amy", "Molly", "Hana", "Julia", "Kate", "Leila", "Tara", "Nina", "Alice", "Grace",
];

pub(crate) const BOYS: &[&str] = &[
    "Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Finn", "Omar", "Noah", "Paul", "Oscar", "Hugo", "Tim", "Luke", "Adam",
    "Theo", "Ali", "Peter", "Eric", "Daniel", "Ravi", "Kai", "Jonas", "Felix",
];

/// Countable things of word problems, in the plural.
pub(crate) const COUNTED: &[&str] = &[
    "apples", "shells", "marbles", "stickers", "cookies", "pencils", "flowers", "stones", "buttons", "berries",
    "books", "balloons", "coins", "stamps", "nuts", "cards", "pears", "feathers", "eggs", "candles",
];

pub(crate) const FAMILY: Table = Table {
    names: &["adult", "ahe", "ahim", "ahis"],
    rows: &[
        "mom / she / her / her",
        "dad / he / him / his",
        "grandma / she / her / her",
        "grandpa / he / him / his",
        "aunt / she / her / her",
        "uncle / he / him / his",
    ],
};

/// Something to play with that can be lost, lent and given.
pub(crate) const TOYS: Table = Table {
    names: &["thing", "toy", "use"],
    rows: &[
        "kite / [red|blue|yellow|striped] kite / fly it high",
        "ball / [red|green|bouncy|yellow] ball / throw it and catch it",
        "doll / [little|pretty|soft] doll / tell it stories",
        "car / [red|fast|shiny|little] car / race it over the stones",
        "boat / [blue|wooden|little|white] boat / sail it in the puddles",
        "bear / [brown|soft|fluffy|old] bear / carry it everywhere",
        "drum / [loud|little|red] drum / play a happy song on it",
        "book / [thick|new|blue] book / read it again and again",
        "hat / [green|funny|tall|warm] hat / wear it all day long",
        "scarf / [long|warm|purple|striped] scarf / wear it like a cape",
        "whistle / [silver|tiny|shiny] whistle / blow it like a bird",
        "train / [wooden|green|long] train / push it along and say, \"Choo choo!\"",
        "lantern / [bright|small|golden] lantern / carry it like an explorer",
        "basket / [round|small|brown] basket / fill it with leaves and stones",
        "umbrella / [orange|yellow|spotted|big] umbrella / spin it round and round",
        "bucket / [yellow|red|small] bucket / fill it with sand",
        "robot / [silver|clever|square] robot / make it walk and turn",
        "wagon / [red|old|wooden] wagon / pull it up and down the path",
        "compass / [brass|old|shiny] compass / find the north with it",
        "rope / [long|strong|white] rope / jump over it",
        "marble / [green|clear|shiny|blue] marble / roll it along the ground",
        "flute / [wooden|small|silver] flute / play soft songs on it",
        "horse / [wooden|brown|white] horse / make it gallop",
        "key / [golden|old|tiny] key / pretend that it opened a castle",
        "airplane / [paper|silver|white] airplane / let it glide through the air",
        "notebook / [small|blue|new] notebook / draw birds and trees in it",
        "telescope / [long|old|black] telescope / look at far away things",
        "magnet / [strong|red|round] magnet / pick up nails and pins with it",
        "puppet / [funny|striped|little] puppet / make it dance",
        "crown / [paper|golden|shiny] crown / play king and queen",
    ],
};

/// Outdoor places, and where in them something may lie.
pub(crate) const PLACES: Table = Table {
    names: &["place", "in", "to", "spot", "decoy"],
    rows: &[
        "park / in the park / to the park / [under a bench|beside the pond|behind the oak tree] / [near the swings|next to the gate]",
        "garden / in the garden / to the garden / [between the tulips|behind the shed|under the rose bush] / [beside the fence|under the apple tree]",
        "beach / at the beach / to the beach / [behind a big rock|next to a sand castle|under a towel] / [near the water|beside the boats]",
        "forest / in the forest / to the forest / [in a hollow log|under a fern|beside a tall pine tree] / [near the stream|under the leaves]",
        "meadow / in the meadow / to the meadow / [in the tall grass|beside a gray stone|among the daisies] / [near the fence|by the little bridge]",
        "playground / at the playground / to the playground / [under the slide|in the sandbox|behind the climbing wall] / [near the seesaw|by the big tires]",
        "farm / at the farm / to the farm / [behind the barn|in a pile of hay|beside the well] / [near the hen house|by the tractor]",
        "river / by the river / to the river / [under the bridge|between two stones|in the reeds] / [on the path|near the old boat]",
        "orchard / in the orchard / to the orchard / [under a pear tree|beside a ladder|behind a basket of plums] / [near the gate|by the wall]",
        "hill / on the hill / to the hill / [behind a bush|next to a stump|in a patch of clover] / [beside the path|near the old tower]",
        "lake / at the lake / to the lake / [under the dock|beside a canoe|behind a willow tree] / [near the picnic table|on the sand]",
        "market / at the market / to the market / [under a fruit cart|behind a barrel|next to the fountain] / [near the baker's stand|by the steps]",
    ],
};

pub(crate) const WEATHER: Table = Table {
    names: &["weather", "sky"],
    rows: &[
        "sunny / [The sun was warm and bright.|The sky was blue and clear.|Sunlight danced on the leaves.]",
        "windy / [The wind shook the trees.|The wind made the leaves dance.|A strong wind was blowing.]",
        "cloudy / [Soft gray clouds filled the sky.|The sun was hiding behind the clouds.|Big clouds were floating by.]",
        "cool / [The air was fresh and clean.|The grass was still wet.|A thin mist lay over the ground.]",
        "warm / [Bees were humming in the flowers.|The air smelled of flowers.|Birds were singing everywhere.]",
    ],
};

pub(crate) const SNACKS: Table = Table {
    names: &["snack", "asnack", "taste"],
    rows: &[
        "sandwich / a [cheese|big|tasty] sandwich / soft and salty",
        "apple / [a red|a green|a shiny] apple / crisp and sweet",
        "cookie / a [big|round|warm] cookie / sweet and crunchy",
        "orange / [a juicy|a big|a round] orange / fresh and sweet",
        "muffin / a [blueberry|warm|little] muffin / soft and sweet",
        "pie / a [cherry|little|warm] pie / warm and sweet",
        "pear / a [ripe|yellow|soft] pear / juicy and sweet",
        "pancake / a [golden|thick|warm] pancake / soft and warm",
        "bun / a [fresh|warm|cinnamon] bun / soft and fresh",
        "melon / a [small|green|ripe] melon / cool and juicy",
        "pretzel / a [salty|big|twisted] pretzel / crunchy and salty",
        "peach / a [soft|ripe|golden] peach / juicy and soft",
    ],
};

pub(crate) const TASKS: Table = Table {
    names: &["need", "because", "help", "done"],
    rows: &[
        "carry two heavy bags up the stairs / the bags were full of potatoes / took one bag and carried it up, step by step / both bags stood in the kitchen",
        "rake the leaves / the wind had blown them everywhere / pushed the leaves into a big pile / the grass was clean and green again",
        "wash the muddy windows / the storm had made them dirty / wiped every window with a wet cloth / the windows were so clear that the sun came right in",
        "find a pair of lost glasses / the words in the newspaper were too small to read / looked on the shelf, under the chair and in the teapot / the glasses turned up inside a slipper",
        "pick the ripe cherries / the birds were eating them all / climbed the ladder and filled a bucket / there were enough cherries for ten pies",
        "paint the old fence / the paint was coming off / dipped a brush in the white paint and painted board after board / the fence looked brand new",
        "bring in the laundry / dark clouds were coming / ran from shirt to shirt and took them off the line / everything was dry and safe inside",
        "water the vegetables / it had not rained for two weeks / filled a can again and again and watered each plant / the plants stood up straight",
        "catch the runaway hens / someone had left the hen house open / held out some corn and called the hens softly / all the hens were back in the hen house",
        "shovel the snow from the path / it had snowed all night / pushed the snow aside with a wide shovel / the path was clear from the door to the street",
        "stack the firewood / the winter was coming / carried log after log to the shed / the wood reached up to the roof",
        "fix a squeaky gate / it woke up the baby every morning / put a drop of oil on each hinge / the gate opened without a sound",
        "sort the books / they had all fallen off the shelf / put the big books on the left and the small books on the right / every book was in its place",
        "peel the carrots / many guests were coming for dinner / peeled one carrot after another / the pot was full of carrots",
    ],
};

pub(crate) const NEIGHBORS: Table = Table {
    names: &["neighbor", "nhe", "nhim", "nhis"],
    rows: &[
        "Mrs. Green / she / her / her",
        "Mr. Hill / he / him / his",
        "Mrs. Stone / she / her / her",
        "Mr. Baker / he / him / his",
        "Mrs. Wood / she / her / her",
        "Mr. Fields / he / him / his",
        "Mrs. Lake / she / her / her",
        "Mr. Rivers / he / him / his",
    ],
};

pub(crate) const SKILLS: Table = Table {
    names: &["skill", "fail", "tip", "win"],
    rows: &[
        "ride a bike / fell into the soft grass / Look ahead and keep your feet moving / rode all the way to the corner and back",
        "swim / swallowed some water and had to cough / Kick with your legs and breathe slowly / swam from one side of the pool to the other",
        "skate / slipped and landed on the ice / Bend your knees a little / glided across the ice without falling",
        "whistle / blew and blew, but only air came out / Make your lips small and round / whistled a whole song",
        "tie {his} shoes / made a knot that came apart at once / Make two loops and cross them / tied both shoes with neat bows",
        "juggle / dropped every ball on the floor / Start with two balls and watch the top / kept three balls in the air",
        "play the piano / hit the wrong keys / Play slowly and count to four / played the song without a mistake",
        "draw a horse / made it look like a sofa with legs / Begin with two circles for the body / drew a horse that seemed to run across the paper",
        "bake bread / made a loaf that was as hard as a stone / Give the dough time to rise / took a soft and golden loaf out of the oven",
        "jump rope / got {his} feet caught in the rope / Jump when you hear the rope touch the ground / jumped twenty times in a row",
        "climb the rope / slid back down to the mat / Hold the rope between your feet / touched the very top of the rope",
        "row a boat / went round and round in a circle / Pull both oars at the same time / rowed straight to the other shore",
        "read the clock / mixed up the two hands / The short hand shows the hour / told everyone the right time",
        "sew / pricked {his} finger with the needle / Take small stitches and go slowly / sewed a button on a coat",
        "catch a ball / closed {his} eyes and missed the ball / Watch the ball until it is in your hands / caught the ball ten times",
        "ski / sat down in the deep snow / Lean forward and make small turns / skied down the whole hill",
    ],
};

pub(crate) const TRIPS: Table = Table {
    names: &["dest", "way", "saw", "trouble", "fixed", "best"],
    rows: &[
        "the sea / by train / white ships and tall waves / a big wave washed away {his} sandals / {his} {adult} found them again in the sand / jumping over the waves",
        "the zoo / by bus / a sleepy lion and two tall giraffes / a monkey took {his} cap / a keeper gave the monkey a banana, and it gave the cap back / feeding the goats",
        "the mountains / by car / deep valleys and a white waterfall / the path was blocked by a fallen tree / they found a way around it / standing on the top",
        "the museum / by bus / old bones and shining stones / {N} got lost between the big halls / a kind guard led {him} back to {his} {adult} / seeing the huge dinosaur",
        "the farm of a friend / by car / brown cows and tiny chicks / a goat ate the map / the farmer told them the way home / riding on the tractor",
        "the lake / by bike / ducks and silver fish / a tire lost its air / {his} {adult} mended it with a patch / swimming to the little island",
        "the city / by train / tall towers and a wide square / they took the wrong street / a friendly driver showed them the right one / looking down from the tallest tower",
        "the castle on the hill / on foot / thick walls and a deep well / rain began to pour / they waited under the old gate until it stopped / climbing the round tower",
        "the island / by boat / white birds and a red lighthouse / the wind blew the picnic blanket into the water / a fisherman pulled it out with a hook / talking with the man who kept the light",
        "the big forest / on foot / a deer and many mushrooms / it was getting dark and they could not see the path / {his} {adult} remembered the lamp in the bag / listening to the owls",
        "the market town / by bus / cheese, flowers and a man with a parrot / they saw that the basket was still on the bus / the driver brought it back to them / choosing a present",
        "the snow fields / by sled / frozen trees and the tracks of a fox / {his} hands became very cold / {his} {adult} gave {him} hot tea and dry gloves / sliding down the longest slope",
    ],
};

/// A mistake: what `{N}` did to something of somebody, and how it was mended.
pub(crate) const MISTAKES: Table = Table {
    names: &["rule", "did", "owned", "repair", "lesson"],
    rows: &[
        "not play ball in the house / hit the blue vase with a ball, and it broke / the broken vase / glued the vase together, piece by piece / to play ball outside",
        "close the gate / left the gate open, and the dog ran away / the open gate / walked up and down the street until the dog came back / to close the gate every time",
        "not touch the paint / spilled green paint on the white rug / the rug / washed the rug with soap and warm water / to ask before painting",
        "water the plants / forgot about the plants, and their leaves turned brown / the plants / cut off the dry leaves and gave the plants fresh water / to water the plants every day",
        "wait for dinner / ate the cake that was meant for the guests / the empty plate / baked a new cake before the guests came / to ask before eating",
        "be careful with the teapot / ran through the kitchen and knocked over the teapot / the broken teapot / swept up the pieces and bought another teapot with {his} own coins / to walk slowly in the kitchen",
        "put away the toys / left the toys on the stairs, and someone tripped over them / the stairs / put every toy back into the box / to put away the toys at once",
        "keep the boots outside / ran over the clean floor in muddy boots / the floor / mopped the floor until it was shining again / to take off the boots at the door",
        "not cut the flowers / cut the best roses in the garden for a game / the roses / put the roses in water and planted a new bush / to leave the flowers alone",
        "bring the library book back / left the library book out in the rain / the book / dried the pages one by one and paid for a new cover / to take good care of books",
        "not open the cage / opened the cage, and the bird flew up to the lamp / the empty cage / held out some seeds until the bird came down / to keep the cage closed",
        "turn off the water / let the bathtub run over / the bathroom / dried the floor with every towel in the house / to watch the water",
    ],
};

pub(crate) const MAKINGS: Table = Table {
    names: &["made", "stuff", "how", "snag", "mend", "end"],
    rows: &[
        "a cake / flour, eggs and sugar / stirred the dough and put it into the oven / it came out flat / covered it with thick cream and berries / it tasted wonderful",
        "a bird house / boards and nails / nailed the boards together / the roof was crooked / cut a new piece of wood and tried again / a small bird moved in",
        "a kite / paper, sticks and string / tied the sticks into a cross and glued the paper on / it fell down again and again / tied a longer tail to it / it flew higher than the trees",
        "a snowman / snow, a carrot and some buttons / rolled three big balls of snow / the head fell off / made a smaller head and pressed it on firmly / it stood there until spring",
        "a raft / logs and rope / tied the logs side by side / it began to sink / put empty barrels under the logs / it floated like a cork",
        "a tree house / planks and a ladder / pulled the planks up with a rope / the floor shook / put two strong posts under it / it was the best place to read",
        "a pot of soup / carrots, beans and water / cut the carrots and let them cook / it tasted like nothing at all / added salt and a little lemon / everyone asked for a second bowl",
        "a quilt / old shirts and thread / cut the shirts into squares and sewed them together / there was a hole in the middle / filled it with a yellow star / it was warm and full of memories",
        "a puppet show / socks, buttons and a big box / painted a stage on the box and gave each sock a face / the curtain would not open / pulled it with a long string / the whole street came to watch",
        "a sand castle / sand, shells and water / built four towers and a wall / a wave took one tower away / dug a deep ditch around it / it stood until the evening",
        "a wooden car / a crate and four wheels / put the wheels under the crate / it would only turn left / put the front wheels on straight / it rolled down the lane like the wind",
        "a lamp / a jar, paper and a candle / glued colored paper around the jar / the paper fell off / used better glue and waited until it was dry / it glowed like a little moon",
    ],
};

/// An animal in trouble, and what it does afterwards.
pub(crate) const RESCUES: Table = Table {
    names: &["animal", "cry", "plight", "rescue", "thanks"],
    rows: &[
        "kitten / a tiny meow / was stuck high up in a tree / climbed up the branches and carried it down / rubbed its head on {his} hand and purred",
        "puppy / a soft whine / had its paw caught in a fence / bent the wire aside and set it free / licked {his} face",
        "bird / a weak chirp / had fallen out of its nest / lifted it up with both hands and put it back / sang a little song",
        "turtle / a scratching sound / was lying on its back / turned it over gently / nodded slowly and walked to the water",
        "hedgehog / a quiet snuffle / had a jar stuck on its head / held the jar and pulled very carefully / looked up at {him} and wiggled its nose",
        "rabbit / a rustle in the leaves / was caught in some string / untied the string, knot by knot / hopped around {him} three times",
        "duckling / a sad peep / had lost its mother / carried it along the water until the mother duck came / swam away behind its mother",
        "squirrel / an angry chatter / could not reach its nuts under a heavy stone / rolled the stone away / put one nut at {his} feet",
        "fox / a low cry / had fallen into a deep hole / laid a long branch into the hole so that it could climb out / looked back once and waved its tail",
        "owl / a hoarse hoot / was tangled in a net / cut the net with small scissors / flew one circle above {his} head",
        "lamb / a thin bleat / had slipped into a ditch / pulled it out with both arms / followed {him} all the way to the barn",
        "frog / a faint croak / was sitting far from the pond in the hot sun / carried it to the cool water / croaked loudly and dived",
    ],
};

pub(crate) const PETS: Table = Table {
    names: &["pet", "pname", "food", "trick"],
    rows: &[
        "dog / [Rex|Biscuit|Spot] / a bone / brought sticks and never gave them back",
        "cat / [Luna|Mittens|Pepper] / some fish / slept on the warm stove",
        "parrot / [Coco|Kiwi|Rio] / a nut / said good night to everyone",
        "rabbit / [Clover|Thumper|Snow] / a carrot / jumped over small boxes",
        "pony / [Star|Honey|Thunder] / an apple / opened doors with its nose",
        "goat / [Daisy|Captain|Button] / some cabbage / stood on top of everything",
        "duck / [Puddle|Waddles|Bubbles] / some bread / marched like a soldier",
        "mouse / [Crumb|Pip|Dot] / a piece of cheese / ran through paper tunnels",
        "hen / [Feather|Olive|Maple] / some corn / laid its eggs in the mailbox",
        "donkey / [Oats|Moss|Bramble] / some hay / sang louder than the church bell",
    ],
};

pub(crate) const FEARS: Table = Table {
    names: &["fear", "saw", "was", "comfort"],
    rows: &[
        "of the dark / a tall black shape beside the bed / only a coat on a chair / put a small lamp beside the bed",
        "of thunder / a bright flash in the window / only the clouds, many miles away / counted the seconds after each flash",
        "of the deep water / something long moving under the boat / only a green weed / held on to the boat and looked down together",
        "of the old house / a white face at the window / only a curtain in the wind / knocked on the door, and a friendly woman opened it",
        "of the big dog / two shining eyes behind the fence / only a dog that wanted to play / let the dog smell a hand",
        "of the cellar / two dark shapes behind the shelf / only a pair of old boots / walked down the steps with a lamp",
        "of high places / the ground far below the bridge / only as high as a small house / took ten slow steps and looked at the far side",
    ],
};

pub(crate) const GAMES: Table = Table {
    names: &["game", "rainy"],
    rows: &[
        "hide and seek / built a tent out of blankets",
        "pirates / made a ship out of a big box",
        "explorers / drew a map of the whole house",
        "tag / made paper boats and let them swim in the sink",
        "knights / built a castle out of chairs and pillows",
        "shop / sold buttons and spoons behind the table",
        "circus / practiced tricks on the soft carpet",
        "detectives / looked for clues in the attic",
        "astronauts / turned the sofa into a rocket",
        "music band / played on pots and pans",
    ],
};

pub(crate) const PLANTS: Table = Table {
    names: &["seed", "grew", "crop"],
    rows: &[
        "a bean seed / a green vine climbed up the wall / a bowl full of beans",
        "a sunflower seed / a stem taller than {his} {adult} stood there / a flower as big as a plate",
        "a pumpkin seed / long leaves covered the ground / a round orange pumpkin",
        "a cherry stone / a thin little tree came up / a handful of dark cherries",
        "a pea / a soft plant with white flowers appeared / a basket of sweet peas",
        "a tulip bulb / two green tips broke through the earth / a bright red tulip",
        "a tomato seed / a plant with yellow flowers grew up the stick / six red tomatoes",
        "an acorn / a tiny oak with four leaves stood there / a tree that would live for a hundred years",
    ],
};
