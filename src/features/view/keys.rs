//! The vocabulary of a view file: every section with its keys, what each takes, and what it is for.
//!
//! The reader refuses what is not listed here, and the JSON schema for editors is made from it, so
//! that neither can know a key that the other does not.

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Text.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// One text, or a list of them.
    TextOrTexts,
    /// Text, a number or a boolean.
    Scalar,
    /// A list of texts, numbers or booleans.
    Scalars,
    /// A finite number.
    Number,
    /// A whole number, 0 or more.
    Whole,
    /// true or false.
    Flag,
    /// A duration, for example "30d".
    Duration,
    /// A duration, or a list of them.
    Durations,
    /// A table with its own keys.
    Table(&'static Section),
    /// A list of such tables.
    Tables(&'static Section),
}

/// One key of a section.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    pub about: &'static str,
}

/// A table of a view file.
#[derive(Debug)]
pub struct Section {
    /// As it is written in the file.
    pub name: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
}

impl Section {
    /// The names of the keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }

    /// The key called `name`.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn required(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        shape,
        required: true,
        about,
    }
}

const fn optional(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        shape,
        required: false,
        about,
    }
}

/// The names of the feature types.
pub const TYPES: &[&str] = &["string", "int64", "float64", "bool"];

/// The names of the window functions.
pub const FUNCTIONS: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "stddev",
    "count_distinct",
    "first",
    "last",
    "rate",
    "time_since_last",
    "top_k",
    "quantile",
];

/// The whole file.
pub static FILE: Section = Section {
    name: "the file",
    about: "A feature view: what is known about one kind of entity.",
    keys: &[
        required("view", Shape::Table(&VIEW), "What the view is."),
        required("feature", Shape::Tables(&FEATURE), "The features."),
        optional(
            "relation",
            Shape::Tables(&RELATION),
            "Other entities that one of this view points to.",
        ),
    ],
};

pub static VIEW: Section = Section {
    name: "[view]",
    about: "What the view is.",
    keys: &[
        required("name", Shape::Text, "The name of the view."),
        required(
            "entity",
            Shape::TextOrTexts,
            "The key column of the entity, or the columns of a composite key.",
        ),
        optional("description", Shape::Text, "What the view holds."),
        optional("owner", Shape::Text, "Who answers for it."),
        optional(
            "purposes",
            Shape::Texts,
            "What its features may be used for.",
        ),
        optional(
            "max_age",
            Shape::Duration,
            "A stored value older than this is reported as stale.",
        ),
    ],
};

pub static FEATURE: Section = Section {
    name: "[[feature]]",
    about: "One feature. Stored, unless it has `expression`, `aggregate`, `from` or `source`.",
    keys: &[
        required("name", Shape::Text, "The name of the feature."),
        required("type", Shape::OneOf(TYPES), "The type of its values."),
        optional("description", Shape::Text, "What it means."),
        optional(
            "owner",
            Shape::Text,
            "Who answers for it; the view's owner when left out.",
        ),
        optional(
            "purposes",
            Shape::Texts,
            "What it may be used for; the view's purposes when left out.",
        ),
        optional("tags", Shape::Texts, "Words to find it by."),
        optional("personal", Shape::Flag, "Whether it is personal data."),
        optional(
            "default",
            Shape::Scalar,
            "What a missing or null value becomes; missing is passed on without it.",
        ),
        optional(
            "values",
            Shape::Scalars,
            "The values that are known; any when left out.",
        ),
        optional(
            "unknown",
            Shape::OneOf(&["pass", "refuse"]),
            "What happens to a value that is not among `values`.",
        ),
        optional("min", Shape::Number, "The smallest number allowed."),
        optional("max", Shape::Number, "The largest number allowed."),
        optional(
            "max_age",
            Shape::Duration,
            "A value older than this is reported as stale.",
        ),
        optional(
            "expression",
            Shape::Text,
            "SQL over the other features: the feature is computed when it is read.",
        ),
        optional(
            "source",
            Shape::OneOf(&["stored", "request"]),
            "`request`: the value comes with each request and is never stored.",
        ),
        optional(
            "aggregate",
            Shape::Table(&AGGREGATE),
            "The feature is computed from the events of a window of time.",
        ),
        optional(
            "from",
            Shape::Text,
            "`relation.feature`: the feature is read from a related entity.",
        ),
    ],
};

pub static AGGREGATE: Section = Section {
    name: "aggregate",
    about: "A function over the events of a window of time.",
    keys: &[
        required("event", Shape::Text, "The name of the events."),
        required(
            "function",
            Shape::OneOf(FUNCTIONS),
            "What is computed of them.",
        ),
        required(
            "window",
            Shape::Durations,
            "How far back the window reaches; a list makes one feature for each, \
             called `<name>_<window>`.",
        ),
        optional(
            "value",
            Shape::Text,
            "SQL over the event's properties: what is aggregated.",
        ),
        optional(
            "where",
            Shape::Text,
            "SQL over the event's properties: only events for which it is true count.",
        ),
        optional(
            "group_by",
            Shape::Text,
            "SQL over the event's properties: a map with one value for each group.",
        ),
        optional(
            "groups",
            Shape::Texts,
            "With `group_by`: groups that also get a plain feature, called `<name>_<group>`.",
        ),
        optional(
            "k",
            Shape::Whole,
            "`top_k`: how many values; 10 when left out.",
        ),
        optional(
            "q",
            Shape::Number,
            "`quantile`: which one, between 0 and 1; 0.5 is the median.",
        ),
    ],
};

pub static RELATION: Section = Section {
    name: "[[relation]]",
    about: "Another entity that one of this view points to.",
    keys: &[
        required(
            "name",
            Shape::Text,
            "What the relation is called in `from`.",
        ),
        required("view", Shape::Text, "The view of the other entity."),
        required(
            "key",
            Shape::TextOrTexts,
            "The feature or key column that holds the other entity's key; \
             a list, in the order of its columns, for a composite key.",
        ),
    ],
};
