//! What the transport says when it turns a call away before any code of ours has seen it, in our words.
//!
//! tonic answers a message that cannot be decoded with INTERNAL, one that is too large with OUT_OF_RANGE, and
//! neither with details. To a caller the first two are mistakes of its own, so they become INVALID_ARGUMENT with
//! the place in a violation: the field where decoding stopped, or [`MESSAGE`] for the message as a whole.

use tonic::{Code, Status};

use super::{OutcomeView, Problem, Reason};

/// The field of a violation that is about the message as a whole.
pub const MESSAGE: &str = "message";

impl Problem {
    /// A status that the transport made.
    pub fn from_transport(status: &Status) -> Self {
        let said = status.message();
        match status.code() {
            Code::Internal | Code::InvalidArgument => unreadable(said),
            Code::OutOfRange | Code::ResourceExhausted => too_large(said),
            Code::Unimplemented if said.is_empty() => {
                Problem::new(Reason::Unimplemented, "this release does not know the method")
            }
            Code::Unimplemented => Problem::new(Reason::Unimplemented, said),
            Code::Cancelled | Code::DeadlineExceeded => Problem::deadline(OutcomeView::Unknown),
            _ => Problem::new(Reason::Internal, format!("the transport failed: {said}"))
                .outcome(OutcomeView::Unknown),
        }
    }
}

/// A message that is no message. prost names the way back from the place: `Message.field: Outer.field: what is wrong`.
fn unreadable(said: &str) -> Problem {
    let mut rest = said
        .strip_prefix("failed to decode Protobuf message: ")
        .unwrap_or(said);
    let mut path = Vec::new();
    while let Some((step, next)) = rest.split_once(": ")
        && let Some((_, field)) = step.split_once('.')
        && !step.contains(' ')
    {
        path.push(field);
        rest = next;
    }
    path.reverse();
    let field = if path.is_empty() {
        MESSAGE.to_owned()
    } else {
        path.join(".")
    };
    let description = format!("cannot be read: {rest}");
    Problem::new(Reason::InvalidField, format!("{field}: {description}")).violation(field, description)
}

fn too_large(said: &str) -> Problem {
    let (actual, limit) = (
        number_after(said, "found "),
        number_after(said, "limit is: ").or(number_after(said, "size limit, of ")),
    );
    let description = match limit {
        Some(limit) => format!("must be at most {limit} bytes"),
        None => format!("is too large: {said}"),
    };
    let mut problem = Problem::new(Reason::LimitExceeded, format!("{MESSAGE}: {description}"))
        .violation(MESSAGE, description)
        .fact("what", "message_bytes");
    for (key, value) in [("limit", limit), ("actual", actual)] {
        if let Some(value) = value {
            problem = problem.fact(key, value);
        }
    }
    problem
}

fn number_after(text: &str, before: &str) -> Option<u64> {
    let (_, after) = text.split_once(before)?;
    after
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::v1;

    #[test]
    fn the_place_where_decoding_stopped_is_named() {
        // CreateAccountRequest.account.display_name, which is not UTF-8.
        let name = [0x32, 0x02, 0xff, 0xfe];
        let account_tag = 3 << 3 | 2;
        let mut bytes = vec![account_tag, name.len() as u8];
        bytes.extend(name);
        let error = v1::CreateAccountRequest::decode(&*bytes).unwrap_err();
        let problem = Problem::from_transport(&Status::internal(error.to_string()));
        assert_eq!(problem.code(), Code::InvalidArgument);
        assert_eq!(problem.violations[0].field, "account.display_name");
        assert!(problem.violations[0].description.contains("UTF-8"), "{problem:?}");

        let error = v1::CreateAccountRequest::decode(&[0xff_u8][..]).unwrap_err();
        let problem = Problem::from_transport(&Status::internal(error.to_string()));
        assert_eq!(problem.violations[0].field, MESSAGE);
        let problem = Problem::from_transport(&Status::internal("Missing request message."));
        assert_eq!(problem.violations[0].field, MESSAGE);
    }

    #[test]
    fn the_largest_message_is_said() {
        let said = "Error, decoded message length too large: found 5000 bytes, the limit is: 4096 bytes";
        let problem = Problem::from_transport(&Status::out_of_range(said));
        assert_eq!(problem.reason, Reason::LimitExceeded);
        assert_eq!(
            (&*problem.metadata["limit"], &*problem.metadata["actual"]),
            ("4096", "5000")
        );
        assert_eq!(problem.message, "message: must be at most 4096 bytes");
    }

    #[test]
    fn only_what_never_ran_is_said_not_to_have_run() {
        let outcome = |status: Status| Problem::from_transport(&status).outcome;
        assert_eq!(outcome(Status::unimplemented("")), OutcomeView::NotApplied);
        assert_eq!(outcome(Status::cancelled("")), OutcomeView::Unknown);
        assert_eq!(outcome(Status::unknown("?")), OutcomeView::Unknown);
    }
}
