//! Alarms: conditions that stand, since when, and no twice-told ones.

use std::sync::{Mutex, PoisonError};

use holdfast_types::Millis;
use holdfast_wire::convert::time;
use holdfast_wire::v1;

/// The alarms of a node.
#[derive(Debug, Default)]
pub(crate) struct Alarms(Mutex<Vec<(v1::AlarmKind, String, Millis)>>);

impl Alarms {
    /// Takes the conditions found now. One that was there before keeps its time; one that is new is logged.
    pub(crate) fn update(&self, now: Millis, conditions: Vec<(v1::AlarmKind, String)>) {
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *standing);
        for (kind, message) in conditions {
            let since = before
                .iter()
                .find(|(known, _, _)| *known == kind)
                .map(|(_, _, since)| *since);
            if since.is_none() {
                tracing::warn!(alarm = kind.as_str_name(), message, "an alarm was raised");
            }
            standing.push((kind, message, since.unwrap_or(now)));
        }
        for (kind, _, _) in before {
            if !standing.iter().any(|(still, _, _)| *still == kind) {
                tracing::info!(alarm = kind.as_str_name(), "an alarm has cleared");
            }
        }
    }

    /// The alarms that stand.
    pub(crate) fn standing(&self) -> Vec<v1::Alarm> {
        let standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        standing
            .iter()
            .map(|(kind, message, since)| v1::Alarm {
                kind: (*kind).into(),
                message: message.clone(),
                raise_time: Some(time::timestamp(*since)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_keeps_the_time_it_was_raised() {
        let alarms = Alarms::default();
        let condition = |message: &str| vec![(v1::AlarmKind::DiskFull, message.to_owned())];
        alarms.update(Millis(1_000), condition("9 MiB free"));
        alarms.update(Millis(2_000), condition("8 MiB free"));
        let standing = alarms.standing();
        assert_eq!(standing[0].message, "8 MiB free");
        assert_eq!(standing[0].raise_time, Some(time::timestamp(Millis(1_000))));
        alarms.update(Millis(3_000), Vec::new());
        assert!(alarms.standing().is_empty());
    }
}
