//! From nodes that refer to each other to trees in which every node is reached by one path.
//!
//! Files may let several branches go on to the same node. Exporters of LightGBM use this to test
//! for one of several categories: a chain of `==` tests of the same column whose true ways meet
//! again. Such a chain becomes one [`Test::Member`]; a node that is shared otherwise is copied, up
//! to a bound on the copies together. A node that leads back to itself is refused.

use crate::trees::ensemble::{Branch, Child, Leaf, Test, Tree, Way};

/// Copies of shared nodes: so many times the nodes of the file may be visited.
const MOST_VISITS_PER_NODE: usize = 4;
/// And so many times more, for small files.
const MORE_VISITS: usize = 1024;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AtMost,
    Below,
    Above,
    AtLeast,
    Equals,
    Differs,
    Member,
    Leaf,
}

/// A node of the file; the others are known by their places among all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawNode {
    pub kind: Kind,
    /// A value that is NaN goes the way of a test that holds.
    pub missing_holds: bool,
    pub feature: u32,
    /// Of a member test, the place of its set.
    pub set: u32,
    /// Where to go on if the test holds; of a leaf, its first weight.
    pub yes: u32,
    /// Where to go on if not; of a leaf, the number of its weights.
    pub no: u32,
    /// What the test compares with.
    pub value: f64,
}

/// All nodes of a file.
pub(crate) struct Forest<'a> {
    pub nodes: &'a [RawNode],
    /// The root of each tree.
    pub roots: &'a [u32],
    /// The sets of member tests: ascending, without repetition and without NaN.
    pub sets: &'a [Box<[f64]>],
    /// What to call a node of the tree in a message.
    pub name: &'a dyn Fn(usize, u32) -> String,
}

/// What is left to do for a tree.
enum Task {
    /// Add this node and tell its parent where it is.
    Enter(u32, Parent),
    /// The node and all below it are done.
    Leave(u32),
}

#[derive(Clone, Copy)]
enum Parent {
    None,
    Yes(u32),
    No(u32),
}

struct Grower<'a> {
    forest: &'a Forest<'a>,
    /// Whether the node is one of those between the root and the present node.
    on_path: Vec<bool>,
    visits_left: usize,
    features: usize,
}

/// The trees, and a number above all columns that they read.
pub(crate) fn grow(forest: &Forest<'_>) -> Result<(Vec<Tree>, usize), String> {
    let mut grower = Grower {
        forest,
        on_path: vec![false; forest.nodes.len()],
        visits_left: forest
            .nodes
            .len()
            .saturating_add(members(forest.sets))
            .saturating_mul(MOST_VISITS_PER_NODE)
            .saturating_add(MORE_VISITS),
        features: 0,
    };
    let mut trees = Vec::with_capacity(forest.roots.len());
    for (number, root) in forest.roots.iter().enumerate() {
        trees.push(grower.tree(number, *root)?);
    }
    Ok((trees, grower.features))
}

impl Grower<'_> {
    fn tree(&mut self, number: usize, root: u32) -> Result<Tree, String> {
        let mut tree = Tree {
            root: Child::Leaf(0),
            branches: Vec::new(),
            leaves: Vec::new(),
        };
        let mut tasks = vec![Task::Enter(root, Parent::None)];
        while let Some(task) = tasks.pop() {
            let (place, parent) = match task {
                Task::Leave(place) => {
                    self.on_path[place as usize] = false;
                    continue;
                }
                Task::Enter(place, parent) => (place, parent),
            };
            self.enter(number, place)?;
            let node = self.forest.nodes[place as usize];
            if node.kind == Kind::Leaf {
                let leaf = Child::Leaf(tree.leaves.len() as u32);
                tree.leaves.push(Leaf {
                    first: node.yes,
                    count: node.no,
                });
                tree.attach(parent, leaf);
                continue;
            }
            self.on_path[place as usize] = true;
            tasks.push(Task::Leave(place));
            // A test both of whose ways are the same decides nothing.
            if node.yes == node.no {
                tasks.push(Task::Enter(node.yes, parent));
                continue;
            }
            if node.kind == Kind::Member {
                let set = self.forest.sets.get(node.set as usize);
                self.visit(number, place, set.map_or(0, |set| set.len()))?;
            }
            let (branch, no) = self.branch(number, &node, &mut tasks)?;
            let here = tree.branches.len() as u32;
            tree.branches.push(branch);
            tree.attach(parent, Child::Branch(here));
            tasks.push(Task::Enter(no, Parent::No(here)));
            tasks.push(Task::Enter(node.yes, Parent::Yes(here)));
        }
        tree.branches.shrink_to_fit();
        tree.leaves.shrink_to_fit();
        Ok(tree)
    }

    /// Counts so many visits.
    fn visit(&mut self, number: usize, place: u32, visits: usize) -> Result<(), String> {
        match self.visits_left.checked_sub(visits) {
            Some(left) => {
                self.visits_left = left;
                Ok(())
            }
            None => Err(format!(
                "{}: too many paths lead to the nodes of the trees (over {MOST_VISITS_PER_NODE} \
                 times the {} nodes of the file); export the model so that no two branches share a \
                 child",
                (self.forest.name)(number, place),
                self.forest.nodes.len()
            )),
        }
    }

    /// Counts a visit and refuses to walk in a circle.
    fn enter(&mut self, number: usize, place: u32) -> Result<(), String> {
        let name = || (self.forest.name)(number, place);
        if self.on_path[place as usize] {
            return Err(format!("{}: it leads back to itself", name()));
        }
        self.visit(number, place, 1)
    }

    /// The branch of a node, its children still to be attached, and the node to go on with if the
    /// test fails.
    fn branch(
        &mut self,
        number: usize,
        node: &RawNode,
        tasks: &mut Vec<Task>,
    ) -> Result<(Branch, u32), String> {
        self.features = self.features.max(node.feature as usize + 1);
        let mut missing_holds = node.missing_holds;
        let mut no = node.no;
        let mut members = vec![];
        if node.kind == Kind::Equals {
            while let Some(next) = self.next_equals(node, no) {
                self.enter(number, no)?;
                self.on_path[no as usize] = true;
                tasks.push(Task::Leave(no));
                missing_holds |= next.missing_holds;
                members.push(next.value);
                no = next.no;
            }
        }
        let differs = node.kind == Kind::Differs;
        let test = if !members.is_empty() {
            members.push(node.value);
            one_of(&member_set(&members))
        } else if node.kind == Kind::Member {
            let set = self.forest.sets.get(node.set as usize);
            one_of(set.map_or(&[], |set| set))
        } else if node.value.is_nan() {
            // Nothing equals NaN or is on either side of it.
            Test::Always(differs)
        } else {
            simple_test(node.kind, node.value)
        };
        let missing = if missing_holds || differs {
            Way::Yes
        } else {
            Way::No
        };
        let branch = Branch {
            feature: node.feature,
            test,
            missing,
            yes: Child::Leaf(0),
            no: Child::Leaf(0),
        };
        Ok((branch, no))
    }

    /// The node `no`, if it goes on with a chain of `==` tests that `node` belongs to.
    fn next_equals(&self, node: &RawNode, no: u32) -> Option<RawNode> {
        let next = self.forest.nodes[no as usize];
        let joins = next.kind == Kind::Equals
            && next.feature == node.feature
            && next.yes == node.yes
            && next.no != next.yes
            && !self.on_path[no as usize];
        joins.then_some(next)
    }
}

/// The members of all sets together.
fn members(sets: &[Box<[f64]>]) -> usize {
    sets.iter().map(|set| set.len()).sum()
}

fn simple_test(kind: Kind, value: f64) -> Test {
    match kind {
        Kind::AtMost => Test::AtMost(value),
        Kind::Below => Test::Below(value),
        Kind::Above => Test::Above(value),
        Kind::AtLeast => Test::AtLeast(value),
        Kind::Equals => Test::Equals(value),
        Kind::Differs => Test::Differs(value),
        Kind::Member | Kind::Leaf => Test::Always(false),
    }
}

fn one_of(set: &[f64]) -> Test {
    match set {
        [] => Test::Always(false),
        [only] => Test::Equals(*only),
        set => Test::Member(set.into()),
    }
}

impl Tree {
    fn attach(&mut self, parent: Parent, child: Child) {
        match parent {
            Parent::None => self.root = child,
            Parent::Yes(branch) => self.branches[branch as usize].yes = child,
            Parent::No(branch) => self.branches[branch as usize].no = child,
        }
    }
}

/// The numbers of a set, ascending, without repetition and without NaN.
pub(crate) fn member_set(values: &[f64]) -> Box<[f64]> {
    let mut set: Vec<f64> = Vec::with_capacity(values.len());
    for value in values {
        if !value.is_nan() {
            // Adding zero makes -0 the same as 0.
            set.push(*value + 0.0);
        }
    }
    set.sort_unstable_by(f64::total_cmp);
    set.dedup();
    set.into_boxed_slice()
}
