//! Phone numbers: E.164, `+` and at most fifteen digits.
//!
//! A number is read as people write it: with spaces, dots, hyphens, brackets and slashes, with a trunk prefix
//! (`+44 (0)20 …`), with digits of other scripts, and, where the realm names a default region, without its
//! country code. Letters are refused (nobody means the vanity number `1-800-FLOWERS` when they type a user
//! name), and so are extensions.
//!
//! A number has to have the form of its country's numbers, but need not lie in a range that is assigned today:
//! ranges are opened every month, and a table that lags must not lock anyone out.

use std::sync::LazyLock;

use phonenumber::metadata::{DATABASE, Database};
use phonenumber::{Mode, Type, country};

const DIGITS_MAX: usize = 15;

pub(super) fn canonicalize(value: &str, default_region: &str) -> Result<String, String> {
    let digits = bare(value)?;
    let region: Option<country::Id> = if digits.starts_with('+') {
        None
    } else if default_region.is_empty() {
        return Err("a phone number starts with + and the country code".into());
    } else {
        Some(
            default_region
                .parse()
                .map_err(|_| "the realm's default phone region is unknown; use + and the country code")?,
        )
    };
    let number = phonenumber::parse_with(database(), region, &digits).map_err(|_| NOT_A_NUMBER)?;
    let text = number.format_with(database()).mode(Mode::E164).to_string();
    if text.len() > DIGITS_MAX + 1 || !has_known_form(&number) {
        return Err(NOT_A_NUMBER.into());
    }
    Ok(text)
}

const NOT_A_NUMBER: &str =
    "this is not a phone number of the country it names: check the country code and the length";

/// Whether the realm may name this region as the default one (ISO 3166-1 alpha-2, upper case).
pub fn is_region(region: &str) -> bool {
    region.parse::<country::Id>().is_ok()
}

/// The number without what people write for the eye, and with ASCII digits.
fn bare(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '+' | '\u{ff0b}' if out.is_empty() => out.push('+'),
            ' ' | '\u{a0}' | '\u{202f}' | '-' | '\u{2010}'..='\u{2013}' | '.' | '/' | '(' | ')' => {}
            _ => match digit(c) {
                Some(digit) => out.push(digit),
                None => {
                    return Err("a phone number has digits, a leading +, spaces and any of -./()".into());
                }
            },
        }
    }
    Ok(out)
}

/// The ASCII digit for a decimal digit of the scripts whose keyboards type their own.
fn digit(c: char) -> Option<char> {
    const ZEROS: [u32; 6] = [0x30, 0x660, 0x6f0, 0x966, 0x9e6, 0xff10];
    ZEROS
        .iter()
        .find_map(|zero| (c as u32).checked_sub(*zero).filter(|value| *value < 10))
        .and_then(|value| char::from_digit(value, 10))
}

/// Whether some region with this country code has numbers that begin like this one and are as long, assigned or
/// not.
fn has_known_form(number: &phonenumber::PhoneNumber) -> bool {
    let national = number.national().to_string();
    let length = national.len() as u16;
    let regions = database().by_code(&number.country().code()).unwrap_or_default();
    regions
        .iter()
        .map(|region| region.descriptors())
        .any(|descriptors| {
            let of_length = |kind: &Type| {
                descriptors
                    .get(*kind)
                    .is_some_and(|descriptor| descriptor.possible_length().contains(&length))
            };
            TYPES.iter().any(of_length) && descriptors.general().is_match(&national)
        })
}

/// The built-in tables, with room for more of their regular expressions once compiled. The library keeps a
/// hundred; numbers of a dozen countries in turn then take 2 ms each instead of 5 µs, because every number
/// compiles its country's anew.
fn database() -> &'static Database {
    static ROOMY: LazyLock<&Database> = LazyLock::new(|| {
        if let Ok(mut cache) = DATABASE.cache().lock() {
            cache.set_capacity(REGEXES_MAX);
        }
        &DATABASE
    });
    &ROOMY
}

/// About 100 KiB each, so 50 MiB if numbers of the whole world come in.
const REGEXES_MAX: usize = 512;

/// What somebody may own; short codes and the like are not for logging in.
const TYPES: [Type; 9] = [
    Type::Mobile,
    Type::FixedLine,
    Type::TollFree,
    Type::PremiumRate,
    Type::SharedCost,
    Type::PersonalNumber,
    Type::Voip,
    Type::Pager,
    Type::Uan,
];
