//! tokio's `UdpSocket` on a runtime of one thread, as its documentation shows an echo.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;

use tokio::net::UdpSocket;

use crate::{Meter, bind};

/// Echoes for ever.
pub(crate) fn serve(meter: Meter, address: Sender<SocketAddr>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime")
        .block_on(echo(meter, address));
}

async fn echo(mut meter: Meter, address: Sender<SocketAddr>) {
    let (socket, local) = bind();
    socket.set_nonblocking(true).expect("a socket");
    let socket = UdpSocket::from_std(socket).expect("a socket");
    address.send(local).expect("main waits");
    let mut buffer = [0; 2_048];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.expect("loopback");
        if meter.took(length) {
            let sent = socket.send_to(&buffer[..length], peer).await;
            assert_eq!(sent.expect("loopback"), length);
        }
    }
}
