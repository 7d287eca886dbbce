//! `cargo xtask generate N`: accounts as an import reads them, one JSON object a line.
//!
//! The same seed gives the same bytes. About three lines in a hundred are wrong on purpose, as in any real
//! migration: an email, telephone number or user name that an earlier line has in another spelling, an address
//! without an at sign, a number with too few digits, a user name that looks like an email. `--clean` leaves those
//! out. The counts of each go to standard error, so that the result of an import can be judged.

use std::fs::File;
use std::io::{BufWriter, Write};

use crate::Failure;
use crate::names::{COUNTRIES, Country, DOMAINS, INTERESTS, TIERS};
use crate::random::Random;

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let mut count: Option<u64> = None;
    let mut seed = 1;
    let mut out = None;
    let mut clean = false;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--seed" => {
                seed = rest
                    .next()
                    .and_then(|text| text.parse().ok())
                    .ok_or("--seed needs a number")?;
            }
            "--out" => out = Some(rest.next().ok_or("--out needs a file")?),
            "--clean" => clean = true,
            number => {
                count = Some(
                    number
                        .parse()
                        .map_err(|_| format!("`{number}` is not a number of accounts"))?,
                )
            }
        }
    }
    let count = count.ok_or("say how many accounts: cargo xtask generate 100000")?;
    let problem = |why: std::io::Error| format!("cannot write: {why}");
    let mut sink: Box<dyn Write> = match out {
        Some(path) => Box::new(File::create(path).map_err(|why| format!("cannot create {path}: {why}"))?),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut sink = BufWriter::with_capacity(1 << 20, &mut sink);
    let mut generator = Generator::new(seed, clean);
    for _ in 0..count {
        writeln!(sink, "{}", generator.next_line()).map_err(problem)?;
    }
    sink.flush().map_err(problem)?;
    let (taken, malformed) = (generator.taken, generator.malformed);
    eprintln!(
        "{count} accounts: {taken} with an identifier of an earlier line, {malformed} malformed, seed {seed}"
    );
    Ok(())
}

/// A person as generated.
struct Person {
    display_name: String,
    country: &'static Country,
    email: String,
    phone: Option<String>,
    username: Option<String>,
}

/// What is wrong with a line on purpose.
enum Twist {
    EmailTaken,
    PhoneTaken,
    UsernameTaken,
    EmailMalformed,
    PhoneMalformed,
    UsernameLikeEmail,
}

/// Produces lines, and remembers some people for later lines to collide with.
struct Generator {
    random: Random,
    clean: bool,
    index: u64,
    earlier: Vec<Person>,
    /// Lines with an identifier of an earlier line.
    taken: u64,
    /// Lines with a malformed identifier.
    malformed: u64,
}

impl Generator {
    /// The most people remembered: enough for variety, bounded for ten million lines.
    const EARLIER_MAX: usize = 1000;

    fn new(seed: u64, clean: bool) -> Self {
        Self {
            random: Random::new(seed),
            clean,
            index: 0,
            earlier: Vec::new(),
            taken: 0,
            malformed: 0,
        }
    }

    fn next_line(&mut self) -> String {
        let person = self.person();
        let twist = self.twist();
        let line = self.line(&person, twist);
        // Only unspoilt people are collided with, so that the earlier line is one that an import accepts.
        if !self.clean && line.1 && self.random.chance(200) {
            if self.earlier.len() < Self::EARLIER_MAX {
                self.earlier.push(person);
            } else {
                let at = self.random.below(Self::EARLIER_MAX);
                self.earlier[at] = person;
            }
        }
        self.index += 1;
        line.0
    }

    fn person(&mut self) -> Person {
        let country = &COUNTRIES[self.random.below(COUNTRIES.len())];
        let given = self.random.pick(country.given_names);
        let family = self.random.pick(country.family_names);
        let handle = format!("{}.{}", ascii_handle(given), ascii_handle(family));
        let number = self.index + 1;
        let email = format!("{handle}{number}@{}", self.random.pick(&DOMAINS));
        let phone = self.random.chance(700).then(|| self.phone(country));
        let username = self
            .random
            .chance(400)
            .then(|| format!("{}_{number}", ascii_handle(given)));
        Person {
            display_name: format!("{given} {family}"),
            country,
            email,
            phone,
            username,
        }
    }

    /// A number no other line has, unless a thousand million have been drawn: the line's number, scattered over
    /// the country's mobile numbers by a step that shares no factor with their count.
    fn phone(&self, country: &Country) -> String {
        let prefixes = country.mobile_prefixes.len() as u64;
        let subscribers = 10_u64.pow(country.subscriber_digits);
        let place = self.index % (prefixes * subscribers);
        let scattered = place.wrapping_mul(7_919).wrapping_add(4_217) % subscribers;
        let prefix = country.mobile_prefixes[(place / subscribers) as usize];
        let width = country.subscriber_digits as usize;
        let separator = ["", " ", "-"][(self.index % 3) as usize];
        format!(
            "+{}{separator}{prefix}{separator}{scattered:0width$}",
            country.calling_code
        )
    }

    fn twist(&mut self) -> Option<Twist> {
        if self.clean || self.earlier.is_empty() || !self.random.chance(30) {
            return None;
        }
        Some(match self.random.below(10) {
            0..=3 => Twist::EmailTaken,
            4..=5 => Twist::PhoneTaken,
            6 => Twist::UsernameTaken,
            7 => Twist::EmailMalformed,
            8 => Twist::PhoneMalformed,
            _ => Twist::UsernameLikeEmail,
        })
    }

    /// The line, and whether nothing is wrong with it.
    fn line(&mut self, person: &Person, twist: Option<Twist>) -> (String, bool) {
        let mut email = person.email.clone();
        let mut phone = person.phone.clone();
        let mut username = person.username.clone();
        let at = self.random.below(self.earlier.len().max(1));
        let earlier = self.earlier.get(at);
        let (mut taken, mut malformed) = (false, false);
        match (twist, earlier) {
            (Some(Twist::EmailTaken), Some(earlier)) => {
                // The domain is not case sensitive and neither is the local part, by the realm's default.
                email = earlier.email.to_uppercase();
                taken = true;
            }
            (
                Some(Twist::PhoneTaken),
                Some(Person {
                    phone: Some(other), ..
                }),
            ) => {
                phone = Some(spaced(other));
                taken = true;
            }
            (
                Some(Twist::UsernameTaken),
                Some(Person {
                    username: Some(other),
                    ..
                }),
            ) => {
                username = Some(other.to_uppercase());
                taken = true;
            }
            (Some(Twist::EmailMalformed), _) => {
                email = email.replace('@', " at ");
                malformed = true;
            }
            (Some(Twist::PhoneMalformed), _) => {
                phone = Some(format!("+{}12", person.country.calling_code));
                malformed = true;
            }
            (Some(Twist::UsernameLikeEmail), _) => {
                username = Some(format!("other-{}", person.email));
                malformed = true;
            }
            _ => {}
        }
        self.taken += u64::from(taken);
        self.malformed += u64::from(malformed);
        (
            self.render(person, &email, phone.as_deref(), username.as_deref()),
            !taken && !malformed,
        )
    }

    fn render(
        &mut self,
        person: &Person,
        email: &str,
        phone: Option<&str>,
        username: Option<&str>,
    ) -> String {
        let mut identifiers = vec![identifier("email", email, true)];
        identifiers.extend(phone.map(|value| identifier("phone", value, true)));
        identifiers.extend(username.map(|value| identifier("username", value, true)));
        format!(
            "{{\"display_name\":{},\"locale\":\"{}\",\"time_zone\":\"{}\",\"labels\":{{\"source\":\"migration\"}},\
             \"attributes\":{{\"tier\":\"{}\",\"birth_year\":{},\"newsletter\":{},\"interests\":[\"{}\"]}},\
             \"identifiers\":[{}]}}",
            json_string(&person.display_name),
            person.country.locale,
            person.country.time_zone,
            self.random.pick(&TIERS),
            1940 + self.random.below(68),
            self.random.chance(300),
            self.random.pick(&INTERESTS),
            identifiers.join(",")
        )
    }
}

fn identifier(kind: &str, value: &str, primary: bool) -> String {
    format!(
        "{{\"kind\":\"{kind}\",\"value\":{},\"primary\":{primary},\"login_enabled\":true}}",
        json_string(value)
    )
}

/// The digits of a number in another spelling: `+49 1512-345` as `+49 15 12 34 5`.
fn spaced(phone: &str) -> String {
    let digits: Vec<char> = phone.chars().filter(char::is_ascii_digit).collect();
    let groups: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
    format!("+{}", groups.join(" "))
}

/// A name as it appears in mail addresses: lower case, ASCII, without marks.
fn ascii_handle(name: &str) -> String {
    let mut handle = String::new();
    for c in name.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => handle.push(c),
            'ä' | 'æ' => handle.push_str("ae"),
            'ö' | 'ø' => handle.push_str("oe"),
            'ü' => handle.push_str("ue"),
            'ß' => handle.push_str("ss"),
            'á' | 'à' | 'â' | 'ã' | 'å' | 'ą' => handle.push('a'),
            'é' | 'è' | 'ê' | 'ë' | 'ę' => handle.push('e'),
            'í' | 'ì' | 'î' | 'ï' | 'ı' => handle.push('i'),
            'ó' | 'ò' | 'ô' | 'õ' | 'ō' => handle.push('o'),
            'ú' | 'ù' | 'û' | 'ū' => handle.push('u'),
            'ç' | 'ć' => handle.push('c'),
            'ñ' | 'ń' => handle.push('n'),
            'ş' | 'ś' => handle.push('s'),
            'ğ' => handle.push('g'),
            'ł' => handle.push('l'),
            'ż' | 'ź' => handle.push('z'),
            _ => {}
        }
    }
    handle
}

fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Generator, spaced};

    fn lines(seed: u64, clean: bool, count: usize) -> Vec<String> {
        let mut generator = Generator::new(seed, clean);
        (0..count).map(|_| generator.next_line()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_lines() {
        assert_eq!(lines(7, false, 500), lines(7, false, 500));
        assert_ne!(lines(7, false, 500), lines(8, false, 500));
    }

    #[test]
    fn clean_accounts_share_no_identifier() {
        let mut values = HashSet::new();
        for line in lines(3, true, 20_000) {
            for part in line.split("\"value\":\"").skip(1) {
                let value = part.split('"').next().unwrap();
                let plain: String = value
                    .to_lowercase()
                    .chars()
                    .filter(|c| !" -".contains(*c))
                    .collect();
                assert!(values.insert(plain), "{value} appears twice");
            }
        }
    }

    #[test]
    fn about_three_lines_in_a_hundred_are_wrong_on_purpose() {
        let mut generator = Generator::new(1, false);
        for _ in 0..100_000 {
            generator.next_line();
        }
        assert!((1000..3000).contains(&generator.taken), "{}", generator.taken);
        assert!(
            (500..1500).contains(&generator.malformed),
            "{}",
            generator.malformed
        );
    }

    #[test]
    fn a_number_keeps_its_digits_in_another_spelling() {
        assert_eq!(spaced("+49-1512-3456789"), "+49 15 12 34 56 78 9");
    }
}
