//! Runs the little language of the scripts against a realm in memory.
//!
//! ```text
//! create ann email=ann@example.com email!=a@example.com name="Ann Lee" label.tier=gold attr.age=7 restrict=fraud
//! update ann name=Ann locale=de-CH set.age=8 unset.age restrict= etag=1
//! change ann add:email=a@b.ch remove:phone=+41446681800 replace:email=old@b.ch>new@b.ch
//! delete ann | undelete ann | purge ann | import upsert ann email=…
//! race: create ann email=x@y.ch / create bob email=x@y.ch      (both evaluated before either is applied)
//! wait 30d | ahead 1h (the wall clock only) | realm quarantine=0s grace=1d window=1h bytes=2000 region=CH unverified=hold
//! show ann | claims | lookup email=ann@example.com
//! ```
//! Of an identifier, `!` after the kind says primary, `?` not primary, `~` verified. Any mutation takes `request=NAME` (the
//! same name is the same request id), `born=-2h` and `caller=NAME`. `ext:issuer=subject` is an external
//! identifier. In a name, `\u{202e}` is that character.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use holdfast_accounts::testing::MemoryView;
use holdfast_accounts::*;
use holdfast_types::*;

pub(crate) struct World {
    realm: Realm,
    view: MemoryView,
    wall: Millis,
    requests: BTreeMap<String, RequestId>,
    fresh: u8,
}

const START: Millis = Millis(1_800_000_000_000);

impl World {
    pub(crate) fn new() -> Self {
        let mut view = MemoryView::default();
        view.tick(START);
        let realm = Realm {
            id: RealmId::default_realm(),
            number: RealmNumber(1),
            slot_key: [7; 32],
            claim_keys: vec![ClaimKey { id: 1, key: [8; 32] }],
            config: RealmConfig::default(),
            revision: 1,
        };
        World {
            realm,
            view,
            wall: START,
            requests: BTreeMap::new(),
            fresh: 0,
        }
    }

    /// Runs one line and says what happened, one fact a line.
    pub(crate) fn run(&mut self, line: &str) -> Vec<String> {
        if let Some(both) = line.strip_prefix("race: ") {
            return self.race(both);
        }
        let words = words(line);
        let rest = &words[1..];
        match words[0].as_str() {
            "wait" => {
                self.wall = self.wall.plus(duration(&rest[0]));
                self.view.tick(self.wall);
                vec![]
            }
            "ahead" => {
                self.wall = self.wall.plus(duration(&rest[0]));
                vec![]
            }
            "realm" => {
                rest.iter().for_each(|word| self.configure(word));
                vec![]
            }
            "show" => self.show(&rest[0]),
            "claims" => self.claims(),
            "lookup" => self.lookup(&rest[0]),
            _ => {
                let request = self.request(&words);
                let evaluation = self.evaluate(&request);
                self.apply(evaluation)
            }
        }
    }

    fn race(&mut self, both: &str) -> Vec<String> {
        let requests: Vec<Request> = both.split(" / ").map(|line| self.request(&words(line))).collect();
        let evaluations: Vec<_> = requests.iter().map(|request| self.evaluate(request)).collect();
        let mut out = Vec::new();
        for (request, evaluation) in requests.iter().zip(evaluations) {
            let lines = self.apply(evaluation);
            let failed = lines[0].starts_with("guard failed");
            out.extend(lines);
            if failed {
                out.push("evaluated again:".into());
                let again = self.evaluate(request);
                out.extend(self.apply(again));
            }
        }
        out
    }

    fn evaluate(&self, request: &Request) -> Result<Evaluation, EvaluateError<std::convert::Infallible>> {
        let log_clock = self.view.log_clock();
        let ctx = Context {
            realm: &self.realm,
            now: self.wall.max(log_clock),
            log_clock,
        };
        evaluate(&self.view, &ctx, request)
    }

    fn apply(
        &mut self,
        evaluation: Result<Evaluation, EvaluateError<std::convert::Infallible>>,
    ) -> Vec<String> {
        let plan = match evaluation {
            Err(EvaluateError::Rejected(rejection)) => return rejected(&rejection),
            Err(error) => return vec![format!("error: {error}")],
            Ok(Evaluation::Replay(record)) => return vec![format!("replayed: {}", outcome(&record.outcome))],
            Ok(Evaluation::Propose(plan)) => plan,
        };
        if let Err(key) = self.view.apply(&plan, self.wall) {
            return vec![format!("guard failed: {}", self.key(&key))];
        }
        let guards = plan.guards.iter().map(|(key, expect)| match expect {
            Expect::Absent => format!("no {}", self.key(key)),
            Expect::Stamp(_) => self.key(key),
        });
        let writes = plan.writes.iter().map(|(key, row)| match row {
            None => format!("delete {}", self.key(key)),
            Some(Row::Claim(claim)) => format!("{} {}", self.key(key), self.claim(claim)),
            Some(_) => self.key(key),
        });
        let mut out = vec![
            outcome(&plan.outcome),
            format!("  read: {}", guards.collect::<Vec<_>>().join(", ")),
            format!("  wrote: {}", writes.collect::<Vec<_>>().join(", ")),
        ];
        for event in &plan.events {
            let kinds: Vec<_> = event.identifier_kinds.iter().map(|kind| kind.name()).collect();
            out.push(format!(
                "  event: {:?} fields [{}] kinds [{}]",
                event.kind,
                event.fields.join(" "),
                kinds.join(" ")
            ));
        }
        out
    }

    fn key(&self, key: &RowKey) -> String {
        match key {
            RowKey::Account(id) => format!("account {id}"),
            RowKey::Claim(identifier) => format!("claim {}", identifier.text),
            RowKey::Request(key) => {
                let name = self.requests.iter().find(|(_, id)| **id == key.request);
                format!("request {}", name.map_or("?", |(name, _)| name))
            }
            RowKey::Due(key) => format!("due {}", self.time(key.deadline)),
            RowKey::Realm(number) => format!("realm {}", number.0),
        }
    }

    fn claim(&self, claim: &Claim) -> String {
        let owner = &claim.owner;
        match claim.state {
            ClaimState::Held { verified: true } => format!("held by {owner}, verified"),
            ClaimState::Held { verified: false } => format!("held by {owner}"),
            ClaimState::Quarantined { until } => {
                format!("quarantined until {} (was {owner}'s)", self.time(until))
            }
        }
    }

    /// A time as hours since the story began.
    fn time(&self, time: Millis) -> String {
        format!("h{}", (time.0 - START.0) as f64 / 3_600_000.0)
    }

    fn show(&self, id: &str) -> Vec<String> {
        let account = self.view.account(&AccountId::new(id).unwrap()).unwrap();
        let Some(Versioned { value: account, .. }) = account else {
            return vec!["no such account".into()];
        };
        let mut out = vec![format!(
            "{} {} revision {}",
            account.id,
            account.state().name(),
            account.revision
        )];
        let mut fact = |name: &str, value: String| {
            if !value.is_empty() {
                out.push(format!("  {name}: {value}"));
            }
        };
        fact("name", account.display_name.clone());
        fact("locale", account.locale.clone());
        fact("time zone", account.time_zone.clone());
        for identifier in &account.identifiers {
            let mut line = format!("{} as {}", identifier.canonical.text, identifier.value);
            let proof = identifier.verification.as_ref();
            let flags = [
                (identifier.primary, "primary".to_owned()),
                (!identifier.login_enabled, "no login".to_owned()),
                (
                    proof.is_some(),
                    proof.map_or(String::new(), |proof| format!("verified by {}", proof.method)),
                ),
            ];
            for (_, flag) in flags.iter().filter(|(on, _)| *on) {
                write!(line, ", {flag}").unwrap();
            }
            fact(identifier.canonical.kind.name(), line);
        }
        for (name, attribute) in &account.attributes {
            fact(name, format!("{:?} from {:?}", attribute.value, attribute.source));
        }
        for (name, value) in &account.labels {
            fact("label", format!("{name}={value}"));
        }
        for restriction in &account.restrictions {
            fact(
                "restricted",
                format!(
                    "{} since {}",
                    restriction.code,
                    self.time(restriction.create_time)
                ),
            );
        }
        if let Some(deletion) = &account.deletion {
            fact("purge", self.time(deletion.purge_time));
        }
        out
    }

    fn claims(&self) -> Vec<String> {
        let line = |(bytes, claim): (&[u8], &Claim)| {
            let issuer_len = usize::from(u16::from_be_bytes([bytes[1], bytes[2]]));
            let (issuer, text) = bytes[3..].split_at(issuer_len);
            let (issuer, text) = (String::from_utf8_lossy(issuer), String::from_utf8_lossy(text));
            format!(
                "{issuer}{}{text} {}",
                if issuer.is_empty() { "" } else { " " },
                self.claim(claim)
            )
        };
        self.view.claims().map(line).collect()
    }

    /// As the service does it: claim, then account, then whether the account answers to it.
    fn lookup(&self, word: &str) -> Vec<String> {
        let old = reference(word);
        let canonical = canonicalize(old.kind, &old.value, &old.issuer, &self.realm.config).unwrap();
        let claim = self.view.claim(&canonical).unwrap();
        let account = claim.and_then(|claim| self.view.account(&claim.value.owner).unwrap());
        match account {
            Some(account) if lookup_accepts(&account.value, &canonical, &self.realm.config) => {
                vec![format!("found {}", account.value.id)]
            }
            _ => vec!["not found".into()],
        }
    }

    fn configure(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap();
        let config = &mut self.realm.config;
        match name {
            "quarantine" => config.quarantine_ms = duration(value),
            "grace" => config.deletion_grace_ms = duration(value),
            "window" => config.request_window_ms = duration(value),
            "bytes" => config.max_record_bytes = value.parse().unwrap(),
            "region" => config.default_phone_region = value.into(),
            "case" => config.email_local_part_case_insensitive = value == "insensitive",
            "unverified" => {
                config.unverified = match value {
                    "hold" => UnverifiedPolicy::HoldOnly,
                    _ => UnverifiedPolicy::LookupAndHold,
                }
            }
            _ => panic!("unknown rule {name}"),
        }
    }

    fn request(&mut self, words: &[String]) -> Request {
        let (mode, id, rest) = match words[0].as_str() {
            "import" => (Some(words[1].as_str()), &words[2], &words[3..]),
            _ => (None, &words[1], &words[2..]),
        };
        let mut envelope: BTreeMap<&str, &str> = BTreeMap::new();
        let mut content: Vec<&str> = Vec::new();
        for word in rest {
            match word.split_once('=') {
                Some((name @ ("request" | "born" | "caller" | "etag" | "actor" | "trace"), value)) => {
                    envelope.insert(name, value);
                }
                _ => content.push(word),
            }
        }
        let etag = envelope.get("etag").map(|etag| (*etag).to_owned());
        let account = AccountId::new(id.as_str()).unwrap();
        let operation = match words[0].as_str() {
            "create" => Operation::Create(new_account(&content)),
            "import" => Operation::Import {
                mode: match mode {
                    Some("upsert") => ImportMode::Upsert,
                    Some("skip") => ImportMode::Skip,
                    _ => ImportMode::Create,
                },
                account: new_account(&content),
            },
            "update" => Operation::Update(update(&content, etag)),
            "change" => {
                let changes = content.iter().map(|word| change(word)).collect();
                Operation::ChangeIdentifiers(ChangeIdentifiers { etag, changes })
            }
            "delete" => Operation::Delete { etag },
            "undelete" => Operation::Undelete { etag },
            "purge" => {
                let due = self.view.deadlines().find(|due| due.subject == account);
                let deadline = due.map_or(self.wall, |due| due.deadline);
                Operation::Purge { deadline }
            }
            other => panic!("unknown command {other}"),
        };
        let internal = matches!(operation, Operation::Purge { .. });
        Request {
            realm: self.realm.number,
            caller: Caller::new(*envelope.get("caller").unwrap_or(&"web")),
            actor: Actor {
                actor: (*envelope.get("actor").unwrap_or(&"")).into(),
                reason: String::new(),
                trace_id: (*envelope.get("trace").unwrap_or(&"")).into(),
            },
            request_id: (!internal).then(|| self.request_id(envelope.get("request"), envelope.get("born"))),
            account,
            operation,
        }
    }

    fn request_id(&mut self, name: Option<&&str>, born: Option<&&str>) -> RequestId {
        self.fresh += 1;
        let name = name.map_or_else(|| format!("#{}", self.fresh), |name| (*name).to_owned());
        let birth = match born.map(|born| born.split_at(1)) {
            None => self.wall,
            Some(("-", ago)) => self.wall.minus(duration(ago)),
            Some((_, ahead)) => self.wall.plus(duration(ahead)),
        };
        let id = RequestId::from_parts(birth, [self.fresh; 10]);
        *self.requests.entry(name).or_insert(id)
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { account, revision } => format!("done: {account} revision {revision}"),
        Outcome::Refused { account, refusal } => format!("refused: {account} {refusal:?}"),
    }
}

fn rejected(rejection: &Rejection) -> Vec<String> {
    match rejection {
        Rejection::Invalid(violations) => {
            let line =
                |violation: &FieldViolation| format!("  {}: {}", violation.field, violation.description);
            std::iter::once("invalid:".into())
                .chain(violations.iter().map(line))
                .collect()
        }
        Rejection::EtagMismatch { current } => vec![format!("rejected: etag is {current}")],
        Rejection::RequestIdReused => vec!["rejected: request id reused".into()],
        Rejection::RequestIdExpired { .. } => vec!["rejected: request id expired".into()],
        Rejection::RequestIdFromFuture { .. } => vec!["rejected: request id from the future".into()],
    }
}

fn new_account(words: &[&str]) -> NewAccount {
    let mut new = NewAccount::default();
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name.split_once('.') {
            Some(("label", name)) => {
                new.labels.insert(name.into(), value.into());
            }
            Some(("attr", name)) => {
                new.attributes.insert(name.into(), attribute(value));
            }
            _ => match name {
                "name" => new.display_name = unescaped(value),
                "locale" => new.locale = value.into(),
                "zone" => new.time_zone = value.into(),
                "restrict" => new.restrictions = codes(value),
                _ => new.identifiers.push(identifier(word)),
            },
        }
    }
    new
}

/// A text in which `\u{202e}` stands for a character that is better not seen in a script.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').unwrap();
        out.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
        out.push_str(rest);
    }
    out
}

fn update(words: &[&str], etag: Option<String>) -> Update {
    let mut update = Update {
        etag,
        ..Update::default()
    };
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name.split_once('.') {
            Some(("label", name)) => {
                update
                    .labels
                    .get_or_insert_default()
                    .insert(name.into(), value.into());
            }
            Some(("set", name)) => {
                update.set_attributes.insert(name.into(), attribute(value));
            }
            Some(("unset", name)) => {
                update.remove_attributes.insert(name.into());
            }
            _ => match name {
                "name" => update.display_name = Some(unescaped(value)),
                "locale" => update.locale = Some(value.into()),
                "zone" => update.time_zone = Some(value.into()),
                "restrict" => update.restrictions = Some(codes(value)),
                other => panic!("unknown field {other}"),
            },
        }
    }
    update
}

fn change(word: &str) -> IdentifierChange {
    let (what, identifier_word) = word.split_once(':').unwrap();
    match what {
        "add" => IdentifierChange::Add(identifier(identifier_word)),
        "remove" => IdentifierChange::Remove(reference(identifier_word)),
        "replace" => {
            let (old, new) = identifier_word.split_once('>').unwrap();
            let (kind, _) = old.split_once('=').unwrap();
            let plain = kind.trim_end_matches(['!', '?', '~']);
            let new = if new.contains('=') {
                new.to_owned()
            } else {
                format!("{kind}={new}")
            };
            let old = format!("{plain}={}", old.split_once('=').unwrap().1);
            IdentifierChange::Replace {
                old: reference(&old),
                new: identifier(&new),
            }
        }
        other => panic!("unknown change {other}"),
    }
}

fn identifier(word: &str) -> NewIdentifier {
    let (kind, _) = word
        .split_once('=')
        .unwrap_or_else(|| panic!("{word} is no identifier"));
    let IdentifierRef {
        kind: named,
        issuer,
        value,
    } = reference(word);
    NewIdentifier {
        kind: named,
        issuer,
        value,
        primary: match (kind.contains('!'), kind.contains('?')) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        login_enabled: None,
        verification: kind.contains('~').then(|| NewVerification::Verified {
            method: "link".into(),
            time: None,
        }),
    }
}

fn reference(word: &str) -> IdentifierRef {
    let (kind, value) = word.split_once('=').unwrap();
    let kind = kind.trim_end_matches(['!', '?', '~']);
    let (kind, issuer) = match kind.split_once(':') {
        Some(("ext", issuer)) => (IdentifierKind::External, issuer),
        _ => match kind {
            "email" => (IdentifierKind::Email, ""),
            "phone" => (IdentifierKind::Phone, ""),
            "username" => (IdentifierKind::Username, ""),
            other => panic!("unknown kind {other}"),
        },
    };
    IdentifierRef {
        kind,
        issuer: issuer.into(),
        value: value.into(),
    }
}

fn attribute(value: &str) -> NewAttribute {
    // `8*100` is a text of a hundred eights.
    let value = match value.split_once('*') {
        Some((text, times)) => AttributeValue::String(text.repeat(times.parse().unwrap())),
        None => value
            .parse()
            .map_or_else(|_| AttributeValue::String(value.into()), AttributeValue::Int64),
    };
    NewAttribute {
        value,
        source: "test".into(),
    }
}

fn codes(value: &str) -> BTreeSet<String> {
    value
        .split(',')
        .filter(|code| !code.is_empty())
        .map(str::to_owned)
        .collect()
}

fn duration(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => panic!("unknown unit in {text}"),
    };
    number.parse::<u64>().unwrap() * unit_ms
}

/// Splits at spaces outside double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
