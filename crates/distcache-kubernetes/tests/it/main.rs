//! The provider against a fake API server, and the manifests in `deploy/kubernetes`.
//!
//! There is no Kubernetes where these tests run. `apiserver` is a fake of the one resource that is asked for: it lists and
//! watches pods over real TLS and real sockets, checks every request strictly, and is as awkward as the real one is known to
//! be. What it checks and how it answers follows the API's documentation, not an API server.

#![allow(clippy::unwrap_used)]

mod apiserver;
mod conformance;
mod manifests;
mod patience;
mod pods;
mod refusals;
mod watching;
