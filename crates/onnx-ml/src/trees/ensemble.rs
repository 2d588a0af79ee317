//! [`Ensemble`]: trees in one form, whatever operator and version they came from.

/// Trees over the columns of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ensemble {
    /// The columns that the tests read: all are below this number.
    pub features: usize,
    /// The number of sums a row has.
    pub targets: usize,
    pub trees: Vec<Tree>,
    /// The leaves of all trees refer to these: a target and what is added to it.
    pub weights: Vec<Weight>,
    pub aggregate: Aggregate,
    /// Values are compared and summed in float64; else in float32, in which case every threshold
    /// and weight here is a float32 exactly.
    pub wide: bool,
}

impl Ensemble {
    /// No trees.
    pub fn empty(targets: usize) -> Ensemble {
        Ensemble {
            features: 0,
            targets,
            trees: Vec::new(),
            weights: Vec::new(),
            aggregate: Aggregate::Sum,
            wide: false,
        }
    }
}

impl Ensemble {
    /// About how many comparisons and additions a row takes at most.
    pub fn row_cost(&self) -> usize {
        // The columns that the kernels make of the features: two each, and one for each set.
        let mut columns = 2 * self.features;
        let mut branches = 0;
        let mut sets = 0;
        let mut path = 0usize;
        for tree in &self.trees {
            let (depth, heaviest) = tree.extent();
            path = path.saturating_add(depth + heaviest + 1);
            branches += tree.branches.len();
            let set = |branch: &&Branch| {
                !matches!(
                    branch.test,
                    Test::AtMost(_) | Test::Below(_) | Test::Above(_) | Test::AtLeast(_)
                )
            };
            sets += tree.branches.iter().filter(set).count();
        }
        columns = columns.min(branches).saturating_add(sets);
        path.saturating_add(columns).saturating_add(self.targets)
    }
}

impl Tree {
    /// The length of its longest path, and the number of weights of its heaviest leaf.
    fn extent(&self) -> (usize, usize) {
        // Parents come before children.
        let mut depths = vec![0usize; self.branches.len()];
        let mut deepest = 0;
        for (place, branch) in self.branches.iter().enumerate() {
            let depth = depths[place] + 1;
            deepest = deepest.max(depth);
            for child in [branch.yes, branch.no] {
                if let Child::Branch(child) = child {
                    depths[child as usize] = depth;
                }
            }
        }
        let weights = self.leaves.iter().map(|leaf| leaf.count as usize);
        (deepest, weights.max().unwrap_or(0))
    }
}

/// How the leaves that a row reaches make its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// One tree. Every branch and every leaf is reached from the root by exactly one path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tree {
    pub root: Child,
    /// Parents before children.
    pub branches: Vec<Branch>,
    pub leaves: Vec<Leaf>,
}

/// A test on one column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Branch {
    pub feature: u32,
    pub test: Test,
    /// Where a row goes whose value is NaN.
    pub missing: Way,
    /// Where it goes if the test holds.
    pub yes: Child,
    /// Where it goes if not.
    pub no: Child,
}

/// One of the two ways on from a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Yes,
    No,
}

/// What holds of a value. The numbers are never NaN.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    AtMost(f64),
    Below(f64),
    Above(f64),
    AtLeast(f64),
    Equals(f64),
    Differs(f64),
    /// One of a set, ascending and without repetition.
    Member(Box<[f64]>),
    /// Whatever the value is, this is the answer (for thresholds that are NaN).
    Always(bool),
}

/// The place of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    Branch(u32),
    Leaf(u32),
}

/// A range of [`Ensemble::weights`], each target at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub first: u32,
    pub count: u32,
}

/// What a leaf adds to one sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weight {
    pub target: u32,
    pub value: f64,
}
