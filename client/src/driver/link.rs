//! The connection of the moment, as something to wait for.

use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use roadstead_proto::Deframer;

use super::Input;
use crate::error::Cause;
use crate::transport::{Connection, cause};

/// How long after the stream's end the connection's end must come.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection, as far as it has come.
pub(super) enum Link {
    Down,
    Dialling(Pin<Box<dyn Future<Output = Dialled> + Send>>),
    Up(Box<Up>),
}

pub(super) type Dialled = Result<(Connection, Option<String>), Cause>;

pub(super) struct Up {
    pub(super) connection: Connection,
    pub(super) deframer: Deframer,
    pub(super) out: BytesMut,
}

impl Link {
    /// Cancel-safe: the futures inside are, and the dial is kept in place.
    pub(super) async fn next_input(&mut self, may_read: bool) -> Input {
        match self {
            Self::Down => std::future::pending().await,
            Self::Dialling(dial) => Input::Dialled(dial.as_mut().await),
            Self::Up(up) => up.next_input(may_read).await,
        }
    }
}

impl Up {
    async fn next_input(&mut self, may_read: bool) -> Input {
        let Connection {
            quic, send, recv, ..
        } = &mut self.connection;
        tokio::select! {
            chunk = recv.read_chunk(usize::MAX, true), if may_read => match chunk {
                Ok(Some(chunk)) => Input::Received(chunk.bytes),
                Ok(None) | Err(_) => Input::Lost(why_closed(quic).await),
            },
            written = send.write(&self.out), if !self.out.is_empty() => match written {
                Ok(length) => Input::Wrote(length),
                Err(_) => Input::Lost(why_closed(quic).await),
            },
            error = quic.closed(), if !may_read => Input::Lost(cause(error)),
        }
    }
}

/// The stream has ended: the close that follows says why.
async fn why_closed(quic: &quinn::Connection) -> Cause {
    match tokio::time::timeout(CLOSE_TIMEOUT, quic.closed()).await {
        Ok(error) => cause(error),
        Err(_) => Cause::Protocol("the stream ended before the connection".into()),
    }
}
