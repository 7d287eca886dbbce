//! Is the request well formed? Everything that can be said without looking at stored rows.
//!
//! A [`Check`] gathers what is wrong, so that the caller learns all of it at once. Paths follow the public
//! request messages (`account.identifiers[2].value`, `changes[0].add.issuer`). Texts never repeat a value: it
//! may be personal data.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{Actor, AttributeValue, CanonicalIdentifier, FieldViolation, IdentifierKind, Rejection};

use crate::limits::*;
use crate::normalize::{canonicalize, check_issuer};
use crate::{
    ChangeIdentifiers, Context, IdentifierChange, NewAccount, NewAttribute, NewIdentifier, NewVerification,
    Update,
};

/// An identifier of the request with its canonical form.
pub(crate) struct Wanted<'a> {
    pub(crate) canonical: CanonicalIdentifier,
    pub(crate) new: &'a NewIdentifier,
    /// Its place in the request's list.
    pub(crate) index: u32,
}

/// A change of identifiers with canonical forms.
pub(crate) enum WantedChange<'a> {
    Add(Wanted<'a>),
    Remove {
        old: CanonicalIdentifier,
        index: u32,
    },
    Replace {
        old: CanonicalIdentifier,
        new: Wanted<'a>,
    },
}

/// Gathers violations.
pub(crate) struct Check<'a> {
    ctx: &'a Context<'a>,
    violations: Vec<FieldViolation>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(ctx: &'a Context<'a>) -> Self {
        Check {
            ctx,
            violations: Vec::new(),
        }
    }

    /// Ends the check: nothing may be done with what it returned unless this is `Ok`.
    pub(crate) fn finish(&mut self) -> Result<(), Rejection> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(Rejection::Invalid(std::mem::take(&mut self.violations)))
        }
    }

    pub(crate) fn require(&mut self, ok: bool, field: impl Into<String>, otherwise: impl Into<String>) {
        if !ok {
            self.violations.push(FieldViolation::new(field, otherwise));
        }
    }

    pub(crate) fn actor(&mut self, actor: &Actor) {
        self.at_most("context.actor", actor.actor.len(), ACTOR_BYTES_MAX, "bytes");
        self.at_most("context.reason", actor.reason.len(), REASON_BYTES_MAX, "bytes");
        let trace = &actor.trace_id;
        let hex = trace.len() == 32 && trace.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        self.require(
            trace.is_empty() || hex,
            "context.trace_id",
            "is 32 lower-case hexadecimal digits, or empty",
        );
    }

    pub(crate) fn account<'r>(&mut self, new: &'r NewAccount) -> Vec<Wanted<'r>> {
        self.display_name(&new.display_name);
        self.locale(&new.locale);
        self.time_zone(&new.time_zone);
        self.labels(&new.labels);
        self.restrictions(&new.restrictions);
        self.at_most(
            "account.attributes",
            new.attributes.len(),
            ATTRIBUTES_MAX,
            "attributes",
        );
        self.attributes("account.attributes", &new.attributes);
        self.at_most(
            "account.identifiers",
            new.identifiers.len(),
            IDENTIFIERS_MAX,
            "identifiers",
        );
        let mut seen = Seen::default();
        let identifiers = new.identifiers.iter().enumerate();
        identifiers
            .filter_map(|(at, new)| {
                self.identifier(&format!("account.identifiers[{at}]"), new, at, &mut seen)
            })
            .collect()
    }

    pub(crate) fn update(&mut self, update: &Update) {
        let Update {
            etag: _,
            display_name,
            locale,
            time_zone,
            labels,
            restrictions,
            set_attributes,
            remove_attributes,
        } = update;
        let any = display_name.is_some()
            || locale.is_some()
            || time_zone.is_some()
            || labels.is_some()
            || restrictions.is_some()
            || !set_attributes.is_empty()
            || !remove_attributes.is_empty();
        self.require(
            any,
            "update_mask",
            "names no field, and no attribute is set or removed: nothing to do",
        );
        if let Some(name) = display_name {
            self.display_name(name);
        }
        if let Some(locale) = locale {
            self.locale(locale);
        }
        if let Some(time_zone) = time_zone {
            self.time_zone(time_zone);
        }
        if let Some(labels) = labels {
            self.labels(labels);
        }
        if let Some(restrictions) = restrictions {
            self.restrictions(restrictions);
        }
        self.at_most(
            "set_attributes",
            set_attributes.len(),
            ATTRIBUTES_MAX,
            "attributes",
        );
        self.attributes("set_attributes", set_attributes);
        for name in remove_attributes {
            let also_set = set_attributes.contains_key(name);
            self.require(
                !also_set,
                "remove_attributes",
                "names an attribute that is also set",
            );
        }
    }

    pub(crate) fn changes<'r>(&mut self, change: &'r ChangeIdentifiers) -> Vec<WantedChange<'r>> {
        let count = change.changes.len();
        self.require(count > 0, "changes", "is empty: nothing to do");
        self.at_most("changes", count, CHANGES_MAX, "changes");
        let mut seen = Seen::default();
        let changes = change.changes.iter().enumerate();
        changes
            .filter_map(|(at, change)| self.change(at, change, &mut seen))
            .collect()
    }

    fn change<'r>(
        &mut self,
        at: usize,
        change: &'r IdentifierChange,
        seen: &mut Seen,
    ) -> Option<WantedChange<'r>> {
        match change {
            IdentifierChange::Add(new) => {
                let new = self.identifier(&format!("changes[{at}].add"), new, at, seen)?;
                Some(WantedChange::Add(new))
            }
            IdentifierChange::Remove(old) => {
                let path = format!("changes[{at}].remove");
                let old = self.canonical(&path, old.kind, &old.value, &old.issuer)?;
                self.once(&path, &old, seen);
                Some(WantedChange::Remove {
                    old,
                    index: at as u32,
                })
            }
            IdentifierChange::Replace { old, new } => {
                let path = format!("changes[{at}].replace");
                let same_kind = old.kind == new.kind;
                self.require(
                    same_kind,
                    format!("{path}.new_identifier.kind"),
                    "must be that of the old one",
                );
                let old_path = format!("{path}.old_identifier");
                let old = self.canonical(&old_path, old.kind, &old.value, &old.issuer);
                if let Some(old) = &old {
                    self.once(&old_path, old, seen);
                    seen.replaced = Some(old.claim_bytes());
                }
                let new = self.identifier(&format!("{path}.new_identifier"), new, at, seen);
                seen.replaced = None;
                Some(WantedChange::Replace { old: old?, new: new? })
            }
        }
    }

    fn identifier<'r>(
        &mut self,
        path: &str,
        new: &'r NewIdentifier,
        at: usize,
        seen: &mut Seen,
    ) -> Option<Wanted<'r>> {
        if let Some(NewVerification::Verified { method, time }) = &new.verification {
            let name = is_name(method, "_");
            self.require(
                name,
                format!("{path}.verification.method"),
                of_kind(new.kind, NAME_RULE),
            );
            let past = time.is_none_or(|time| time <= self.ctx.now.plus(CLOCK_SKEW_MS_MAX));
            self.require(
                past,
                format!("{path}.verification.verify_time"),
                of_kind(new.kind, "lies in the future"),
            );
        }
        if new.primary == Some(true) {
            let first = seen.primaries.insert(new.kind);
            self.require(
                first,
                format!("{path}.primary"),
                of_kind(new.kind, "another one of this kind is marked primary too"),
            );
        }
        let canonical = self.canonical(path, new.kind, &new.value, &new.issuer)?;
        self.once(path, &canonical, seen);
        Some(Wanted {
            canonical,
            new,
            index: at as u32,
        })
    }

    fn canonical(
        &mut self,
        path: &str,
        kind: IdentifierKind,
        value: &str,
        issuer: &str,
    ) -> Option<CanonicalIdentifier> {
        if let Err(reason) = check_issuer(kind, issuer) {
            self.violations.push(FieldViolation::new(
                format!("{path}.issuer"),
                of_kind(kind, &reason),
            ));
            return None;
        }
        canonicalize(kind, value, issuer, &self.ctx.realm.config)
            .map_err(|reason| {
                self.violations.push(FieldViolation::new(
                    format!("{path}.value"),
                    of_kind(kind, &reason),
                ))
            })
            .ok()
    }

    fn once(&mut self, path: &str, canonical: &CanonicalIdentifier, seen: &mut Seen) {
        let bytes = canonical.claim_bytes();
        if seen.replaced.as_ref() != Some(&bytes) {
            let first = seen.identifiers.insert(bytes);
            self.require(
                first,
                format!("{path}.value"),
                of_kind(canonical.kind, "this identifier occurs twice in the request"),
            );
        }
    }

    fn display_name(&mut self, name: &str) {
        self.at_most(
            "account.display_name",
            name.len(),
            DISPLAY_NAME_BYTES_MAX,
            "bytes",
        );
        let clean = !name.chars().any(char::is_control);
        self.require(
            clean,
            "account.display_name",
            "must not contain control characters",
        );
        // In a list of accounts, such a name would rearrange what stands beside it. For the same reason no PRECIS
        // profile takes them (RFC 8264, 9.13). Scripts that run from right to left do not need them.
        let in_order = !name.chars().any(reorders);
        self.require(
            in_order,
            "account.display_name",
            "must not contain characters that change the direction of text (U+202A to U+202E, U+2066 to U+2069)",
        );
    }

    fn locale(&mut self, locale: &str) {
        let mut tags = locale.split('-');
        let language = tags.next().unwrap_or_default();
        let ok = locale.len() <= LOCALE_BYTES_MAX
            && (2..=8).contains(&language.len())
            && language.bytes().all(|b| b.is_ascii_alphabetic())
            && tags.all(|tag| (1..=8).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric()));
        self.require(
            ok || locale.is_empty(),
            "account.locale",
            "is a BCP 47 language tag such as de-CH, or empty",
        );
    }

    fn time_zone(&mut self, zone: &str) {
        let ok = zone.len() <= TIME_ZONE_BYTES_MAX
            && zone.starts_with(|c: char| c.is_ascii_alphabetic())
            && zone
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b));
        let otherwise = "is an IANA time zone name such as Europe/Zurich, or empty";
        self.require(ok || zone.is_empty(), "account.time_zone", otherwise);
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        self.at_most("account.labels", labels.len(), LABELS_MAX, "labels");
        for (name, value) in labels {
            self.require(
                is_name(name, "_-"),
                "account.labels",
                "a key is a lower-case letter and then at most 62 lower-case letters, digits, _ or -",
            );
            let plain = value.len() <= NAME_BYTES_MAX && value.bytes().all(|b| is_name_byte(b, "_-"));
            self.require(
                plain,
                "account.labels",
                "a value is at most 63 lower-case letters, digits, _ or -",
            );
        }
    }

    fn restrictions(&mut self, codes: &BTreeSet<String>) {
        self.at_most(
            "account.restrictions",
            codes.len(),
            RESTRICTIONS_MAX,
            "restrictions",
        );
        for code in codes {
            self.require(
                is_name(code, "_"),
                "account.restrictions",
                format!("a code {NAME_RULE}"),
            );
        }
    }

    fn attributes(&mut self, path: &str, attributes: &BTreeMap<String, NewAttribute>) {
        for (name, attribute) in attributes {
            if !is_name(name, "_.") {
                let rule =
                    "a name is a lower-case letter and then at most 62 lower-case letters, digits, _ or dots";
                self.violations.push(FieldViolation::new(path, rule));
                continue;
            }
            let path = format!("{path}[\"{name}\"]");
            self.at_most(
                &format!("{path}.source"),
                attribute.source.len(),
                SOURCE_BYTES_MAX,
                "bytes",
            );
            self.attribute_value(&path, &attribute.value);
        }
    }

    fn attribute_value(&mut self, path: &str, value: &AttributeValue) {
        match value {
            AttributeValue::Double(number) => {
                self.require(
                    number.is_finite(),
                    format!("{path}.double_value"),
                    "must be finite",
                );
            }
            AttributeValue::Timestamp(seconds, nanos) => {
                // Years 1 to 9999, as protobuf's Timestamp.
                let ok = (-62_135_596_800..=253_402_300_799).contains(seconds)
                    && (0..=999_999_999).contains(nanos);
                self.require(
                    ok,
                    format!("{path}.timestamp_value"),
                    "must lie in the years 1 to 9999",
                );
            }
            AttributeValue::Strings(texts) => {
                self.at_most(
                    &format!("{path}.string_list_value.values"),
                    texts.len(),
                    STRINGS_MAX,
                    "texts",
                );
            }
            AttributeValue::String(_)
            | AttributeValue::Int64(_)
            | AttributeValue::Bool(_)
            | AttributeValue::Bytes(_) => {}
        }
    }

    fn at_most(&mut self, field: &str, actual: usize, limit: usize, what: &str) {
        self.require(
            actual <= limit,
            field,
            format!("at most {limit} {what}, here are {actual}"),
        );
    }
}

/// What is wrong with an identifier, and its kind: whoever typed it on a command line or into a form does not know its
/// place in the request.
fn of_kind(kind: IdentifierKind, what: &str) -> String {
    format!("{what} ({})", kind.name())
}

/// What occurred in the request so far.
#[derive(Default)]
struct Seen {
    identifiers: BTreeSet<Vec<u8>>,
    primaries: BTreeSet<IdentifierKind>,
    /// The identifier that the replacement at hand takes away: it may be its own successor.
    replaced: Option<Vec<u8>>,
}

/// Embeds, overrides or isolates a direction of text, or ends that (UAX #9, 2.1 to 2.5).
fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const NAME_RULE: &str = "is a lower-case letter and then at most 62 lower-case letters, digits or _";

fn is_name(name: &str, punctuation: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| is_name_byte(b, punctuation))
}

fn is_name_byte(byte: u8, punctuation: &str) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || punctuation.as_bytes().contains(&byte)
}
