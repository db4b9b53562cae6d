//! What holds a connection back, and that it is held: flow control, keys, memory, the path's MTU,
//! closing. One target, as each links two more QUIC stacks for the network it shares.

#[path = "../common/mod.rs"]
mod common;

mod blocked;
mod budget;
mod closing;
mod initials;
mod key_limits;
mod mtu;
