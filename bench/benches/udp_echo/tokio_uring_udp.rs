//! tokio-uring 0.5. It has neither multishot receives nor provided buffers for datagrams, so that a task is
//! needed for every datagram that is to be received at once.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::Sender;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::UdpSocket;

use crate::{Meter, bind};

/// Echoes for ever, with so many receives under way.
pub(crate) fn serve(meter: Meter, address: &Sender<SocketAddr>, tasks: usize) {
    tokio_uring::start(async {
        let (socket, local) = bind();
        let socket = Rc::new(UdpSocket::from_std(socket));
        let meter = Rc::new(RefCell::new(meter));
        let tasks: Vec<_> = (0..tasks)
            .map(|_| tokio_uring::spawn(echo(socket.clone(), meter.clone())))
            .collect();
        address.send(local).expect("main waits");
        for task in tasks {
            task.await.expect("echoes for ever");
        }
    });
}

async fn echo(socket: Rc<UdpSocket>, meter: Rc<RefCell<Meter>>) {
    let mut buffer = vec![0; 2_048];
    loop {
        let (received, full) = socket.recv_from(buffer).await;
        let (length, peer) = received.expect("loopback");
        buffer = full;
        let is_echoed = meter.borrow_mut().took(length);
        if is_echoed {
            let (sent, slice) = socket.send_to(buffer.slice(..length), peer).await;
            assert_eq!(sent.expect("loopback"), length);
            buffer = slice.into_inner();
        }
    }
}
