//! A table by dense index that grows a segment at a time.
//!
//! A vector that doubles holds up to twice what is used, and for a moment three times that, while it
//! copies a million entries. A segment is added in microseconds and never moves.

/// Entries of a segment.
const SEGMENT: usize = 1024;

/// Entries by an index that someone else allots: dense, and used again.
#[derive(Debug)]
pub struct Slots<T> {
    segments: Vec<Box<[Option<T>]>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// Above every index in use.
    #[must_use]
    pub fn end(&self) -> u32 {
        u32::try_from(self.segments.len() * SEGMENT).expect("indices have 32 bits")
    }

    /// What is at an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (segment, place) = split(index);
        self.segments.get(segment)?[place].as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (segment, place) = split(index);
        self.segments.get_mut(segment)?[place].as_mut()
    }

    /// Puts something at an index and returns what was there.
    pub fn insert(&mut self, index: u32, entry: T) -> Option<T> {
        let (segment, place) = split(index);
        while self.segments.len() <= segment {
            self.segments.push((0..SEGMENT).map(|_| None).collect());
        }
        self.segments[segment][place].replace(entry)
    }

    /// Takes out what is at an index.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let (segment, place) = split(index);
        self.segments.get_mut(segment)?[place].take()
    }

    /// Everything, by index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(self.segments.iter().flatten())
            .filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
    }

    /// Bytes of the segments.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.segments.len() * SEGMENT * size_of::<Option<T>>()
    }
}

fn split(index: u32) -> (usize, usize) {
    let index = index as usize;
    (index / SEGMENT, index % SEGMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_are_put() {
        let mut slots = Slots::default();
        assert_eq!((slots.end(), slots.get(5)), (0, None));
        assert_eq!(slots.insert(5_000, 'a'), None);
        assert_eq!(slots.insert(5_000, 'b'), Some('a'));
        assert_eq!(slots.insert(7, 'c'), None);
        assert_eq!(slots.end(), 5_120);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(7, &'c'), (5_000, &'b')]);
        *slots.get_mut(7).unwrap() = 'd';
        assert_eq!((slots.remove(7), slots.remove(7)), (Some('d'), None));
        assert_eq!((slots.remove(u32::MAX), slots.get(u32::MAX)), (None, None));
    }

    #[test]
    fn it_grows_by_a_segment_and_no_more() {
        let mut slots = Slots::default();
        for index in 0..10_000_u32 {
            slots.insert(index, u64::from(index));
        }
        assert_eq!(slots.bytes(), 10 * SEGMENT * size_of::<Option<u64>>());
    }
}
