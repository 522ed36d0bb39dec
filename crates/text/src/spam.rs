//! Short messages, spam and not: a generated set for classification.
//!
//! Spam and ham are told by templates with many wordings. They share words: friends speak of prizes, money and links too,
//! and some spam sounds like a friend. About one message in fifty could be either, so that no classifier is always right.
//! Which side of the data a message is on follows from a hash of its words.

use crate::rng::{Rng, hash_bytes, hash3};
use crate::stories::Split;
use crate::stories::grammar::Facts;
use crate::stories::words::{BOYS, GIRLS};
use std::collections::HashSet;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sms {
    /// What it says.
    pub text: String,
    /// Whether it is spam.
    pub spam: bool,
}

impl Sms {
    /// `spam` or `ham`, as in the SMS Spam Collection.
    pub fn label(&self) -> &'static str {
        if self.spam { "spam" } else { "ham" }
    }
}

/// How much of the data is spam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Half of it.
    Even,
    /// One message in seven, about as in the SMS Spam Collection.
    OneInSeven,
}

/// Decides the sides.
const SPLIT_SEED: u64 = 0x5BA3;

/// What is said in messages of either kind.
const EITHER: &[&str] = &[
    "[Hi|Hey|Hello], [call me|text me back|write to me] [today|when you can|at {hour}].",
    "You [won|have won]! [See|Look at] [the list|the page] [today|tonight].",
    "[Your|The] [order|ticket|parcel] is ready. [Come|Pick it up] [before|at] {hour}.",
    "[Do not miss it|Last chance|Only today]! [Tickets|Seats] are {small} [dollars|euros].",
];

const SPAM: &[&str] = &[
    "[WINNER!|Congratulations!|Good news!|You are lucky!] [You have won|You were chosen for|Claim] [a prize of|] {money}. [Call|Text] {number} [now|today|before midnight].",
    "[URGENT!|Final notice:|Important:] [Your|Your bank] [account|card] [was|has been] [locked|stopped]. [Open|Visit|Go to] {link} [to unlock it|and enter your code|now].",
    "[FREE|Free|100% free] {gift} [for you|for the first {small} callers|this week only]! [Reply YES|Text WIN to {short}|Call {number}]. [Costs {small} dollars a minute.|Stop? Text STOP.|]",
    "[Get|Earn|Make] {money} a [week|day] [from home|with your phone]. No [work|risk] [needed|at all]. [Join|See|Visit] {link}.",
    "[Your|The] [parcel|package] [could not be delivered|is waiting]. Pay {small} [dollars|euros] at {link} [today|or it goes back].",
    "[Hi|Hello|Hey] [mom|dad|grandma], this is my new number. [My phone is broken.|I lost my phone.] [Can you send me|I need] {money} [today|now]? I [will pay|give] it back.",
    "[Lose|Drop] {small} [pounds|kilos] in {small} days! [Doctors|Experts] [hate|love] this [trick|pill]. [Order|Buy] at {link}.",
    "[Loans|Credit] up to {money}, no [questions|checks]. [Approved|Paid out] in {small} minutes. [Call|Text] {number}.",
    "[Someone|{name}] [likes you|sent you a secret message|wants to meet you]! [Text|Reply] LOVE to {short} to [see|read] [it|who].",
    "[Dear customer,|Dear friend,|Attention:] [we owe you|you have] {money} [back|in unpaid credit]. [Confirm|Check] your [details|name and card] at {link}.",
    "[Hot|Best|New] [deal|price] [of the week|today]: {gift} [for only|from] {small} dollars! [Hurry|Only {small} left]. {link}",
    "[You have|There is] {small} new voice [message|messages]. [Call|Dial] {number} to [listen|hear it]. [{small} cents a second.|]",
];

const HAM: &[&str] = &[
    "[Hi|Hey|Hello] {name}, [are you free|do you have time|can we meet] [today|tonight|on Sunday|at {hour}]? [We could|Let us] [eat|walk|play cards|see a film] [together|with us|again].",
    "[I am|I will be] [late|a bit late|there|late today]. [The bus|The train|My car] [is slow|broke down|did not come]. [See you at {hour}.|Wait for me.|Sorry!]",
    "[Can you|Could you|Please] [buy|bring|get] [milk|bread|eggs|some apples] [on the way|when you come home|for dinner]? [Thanks!|I forgot it.|]",
    "[Happy birthday|Congratulations], {name}! [You won the race!|I heard that you passed.|Have a great day.] [See you soon.|Call me tonight.]",
    "[Did you|Have you] [see|read|get] [my message|the news|the game]? [We won|They won] {small} to {digit}! [What a day.|Free ice for all!]",
    "[I sent|I owe|I gave] {name} {small} [dollars|euros] for [the gift|lunch|the tickets]. [Pay me back|You can pay] [later|tomorrow|next week].",
    "[The doctor|The school|The shop] [called|wrote]. [Your card is there.|You left your bag.|Call them back before {hour}.] [Their number is {number}.|]",
    "[Good morning|Good night], {name}. [I love you.|Sleep well.|I miss you.] [Call me|Text me] when you [wake up|are home|can].",
    "[Meeting|Class|Practice] is at {hour} [today|tomorrow], not at {other}. [Room {small}.|Tell {name}.|Bring your book.]",
    "[The photos are at|I put the list on|Here is the plan:] {link}, [tell me|say] [what you think|if it works]. [Love, {name}|See you, {name}|]",
    "[Mom|Dad|Grandma] [says|asks] [dinner is at {hour}|when you come|you should call]. [There is cake.|Do not be late.|]",
    "[I won|We won] {gift} at [school|the fair|work]! [Want it?|You can have it.] [I do not need it.|It is free.|]",
    "[My phone is broken|I have a new number], [write to|ask] {name} [instead|if you need me]. [Back at {hour}.|Home soon.]",
];

/// Messages number 0 to `count` of one side, made from `seed`; no two are the same.
///
/// Law: the same arguments give the same messages, and the first do not depend on `count`.
///
/// # Panics
/// If `count` is above 100,000.
pub fn messages(seed: u64, split: Split, count: usize, balance: Balance) -> Vec<Sms> {
    assert!(count <= 100_000, "{count} messages, at most 100,000 can be made");
    let side = match split {
        Split::Train => 31,
        Split::HeldOut => 32,
    };
    let mut rng = Rng::new(hash3(seed, side, balance as u64));
    let (mut messages, mut seen) = (Vec::with_capacity(count), HashSet::new());
    while messages.len() < count {
        let spam = rng.one_in(if balance == Balance::Even { 2 } else { 7 });
        let text = tell(spam, &mut rng);
        let is_held_out = hash_bytes(SPLIT_SEED, text.as_bytes()).is_multiple_of(5);
        if is_held_out == (split == Split::HeldOut) && seen.insert(text.clone()) {
            messages.push(Sms { text, spam });
        }
    }
    messages
}

fn tell(spam: bool, rng: &mut Rng) -> String {
    let mut facts = Facts::default();
    let digits =
        |count: usize, rng: &mut Rng| (0..count).map(|_| char::from(b'0' + rng.below(10) as u8)).collect::<String>();
    let number = format!("0{}", digits(9, rng));
    facts.set("number", &number, rng);
    facts.set("short", &format!("8{}", digits(4, rng)), rng);
    facts.set("small", &(2 + rng.below(48)).to_string(), rng);
    facts.set("digit", &rng.below(10).to_string(), rng);
    facts.set("hour", &format!("{}{}", 1 + rng.below(12), rng.pick(&["", ":30", " o'clock"])), rng);
    facts.set("other", &(1 + rng.below(12)).to_string(), rng);
    facts.set(
        "money",
        &format!("{}{}{}", rng.pick(&["$", "", "up to $"]), 1 + rng.below(9), rng.pick(&["00", "000", "50", ",000"])),
        rng,
    );
    facts.set("gift", "[a phone|a tablet|a holiday|a gift card|a ringtone|tickets|a watch|a bike]", rng);
    facts.set("link", "[www.|][my|the|go|e][win|bank|photo|post|deal|mail|list][.com|.net|.org|/{digit}]", rng);
    let names = if rng.one_in(2) { GIRLS } else { BOYS };
    let name = *rng.pick::<&str>(names);
    facts.set("name", name, rng);
    let templates = if rng.one_in(50) {
        EITHER
    } else if spam {
        SPAM
    } else {
        HAM
    };
    let template = *rng.pick::<&str>(templates);
    noisy(&facts.tell(template, rng), rng)
}

/// The text as people type it: some shorten words, some write small letters, some shout.
fn noisy(text: &str, rng: &mut Rng) -> String {
    let short =
        [("you", "u"), ("are", "r"), ("to", "2"), ("for", "4"), ("Please", "Pls"), ("today", "2day"), ("your", "ur")];
    let shortens = rng.one_in(4);
    let words: Vec<&str> = text
        .split(' ')
        .map(|word| match short.iter().find(|(long, _)| *long == word) {
            Some((_, short)) if shortens => short,
            _ => word,
        })
        .collect();
    let text = words.join(" ");
    match rng.below(10) {
        0 | 1 => text.to_lowercase(),
        2 => text.to_uppercase(),
        3 => text.trim_end_matches(['.', '!', '?']).to_owned(),
        4 => text.replace('.', "..").replace('!', "!!"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn sides_share_no_message_and_seeds_decide() {
        let train = messages(1, Split::Train, 4000, Balance::Even);
        let held_out = messages(1, Split::HeldOut, 1000, Balance::Even);
        let texts: HashSet<&str> = train.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(texts.len(), train.len());
        assert!(held_out.iter().all(|message| !texts.contains(message.text.as_str())));
        assert_eq!(train[..100], messages(1, Split::Train, 100, Balance::Even)[..]);
        assert_ne!(train[..100], messages(2, Split::Train, 100, Balance::Even)[..]);
    }

    #[test]
    fn half_of_them_or_one_in_seven_is_spam() {
        let share = |balance| {
            let messages = messages(3, Split::Train, 7000, balance);
            messages.iter().filter(|message| message.spam).count()
        };
        assert!(share(Balance::Even).abs_diff(3500) < 250, "{}", share(Balance::Even));
        assert!(share(Balance::OneInSeven).abs_diff(1000) < 200, "{}", share(Balance::OneInSeven));
    }

    #[test]
    fn messages_are_told_whole() {
        for message in messages(4, Split::Train, 5000, Balance::Even) {
            let text = message.text;
            for flaw in ["{", "}", "[", "]", "|", "  ", " .", " ,"] {
                assert!(!text.contains(flaw), "`{flaw}` in {text}");
            }
            assert!((8..240).contains(&text.len()), "{text}");
        }
    }

    /// The accuracy on held-out messages of naive Bayes over words, with `words` of them known: none, or all.
    fn bayes(only: Option<&[&str]>) -> f64 {
        let words = |text: &str| -> Vec<String> {
            text.to_lowercase()
                .split(|letter: char| !letter.is_alphabetic())
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let mut counts: HashMap<String, [f64; 2]> = HashMap::new();
        let mut totals = [0.0; 2];
        for message in messages(1, Split::Train, 2000, Balance::Even) {
            for word in words(&message.text) {
                counts.entry(word).or_insert([1.0; 2])[usize::from(message.spam)] += 1.0;
                totals[usize::from(message.spam)] += 1.0;
            }
        }
        let held_out = messages(1, Split::HeldOut, 1000, Balance::Even);
        let right = held_out.iter().filter(|message| {
            let known =
                words(&message.text).into_iter().filter(|word| only.is_none_or(|only| only.contains(&word.as_str())));
            let score: f64 = known
                .filter_map(|word| counts.get(&word))
                .map(|[ham, spam]| (spam / totals[1] / (ham / totals[0])).ln())
                .sum();
            (score > 0.0) == message.spam
        });
        right.count() as f64 / held_out.len() as f64
    }

    #[test]
    fn the_set_can_be_learnt_but_no_few_words_decide() {
        let (all, few) = (bayes(None), bayes(Some(&["free", "won", "call", "text", "money", "now"])));
        assert!((0.93..0.995).contains(&all), "all words: {all}");
        assert!(few < 0.80, "six words: {few}");
    }
}
