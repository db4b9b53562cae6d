//! The event loop of one thread.
//!
//! A turn takes everything that completed, lets the engine and the application react, and enters the
//! kernel once: all packets, wake-ups and re-armed receives go in with the same call that waits for the
//! next event. A loop with nothing to do sleeps until the next timer.

use std::{net::SocketAddr, os::fd::AsRawFd, sync::Arc, time::Instant};

use io_uring::{opcode, squeue, types::Fd};

use crate::{
    config::DATAGRAM_BYTES_MAX,
    counters::Counters,
    driver::{App, Control, Io},
    error::Error,
    pace::Pace,
    queue::{self, Queue, Waker},
    quic::{Datagram, Engine, wire::is_initial},
    receive::Receiver,
    ring::{Completion, Ring},
    send::{Sender, Slots},
    setup::{Seed, Shards, Stray},
    spare::Spare,
    steer,
    udp::Socket,
};

/// Messages and strays taken per turn, so that neither starves the sockets.
const MESSAGES_PER_TURN: usize = 1024;

/// What an entry was, in the high half of its user data; the low half is the socket's place.
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const EVENT: u64 = 3 << 32;
const WAKE: u64 = 4 << 32;
const CANCEL: u64 = 5 << 32;
const KIND: u64 = !0 << 32;

/// Runs a seed's loop on this thread.
pub(crate) fn run<M, E, A>(seed: Seed<M, E>, app: A) -> Result<A, Error>
where
    M: Send + 'static,
    E: Engine,
    A: App<E, Message = M>,
{
    let mut looper = Looper::<M, E>::new(seed)?;
    let mut app = app;
    while !looper.turn(&mut app)? {}
    Ok(app)
}

struct Looper<M, E> {
    engine: E,
    control: Control,
    io: Sockets,
    inbox: Arc<Queue<M>>,
    strays: Arc<Queue<Stray>>,
    addresses: Vec<SocketAddr>,
    thread: u16,
}

/// The loop's half that talks to the kernel.
struct Sockets {
    ring: Ring,
    receiver: Receiver,
    slots: Slots,
    completed: Vec<Completion>,
    waker: Arc<Waker>,
    pace: Pace,
    spare: Spare,
    counters: Arc<Counters>,
    shards: Shards,
    own: u16,
    failed: Option<Error>,
    // Closed after the ring.
    sockets: Vec<Socket>,
}

impl<M: Send + 'static, E: Engine> Looper<M, E> {
    fn new(seed: Seed<M, E>) -> Result<Self, Error> {
        let engine = E::new(seed.engine.clone(), Instant::now())?;
        let addresses = seed.sockets.iter().map(Socket::local).collect();
        // A client's threads have nothing to forward: its ids do not steer.
        let shards = if seed.engine.server.is_some() {
            seed.shards
        } else {
            Arc::default()
        };
        let counters = seed.engine.counters;
        let io = Sockets::new(seed.sockets, seed.waker, counters, shards, seed.thread)?;
        Ok(Self {
            engine,
            control: Control::default(),
            io,
            inbox: seed.inbox,
            strays: seed.strays,
            addresses,
            thread: seed.thread,
        })
    }

    /// One turn. Answers whether it was the last.
    fn turn(&mut self, app: &mut impl App<E, Message = M>) -> Result<bool, Error> {
        let now = Instant::now();
        self.io.counters.turns.add(1);
        self.engine.set_behind(self.io.spare.is_none(now));
        self.io.reap(&mut self.engine, app, now)?;
        self.take_strays(app, now);
        self.engine.expire(now);
        self.admit(app, now);
        self.events(app, now);
        self.messages(app, now);
        let wanted = app.turn(&mut self.api(now));
        for socket in std::mem::take(&mut self.control.rebind) {
            self.addresses[usize::from(socket)] = self.io.rebind(socket)?;
        }
        self.engine.flush(now, &mut self.io.sender());
        self.io.send_wakes()?;
        if let Some(error) = self.io.failed.take() {
            return Err(error);
        }
        if self.control.stop {
            self.io.submit()?;
            return Ok(true);
        }
        self.sleep(now, wanted)?;
        Ok(false)
    }

    fn take_strays(&mut self, app: &impl App<E, Message = M>, now: Instant) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(mut stray) = self.strays.pop() else {
                break;
            };
            self.io.counters.strays_taken.add(1);
            let datagram = Datagram {
                socket: stray.socket,
                peer: stray.peer,
                data: &mut stray.data,
            };
            let out = &mut self.io.sender();
            receive(&mut self.engine, app, now, datagram, out);
        }
    }

    /// Begins handshakes of newcomers, as the application permits.
    fn admit(&mut self, app: &mut impl App<E, Message = M>, now: Instant) {
        let mut refused = 0;
        let mut proven = |peer| {
            let admitted = app.proven(now, peer);
            refused += u64::from(!admitted);
            admitted
        };
        let out = &mut self.io.sender();
        self.engine.admit(now, &mut proven, out);
        if refused > 0 {
            self.io.counters.drop_not_admitted.add(refused);
        }
    }

    fn events(&mut self, app: &mut impl App<E, Message = M>, now: Instant) {
        while let Some(event) = self.engine.next_event() {
            app.event(&mut self.api(now), event);
        }
    }

    fn messages(&mut self, app: &mut impl App<E, Message = M>, now: Instant) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.inbox.pop() else {
                break;
            };
            self.io.counters.messages_received.add(1);
            app.message(&mut self.api(now), message);
        }
    }

    fn api(&mut self, now: Instant) -> Io<'_, E> {
        Io {
            engine: &mut self.engine,
            now,
            control: &mut self.control,
            counters: &self.io.counters,
            sockets: &self.addresses,
            thread: self.thread,
        }
    }

    /// Enters the kernel, and stays there while there is nothing to do.
    fn sleep(&mut self, now: Instant, wanted: Option<Instant>) -> Result<(), Error> {
        let deadline = [self.engine.deadline(), wanted].into_iter().flatten().min();
        if deadline.is_some_and(|at| at <= now) || self.io.ring.has_completed() {
            return self.io.submit();
        }
        self.io.waker.fall_asleep();
        let result = match self.inbox.is_empty() && self.strays.is_empty() {
            true => self.io.wait(deadline),
            false => self.io.submit(),
        };
        self.io.waker.awake();
        result
    }
}

impl Sockets {
    fn new(
        sockets: Vec<Socket>,
        waker: Arc<Waker>,
        counters: Arc<Counters>,
        shards: Shards,
        own: u16,
    ) -> Result<Self, Error> {
        let ring = Ring::new()?;
        let descriptors: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let receiver = Receiver::new(&ring, &descriptors)?;
        let mut io = Self {
            ring,
            receiver,
            slots: Slots::new(),
            completed: Vec::new(),
            waker,
            pace: Pace::default(),
            spare: Spare::new(Instant::now()),
            counters,
            shards,
            own,
            failed: None,
            sockets,
        };
        for socket in 0..u16::try_from(descriptors.len()).unwrap_or(u16::MAX) {
            io.arm_receive(socket)?;
        }
        io.watch_event()?;
        io.waker.attach(io.ring.as_raw_fd());
        queue::enter_loop();
        Ok(io)
    }

    fn sender(&mut self) -> Sender<'_> {
        Sender {
            ring: &mut self.ring,
            slots: &mut self.slots,
            counters: &self.counters,
            user_data: SEND,
            failed: &mut self.failed,
        }
    }

    /// Puts a new socket in the place of one and returns its address. Everything goes by the place: what is
    /// sent from now on leaves from the new port, and once the receive of the old one has ended it is
    /// armed again, on the new one.
    fn rebind(&mut self, socket: u16) -> Result<SocketAddr, Error> {
        let place = usize::from(socket);
        let rebound = self.sockets[place].rebound()?;
        let system = |call| move |source| Error::System { call, source };
        self.ring
            .submitter()
            .register_files_update(socket.into(), &[rebound.as_raw_fd()])
            .map_err(system("io_uring_register(files update)"))?;
        let cancel = opcode::AsyncCancel::new(RECEIVE | u64::from(socket))
            .build()
            .user_data(CANCEL);
        // SAFETY: the entry points to nothing.
        unsafe { self.ring.push(&cancel) }?;
        self.sockets[place] = rebound;
        Ok(self.sockets[place].local())
    }

    fn arm_receive(&mut self, socket: u16) -> Result<(), Error> {
        self.receiver
            .arm(&mut self.ring, socket, RECEIVE | u64::from(socket))
    }

    /// Watches the eventfd of threads without a ring. A multishot poll tells of every signal, so nobody
    /// has to read the counter.
    fn watch_event(&mut self) -> Result<(), Error> {
        let readable = u32::try_from(libc::POLLIN).expect("a small flag");
        let entry = opcode::PollAdd::new(Fd(self.waker.event().as_raw_fd()), readable)
            .multi(true)
            .build()
            .user_data(EVENT);
        // SAFETY: the entry points to nothing.
        unsafe { self.ring.push(&entry) }
    }

    /// Wakes the loops that this turn's messages and strays found asleep.
    fn send_wakes(&mut self) -> Result<(), Error> {
        let (ring, counters) = (&mut self.ring, &self.counters);
        let mut result = Ok(());
        queue::take_owed(|waker| {
            let Some(target) = waker.ring() else {
                return waker.event().signal();
            };
            counters.wakes_sent.add(1);
            let entry = opcode::MsgRingData::new(Fd(target), 0, WAKE, None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(WAKE);
            // SAFETY: the entry points to nothing.
            let pushed = unsafe { ring.push(&entry) };
            if result.is_ok() {
                result = pushed;
            }
        });
        result
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.ring.submit()?;
        self.sent();
        Ok(())
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        self.counters.sleeps.add(1);
        let begun = Instant::now();
        let left = deadline.map(|at| at.saturating_duration_since(begun));
        self.ring.wait(self.pace.sleep(left))?;
        let slept = begun.elapsed();
        self.pace.slept(slept, self.ring.has_completed());
        self.spare.slept(slept);
        self.sent();
        Ok(())
    }

    /// A submit has consumed every entry.
    fn sent(&mut self) {
        if !self.slots.is_empty() {
            self.counters.send_batches.add(1);
            self.slots.reclaim();
        }
    }

    /// Deals with everything that completed.
    fn reap<E: Engine>(
        &mut self,
        engine: &mut E,
        app: &impl App<E>,
        now: Instant,
    ) -> Result<(), Error> {
        let mut completed = std::mem::take(&mut self.completed);
        self.ring.take_completed(&mut completed);
        for completion in completed.drain(..) {
            let kind = completion.user_data & KIND;
            match kind {
                RECEIVE => self.received(engine, app, now, completion)?,
                SEND => self.send_failed(completion),
                EVENT => {
                    self.counters.wakes_received.add(1);
                    if !completion.more() {
                        self.watch_event()?;
                    }
                }
                // Our own wake-up that failed found no ring: its loop has ended.
                WAKE if completion.result >= 0 => self.counters.wakes_received.add(1),
                _ => {}
            }
        }
        self.completed = completed;
        self.receiver.publish();
        Ok(())
    }

    fn send_failed(&self, completion: Completion) {
        match -completion.result {
            libc::EAGAIN => self.counters.send_lost_again.add(1),
            error if error > 0 => self.counters.send_lost_error.add(1),
            _ => {}
        }
    }

    fn received<E: Engine>(
        &mut self,
        engine: &mut E,
        app: &impl App<E>,
        now: Instant,
        completion: Completion,
    ) -> Result<(), Error> {
        // The low half was a socket's place when it was armed.
        let socket = u16::try_from(completion.user_data & !KIND).unwrap_or(u16::MAX);
        if let Some(buffer) = completion.buffer() {
            self.read_buffer(engine, app, now, socket, buffer, completion.result);
            let used = usize::try_from(completion.result).unwrap_or(0);
            self.receiver.provide(buffer, used);
        }
        if completion.more() {
            return Ok(());
        }
        match -completion.result {
            libc::ENOBUFS => self.counters.receive_rearmed_no_buffers.add(1),
            error @ (libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
                let source = std::io::Error::from_raw_os_error(error);
                return Err(Error::System {
                    call: "multishot recvmsg",
                    source,
                });
            }
            _ => self.counters.receive_rearmed_other.add(1),
        }
        // The buffers given back must be there before the receive looks for one.
        self.receiver.publish();
        self.arm_receive(socket)
    }

    fn read_buffer<E: Engine>(
        &mut self,
        engine: &mut E,
        app: &impl App<E>,
        now: Instant,
        socket: u16,
        buffer: u16,
        length: i32,
    ) {
        let Some(received) = self.receiver.read(buffer, length) else {
            return self.counters.drop_truncated.add(1);
        };
        let bytes = received.data;
        let segment = match received.segment {
            0 => bytes.len().max(1),
            size => size,
        };
        if bytes.len() > segment {
            self.counters.gro_trains_received.add(1);
        }
        self.counters.bytes_received.add(bytes.len() as u64);
        let mut out = Sender {
            ring: &mut self.ring,
            slots: &mut self.slots,
            counters: &self.counters,
            user_data: SEND,
            failed: &mut self.failed,
        };
        for data in bytes.chunks_mut(segment) {
            self.counters.packets_received.add(1);
            if data.len() > DATAGRAM_BYTES_MAX {
                self.counters.drop_oversized.add(1);
                continue;
            }
            let queue = owner(&self.shards, self.own, data);
            let datagram = Datagram {
                socket,
                peer: received.peer,
                data,
            };
            match queue {
                None => receive(engine, app, now, datagram, &mut out),
                Some(queue) => forward(queue, datagram, &self.counters),
            }
        }
    }
}

/// Gives a datagram of this shard to the engine, unless it is of a newcomer whom the application does not
/// admit: refusing before the handshake costs a look-up, and after it two hundred microseconds. A handshake that
/// is under way goes on.
fn receive<E: Engine>(
    engine: &mut E,
    app: &impl App<E>,
    now: Instant,
    datagram: Datagram<'_>,
    out: &mut Sender<'_>,
) {
    let refused = is_initial(datagram.data) && !app.admits(now, datagram.peer);
    if refused && !engine.knows(&datagram) {
        return out.counters.drop_not_admitted.add(1);
    }
    engine.receive(now, datagram, out);
}

/// The queue of the shard that a packet belongs to, if that is another one (T1).
fn owner<'a>(shards: &'a Shards, own: u16, packet: &[u8]) -> Option<&'a Queue<Stray>> {
    if shards.len() < 2 {
        return None;
    }
    let count = u16::try_from(shards.len()).expect("checked when the sockets were bound");
    let shard = steer::shard_of(packet, count).filter(|shard| *shard != own)?;
    Some(&shards[usize::from(shard)])
}

fn forward(queue: &Queue<Stray>, datagram: Datagram<'_>, counters: &Counters) {
    counters.strays_received.add(1);
    let Datagram { socket, peer, data } = datagram;
    match queue.push(Stray {
        socket,
        peer,
        data: (&*data).into(),
    }) {
        Ok(()) => counters.strays_forwarded.add(1),
        Err(_) => counters.drop_stray_queue_full.add(1),
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        queue::leave_loop();
        self.waker.detach();
        self.ring.quiesce();
    }
}
