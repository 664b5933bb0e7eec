//! Messages in order, in chunks, full ones where messages come nearly in order.

use std::collections::VecDeque;

use crate::Item;

/// Entries in a chunk. An insertion moves half of them at most.
const CHUNK: usize = 128;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) item: Item,
    /// Its place among the authors.
    pub(super) author: u32,
    /// The low half of its number, which costs nothing beside the author's place.
    pub(super) number: u32,
    pub(super) record: Box<[u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// In order, none empty.
    chunks: VecDeque<VecDeque<Entry>>,
    len: usize,
}

impl Sorted {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<&Entry> {
        self.chunks.front()?.front()
    }

    pub(super) fn pop_first(&mut self) -> Option<Entry> {
        let chunk = self.chunks.front_mut()?;
        let entry = chunk.pop_front();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.len -= usize::from(entry.is_some());
        entry
    }

    /// The chunk that holds an item, or that it belongs in.
    fn chunk(&self, item: &Item) -> usize {
        let behind = |chunk: &VecDeque<Entry>| chunk.front().is_some_and(|first| first.item <= *item);
        self.chunks.partition_point(behind).saturating_sub(1)
    }

    pub(super) fn get(&self, item: &Item) -> Option<&Entry> {
        let chunk = self.chunks.get(self.chunk(item))?;
        let place = chunk.binary_search_by_key(item, |entry| entry.item).ok()?;
        chunk.get(place)
    }

    /// Says whether it was not there.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        let mut index = self.chunk(&entry.item);
        let last = index + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.append(entry);
            return true;
        };
        let Err(mut place) = chunk.binary_search_by_key(&entry.item, |entry| entry.item) else {
            return false;
        };
        if chunk.len() == CHUNK {
            if place == CHUNK && last {
                self.append(entry);
                return true;
            }
            if self.shift(index) {
                return self.insert(entry);
            }
            let half = CHUNK / 2;
            let Some(chunk) = self.chunks.get_mut(index) else { return false };
            let mut upper = VecDeque::with_capacity(CHUNK);
            upper.extend(chunk.drain(half..));
            self.chunks.insert(index + 1, upper);
            if place > half {
                (index, place) = (index + 1, place - half);
            }
        }
        if let Some(chunk) = self.chunks.get_mut(index) {
            chunk.insert(place, entry);
            self.len += 1;
        }
        true
    }

    /// Moves what the chunk before has room for into that: what was split is filled again.
    fn shift(&mut self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1) else { return false };
        let room = self.chunks.get(before).map_or(0, |chunk| CHUNK - chunk.len());
        if room < CHUNK / 8 {
            return false;
        }
        let Some(chunk) = self.chunks.get_mut(index) else { return false };
        let moved: Vec<_> = chunk.drain(..room.min(CHUNK / 2)).collect();
        if let Some(chunk) = self.chunks.get_mut(before) {
            chunk.extend(moved);
        }
        true
    }

    fn append(&mut self, entry: Entry) {
        let mut chunk = VecDeque::with_capacity(CHUNK);
        chunk.push_back(entry);
        self.chunks.push_back(chunk);
        self.len += 1;
    }

    /// What is at an item or behind it.
    pub(super) fn from(&self, item: Item) -> impl Iterator<Item = &Entry> {
        let chunk = self.chunk(&item);
        let first = self.chunks.get(chunk);
        let place = first.map_or(0, |first| first.partition_point(|entry| entry.item < item));
        let first = first.into_iter().flat_map(move |first| first.range(place..));
        first.chain(self.chunks.range((chunk + 1).min(self.chunks.len())..).flatten())
    }

    /// All but the first.
    pub(super) fn skip(&self, mut count: usize) -> impl Iterator<Item = &Entry> {
        let mut chunk = 0;
        while let Some(entries) = self.chunks.get(chunk).filter(|entries| entries.len() <= count) {
            count -= entries.len();
            chunk += 1;
        }
        self.chunks.range(chunk..).flatten().skip(count)
    }

    pub(super) fn allocated(&self) -> usize {
        let chunk = |entries: &VecDeque<Entry>| entries.capacity() * size_of::<Entry>() + 8;
        self.chunks.iter().map(chunk).sum::<usize>() + self.chunks.capacity() * size_of::<VecDeque<Entry>>()
    }
}
