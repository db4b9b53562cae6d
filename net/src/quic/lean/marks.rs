//! What the seam remembers of a connection beside the endpoint: sixteen bits per slot.

use roadstead_quic::Handle;

/// One fact about a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// The application was told that it opened.
    Open = 1,
    /// Its handshake is over, one way or the other.
    Settled = 1 << 1,
    /// The application closed it.
    Closing = 1 << 2,
    /// `Closed` is on its way to the application, or never will be, as it does not know of it.
    Closed = 1 << 3,
    /// `Closed` was delivered.
    Gone = 1 << 4,
    /// The stream exists.
    Stream = 1 << 5,
    /// A write accepted less than it was given.
    ShortWrite = 1 << 6,
    /// The application writes nothing more.
    Finishing = 1 << 7,
    /// The application was told that the peer writes nothing more.
    Finished = 1 << 8,
    /// A token proved the peer's address before the handshake.
    Proven = 1 << 9,
}

/// The facts about one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(u16);

impl Facts {
    pub(super) fn has(self, mark: Mark) -> bool {
        self.0 & mark as u16 != 0
    }
}

/// The facts about all, by slot. Two bytes each, so that doubling the vector costs little.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<Facts>);

impl Marks {
    /// Those of the slot's present connection.
    pub(super) fn of(&self, handle: Handle) -> Facts {
        self.0.get(place(handle)).copied().unwrap_or_default()
    }

    /// A new connection took the slot.
    pub(super) fn clear(&mut self, handle: Handle) {
        *self.entry(handle) = Facts::default();
    }

    pub(super) fn set(&mut self, handle: Handle, mark: Mark) {
        self.entry(handle).0 |= mark as u16;
    }

    /// Sets a mark and answers whether it was set.
    pub(super) fn replace(&mut self, handle: Handle, mark: Mark) -> bool {
        let had = self.of(handle).has(mark);
        self.set(handle, mark);
        had
    }

    /// Takes a mark back and answers whether it was set.
    pub(super) fn take(&mut self, handle: Handle, mark: Mark) -> bool {
        let had = self.of(handle).has(mark);
        self.entry(handle).0 &= !(mark as u16);
        had
    }

    /// Bytes of the vector.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Facts>()
    }

    fn entry(&mut self, handle: Handle) -> &mut Facts {
        let place = place(handle);
        if self.0.len() <= place {
            self.0.resize(place + 1, Facts::default());
        }
        &mut self.0[place]
    }
}

fn place(handle: Handle) -> usize {
    handle.index() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_belong_to_a_slot_and_go_with_its_connection() {
        let mut marks = Marks::default();
        let (first, other) = (Handle::of(7, 0), Handle::of(3, 0));
        marks.set(first, Mark::Open);
        assert!(!marks.replace(first, Mark::Finished) && marks.replace(first, Mark::Finished));
        assert!(marks.of(first).has(Mark::Open) && !marks.of(first).has(Mark::Gone));
        assert_eq!(marks.of(other), Facts::default());
        assert!(marks.take(first, Mark::Open) && !marks.take(first, Mark::Open));
        marks.clear(Handle::of(7, 1));
        assert_eq!(marks.of(first), Facts::default());
        assert_eq!(marks.of(Handle::of(1 << 20, 0)), Facts::default());
    }
}
