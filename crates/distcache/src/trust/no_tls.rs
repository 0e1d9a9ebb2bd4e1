//! In place of `tls` where it is not compiled in: TLS that nobody can have.

use std::convert::Infallible;
use std::net::SocketAddr;

use super::handshake::HandshakeError;
use crate::net::TcpStream;

/// Needs the feature `tls`; without it there is no value of this type.
#[derive(Clone, Debug)]
pub enum Tls {}

impl Tls {
    pub(crate) fn own_name_error(&self, _: &str) -> Option<String> {
        match *self {}
    }

    pub(crate) fn name_error(&self, _: &Shown, _: &str) -> Option<String> {
        match *self {}
    }

    pub(crate) async fn connect(
        &self,
        _: TcpStream,
        _: SocketAddr,
        _: Option<&str>,
    ) -> Result<Infallible, HandshakeError> {
        match *self {}
    }

    pub(crate) async fn accept(&self, _: TcpStream) -> Result<Infallible, HandshakeError> {
        match *self {}
    }
}

pub(crate) type Shown = ();

pub(crate) fn worded(error: HandshakeError) -> HandshakeError {
    error
}
