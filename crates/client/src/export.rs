//! An export: all accounts of a realm, at one position of the change log.
//!
//! Opening it is retried like any call. Once batches flow, a failure ends it: another stream would show another
//! moment, and a mixture of two would be neither. Whoever wants all of it starts again.

use std::time::Duration;

use holdfast_wire::v1;
use tonic::{Code, Response, Status, Streaming};

use crate::account::service;
use crate::call::{Call, Effect};
use crate::client::Client;
use crate::config::CallOptions;
use crate::error::{ClientError, Outcome};

/// How long the service may stay silent between two batches.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An export under way.
pub struct Export {
    /// Where in the change log it stands.
    pub header: v1::ExportHeader,
    stream: Streaming<v1::ExportAccountsResponse>,
}

impl Client {
    /// Opens an export. The deadline of `options` is for opening it.
    pub async fn export_accounts(
        &self,
        mut request: v1::ExportAccountsRequest,
        options: &CallOptions,
    ) -> Result<Export, ClientError> {
        request.consistency = request.consistency.or_else(|| options.consistency.clone());
        let call = Call {
            opens_stream: true,
            ..self.call(options, Effect::Read)
        };
        let (header, stream) = call
            .run(request, |channel, request| async move {
                let response = service(channel).export_accounts(request).await?;
                let (metadata, mut stream, extensions) = response.into_parts();
                match stream.message().await?.and_then(|message| message.payload) {
                    Some(v1::export_accounts_response::Payload::Header(header)) => {
                        Ok(Response::from_parts(metadata, (header, stream), extensions))
                    }
                    _ => Err(Status::internal("the export did not begin with its header")),
                }
            })
            .await?;
        Ok(Export { header, stream })
    }
}

impl Export {
    /// The next accounts; `None` once all were read.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<v1::Account>>, ClientError> {
        loop {
            let message = match tokio::time::timeout(SILENCE_MAX, self.stream.message()).await {
                Ok(message) => message,
                Err(_) => Err(Status::unavailable(
                    "the service fell silent in the middle of an export",
                )),
            };
            let message = message.map_err(|status| {
                let mut error = ClientError::from_status(&status);
                error.outcome = Outcome::NotApplied;
                error
            })?;
            match message.map(|message| message.payload) {
                None => return Ok(None),
                Some(Some(v1::export_accounts_response::Payload::Batch(batch))) => {
                    return Ok(Some(batch.accounts));
                }
                // A kind of message of a later release.
                Some(None) => {}
                Some(Some(v1::export_accounts_response::Payload::Header(_))) => {
                    return Err(ClientError::local(
                        Code::Internal,
                        "a second header in the middle of an export",
                        Outcome::NotApplied,
                    ));
                }
            }
        }
    }
}
