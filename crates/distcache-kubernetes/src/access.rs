//! Whom to ask, and as whom: the pod's service account, a kubeconfig file, or what the caller has put together.
//!
//! Knows where credentials lie and reads them anew each time it is asked, so that whatever rotated is taken. The invariant: what
//! it holds is never shown.

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::ConfigExt;
use kube::config::Kubeconfig;
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use crate::failure::Failure;
use crate::limits::ANSWER_TIMEOUT;
use crate::settings::is_dns_label;

#[derive(Clone)]
pub(crate) enum Access {
    InCluster,
    Kubeconfig(PathBuf),
    Given(Box<Config>),
}

pub(crate) type Request = http::Request<Empty<Bytes>>;
pub(crate) type Response = http::Response<hyper::body::Incoming>;
/// A client that puts address, token and certificates to each request.
pub(crate) type Service = BoxCloneService<Request, Response, BoxError>;

impl Access {
    /// Reads files; a kubeconfig may also tell to run a program. Not for a thread that others wait for.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let mut config = match self {
            Self::Given(config) => (**config).clone(),
            Self::InCluster => Config::incluster().map_err(|error| {
                Failure::settings(format!(
                    "{error}; this is no pod of a cluster, or one without the token of its service account"
                ))
            })?,
            Self::Kubeconfig(path) => {
                let of_file = |error| match Failure::of_kubeconfig(&error) {
                    Failure::Settings(text) => Failure::settings(format!("kubeconfig = {path:?}: {text}")),
                    other => other,
                };
                Kubeconfig::read_from(path).and_then(Config::try_from).map_err(of_file)?
            }
        };
        // The file may end with a line feed.
        config.default_namespace = config.default_namespace.trim().to_owned();
        match is_dns_label(&config.default_namespace) {
            true => Ok(config),
            false => Err(Failure::settings(format!("the namespace {:?} is none", config.default_namespace))),
        }
    }
}

/// A new client, with credentials as they are now. Its connections end with it.
///
/// Not kube's own: that logs every failure as an error and repeats requests for minutes on end.
pub(crate) fn service(config: &Config) -> Result<Service, Failure> {
    if config.proxy_url.is_some() {
        return Err(Failure::settings("the kubeconfig asks for a proxy, which is not supported"));
    }
    provide_cryptography();
    let of_access = |error: kube::Error| Failure::of_access(&error);
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(ANSWER_TIMEOUT));
    connector.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(connector).map_err(of_access)?;
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(of_access)?)
        .layer(config.extra_headers_layer().map_err(of_access)?)
        .map_err(BoxError::from)
        .service(client);
    Ok(stack.boxed_clone())
}

/// kube takes the process's provider. Where several are compiled in and nobody has chosen, looking for it is a panic.
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error says that somebody else has chosen meanwhile.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
