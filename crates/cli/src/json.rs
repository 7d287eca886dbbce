//! The JSON form of an account: one line of an import, one line of an export, the answer of a command.
//!
//! Field names are those of the API. A line that was exported can be imported again: what the service sets is
//! read and ignored. A field that does not exist is an error, because a misspelt one would be lost in silence.
//! An attribute is bare where JSON says its type (text, whole number, number, true or false, list of texts) and
//! nobody said where it came from; otherwise it is an object with its type, as in
//! `{"string":"premium","source":"crm"}` or `{"timestamp":"2026-01-31T12:00:00Z"}`. Both are read everywhere.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_client::v1;
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use v1::attribute::Value as TypedValue;

/// An account as JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccountJson {
    #[serde(alias = "id", skip_serializing_if = "String::is_empty")]
    pub(crate) account_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) etag: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) revision: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) display_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) locale: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) time_zone: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) identifiers: Vec<IdentifierJson>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attributes: BTreeMap<String, AttributeForm>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) restrictions: Vec<RestrictionJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delete_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) purge_time: Option<String>,
}

/// An identifier as JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentifierJson {
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) issuer: String,
    pub(crate) value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) canonical_value: String,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub(crate) normalizer_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) primary: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login_enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verification: Option<VerificationJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<String>,
}

/// A verification as JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerificationJson {
    pub(crate) state: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verify_time: Option<String>,
}

/// A restriction as JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestrictionJson {
    pub(crate) code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<String>,
}

/// An attribute with its type, or a bare value whose type JSON tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "serde_json::Value")]
pub(crate) enum AttributeForm {
    /// `true`
    Bool(bool),
    /// `5`
    Int64(i64),
    /// `5.5`
    Double(f64),
    /// `"premium"`
    String(String),
    /// `["a","b"]`
    StringList(Vec<String>),
    /// `{"string":"premium"}`
    Typed(AttributeJson),
}

/// An attribute with its type: exactly one of the first seven fields.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AttributeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    string: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    int64: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    double: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bool: Option<bool>,
    /// Base64 with padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    string_list: Option<Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_time: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

impl AccountJson {
    /// The API's message, or what is wrong with a field. `account_id` is not part of it: requests have it apart.
    pub(crate) fn into_account(self) -> Result<v1::Account, String> {
        let mut identifiers = Vec::with_capacity(self.identifiers.len());
        for (at, identifier) in self.identifiers.into_iter().enumerate() {
            identifiers.push(
                identifier
                    .into_proto()
                    .map_err(|why| format!("identifiers[{at}].{why}"))?,
            );
        }
        let mut attributes = BTreeMap::new();
        for (name, form) in self.attributes {
            let attribute = form
                .into_proto()
                .map_err(|why| format!("attributes.{name}: {why}"))?;
            attributes.insert(name, attribute);
        }
        Ok(v1::Account {
            display_name: self.display_name,
            locale: self.locale,
            time_zone: self.time_zone,
            identifiers,
            attributes,
            labels: self.labels,
            restrictions: self
                .restrictions
                .into_iter()
                .map(|restriction| v1::Restriction {
                    code: restriction.code,
                    create_time: None,
                })
                .collect(),
            ..v1::Account::default()
        })
    }
}

impl From<v1::Account> for AccountJson {
    fn from(account: v1::Account) -> Self {
        AccountJson {
            state: state_name(account.state()).to_owned(),
            account_id: account.account_id,
            name: account.name,
            etag: account.etag,
            revision: account.revision,
            display_name: account.display_name,
            locale: account.locale,
            time_zone: account.time_zone,
            identifiers: account
                .identifiers
                .into_iter()
                .map(IdentifierJson::from)
                .collect(),
            attributes: account
                .attributes
                .into_iter()
                .map(|(name, attribute)| (name, attribute.into()))
                .collect(),
            labels: account.labels,
            restrictions: account
                .restrictions
                .into_iter()
                .map(|restriction| RestrictionJson {
                    code: restriction.code,
                    create_time: restriction.create_time.map(time_text),
                })
                .collect(),
            create_time: account.create_time.map(time_text),
            update_time: account.update_time.map(time_text),
            delete_time: account.delete_time.map(time_text),
            purge_time: account.purge_time.map(time_text),
        }
    }
}

impl IdentifierJson {
    pub(crate) fn into_proto(self) -> Result<v1::Identifier, String> {
        let verification = self.verification.map(VerificationJson::into_proto).transpose()?;
        Ok(v1::Identifier {
            kind: kind(&self.kind).map_err(|why| format!("kind: {why}"))?.into(),
            issuer: self.issuer,
            value: self.value,
            primary: self.primary,
            login_enabled: self.login_enabled,
            verification,
            ..v1::Identifier::default()
        })
    }
}

impl From<v1::Identifier> for IdentifierJson {
    fn from(identifier: v1::Identifier) -> Self {
        IdentifierJson {
            kind: kind_name(identifier.kind()),
            issuer: identifier.issuer,
            value: identifier.value,
            canonical_value: identifier.canonical_value,
            normalizer_version: identifier.normalizer_version,
            primary: identifier.primary,
            login_enabled: identifier.login_enabled,
            verification: identifier.verification.map(VerificationJson::from),
            create_time: identifier.create_time.map(time_text),
        }
    }
}

impl VerificationJson {
    fn into_proto(self) -> Result<v1::Verification, String> {
        let state = match self.state.to_ascii_uppercase().as_str() {
            "VERIFIED" => v1::VerificationState::Verified,
            "UNVERIFIED" => v1::VerificationState::Unverified,
            other => {
                return Err(format!(
                    "verification.state: `{other}` is neither VERIFIED nor UNVERIFIED"
                ));
            }
        };
        let verify_time = match self.verify_time {
            Some(text) => Some(time(&text).map_err(|why| format!("verification.verify_time: {why}"))?),
            None => None,
        };
        Ok(v1::Verification {
            state: state.into(),
            method: self.method,
            verify_time,
        })
    }
}

impl From<v1::Verification> for VerificationJson {
    fn from(verification: v1::Verification) -> Self {
        VerificationJson {
            state: match verification.state() {
                v1::VerificationState::Verified => "VERIFIED",
                _ => "UNVERIFIED",
            }
            .to_owned(),
            method: verification.method,
            verify_time: verification.verify_time.map(time_text),
        }
    }
}

impl TryFrom<serde_json::Value> for AttributeForm {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        use serde_json::Value;
        match value {
            Value::Bool(value) => Ok(AttributeForm::Bool(value)),
            Value::String(value) => Ok(AttributeForm::String(value)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Ok(AttributeForm::Int64(whole)),
                (None, Some(value)) if number.is_f64() => Ok(AttributeForm::Double(value)),
                _ => Err(format!("{number} does not fit into 64 bits with a sign")),
            },
            list @ Value::Array(_) => {
                let values =
                    serde_json::from_value(list).map_err(|_| "a list attribute is a list of texts")?;
                Ok(AttributeForm::StringList(values))
            }
            object @ Value::Object(_) => {
                let typed = serde_json::from_value(object).map_err(|error| format!("attribute: {error}"))?;
                Ok(AttributeForm::Typed(typed))
            }
            Value::Null => Err("an attribute cannot be null; leave it out".to_owned()),
        }
    }
}

impl AttributeForm {
    /// The API's message.
    pub(crate) fn into_proto(self) -> Result<v1::Attribute, String> {
        let (value, source) = match self {
            AttributeForm::Bool(value) => (TypedValue::BoolValue(value), String::new()),
            AttributeForm::Int64(value) => (TypedValue::Int64Value(value), String::new()),
            AttributeForm::Double(value) => (TypedValue::DoubleValue(value), String::new()),
            AttributeForm::String(value) => (TypedValue::StringValue(value), String::new()),
            AttributeForm::StringList(values) => (
                TypedValue::StringListValue(v1::StringList { values }),
                String::new(),
            ),
            AttributeForm::Typed(mut typed) => {
                let source = std::mem::take(&mut typed.source);
                (typed.into_value()?, source)
            }
        };
        Ok(v1::Attribute {
            value: Some(value),
            source,
            update_time: None,
        })
    }
}

impl AttributeJson {
    /// The value alone, as JSON.
    pub(crate) fn value_text(&self) -> String {
        let bare = AttributeJson {
            source: String::new(),
            update_time: None,
            ..self.clone()
        };
        match serde_json::to_value(bare) {
            Ok(serde_json::Value::Object(fields)) => fields.values().map(ToString::to_string).collect(),
            _ => String::new(),
        }
    }

    fn into_value(self) -> Result<TypedValue, String> {
        let candidates = [
            self.string.map(|value| Ok(TypedValue::StringValue(value))),
            self.int64.map(|value| Ok(TypedValue::Int64Value(value))),
            self.double.map(|value| Ok(TypedValue::DoubleValue(value))),
            self.bool.map(|value| Ok(TypedValue::BoolValue(value))),
            self.bytes.map(|text| {
                let bytes = STANDARD
                    .decode(&text)
                    .map_err(|error| format!("bytes: not base64: {error}"))?;
                Ok(TypedValue::BytesValue(bytes.into()))
            }),
            self.timestamp
                .map(|text| Ok(TypedValue::TimestampValue(time(&text)?))),
            self.string_list
                .map(|values| Ok(TypedValue::StringListValue(v1::StringList { values }))),
        ];
        let mut given = candidates.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(value), None) => value,
            _ => Err(
                "needs exactly one of string, int64, double, bool, bytes, timestamp, string_list".to_owned(),
            ),
        }
    }
}

impl From<v1::Attribute> for AttributeForm {
    fn from(attribute: v1::Attribute) -> Self {
        if !attribute.source.is_empty() {
            return AttributeForm::Typed(attribute.into());
        }
        match attribute.value {
            Some(TypedValue::StringValue(value)) => AttributeForm::String(value),
            Some(TypedValue::Int64Value(value)) => AttributeForm::Int64(value),
            Some(TypedValue::DoubleValue(value)) => AttributeForm::Double(value),
            Some(TypedValue::BoolValue(value)) => AttributeForm::Bool(value),
            Some(TypedValue::StringListValue(list)) => AttributeForm::StringList(list.values),
            _ => AttributeForm::Typed(attribute.into()),
        }
    }
}

impl From<v1::Attribute> for AttributeJson {
    fn from(attribute: v1::Attribute) -> Self {
        let mut json = AttributeJson {
            source: attribute.source,
            update_time: attribute.update_time.map(time_text),
            ..AttributeJson::default()
        };
        match attribute.value {
            Some(TypedValue::StringValue(value)) => json.string = Some(value),
            Some(TypedValue::Int64Value(value)) => json.int64 = Some(value),
            Some(TypedValue::DoubleValue(value)) => json.double = Some(value),
            Some(TypedValue::BoolValue(value)) => json.bool = Some(value),
            Some(TypedValue::BytesValue(value)) => json.bytes = Some(STANDARD.encode(value)),
            Some(TypedValue::TimestampValue(value)) => json.timestamp = Some(time_text(value)),
            Some(TypedValue::StringListValue(list)) => json.string_list = Some(list.values),
            None => {}
        }
        json
    }
}

/// `EMAIL`, `email` …
pub(crate) fn kind(text: &str) -> Result<v1::IdentifierKind, String> {
    match text.to_ascii_uppercase().as_str() {
        "EMAIL" => Ok(v1::IdentifierKind::Email),
        "PHONE" => Ok(v1::IdentifierKind::Phone),
        "USERNAME" => Ok(v1::IdentifierKind::Username),
        "EXTERNAL" => Ok(v1::IdentifierKind::External),
        _ => Err(format!(
            "unknown kind \"{text}\"; use email, phone, username or external"
        )),
    }
}

/// The name of a kind as lines have it: `email` …
fn kind_name(kind: v1::IdentifierKind) -> String {
    kind.as_str_name()
        .trim_start_matches("IDENTIFIER_KIND_")
        .to_lowercase()
}

/// The name of a state, without its prefix; empty if it is not said.
pub(crate) fn state_name(state: v1::AccountState) -> &'static str {
    match state {
        v1::AccountState::Unspecified => "",
        state => state.as_str_name().trim_start_matches("ACCOUNT_STATE_"),
    }
}

/// A state by its name without prefix.
pub(crate) fn state(text: &str) -> Result<v1::AccountState, String> {
    v1::AccountState::from_str_name(&format!(
        "ACCOUNT_STATE_{}",
        text.to_ascii_uppercase().replace('-', "_")
    ))
    .filter(|state| *state != v1::AccountState::Unspecified)
    .ok_or_else(|| format!("`{text}` is none of ACTIVE, SUSPENDED, PENDING_DELETION, DELETED, MERGED"))
}

/// RFC 3339, UTC.
pub(crate) fn time_text(time: Timestamp) -> String {
    match jiff::Timestamp::new(time.seconds, time.nanos) {
        Ok(timestamp) => timestamp.to_string(),
        // Outside what RFC 3339 can say; the number is still the truth.
        Err(_) => format!("{}s", time.seconds),
    }
}

/// Reads RFC 3339 with any offset.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    let timestamp: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("`{text}` is not a time such as 2026-01-31T12:00:00Z"))?;
    // protobuf wants the nanoseconds to count upwards, also before 1970.
    let nanos = timestamp.as_nanosecond();
    Ok(Timestamp {
        seconds: nanos.div_euclid(1_000_000_000) as i64,
        nanos: nanos.rem_euclid(1_000_000_000) as i32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"account_id":"a-1","display_name":"Zoë","identifiers":[
        {"kind":"email","value":"Z@Example.org","primary":true,
         "verification":{"state":"VERIFIED","method":"import","verify_time":"2026-01-31T12:00:00Z"}},
        {"kind":"EXTERNAL","issuer":"https://id.example","value":"42","login_enabled":false}],
        "attributes":{"plan":{"string":"premium","source":"crm"},"year":1990,"score":1.5,"ok":true,
         "tags":["a","b"],"raw":{"bytes":"AQID"},"since":{"timestamp":"1969-12-31T23:59:59.5Z"}},
        "labels":{"source":"migration"},"restrictions":[{"code":"fraud"}]}"#;

    #[test]
    fn a_line_becomes_the_message_it_says() {
        let json: AccountJson = serde_json::from_str(LINE).unwrap();
        assert_eq!(json.account_id, "a-1");
        let account = json.into_account().unwrap();
        assert_eq!(account.display_name, "Zoë");
        assert_eq!(account.identifiers[0].kind(), v1::IdentifierKind::Email);
        assert_eq!(account.identifiers[0].login_enabled, None);
        assert_eq!(account.identifiers[1].login_enabled, Some(false));
        assert_eq!(account.attributes["plan"].source, "crm");
        assert_eq!(
            account.attributes["year"].value,
            Some(TypedValue::Int64Value(1990))
        );
        assert_eq!(
            account.attributes["score"].value,
            Some(TypedValue::DoubleValue(1.5))
        );
        let Some(TypedValue::TimestampValue(since)) = account.attributes["since"].value else {
            panic!()
        };
        assert_eq!((since.seconds, since.nanos), (-1, 500_000_000));
        assert_eq!(account.restrictions[0].code, "fraud");
    }

    #[test]
    fn what_was_exported_can_be_imported() {
        let account = serde_json::from_str::<AccountJson>(LINE)
            .unwrap()
            .into_account()
            .unwrap();
        let exported = v1::Account {
            name: "realms/default/accounts/a-1".into(),
            account_id: "a-1".into(),
            etag: "3".into(),
            revision: 3,
            state: v1::AccountState::Suspended.into(),
            create_time: Some(Timestamp {
                seconds: 1_700_000_000,
                nanos: 5_000_000,
            }),
            ..account.clone()
        };
        let line = serde_json::to_string(&AccountJson::from(exported)).unwrap();
        assert!(!line.contains('\n'));
        let again: AccountJson = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (again.account_id.as_str(), again.state.as_str()),
            ("a-1", "SUSPENDED")
        );
        assert_eq!(again.create_time.as_deref(), Some("2023-11-14T22:13:20.005Z"));
        assert_eq!(again.into_account().unwrap(), account);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let wrong = |text: &str| match serde_json::from_str::<AccountJson>(text) {
            Err(error) => error.to_string(),
            Ok(json) => json.into_account().unwrap_err(),
        };
        assert!(wrong(r#"{"displayname":"x"}"#).contains("displayname"));
        assert!(wrong(r#"{"identifiers":[{"kind":"fax","value":"1"}]}"#).starts_with("identifiers[0].kind"));
        assert!(wrong(r#"{"attributes":{"a":{"string":"x","bool":true}}}"#).starts_with("attributes.a: "));
        assert!(wrong(r#"{"attributes":{"a":{"bytes":"?"}}}"#).contains("base64"));
        assert!(wrong(r#"{"attributes":{"a":{"strng":"?"}}}"#).contains("strng"));
        assert!(wrong(r#"{"attributes":{"a":18446744073709551615}}"#).contains("64 bits"));
        assert!(wrong(r#"{"attributes":{"a":[1]}}"#).contains("list of texts"));
        assert!(
            wrong(r#"{"identifiers":[{"kind":"email","value":"x","verification":{"state":"maybe"}}]}"#)
                .contains("verification.state")
        );
    }

    #[test]
    fn names_read_back() {
        for state_value in [v1::AccountState::Active, v1::AccountState::PendingDeletion] {
            assert_eq!(state(state_name(state_value)), Ok(state_value));
        }
        assert_eq!(state("pending-deletion"), Ok(v1::AccountState::PendingDeletion));
        assert!(state("unspecified").is_err());
        assert!(time("yesterday").is_err());
        assert_eq!(
            time_text(time("2026-01-31T13:00:00+01:00").unwrap()),
            "2026-01-31T12:00:00Z"
        );
    }
}
