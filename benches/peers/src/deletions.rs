//! Accounts of Holdfast that are deleted all at once, so that their grace periods end all at once too; and how many of them
//! are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use holdfast_bench::Population;
use holdfast_client::{CallOptions, Client, v1};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{TargetArgs, holdfast};

/// Calls under way.
const CONCURRENT: u64 = 64;
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Which accounts.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// How many: those with the numbers from 0.
    #[arg(long)]
    accounts: u64,
    /// Of which seed.
    #[arg(long)]
    seed: u32,
    /// Delete nothing; print how many are purged.
    #[arg(long)]
    count_purged: bool,
}

/// Deletes them, or counts.
pub(crate) async fn run(args: &DeleteArgs) -> Result<(), String> {
    let client = holdfast::client(&args.target.setup(1))?;
    let population = Population {
        seed: args.seed,
        payload_bytes: 0,
    };
    let next = Arc::new(AtomicU64::new(0));
    let (accounts, count) = (args.accounts, args.count_purged);
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENT.min(accounts) {
        let (client, next) = (client.clone(), next.clone());
        workers.spawn(async move {
            let mut purged = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= accounts {
                    return Ok::<u64, String>(purged);
                }
                let name = format!("realms/default/accounts/{}", population.id(number));
                if count {
                    purged += u64::from(is_purged(&client, name).await?);
                } else {
                    delete(&client, name).await?;
                }
            }
        });
    }
    let mut purged = 0;
    while let Some(worker) = workers.join_next().await {
        purged += worker.map_err(|why| why.to_string())??;
    }
    if count {
        println!("{purged}");
    }
    Ok(())
}

async fn delete(client: &Client, name: String) -> Result<(), String> {
    let request = v1::DeleteAccountRequest {
        name,
        ..v1::DeleteAccountRequest::default()
    };
    let deleted = client
        .delete_account(request, &CallOptions::deadline(CALL_LIMIT))
        .await;
    deleted.map(drop).map_err(|why| why.to_string())
}

/// One that is only deleted is still found.
async fn is_purged(client: &Client, name: String) -> Result<bool, String> {
    let request = v1::GetAccountRequest {
        name,
        consistency: None,
    };
    match client
        .get_account(request, &CallOptions::deadline(CALL_LIMIT))
        .await
    {
        Ok(_) => Ok(false),
        Err(error) if error.code == Code::NotFound || error.reason == "ACCOUNT_PURGED" => Ok(true),
        Err(error) => Err(error.to_string()),
    }
}
