//! A small sorted set of keys: a dozen peers of a mesh, some hundred topics of a peer.

/// Sorted and without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeySet<K>(Vec<K>);

impl<K> Default for KeySet<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy> KeySet<K> {
    pub(super) fn contains(&self, key: K) -> bool {
        self.0.binary_search(&key).is_ok()
    }

    /// Whether it was not in.
    pub(super) fn insert(&mut self, key: K) -> bool {
        match self.0.binary_search(&key) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, key);
                true
            }
        }
    }

    /// Whether it was in.
    pub(super) fn remove(&mut self, key: K) -> bool {
        match self.0.binary_search(&key) {
            Ok(at) => {
                self.0.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = K> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn as_slice(&self) -> &[K] {
        &self.0
    }
}

impl<K: Ord + Copy> FromIterator<K> for KeySet<K> {
    fn from_iter<T: IntoIterator<Item = K>>(iter: T) -> Self {
        let mut keys: Vec<K> = iter.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self(keys)
    }
}
