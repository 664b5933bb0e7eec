//! Of each author the newest that was let go: its floor.

use std::collections::{BTreeSet, HashMap};

use crate::{Id, Item};

#[derive(Debug)]
struct Author {
    id: Id,
    floor: Option<Item>,
    /// How many of its messages are kept.
    kept: usize,
    /// Its floor was written, an earlier one perhaps.
    written: bool,
}

/// Authors that something is kept of, which their messages bound, and a bounded number of others with their floors.
#[derive(Debug)]
pub(super) struct Authors {
    places: HashMap<Id, u32>,
    authors: Vec<Author>,
    free: Vec<u32>,
    /// Authors that nothing is kept of, by their floors.
    idle: BTreeSet<(Option<Item>, u32)>,
    most_idle: usize,
    /// The floor of all that have none of their own.
    common: Option<Item>,
    /// Floors that changed since they were written, if somebody writes them; that of all others is `None`.
    changed: Option<BTreeSet<Option<Id>>>,
}

impl Authors {
    pub(super) fn new(most_idle: usize) -> Self {
        Self {
            places: HashMap::new(),
            authors: Vec::new(),
            free: Vec::new(),
            idle: BTreeSet::new(),
            most_idle,
            common: None,
            changed: None,
        }
    }

    fn note(changed: &mut Option<BTreeSet<Option<Id>>>, author: Option<Id>) {
        if let Some(changed) = changed {
            changed.insert(author);
        }
    }

    /// From now on changes are noted; all floors are one, unless they are written already.
    pub(super) fn track(&mut self, written: bool) {
        let mut changed = BTreeSet::new();
        for author in &mut self.authors {
            author.written = written && author.floor.is_some();
        }
        if !written {
            changed.extend(self.floors().map(|(author, _)| author));
        }
        self.changed = Some(changed);
    }

    pub(super) fn untrack(&mut self) {
        self.changed = None;
    }

    pub(super) fn unwritten(&self) -> usize {
        self.changed.as_ref().map_or(0, BTreeSet::len)
    }

    /// The floors that changed. An author that has none of its own any more has no item.
    pub(super) fn take_unwritten(&mut self) -> Vec<(Option<Id>, Option<Item>)> {
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        let mut floor = |author: Option<Id>| {
            let Some(id) = author else { return self.common };
            let place = *self.places.get(&id)?;
            let author = self.authors.get_mut(place as usize)?;
            author.written = true;
            author.floor
        };
        changed.into_iter().map(|author| (author, floor(author))).collect()
    }

    pub(super) fn restore_unwritten(&mut self, authors: impl Iterator<Item = Option<Id>>) {
        let Some(changed) = &mut self.changed else { return };
        for author in authors {
            let is_gone = author.is_some_and(|id| !self.places.contains_key(&id));
            if !is_gone || changed.len() < self.places.len() + 2 * self.most_idle {
                changed.insert(author);
            }
        }
    }

    pub(super) fn set_idle(&mut self, most_idle: usize) {
        self.most_idle = most_idle;
        self.fold();
    }

    pub(super) fn floor(&self, author: Id) -> Option<Item> {
        let place = self.places.get(&author);
        place.and_then(|place| self.authors.get(*place as usize)).map_or(self.common, |author| author.floor)
    }

    pub(super) fn knows(&self, author: Id) -> bool {
        self.places.contains_key(&author)
    }

    fn place(&mut self, id: Id) -> u32 {
        if let Some(place) = self.places.get(&id) {
            return *place;
        }
        // It was among the others until now.
        let author = Author { id, floor: self.common, kept: 0, written: false };
        if self.common.is_some() {
            Self::note(&mut self.changed, Some(id));
        }
        let place = self.free.pop().unwrap_or(self.authors.len() as u32);
        match self.authors.get_mut(place as usize) {
            Some(free) => *free = author,
            None => self.authors.push(author),
        }
        self.places.insert(id, place);
        self.idle.insert((self.common, place));
        place
    }

    /// A message of an author is kept; gives back the author's place, which stays until it is let go.
    pub(super) fn kept(&mut self, id: Id) -> u32 {
        let place = self.place(id);
        let author = &mut self.authors[place as usize];
        author.kept += 1;
        self.idle.remove(&(author.floor, place));
        place
    }

    /// A message is let go.
    pub(super) fn let_go(&mut self, place: u32, item: &Item) {
        let author = &mut self.authors[place as usize];
        if author.floor < Some(*item) {
            author.floor = Some(*item);
            Self::note(&mut self.changed, Some(author.id));
        }
        author.kept -= 1;
        if author.kept == 0 {
            self.idle.insert((author.floor, place));
            self.fold();
        }
    }

    fn fold(&mut self) {
        while self.idle.len() > self.most_idle {
            let Some((floor, place)) = self.idle.pop_first() else { return };
            if self.common < floor {
                self.common = floor;
                Self::note(&mut self.changed, None);
            }
            let author = &self.authors[place as usize];
            self.places.remove(&author.id);
            if let Some(changed) = &mut self.changed {
                changed.remove(&Some(author.id));
                // What is below the floor of all others may stay in a file, where nobody can write for long.
                if author.written && changed.len() < self.places.len() + 2 * self.most_idle {
                    changed.insert(Some(author.id));
                }
            }
            self.free.push(place);
        }
    }

    pub(super) fn raise(&mut self, author: Option<Id>, floor: Item) {
        let Some(author) = author else {
            if self.common < Some(floor) {
                self.common = Some(floor);
                Self::note(&mut self.changed, None);
            }
            return;
        };
        let place = self.kept(author);
        self.let_go(place, &floor);
    }

    pub(super) fn floors(&self) -> impl Iterator<Item = (Option<Id>, Item)> {
        let known = self.places.iter().filter_map(|(id, place)| {
            let floor = self.authors.get(*place as usize)?.floor?;
            Some((Some(*id), floor))
        });
        known.chain(self.common.map(|floor| (None, floor)))
    }

    pub(super) fn allocated(&self) -> usize {
        self.authors.capacity() * size_of::<Author>()
            + self.places.capacity() * (size_of::<(Id, u32)>() + 1) * 8 / 7
            + self.free.capacity() * 4
            + self.idle.len() * 2 * size_of::<(Option<Item>, u32)>()
    }
}
