//! Of each author the newest that was let go: its floor.

use std::collections::{BTreeSet, HashMap};

use crate::{Id, Item};

#[derive(Debug)]
struct Author {
    id: Id,
    floor: Option<Item>,
    /// How many of its messages are kept.
    kept: usize,
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

    fn place(&mut self, id: Id) -> u32 {
        if let Some(place) = self.places.get(&id) {
            return *place;
        }
        // It was among the others until now.
        let author = Author { id, floor: self.common, kept: 0 };
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
        author.floor = author.floor.max(Some(*item));
        author.kept -= 1;
        if author.kept == 0 {
            self.idle.insert((author.floor, place));
            self.fold();
        }
    }

    fn fold(&mut self) {
        while self.idle.len() > self.most_idle {
            let Some((floor, place)) = self.idle.pop_first() else { return };
            self.common = self.common.max(floor);
            self.places.remove(&self.authors[place as usize].id);
            self.free.push(place);
        }
    }

    pub(super) fn raise(&mut self, author: Option<Id>, floor: Item) {
        let Some(author) = author else {
            self.common = self.common.max(Some(floor));
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
