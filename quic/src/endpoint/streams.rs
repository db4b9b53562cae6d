//! The application's calls on streams.

use super::Endpoint;
use crate::connection::{Connection, Cx};
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::frame::Dir;
use crate::streams::{Read, StreamError};
use crate::time::Time;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Opens a stream; `None` while the peer permits no more, or without such a connection.
    pub fn open(&mut self, now: Time, handle: Handle, dir: Dir) -> Option<u64> {
        let index = self.find(handle)?;
        let (conn, mut cx) = parts!(self, now, index);
        let id = conn.open(&mut cx, dir);
        self.settle(now, index, true);
        id
    }

    /// Buffers bytes on a stream; returns how many were taken. Fewer than given means that
    /// [`Event::StreamWritable`] will come.
    pub fn write(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        bytes: &[u8],
    ) -> Result<usize, StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.write(cx, id, bytes))
    }

    /// Ends the sending half of a stream after what was written.
    pub fn finish(&mut self, now: Time, handle: Handle, id: u64) -> Result<(), StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.finish(cx, id))
    }

    /// Abandons the sending half of a stream.
    pub fn reset(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        code: u64,
    ) -> Result<(), StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.reset(cx, id, code))
    }

    /// Asks the peer to stop sending on a stream.
    pub fn stop(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        code: u64,
    ) -> Result<(), StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.stop(cx, id, code))
    }

    /// Reads from a stream.
    pub fn read(
        &mut self,
        now: Time,
        handle: Handle,
        id: u64,
        out: &mut [u8],
    ) -> Result<Read, StreamError> {
        self.on_stream(now, handle, |conn, cx| conn.read(cx, id, out))
    }

    fn on_stream<R>(
        &mut self,
        now: Time,
        handle: Handle,
        f: impl FnOnce(&mut Connection<T>, &mut Cx<'_, A>) -> Result<R, StreamError>,
    ) -> Result<R, StreamError> {
        let index = self.find(handle).ok_or(StreamError::Closed)?;
        let (conn, mut cx) = parts!(self, now, index);
        let result = f(conn, &mut cx);
        self.settle(now, index, result.is_ok());
        result
    }
}
