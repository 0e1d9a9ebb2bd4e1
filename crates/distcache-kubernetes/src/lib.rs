//! Kubernetes discovery for [`distcache`]: the nodes of a cache cluster are the pods that carry a label.
//!
//! ```no_run
//! use distcache::Engine;
//! use distcache_kubernetes::KubernetesDiscovery;
//!
//! # async fn start(pod_ip: std::net::IpAddr) -> Result<(), distcache::StartError> {
//! let engine = Engine::builder()
//!     .discovery(KubernetesDiscovery::new("app=distcache")) // of this pod's namespace, at the port named `gossip`
//!     .advertise(pod_ip)                                    // `status.podIP`, by the downward API
//!     .start()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Pods are listed once and watched from then on, so a question costs the API server nothing. What was seen last is answered
//! while the API server is away. The service account of the pods needs to `list` and `watch` `pods`, nothing else.
//!
//! The modules in reading order: `provider` (what a user builds), `settings` (what it was told), `access` (whom to ask, and as
//! whom), `watching` (list, watch, try again), `api` (the requests and their answers), `pod` (what of a pod matters), `known`
//! (the pods known now), `failure` (what went wrong, in words), `limits`.
#![warn(missing_docs)]

mod access;
mod api;
mod failure;
mod known;
mod limits;
mod pod;
mod provider;
mod settings;
mod watching;

pub use kube;

pub use pod::IpFamily;
pub use provider::KubernetesDiscovery;

/// The guide's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/discovery/kubernetes.md")]
struct Guide;
