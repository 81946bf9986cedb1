//! Which pages the WAL has changed, as summaries of it say.

use std::collections::{BTreeMap, HashMap};

use super::page::{Fork, RelationFile};

/// A relation, as the WAL names it. File number 0 stands for all of the database in that tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Relation {
    /// The tablespace.
    pub tablespace_oid: u32,
    /// The database; 0 for relations that all databases share.
    pub database_oid: u32,
    /// The relation's file number.
    pub filenode: u32,
}

/// What was changed in main forks: a bit for each block, so that much that was changed takes little memory.
#[derive(Debug, Clone, Default)]
pub struct Changes(HashMap<Relation, Changed>);

/// What was changed in one relation.
#[derive(Debug, Clone, Default)]
struct Changed {
    /// From this block on it was made anew, or cut off.
    limit: Option<u32>,
    /// Blocks by their upper 16 bits; of each, as many words as the highest one needs.
    blocks: BTreeMap<u16, Vec<u64>>,
}

impl Changed {
    fn has(&self, block: u32) -> bool {
        let (part, word, bit) = place(block);
        let marked = self.blocks.get(&part).and_then(|words| words.get(word));
        self.limit.is_some_and(|limit| block >= limit) || marked.is_some_and(|marked| marked & bit != 0)
    }
}

fn place(block: u32) -> (u16, usize, u64) {
    ((block >> 16) as u16, usize::from(block as u16) / 64, 1 << (block % 64))
}

impl Changes {
    /// A block was changed.
    pub fn mark(&mut self, relation: Relation, block: u32) {
        let (part, word, bit) = place(block);
        let words = self.0.entry(relation).or_default().blocks.entry(part).or_default();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= bit;
    }

    /// From this block on the relation was made anew, or cut off.
    pub fn limit(&mut self, relation: Relation, block: u32) {
        let limit = &mut self.0.entry(relation).or_default().limit;
        *limit = Some(limit.map_or(block, |known| known.min(block)));
    }

    /// What is known of a file; `None` if nothing is known to be unchanged. Only main forks are known: the WAL does not name
    /// every change of the free space and visibility maps.
    #[must_use]
    pub fn of(&self, file: &RelationFile) -> Option<Unchanged<'_>> {
        let RelationFile { tablespace_oid, database_oid, filenode, fork, .. } = *file;
        let relation = |filenode| Relation { tablespace_oid, database_oid, filenode };
        let is_known = fork == Fork::Main && !self.0.contains_key(&relation(0));
        is_known.then(|| Unchanged(self.0.get(&relation(filenode))))
    }
}

/// Tells the unchanged blocks of a relation.
#[derive(Debug, Clone, Copy)]
pub struct Unchanged<'a>(Option<&'a Changed>);

impl Unchanged<'_> {
    /// Whether the WAL has not changed the block, counted from the beginning of the relation.
    #[must_use]
    pub fn has(&self, block: u32) -> bool {
        self.0.is_none_or(|changed| !changed.has(block))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::postgres::page::relation_file;

    const RELATION: Relation = Relation { tablespace_oid: 1663, database_oid: 5, filenode: 16384 };

    #[test]
    fn only_what_is_named_has_changed() {
        let mut changes = Changes::default();
        changes.mark(RELATION, 7);
        changes.limit(Relation { database_oid: 6, filenode: 0, ..RELATION }, 0);
        let is_same =
            |path: &str, block| changes.of(&relation_file(path).unwrap()).is_some_and(|same| same.has(block));
        assert!(
            !is_same("base/5/16384", 7) && is_same("base/5/16384", 6) && is_same("base/5/16384.1", 131_072)
        );
        assert!(is_same("base/5/16385", 7) && is_same("base/7/16384", 7) && is_same("global/16384", 7));
        assert!(is_same("pg_tblspc/16390/PG_17_202406281/5/16384", 7));
        // All of a database that was made since; forks whose changes are not all named.
        assert!(!is_same("base/6/16384", 7) && is_same("pg_tblspc/16390/PG_17_202406281/6/16384", 7));
        assert!(
            !is_same("base/5/16384_vm", 0) && !is_same("base/5/16384_fsm", 0) && !is_same("base/5/9_init", 0)
        );
    }

    proptest! {
        #[test]
        fn blocks_are_those_marked_or_behind_the_limit(
            marked in proptest::collection::btree_set(0u32..200_000, 0..50),
            limits in proptest::collection::vec(0u32..200_000, 0..3),
            high in 0u32..,
        ) {
            let mut changes = Changes::default();
            marked.iter().chain([&high]).for_each(|block| changes.mark(RELATION, *block));
            limits.iter().for_each(|block| changes.limit(RELATION, *block));
            let same = changes.of(&relation_file("base/5/16384").unwrap()).unwrap();
            let near: BTreeSet<u32> = marked.iter().flat_map(|block| [block.saturating_sub(1), *block, block + 1]).collect();
            for block in near.into_iter().chain([high, 0, 65_535, 65_536, 131_072]) {
                let wanted = !marked.contains(&block) && block != high && limits.iter().all(|limit| block < *limit);
                prop_assert_eq!(same.has(block), wanted, "{}", block);
            }
        }
    }
}
