//! The segmented slab of connections (T7): segments of 4,096, never a doubling vector, so growth
//! copies nothing and never holds two copies of a million sessions.

use std::ops::{Index, IndexMut};

/// Entries per segment.
pub(crate) const SEGMENT: usize = 4_096;

/// The end of a list of indices.
pub(crate) const NIL: u32 = u32::MAX;

/// The largest generation: 24 bits in a connection id (T2).
pub(crate) const GENERATION_MAX: u32 = (1 << 24) - 1;

/// What the slab and the timer wheel need from an entry.
pub(crate) trait Entry {
    fn vacant() -> Self;
    fn is_vacant(&self) -> bool;
    fn generation(&self) -> u32;
    fn set_generation(&mut self, generation: u32);
    fn links(&mut self) -> &mut Links;
}

/// Links of the timer wheel; a vacant entry uses `next` for the free list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) next: u32,
    pub(crate) prev: u32,
    /// The tick at which the wheel will look at this entry.
    pub(crate) deadline: u32,
}

impl Links {
    pub(crate) const NONE: Self = Self {
        next: NIL,
        prev: NIL,
        deadline: 0,
    };
}

/// The slab, with last activity beside it in a dense array, so that a sweep of millions touches no
/// cold lines (T7).
pub(crate) struct Slab<E> {
    segments: Vec<Box<[E]>>,
    activity: Vec<Box<[u32]>>,
    free: u32,
    len: usize,
}

impl<E: Entry> Slab<E> {
    pub(crate) const fn new() -> Self {
        Self {
            segments: Vec::new(),
            activity: Vec::new(),
            free: NIL,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the segments and the dense array take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.segments.len() * SEGMENT * (size_of::<E>() + size_of::<u32>())
    }

    /// Takes a vacant entry; `None` when all 2^24 indices are in use.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        if self.free == NIL {
            self.grow()?;
        }
        let index = self.free;
        let entry = &mut self[index];
        assert!(entry.is_vacant(), "the free list holds vacant entries");
        let next = entry.links().next;
        *entry.links() = Links::NONE;
        self.free = next;
        self.len += 1;
        Some(index)
    }

    fn grow(&mut self) -> Option<()> {
        let first = self.segments.len() * SEGMENT;
        if first >= 1 << 24 {
            return None;
        }
        let first = u32::try_from(first).expect("checked");
        let mut segment: Box<[E]> = (0..SEGMENT).map(|_| E::vacant()).collect();
        let last = SEGMENT - 1;
        for (n, entry) in (first..).zip(segment.iter_mut()) {
            entry.links().next = n + 1;
        }
        segment[last].links().next = self.free;
        self.free = first;
        self.segments.push(segment);
        self.activity.push(vec![0; SEGMENT].into_boxed_slice());
        Some(())
    }

    /// Gives an entry back. Its generation moves on; a slot whose generation wraps is retired (T2).
    pub(crate) fn release(&mut self, index: u32) {
        let free = self.free;
        let entry = &mut self[index];
        let generation = entry.generation();
        *entry = E::vacant();
        entry.set_generation(generation + 1);
        self.len -= 1;
        if generation < GENERATION_MAX {
            self[index].links().next = free;
            self.free = index;
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&E> {
        let i = index as usize;
        let entry = self.segments.get(i / SEGMENT)?.get(i % SEGMENT)?;
        (!entry.is_vacant()).then_some(entry)
    }

    /// An entry and its last activity.
    pub(crate) fn pair_mut(&mut self, index: u32) -> (&mut E, &mut u32) {
        let (s, i) = (index as usize / SEGMENT, index as usize % SEGMENT);
        (&mut self.segments[s][i], &mut self.activity[s][i])
    }

    /// Live entries whose last activity satisfies `wanted`, without touching the others' lines.
    pub(crate) fn sweep(&self, mut wanted: impl FnMut(u32) -> bool, mut each: impl FnMut(u32, &E)) {
        for (s, times) in self.activity.iter().enumerate() {
            for (i, time) in times.iter().enumerate() {
                let entry = &self.segments[s][i];
                if wanted(*time) && !entry.is_vacant() {
                    each(u32::try_from(s * SEGMENT + i).expect("24 bits"), entry);
                }
            }
        }
    }
}

impl<E> Index<u32> for Slab<E> {
    type Output = E;
    fn index(&self, index: u32) -> &E {
        &self.segments[index as usize / SEGMENT][index as usize % SEGMENT]
    }
}

impl<E> IndexMut<u32> for Slab<E> {
    fn index_mut(&mut self, index: u32) -> &mut E {
        &mut self.segments[index as usize / SEGMENT][index as usize % SEGMENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slot {
        used: bool,
        generation: u32,
        links: Links,
    }

    impl Entry for Slot {
        fn vacant() -> Self {
            Self {
                used: false,
                generation: 0,
                links: Links::NONE,
            }
        }
        fn is_vacant(&self) -> bool {
            !self.used
        }
        fn generation(&self) -> u32 {
            self.generation
        }
        fn set_generation(&mut self, generation: u32) {
            self.generation = generation;
        }
        fn links(&mut self) -> &mut Links {
            &mut self.links
        }
    }

    #[test]
    fn slots_are_reused_with_another_generation_t2() {
        let mut slab: Slab<Slot> = Slab::new();
        let indices: Vec<u32> = (0..SEGMENT + 10)
            .map(|_| {
                let index = slab.allocate().unwrap();
                slab[index].used = true;
                index
            })
            .collect();
        assert_eq!(slab.len(), SEGMENT + 10);
        assert_eq!(
            indices
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            indices.len()
        );
        slab.release(indices[7]);
        assert!(slab.get(indices[7]).is_none());
        assert_eq!(slab.allocate(), Some(indices[7]));
        assert_eq!(slab[indices[7]].generation, 1);
    }

    /// 16 million sessions per shard: the index has 24 bits, and there the slab is full.
    #[test]
    fn indices_fill_their_24_bits_and_no_more_t2() {
        struct Tiny(Links);
        impl Entry for Tiny {
            fn vacant() -> Self {
                Self(Links::NONE)
            }
            fn is_vacant(&self) -> bool {
                true
            }
            fn generation(&self) -> u32 {
                0
            }
            fn set_generation(&mut self, _: u32) {}
            fn links(&mut self) -> &mut Links {
                &mut self.0
            }
        }
        let mut slab: Slab<Tiny> = Slab::new();
        let last = (0..1 << 24).map(|_| slab.allocate()).max();
        assert_eq!(last, Some(Some((1 << 24) - 1)));
        assert_eq!((slab.allocate(), slab.len()), (None, 1 << 24));
    }

    #[test]
    fn a_slot_whose_generation_wraps_is_retired_t2() {
        let mut slab: Slab<Slot> = Slab::new();
        let index = slab.allocate().unwrap();
        slab[index].used = true;
        slab[index].generation = GENERATION_MAX;
        slab.release(index);
        for _ in 0..SEGMENT - 1 {
            assert_ne!(slab.allocate(), Some(index));
        }
        assert_eq!(
            slab.allocate(),
            Some(4_096),
            "a new segment, not the retired slot"
        );
    }
}
