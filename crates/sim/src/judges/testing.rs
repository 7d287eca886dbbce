//! Short notations for the small histories that judges are tested with.

use proptest::test_runner::Config as ProptestConfig;

use crate::history::*;

/// This many cases, and no files about failures: a failing case prints its seed.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// An account that is there and active.
pub(crate) fn view(account: &str, revision: u64, fingerprint: &str, identifiers: &[&str]) -> AccountView {
    AccountView {
        account: account.into(),
        revision,
        fingerprint: fingerprint.into(),
        identifiers: strings(identifiers),
        state: State::Active,
        update_time_ms: 0,
        purge_time_ms: None,
    }
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn create(account: &str, fingerprint: &str, identifiers: &[&str]) -> Input {
    Input::Create {
        account: account.into(),
        fingerprint: fingerprint.into(),
        identifiers: strings(identifiers),
    }
}

pub(crate) fn update(account: &str, fingerprint: &str) -> Input {
    Input::Update {
        account: account.into(),
        if_etag: None,
        fingerprint: fingerprint.into(),
    }
}

pub(crate) fn change(account: &str, add: &[&str], remove: &[&str]) -> Input {
    Input::ChangeIdentifiers {
        account: account.into(),
        if_etag: None,
        add: strings(add),
        remove: strings(remove),
    }
}

pub(crate) fn delete(account: &str) -> Input {
    Input::Delete {
        account: account.into(),
        if_etag: None,
    }
}

pub(crate) fn get(account: &str) -> Input {
    Input::Get {
        account: account.into(),
        consistency: Consistency::Linearizable,
    }
}

pub(crate) fn get_with(account: &str, consistency: Consistency) -> Input {
    Input::Get {
        account: account.into(),
        consistency,
    }
}

pub(crate) fn lookup(identifier: &str) -> Input {
    Input::Lookup {
        identifier: identifier.into(),
        consistency: Consistency::Linearizable,
    }
}

pub(crate) fn batch(accounts: &[&str]) -> Input {
    Input::BatchGet {
        accounts: strings(accounts),
        consistency: Consistency::Linearizable,
    }
}

/// A mutation's answer.
pub(crate) fn made(view: AccountView) -> Output {
    Output::Changed {
        revision: view.revision,
        account: view,
    }
}

pub(crate) fn found(accounts: Vec<AccountView>) -> Output {
    Output::Batch {
        accounts,
        not_found: Vec::new(),
        unread: Vec::new(),
    }
}

impl History {
    /// Adds a call by client 1 between two times, with a request id of its own if it is a mutation.
    pub(crate) fn call(&mut self, times: (u64, u64), input: Input, outcome: Outcome) -> &mut Operation {
        let id = self.operations.len() as u64 + 1;
        let operation = Operation {
            id,
            client: 1,
            invoked: times.0,
            returned: Some(times.1),
            request_id: input.changes().map(|_| format!("r{id}")),
            input,
            outcome,
        };
        self.operations.push(operation);
        self.operations.last_mut().expect("just pushed")
    }

    /// Adds a call that was answered.
    pub(crate) fn ok(&mut self, times: (u64, u64), input: Input, output: Output) -> &mut Operation {
        let position = None;
        self.call(times, input, Outcome::Ok { output, position })
    }

    /// Adds a call that was answered with a token.
    pub(crate) fn ok_at(
        &mut self,
        times: (u64, u64),
        position: u64,
        input: Input,
        output: Output,
    ) -> &mut Operation {
        let position = Some(position);
        self.call(times, input, Outcome::Ok { output, position })
    }

    /// Adds a call that had no effect.
    pub(crate) fn no(&mut self, times: (u64, u64), input: Input, reason: Reason) -> &mut Operation {
        self.call(times, input, Outcome::DefinitelyNot(reason))
    }

    /// Adds a call of unknown outcome.
    pub(crate) fn unknown(&mut self, times: (u64, u64), input: Input) -> &mut Operation {
        self.call(times, input, Outcome::Unknown)
    }
}

/// Steele, Lea & Flood's SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
