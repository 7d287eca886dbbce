//! The public methods: what each is called in metrics, how much time it has, and what it counts as.
//!
//! The published `service_config.json` names the same deadlines for clients; these hold for a client that
//! sends none.

use std::sync::OnceLock;
use std::time::Duration;

use crate::admission::Work;
use crate::telemetry::Series;

/// A public method.
#[derive(Debug)]
pub(crate) struct Method {
    /// Full path without the leading slash.
    pub(crate) name: &'static str,
    /// How long a call without a deadline may take.
    pub(crate) default: Duration,
    /// How long any call may take.
    pub(crate) most: Duration,
    /// What permits it needs; `None`: none, so that operators can always look and act.
    pub(crate) work: Option<Work>,
    /// Its numbers.
    pub(crate) series: OnceLock<Series>,
}

impl Method {
    /// Whether it is one of the account service's.
    pub(crate) fn is_about_accounts(&self) -> bool {
        self.name.contains(".AccountService/")
    }
}

const fn method(name: &'static str, default_s: u64, most_s: u64, work: Option<Work>) -> Method {
    Method {
        name,
        default: Duration::from_secs(default_s),
        most: Duration::from_secs(most_s),
        work,
        series: OnceLock::new(),
    }
}

macro_rules! methods {
    ($($ident:ident = $name:literal, $default_s:literal, $most_s:literal, $work:expr;)*) => {
        $(
            #[doc = $name]
            pub(crate) static $ident: Method = method($name, $default_s, $most_s, $work);
        )*
    };
}

methods! {
    CREATE_ACCOUNT = "holdfast.v1.AccountService/CreateAccount", 10, 60, Some(Work::Write);
    UPDATE_ACCOUNT = "holdfast.v1.AccountService/UpdateAccount", 10, 60, Some(Work::Write);
    CHANGE_IDENTIFIERS = "holdfast.v1.AccountService/ChangeIdentifiers", 10, 60, Some(Work::Write);
    DELETE_ACCOUNT = "holdfast.v1.AccountService/DeleteAccount", 10, 60, Some(Work::Write);
    UNDELETE_ACCOUNT = "holdfast.v1.AccountService/UndeleteAccount", 10, 60, Some(Work::Write);
    GET_ACCOUNT = "holdfast.v1.AccountService/GetAccount", 5, 60, Some(Work::Read);
    BATCH_GET_ACCOUNTS = "holdfast.v1.AccountService/BatchGetAccounts", 5, 60, Some(Work::Read);
    LOOKUP_ACCOUNT = "holdfast.v1.AccountService/LookupAccount", 5, 60, Some(Work::Read);
    LIST_ACCOUNTS = "holdfast.v1.AccountService/ListAccounts", 15, 60, Some(Work::Read);
    // Streams end when the caller wants, and the caller ends them.
    IMPORT_ACCOUNTS = "holdfast.v1.AccountService/ImportAccounts", 604_800, 604_800, Some(Work::Stream);
    EXPORT_ACCOUNTS = "holdfast.v1.AccountService/ExportAccounts", 86_400, 86_400, Some(Work::Stream);
    GET_REALM = "holdfast.v1.RealmService/GetRealm", 5, 60, Some(Work::Read);
    UPDATE_REALM = "holdfast.v1.RealmService/UpdateRealm", 10, 60, Some(Work::Write);
    GET_STATUS = "holdfast.v1.ClusterService/GetStatus", 5, 60, None;
    ADD_LEARNER = "holdfast.v1.ClusterService/AddLearner", 30, 600, None;
    PROMOTE_MEMBER = "holdfast.v1.ClusterService/PromoteMember", 30, 600, None;
    REMOVE_MEMBER = "holdfast.v1.ClusterService/RemoveMember", 30, 600, None;
    REPLACE_MEMBER = "holdfast.v1.ClusterService/ReplaceMember", 600, 3_600, None;
    TRANSFER_LEADERSHIP = "holdfast.v1.ClusterService/TransferLeadership", 15, 60, None;
    DRAIN = "holdfast.v1.ClusterService/Drain", 30, 600, None;
    TRIGGER_SNAPSHOT = "holdfast.v1.ClusterService/TriggerSnapshot", 60, 600, None;
}
