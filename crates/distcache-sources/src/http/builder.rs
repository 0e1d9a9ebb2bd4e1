//! Describing an HTTP source.
//!
//! The invariant: what cannot work is refused here, by name; values of headers are shown to nobody.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    TRANSFER_ENCODING,
};

use super::HttpSource;
use super::client::{Client, Limits};
use super::error::HttpSourceError;
use super::template::{Template, shown};
use super::tls;

/// What the client writes by itself.
const NOT_TO_SET: [HeaderName; 6] =
    [CONNECTION, CONTENT_LENGTH, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, TRANSFER_ENCODING];

/// What to ask which server; [`build`](Self::build) makes it a source.
#[derive(Clone)]
#[must_use = "nothing is asked before `build`"]
pub struct HttpSourceBuilder {
    url: String,
    headers: Vec<(String, String)>,
    header_files: Vec<(String, PathBuf)>,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    body_bytes_max: usize,
    redirects_max: usize,
}

impl HttpSourceBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            headers: Vec::new(),
            header_files: Vec::new(),
            ca_file: None,
            timeout: Duration::from_secs(5),
            body_bytes_max: 4 << 20,
            redirects_max: 5,
        }
    }

    /// A header of every request, such as `Authorization` or `Accept`. Sent to the host of the URL alone, not to where it
    /// redirects; its value is in no log, error or `Debug`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same, its value in a file, without the white space around it. Read once, when the source is built.
    pub fn header_file(mut self, name: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        self.header_files.push((name.into(), file.into()));
        self
    }

    /// Behind `https`, trusts the certificates in this PEM file and no others; unless told, what the system trusts.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// How long one load may take, redirections and body included; 5 s unless told. The cache's load timeout bounds it too.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The largest body in bytes; 4 MiB unless told, which is also the largest value that an engine takes unless told. A larger
    /// one fails and is not read.
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// How many redirections are followed for one value; 5 unless told.
    pub fn redirects_max(mut self, redirects: usize) -> Self {
        self.redirects_max = redirects;
        self
    }

    /// Reads the files and makes the source. Asks nobody: a server that is down is no reason not to start.
    ///
    /// # Errors
    /// A URL without a place for the key, a header that is none, a file that cannot be read.
    pub fn build(self) -> Result<HttpSource, HttpSourceError> {
        let template = Template::parse(&self.url)?;
        let headers = self.all_headers()?;
        let tls = tls::config(self.ca_file.as_ref())?;
        let limits =
            Limits { timeout: self.timeout, body_bytes_max: self.body_bytes_max, redirects_max: self.redirects_max };
        Ok(HttpSource { template, client: Client::new(tls, headers, limits) })
    }

    fn all_headers(&self) -> Result<HeaderMap, HttpSourceError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            add(&mut headers, name, value)?;
        }
        for (name, path) in &self.header_files {
            let read = std::fs::read_to_string(path).map_err(|error| HttpSourceError::File {
                what: "file of a header",
                path: path.clone(),
                reason: error.to_string(),
            })?;
            add(&mut headers, name, read.trim())?;
        }
        Ok(headers)
    }
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), HttpSourceError> {
    let refused = |reason| HttpSourceError::Header { name: name.to_owned(), reason };
    let header = HeaderName::try_from(name).map_err(|_| refused("this is no name of a header"))?;
    if NOT_TO_SET.contains(&header) {
        return Err(refused("it is not to be set, requests have their own"));
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| refused("its value has characters that no header has"))?;
    value.set_sensitive(true);
    headers.append(header, value);
    Ok(())
}

impl fmt::Debug for HttpSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.iter().map(|(name, _)| name);
        let names: Vec<_> = headers.chain(self.header_files.iter().map(|(name, _)| name)).collect();
        f.debug_struct("HttpSourceBuilder")
            .field("url", &shown(&self.url))
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
