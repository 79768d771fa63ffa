//! A slab in pages: values by key, in memory that goes back when it is not needed.
//!
//! ```text
//!   key    0 .. 63     64 .. 127   128 .. 191   192 .. 255
//!   page   |x x . x|   |. . . .|   (no memory)  |. x . .|
//!   bits    1 1 0 1     0 0 0 0     0 0 0 0      0 1 0 0
//! ```
//!
//! A key stays the same as long as its value lives. So values do not move between pages, and a page
//! without values gives its memory back as a whole ([`Pages::trim`]). A new value gets the lowest
//! vacant key. So the highest pages become empty first.
//!
//! A word of bits per page says which keys are in use, and one bit per page whether it has any. So a
//! walk over all values costs one step for each page with values, and one for each 4,096 keys.
//!
//! A key may be *held* before it has a value ([`Pages::hold`]): then it is in use, and no value gets it
//! but the one that it is held for.

use std::ops::{Index, IndexMut};

/// Keys of one page: one for each bit of a word.
const PAGE: usize = u64::BITS as usize;

#[derive(Debug)]
struct Page<T> {
    /// One bit per key.
    used: u64,
    /// One entry for each key that was in use since the page got its memory. Empty if the page has
    /// no memory.
    entries: Vec<Option<T>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    /// The last page has memory, or a key in use.
    pages: Vec<Page<T>>,
    /// One bit per page: the page has a vacant key.
    open: Vec<u64>,
    /// One bit per page: the page has a key in use.
    live: Vec<u64>,
    /// No word of `open` before this one has a bit.
    first_open: usize,
    len: usize,
    /// Pages that have memory and no key in use.
    empty: usize,
    /// The fewest such pages at any time since the last trim.
    idle: usize,
}

impl<T> Pages<T> {
    /// The most pages that one trim moves: 4 MiB, which takes about a millisecond.
    const MOVED_AT_ONCE: usize = (4 << 20) / (PAGE * size_of::<Option<T>>()) + 1;
    /// Bytes of memory for each value, in a page that is full.
    pub(crate) const EACH: usize = size_of::<Option<T>>() + 2 * size_of::<Page<T>>() / PAGE;

    pub(crate) fn new() -> Self {
        let (pages, open, live) = (Vec::new(), Vec::new(), Vec::new());
        Self { pages, open, live, first_open: 0, len: 0, empty: 0, idle: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of keys in all pages. Every key in use is below it.
    pub(crate) fn keys(&self) -> usize {
        self.pages.len() * PAGE
    }

    #[inline]
    pub(crate) fn get(&self, key: usize) -> Option<&T> {
        self.pages.get(key / PAGE)?.entries.get(key % PAGE)?.as_ref()
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.pages.get_mut(key / PAGE)?.entries.get_mut(key % PAGE)?.as_mut()
    }

    /// The key that the next [`insert`](Self::insert) uses: the lowest one that is vacant.
    pub(crate) fn vacant_key(&self) -> usize {
        let Some(page) = self.open_page() else { return self.keys() };
        page * PAGE + self.pages[page].used.trailing_ones() as usize
    }

    fn open_page(&self) -> Option<usize> {
        let words = self.open.get(self.first_open..)?;
        let (word, bits) = (self.first_open..).zip(words).find(|(_, bits)| **bits != 0)?;
        Some(word * PAGE + bits.trailing_zeros() as usize)
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        let key = self.hold();
        self.insert_at(key, value);
        key
    }

    /// Takes the lowest vacant key, for a value that comes later by [`insert_at`](Self::insert_at).
    #[inline]
    pub(crate) fn hold(&mut self) -> usize {
        let key = self.vacant_key();
        let (page, at) = (key / PAGE, key % PAGE);
        if page == self.pages.len() {
            self.pages.push(Page { used: 0, entries: Vec::new() });
            set(&mut self.open, page, true);
        }
        set(&mut self.live, page, true);
        self.first_open = page / PAGE;
        let Page { used, entries } = &mut self.pages[page];
        if *used == 0 && !entries.is_empty() {
            self.empty -= 1;
            self.idle = self.idle.min(self.empty);
        }
        *used |= 1 << at;
        if *used == u64::MAX {
            set(&mut self.open, page, false);
        }
        key
    }

    /// Gives a held key its value.
    #[inline]
    pub(crate) fn insert_at(&mut self, key: usize, value: T) {
        debug_assert!(self.is_held(key), "key {key}");
        let (page, at) = (key / PAGE, key % PAGE);
        let Page { entries, .. } = &mut self.pages[page];
        if entries.is_empty() && page > 0 {
            // The first page grows as it needs, because most slabs stay small.
            entries.reserve_exact(PAGE);
        }
        if entries.len() <= at {
            entries.resize_with(at + 1, || None);
        }
        entries[at] = Some(value);
        self.len += 1;
    }

    /// Gives up a held key, which has no value.
    pub(crate) fn let_go(&mut self, key: usize) {
        debug_assert!(self.is_held(key), "key {key}");
        self.vacate(key);
    }

    /// Whether the key is in use, and has no value.
    pub(crate) fn is_held(&self, key: usize) -> bool {
        let page = self.pages.get(key / PAGE);
        page.is_some_and(|page| page.used >> (key % PAGE) & 1 == 1) && self.get(key).is_none()
    }

    fn vacate(&mut self, key: usize) {
        let (page, at) = (key / PAGE, key % PAGE);
        let Page { used, entries } = &mut self.pages[page];
        if *used == u64::MAX {
            set(&mut self.open, page, true);
        }
        self.first_open = self.first_open.min(page / PAGE);
        *used &= !(1 << at);
        if *used == 0 {
            set(&mut self.live, page, false);
            self.empty += usize::from(!entries.is_empty());
        }
    }

    /// Removes the value of `key`. `None` if there is none.
    pub(crate) fn remove(&mut self, key: usize) -> Option<T> {
        let value = self.pages.get_mut(key / PAGE)?.entries.get_mut(key % PAGE)?.take()?;
        self.vacate(key);
        self.len -= 1;
        Some(value)
    }

    /// The lowest key in use that is not below `from`.
    pub(crate) fn next_key(&self, from: usize) -> Option<usize> {
        let (first, mask) = (from / PAGE, u64::MAX << (from % PAGE));
        let used = self.pages.get(first)?.used & mask;
        if used != 0 {
            return Some(first * PAGE + used.trailing_zeros() as usize);
        }
        let page = self.next_live(first + 1)?;
        Some(page * PAGE + self.pages[page].used.trailing_zeros() as usize)
    }

    /// The first page with a key in use that is not before `from`.
    fn next_live(&self, from: usize) -> Option<usize> {
        let first = from / PAGE;
        let mut mask = u64::MAX << (from % PAGE);
        for (word, pages) in (first..).zip(self.live.get(first..)?) {
            let pages = pages & std::mem::replace(&mut mask, u64::MAX);
            if pages != 0 {
                return Some(word * PAGE + pages.trailing_zeros() as usize);
            }
        }
        None
    }

    /// All values with their keys, the lowest key first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> + Clone {
        (0..).step_by(PAGE).zip(&self.pages).flat_map(|(first, page)| {
            (first..).zip(&page.entries).filter_map(|(key, entry)| Some((key, entry.as_ref()?)))
        })
    }

    /// As [`iter`](Self::iter).
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        (0..).step_by(PAGE).zip(&mut self.pages).flat_map(|(first, page)| {
            (first..).zip(&mut page.entries).filter_map(|(key, entry)| Some((key, entry.as_mut()?)))
        })
    }

    /// Bytes that a [`trim`](Self::trim), now or later, may free.
    #[inline]
    pub(crate) fn spare(&self) -> usize {
        self.empty * PAGE * size_of::<Option<T>>()
    }

    /// Frees as many empty pages as were not needed since the last trim, the highest first.
    ///
    /// The pages above the lowest of them then move into the memory that became free. An allocator
    /// such as glibc's returns memory to the system only from the top of its heap, and they may lie
    /// there.
    pub(crate) fn trim(&mut self) {
        let mut spare = std::mem::take(&mut self.idle);
        let mut lowest = self.pages.len();
        while spare > 0 && lowest > 0 {
            lowest -= 1;
            let page = &mut self.pages[lowest];
            if page.used == 0 && !page.entries.is_empty() {
                page.entries = Vec::new();
                spare -= 1;
                self.empty -= 1;
            }
        }
        self.idle = self.empty;
        self.forget_pages();
        let has_values = |page: &&mut Page<T>| page.used != 0 && !page.entries.is_empty();
        let above = self.pages.iter_mut().skip(lowest).filter(has_values);
        for Page { entries, .. } in above.take(Self::MOVED_AT_ONCE) {
            let mut moved = Vec::with_capacity(PAGE);
            moved.append(entries);
            *entries = moved;
        }
    }

    /// Drops the pages at the end that have no memory and no key in use.
    fn forget_pages(&mut self) {
        let is_needed = |page: &Page<T>| page.used != 0 || !page.entries.is_empty();
        let last = self.pages.iter().rposition(is_needed);
        let pages = last.map_or(0, |last| last + 1);
        if pages == self.pages.len() {
            return;
        }
        self.pages.truncate(pages);
        self.pages.shrink_to(2 * pages);
        self.open.truncate(pages.div_ceil(PAGE));
        self.live.truncate(pages.div_ceil(PAGE));
        if let Some(word) = self.open.last_mut()
            && !pages.is_multiple_of(PAGE)
        {
            *word &= !(u64::MAX << (pages % PAGE));
        }
        self.first_open = self.first_open.min(self.open.len());
    }
}

/// Sets the bit of a page.
fn set(words: &mut Vec<u64>, page: usize, to: bool) {
    let word = page / PAGE;
    if word == words.len() {
        words.push(0);
    }
    let bit = 1 << (page % PAGE);
    words[word] = if to { words[word] | bit } else { words[word] & !bit };
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        let Some(value) = self.get(key) else { vacant(key) };
        value
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        let Some(value) = self.get_mut(key) else { vacant(key) };
        value
    }
}

#[cold]
#[track_caller]
fn vacant(key: usize) -> ! {
    panic!("key {key} has no value")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Goal: the slab agrees with a map, and every new value gets the lowest vacant key. Method:
    /// waves of insertions and removals, chosen by a generator of random numbers, with trims in
    /// between.
    #[test]
    fn it_does_what_a_map_does() {
        let (mut pages, mut map) = (Pages::new(), BTreeMap::new());
        let mut seed = 7_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let (waves, rounds) = if cfg!(miri) { (4, 200) } else { (20, 1_000) };
        for wave in 0..waves {
            for value in 0..rounds {
                if random(10) < if wave % 2 == 0 { 8 } else { 2 } {
                    let lowest = (0..).find(|key| !map.contains_key(key)).unwrap();
                    assert_eq!(pages.vacant_key(), lowest);
                    assert_eq!(pages.insert(value), lowest);
                    assert_eq!(map.insert(lowest, value), None);
                } else if let Some((&key, _)) = map.iter().nth(random(map.len().max(1))) {
                    assert_eq!(pages.remove(key), map.remove(&key));
                    assert_eq!(pages.remove(key), None);
                }
            }
            pages.trim();
            pages.trim();
            assert_eq!(pages.spare(), 0);
            assert_eq!(pages.len(), map.len());
            assert!(pages.iter().eq(map.iter().map(|(key, value)| (*key, value))));
            let steps = std::iter::successors(pages.next_key(0), |key| pages.next_key(key + 1));
            assert!(steps.eq(map.keys().copied()));
            assert!(map.keys().all(|key| pages.get(*key) == map.get(key)));
        }
    }

    /// Goal: a held key is in use without a value, and gets its value out of order; a key that is given
    /// up is vacant again, and its page goes back. Method: keys of two pages, with trims in between.
    #[test]
    fn held_keys_wait_for_their_values() {
        let mut pages = Pages::new();
        let keys: Vec<usize> = (0..2 * PAGE).map(|_| pages.hold()).collect();
        assert!(keys.iter().copied().eq(0..2 * PAGE) && pages.is_empty());
        pages.trim();
        pages.idle = 1;
        pages.trim();
        let memory = pages.pages.iter().map(|page| page.entries.capacity()).sum::<usize>();
        assert_eq!(memory, 0, "a key without a value needs no memory");
        assert_eq!((pages.keys(), pages.vacant_key()), (2 * PAGE, 2 * PAGE));
        assert!(pages.is_held(70) && pages.get(70).is_none() && pages.remove(70).is_none());
        pages.insert_at(70, "seventy");
        pages.insert_at(65, "sixty-five");
        assert!(!pages.is_held(70));
        assert!(pages.iter().eq([(65, &"sixty-five"), (70, &"seventy")]));
        keys.iter().filter(|key| ![65, 70].contains(*key)).for_each(|key| pages.let_go(*key));
        assert_eq!((pages.vacant_key(), pages.next_key(0)), (0, Some(65)));
        assert_eq!((pages.insert("zero"), pages.len()), (0, 3));
        for key in [0, 65, 70] {
            assert!(pages.remove(key).is_some() && pages.remove(key).is_none());
        }
        pages.trim();
        pages.trim();
        assert_eq!((pages.spare(), pages.keys(), pages.next_key(0)), (0, 0, None));
    }

    /// Goal: keys that are vacant cost a walk nothing once the pages are trimmed. Method: 9,400 values
    /// come and go beside one that stays.
    #[test]
    fn vacant_keys_cost_no_walk_for_ever() {
        let mut pages = Pages::new();
        (0..=9_400).for_each(|key| assert_eq!(pages.insert(key), key));
        (1..=9_400).for_each(|key| assert_eq!(pages.remove(key), Some(key)));
        assert_eq!((pages.next_key(0), pages.next_key(1)), (Some(0), None));
        assert_eq!(pages.pages.len(), 147);
        pages.trim();
        pages.trim();
        assert_eq!((pages.next_key(0), pages.next_key(1)), (Some(0), None));
        assert_eq!(pages.pages.len(), 1);
    }

    /// Goal: a walk costs the values, and not the keys that once were in use, also before a trim and
    /// if the last key lives on. Method: 100,000 values come and go but for two. The walk looks at
    /// words of bits, and there are as many as 100,000 keys have runs of 4,096.
    #[test]
    fn a_walk_costs_the_values_that_are_there() {
        let mut pages = Pages::new();
        (0..100_000).for_each(|key| assert_eq!(pages.insert(key), key));
        (1..99_999).for_each(|key| assert_eq!(pages.remove(key), Some(key)));
        let steps = std::iter::successors(pages.next_key(0), |key| pages.next_key(key + 1));
        assert_eq!(steps.collect::<Vec<_>>(), [0, 99_999]);
        assert_eq!(pages.live.len(), 25);
        assert_eq!(pages.live.iter().map(|pages| pages.count_ones()).sum::<u32>(), 2);
        pages.trim();
        pages.trim();
        assert_eq!(pages.remove(99_999), Some(99_999));
        pages.trim();
        pages.trim();
        assert_eq!((pages.live.len(), pages.next_key(0), pages.next_key(1)), (1, Some(0), None));
    }

    /// Goal: what a burst needed is freed by the second trim, although one late value of the burst
    /// lives on; what is always in use stays. Method: a burst beside one value, trims, and a
    /// second burst that reaches half as far.
    #[test]
    fn a_trim_frees_the_pages_of_a_burst() {
        let mut pages = Pages::new();
        let keys: Vec<usize> = (0..100 * PAGE).map(|_| pages.insert([7; 100])).collect();
        let last = *keys.last().unwrap();
        for key in keys {
            assert!(key == last || pages.remove(key).is_some());
        }
        let page = PAGE * size_of::<Option<[i32; 100]>>();
        assert_eq!(pages.spare(), 99 * page);
        pages.trim();
        assert_eq!(pages.spare(), 99 * page, "they were in use since the last trim");
        (0..50 * PAGE).for_each(|key| assert_eq!(pages.insert([7; 100]), key));
        (0..50 * PAGE).for_each(|key| assert_eq!(pages.remove(key), Some([7; 100])));
        pages.trim();
        assert_eq!(pages.spare(), 50 * page, "half were in use since the last trim");
        pages.trim();
        assert_eq!((pages.spare(), pages.get(last)), (0, Some(&[7; 100])));
        assert_eq!((pages.next_key(0), pages.vacant_key()), (Some(last), 0));
        assert_eq!(pages.remove(last), Some([7; 100]));
        pages.trim();
        pages.trim();
        assert_eq!((pages.spare(), pages.keys()), (0, 0));
    }
}
