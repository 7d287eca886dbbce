//! Email addresses: `local@domain`, internationalised (RFC 6531) or not.
//!
//! The domain goes through IDNA (UTS #46, non-transitional) and is kept as lower-case A-labels. The local part
//! is a dot-atom in NFC, in lower case if the realm says that case does not matter. Quoted local parts, domains
//! without a dot and address literals are refused: nobody logs in with one, and each is a way to spell an
//! address twice.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// RFC 5321, 4.5.3.1.1.
const LOCAL_BYTES_MAX: usize = 64;
/// What fits into a mail transaction's path (RFC 5321, 4.5.3.1.3).
const ADDRESS_BYTES_MAX: usize = 254;

pub(super) fn canonicalize(value: &str, local_case_insensitive: bool) -> Result<String, String> {
    let (local, domain) = value
        .rsplit_once('@')
        .ok_or("an email address has the form local@domain")?;
    let local = local_part(local, local_case_insensitive)?;
    let domain = domain_part(domain)?;
    let address = format!("{local}@{domain}");
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(format!("an email address has at most {ADDRESS_BYTES_MAX} bytes"));
    }
    Ok(address)
}

fn local_part(local: &str, case_insensitive: bool) -> Result<String, String> {
    let local: String = if local.is_ascii() {
        match case_insensitive {
            true => local.to_ascii_lowercase(),
            false => local.to_owned(),
        }
    } else if case_insensitive {
        // Lower-casing can undo NFC and the other way round, hence before and after.
        let lower = local.nfc().collect::<String>().to_lowercase();
        lower.nfc().collect()
    } else {
        local.nfc().collect()
    };
    if local.is_empty() || local.len() > LOCAL_BYTES_MAX {
        return Err(format!("the part before the @ has 1 to {LOCAL_BYTES_MAX} bytes"));
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err("the part before the @ must not start or end with a dot, or have two in a row".into());
    }
    if !local.chars().all(is_local_char) {
        return Err(
            "the part before the @ may have letters, digits, dots and any of !#$%&'*+-/=?^_`{|}~".into(),
        );
    }
    Ok(local)
}

/// `atext` of RFC 5322 and the dot; beyond ASCII letters, digits and the marks that letters carry (RFC 6531
/// would allow anything, invisible characters included).
fn is_local_char(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' => true,
        _ if c.is_ascii() => "!#$%&'*+-/=?^_`{|}~".contains(c),
        _ => c.is_alphanumeric() || is_combining_mark(c),
    }
}

fn domain_part(domain: &str) -> Result<String, String> {
    let ascii = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .map_err(|_| "the part after the @ is not a domain name")?;
    match ascii.rsplit_once('.') {
        Some((_, top)) if !top.bytes().all(|b| b.is_ascii_digit()) => Ok(ascii.into_owned()),
        Some(_) => Err("the part after the @ must be a domain name, not an address".into()),
        None => Err("the part after the @ must be a full domain name, such as example.com".into()),
    }
}
