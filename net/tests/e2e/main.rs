//! Servers and clients of this crate against each other over loopback, with real sockets and rings.
//! One scenario per file.

mod close;
mod echo;
mod flood;
mod heartbeat;
mod idle;
mod protocol;
mod restart;
mod rig;
mod strays;
mod windows;
