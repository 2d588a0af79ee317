//! [`Places`]: finds the nodes that files name by tree id and node id.

/// What messages call a node.
pub(crate) fn node_name(tree: i64, node: i64) -> String {
    format!("tree {tree}, node {node}")
}

/// Where the node with a tree id and a node id is in the file. The ids may be any numbers; for those
/// that count up without gaps, as those of exporters do, a look-up is a subtraction.
pub(crate) struct Places<'a> {
    trees: &'a [i64],
    ids: &'a [i64],
    /// The places of all nodes in the order of tree id, then node id.
    order: Vec<u32>,
    /// The ranges of `order` that are one tree each.
    ranges: Vec<Range>,
}

struct Range {
    tree: i64,
    start: u32,
    end: u32,
}

impl<'a> Places<'a> {
    /// `trees` and `ids` have the same length, below 2^31. An error names a node that is there twice.
    pub fn new(trees: &'a [i64], ids: &'a [i64]) -> Result<Places<'a>, String> {
        let key = |place: &u32| (trees[*place as usize], ids[*place as usize]);
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        if !order.is_sorted_by_key(key) {
            order.sort_unstable_by_key(key);
        }
        let mut ranges: Vec<Range> = Vec::new();
        for (at, place) in order.iter().enumerate() {
            let (tree, id) = key(place);
            let end = at as u32 + 1;
            match ranges.last_mut() {
                Some(range) if range.tree == tree => {
                    if key(&order[at - 1]) == (tree, id) {
                        return Err(format!("{}: it is there twice", node_name(tree, id)));
                    }
                    range.end = end;
                }
                _ => ranges.push(Range {
                    tree,
                    start: at as u32,
                    end,
                }),
            }
        }
        Ok(Places {
            trees,
            ids,
            order,
            ranges,
        })
    }

    /// The number of the tree in the order of the ids.
    fn range(&self, tree: i64) -> Option<usize> {
        let first = self.ranges.first()?.tree;
        if let Some(guess) = tree.checked_sub(first)
            && let Ok(guess) = usize::try_from(guess)
            && let Some(range) = self.ranges.get(guess)
            && range.tree == tree
        {
            return Some(guess);
        }
        self.ranges
            .binary_search_by_key(&tree, |range| range.tree)
            .ok()
    }

    /// The place of a node in the file.
    pub fn find(&self, tree: i64, id: i64) -> Option<u32> {
        let range = &self.ranges[self.range(tree)?];
        let nodes = &self.order[range.start as usize..range.end as usize];
        let first = self.ids[*nodes.first()? as usize];
        if let Some(guess) = id.checked_sub(first)
            && let Ok(guess) = usize::try_from(guess)
            && let Some(place) = nodes.get(guess)
            && self.ids[*place as usize] == id
        {
            return Some(*place);
        }
        let at = nodes.binary_search_by_key(&id, |place| self.ids[*place as usize]);
        Some(nodes[at.ok()?])
    }

    /// The root of each tree, trees in the order in which the file first mentions them: the first of
    /// the tree's nodes that no branch leads to.
    pub fn roots(&self, is_child: &[bool]) -> Result<Vec<u32>, String> {
        let mut number_of: Vec<Option<usize>> = vec![None; self.ranges.len()];
        let mut roots: Vec<(u32, Option<u32>)> = Vec::with_capacity(self.ranges.len());
        for (place, tree) in self.trees.iter().enumerate() {
            let Some(range) = self.range(*tree) else {
                continue;
            };
            let number = *number_of[range].get_or_insert_with(|| {
                roots.push((place as u32, None));
                roots.len() - 1
            });
            let root = &mut roots[number].1;
            if root.is_none() && !is_child[place] {
                *root = Some(place as u32);
            }
        }
        let mut found = Vec::with_capacity(roots.len());
        for (first, root) in roots {
            found.push(root.ok_or_else(|| {
                let first = first as usize;
                format!(
                    "{}: the tree has no root, every node is the child of another",
                    node_name(self.trees[first], self.ids[first])
                )
            })?);
        }
        Ok(found)
    }
}
