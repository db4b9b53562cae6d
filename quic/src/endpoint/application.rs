//! The application's calls on a connection, beside those on its streams.

use bytes::Bytes;

use super::Endpoint;
use crate::connection::{Connection, Cx, Flags, NotOpen, Path, State};
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::time::Time;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Sends an unreliable datagram (RFC 9221). It is refused when the peer takes none so large;
    /// when the buffer is full the oldest ones go.
    pub fn send_datagram(&mut self, now: Time, handle: Handle, data: Bytes) -> Result<(), NotOpen> {
        self.on_open(now, handle, |conn, cx| conn.send_datagram(cx, data))
    }

    /// Sends a PING: one packet each way, without an active part on an idle connection (T10).
    /// [`Event::Pong`] tells when it was acknowledged.
    pub fn ping(&mut self, now: Time, handle: Handle) -> Result<(), NotOpen> {
        self.on_open(now, handle, |conn, _| {
            if conn.state != State::Open {
                return Err(NotOpen);
            }
            conn.flags.set(Flags::PING_WANTED, true);
            conn.flags.set(Flags::PONG_WANTED, true);
            Ok(())
        })
    }

    /// Closes with an application's code (RFC 9000 10.2).
    pub fn close(&mut self, now: Time, handle: Handle, code: u64) {
        self.close_with_reason(now, handle, code, b"");
    }

    /// Closes with an application's code and a phrase for the peer, of which 128 bytes are sent.
    pub fn close_with_reason(&mut self, now: Time, handle: Handle, code: u64, reason: &[u8]) {
        if let Some(index) = self.find(handle) {
            let (conn, mut cx) = parts!(self, now, index);
            conn.close_by_application(&mut cx, code, reason);
            self.settle(now, index, true);
        }
    }

    /// Updates the keys of a connection (RFC 9001 6); refused while that is not permitted.
    pub fn update_keys(&mut self, now: Time, handle: Handle) -> Result<(), NotOpen> {
        self.on_open(now, handle, |conn, cx| {
            if conn.state != State::Open || !conn.may_update_keys() {
                return Err(NotOpen);
            }
            conn.rotate_local(cx);
            Ok(())
        })
    }

    /// Raises the receive windows of a connection, after authentication; false when the shard's
    /// memory is too tight to promise more (T8).
    pub fn set_windows(
        &mut self,
        now: Time,
        handle: Handle,
        stream: u32,
        connection: u32,
    ) -> Result<bool, NotOpen> {
        let tight = self.budget.is_tight();
        self.on_open(now, handle, |conn, cx| match tight {
            true => Ok(false),
            false => conn.set_windows(cx, stream, connection).map(|()| true),
        })
    }

    /// Moves a client's connection to another local socket (RFC 9000 9).
    pub fn migrate(&mut self, now: Time, handle: Handle, socket: u16) -> Result<(), NotOpen> {
        let index = self.find(handle).ok_or(NotOpen)?;
        let old = self.slab[index].path();
        self.on_open(now, handle, |conn, cx| conn.migrate(cx, socket))?;
        if self.codec.format.is_empty() {
            self.paths.insert(Path { socket, ..old }, handle);
        }
        Ok(())
    }

    /// Sets the application's index of a connection.
    pub fn set_app(&mut self, handle: Handle, app: u32) {
        if let Some(index) = self.find(handle) {
            self.slab[index].app = app;
        }
    }

    fn on_open<R>(
        &mut self,
        now: Time,
        handle: Handle,
        f: impl FnOnce(&mut Connection<T>, &mut Cx<'_, A>) -> Result<R, NotOpen>,
    ) -> Result<R, NotOpen> {
        let index = self.find(handle).ok_or(NotOpen)?;
        let (conn, mut cx) = parts!(self, now, index);
        let result = f(conn, &mut cx);
        self.settle(now, index, result.is_ok());
        result
    }
}
