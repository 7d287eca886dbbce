//! How a channel to one address is made. The only file that knows TLS, which the simulator does not have.

use tonic::transport::{Channel, Endpoint};

use crate::config::ClientConfig;

/// An endpoint that cannot be used, or TLS options that cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint `{endpoint}` cannot be used: {why}")]
pub struct InvalidEndpoint {
    /// What was given.
    pub endpoint: String,
    /// What is wrong with it.
    pub why: String,
}

/// Makes channels with the same settings. They connect at first use and reconnect by themselves.
#[derive(Clone)]
pub(crate) struct Connector {
    connect_timeout: std::time::Duration,
    #[cfg(not(madsim))]
    tls: Option<tonic::transport::ClientTlsConfig>,
}

impl Connector {
    #[cfg(madsim)]
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, InvalidEndpoint> {
        Ok(Connector {
            connect_timeout: config.connect_timeout,
        })
    }

    #[cfg(not(madsim))]
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, InvalidEndpoint> {
        use tonic::transport::{Certificate, ClientTlsConfig, Identity};
        let tls = config.tls.as_ref().map(|options| {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&options.ca_pem));
            if let Some((certificate, key)) = &options.identity_pem {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            if let Some(name) = &options.server_name {
                tls = tls.domain_name(name);
            }
            tls
        });
        Ok(Connector {
            connect_timeout: config.connect_timeout,
            tls,
        })
    }

    /// A channel to `host:port`.
    #[cfg(madsim)]
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, InvalidEndpoint> {
        Ok(tonic::connect_lazy(&self.endpoint(address, "http")?))
    }

    /// A channel to `host:port`.
    #[cfg(not(madsim))]
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, InvalidEndpoint> {
        let Some(tls) = &self.tls else {
            return Ok(tonic::connect_lazy(&self.endpoint(address, "http")?));
        };
        let endpoint = self.endpoint(address, "https")?;
        let endpoint = endpoint
            .tls_config(tls.clone())
            .map_err(|error| invalid(address, &error))?;
        Ok(tonic::connect_lazy(&endpoint))
    }

    fn endpoint(&self, address: &str, scheme: &str) -> Result<Endpoint, InvalidEndpoint> {
        use std::time::Duration;
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| invalid(address, &error))?;
        // A peer that vanished without a word is noticed within ten seconds while calls are waiting for it
        // (attempts have a limit of their own; this is for streams).
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5)))
    }
}

fn invalid(address: &str, error: &dyn std::error::Error) -> InvalidEndpoint {
    let mut why = error.to_string();
    if let Some(source) = error.source() {
        why = format!("{why}: {source}");
    }
    InvalidEndpoint {
        endpoint: address.to_owned(),
        why,
    }
}
