//! The limits that hold in every realm. Sizes are bytes of UTF-8 unless their name says otherwise.

/// Identifiers of an account.
pub const IDENTIFIERS_MAX: usize = 32;
/// Changes in one [`crate::ChangeIdentifiers`].
pub const CHANGES_MAX: usize = 64;
/// Attributes of an account.
pub const ATTRIBUTES_MAX: usize = 256;
/// Labels of an account.
pub const LABELS_MAX: usize = 32;
/// Restrictions of an account.
pub const RESTRICTIONS_MAX: usize = 32;
/// Texts in one attribute of that type.
pub const STRINGS_MAX: usize = 1_024;
/// A display name.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;
/// A language tag.
pub const LOCALE_BYTES_MAX: usize = 35;
/// A time zone's name.
pub const TIME_ZONE_BYTES_MAX: usize = 64;
/// Names of attributes and labels, codes of restrictions, methods of verification; values of labels.
pub const NAME_BYTES_MAX: usize = 63;
/// The source of an attribute.
pub const SOURCE_BYTES_MAX: usize = 128;
/// An identifier as typed: 64 for a local part, 255 for a domain (RFC 5321), and the `@`.
pub const IDENTIFIER_BYTES_MAX: usize = 320;
/// An external issuer.
pub const ISSUER_BYTES_MAX: usize = 255;
/// The actor of a request.
pub const ACTOR_BYTES_MAX: usize = 256;
/// The reason of a request.
pub const REASON_BYTES_MAX: usize = 1_024;
/// How far in the future a request id or a verification may lie, milliseconds: clocks differ.
pub const CLOCK_SKEW_MS_MAX: u64 = 300_000;
