//! quinn-proto as the first engine.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    error::{ConnectError, Error},
    event::{ConnId, ConnectParams, Event},
    quic::{Datagram, Engine, EngineConfig, Outbound},
};

/// quinn-proto behind the engine seam.
#[derive(Debug)]
pub struct Quinn;

impl Engine for Quinn {
    fn new(_: EngineConfig, _: Instant) -> Result<Self, Error> {
        Ok(Self)
    }
    fn receive(&mut self, _: Instant, _: Datagram<'_>, _: &mut impl Outbound) {}
    fn expire(&mut self, _: Instant, _: &mut impl Outbound) {}
    fn next_event(&mut self) -> Option<Event> {
        None
    }
    fn flush(&mut self, _: Instant, _: &mut impl Outbound) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn connect(&mut self, _: Instant, _: u16, _: &ConnectParams) -> Result<ConnId, ConnectError> {
        Err(ConnectError::NotAClient)
    }
    fn read(&mut self, _: ConnId) -> Option<Bytes> {
        None
    }
    fn write(&mut self, _: ConnId, _: &[u8]) -> usize {
        0
    }
    fn write_capacity(&self, _: ConnId) -> usize {
        0
    }
    fn finish(&mut self, _: ConnId) {}
    fn send_datagram(&mut self, _: ConnId, _: Bytes) -> bool {
        false
    }
    fn datagram_max(&mut self, _: ConnId) -> Option<usize> {
        None
    }
    fn ping(&mut self, _: ConnId) {}
    fn raise_receive_window(&mut self, _: ConnId, _: u32) {}
    fn close(&mut self, _: Instant, _: ConnId, _: u32, _: &[u8]) {}
    fn peer(&self, _: ConnId) -> Option<SocketAddr> {
        None
    }
    fn rtt(&self, _: ConnId) -> Option<Duration> {
        None
    }
    fn is_open(&self, _: ConnId) -> bool {
        false
    }
    fn open_connections(&self) -> Vec<ConnId> {
        Vec::new()
    }
    fn is_drained(&self) -> bool {
        true
    }
}
