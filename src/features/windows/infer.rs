//! Which types the properties have that an expression reads.
//!
//! Events have no schema, so it is read off the expression: what is compared or computed with a
//! number is a number, with text is text, with true or false is a boolean. What nothing is known of
//! (`note is not null`) is read as text, and numbers and booleans as theirs.

use arrow::datatypes::DataType as Arrow;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, UnaryOperator, Value,
};

/// The most properties of one expression.
const MAX_PROPERTIES: usize = 100;

/// How a property is read. A property of another type is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// A number as a float.
    Number,
    /// A whole number; `3.0` is one.
    Integer,
    Flag,
    Text,
    /// Text, or a number or boolean as its text.
    AnyText,
}

impl Reading {
    pub fn arrow(self) -> Arrow {
        match self {
            Reading::Number => Arrow::Float64,
            Reading::Integer => Arrow::Int64,
            Reading::Flag => Arrow::Boolean,
            Reading::Text | Reading::AnyText => Arrow::Utf8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Reading::Number | Reading::Integer => "a number",
            Reading::Flag => "true or false",
            Reading::Text | Reading::AnyText => "text",
        }
    }
}

/// A property that an expression reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// As the events have it: what is written, with or without quotes.
    pub name: String,
    /// As SQL has it: in lower case unless it is quoted.
    pub column: String,
    pub reading: Option<Reading>,
}

/// The property that `tree` consists of, when it is nothing but one.
pub fn lone_property(tree: &Expr) -> Option<String> {
    match tree {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::Nested(inner) => lone_property(inner),
        _ => None,
    }
}

/// The properties that `tree` reads, with their types.
///
/// # Errors
/// When one is read in two ways, or the expression has a form whose types are not known.
pub fn properties(tree: &Expr, result: Option<Reading>) -> Result<Vec<Property>, String> {
    let mut found = Found::default();
    // What is learned of one property may say what another one is.
    loop {
        found.learned = false;
        found.visit(tree, result)?;
        if !found.learned {
            return Ok(found.properties);
        }
    }
}

#[derive(Default)]
struct Found {
    properties: Vec<Property>,
    learned: bool,
}

impl Found {
    /// Goes through `expr`, of which is known what it must be; returns what it is.
    fn visit(&mut self, expr: &Expr, wanted: Option<Reading>) -> Result<Option<Reading>, String> {
        use Reading::{Flag, Number, Text};
        match expr {
            Expr::Identifier(name) => self.property(name, wanted),
            Expr::CompoundIdentifier(parts) => {
                let path: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
                Err(format!(
                    "reads {}: properties inside others cannot be read; send it as a property of \
                     its own, or put the name in double quotes if it holds a dot",
                    path.join(".")
                ))
            }
            Expr::Nested(inner) => self.visit(inner, wanted),
            Expr::Value(value) => Ok(match &value.value {
                Value::Number(..) => Some(Number),
                Value::Boolean(_) => Some(Flag),
                Value::Null | Value::Placeholder(_) => None,
                _ => Some(Text),
            }),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::UnaryOp { op, expr } => {
                let kind = if matches!(op, UnaryOperator::Not) { Flag } else { Number };
                self.visit(expr, Some(kind))?;
                Ok(Some(kind))
            }
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                self.visit(inner, None)?;
                Ok(Some(Flag))
            }
            Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => {
                self.visit(inner, Some(Flag))?;
                Ok(Some(Flag))
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.alike([left.as_ref(), right.as_ref()], None)?;
                Ok(Some(Flag))
            }
            Expr::Between { expr, low, high, .. } => {
                self.alike([expr.as_ref(), low.as_ref(), high.as_ref()], None)?;
                Ok(Some(Flag))
            }
            Expr::InList { expr, list, .. } => {
                self.alike(std::iter::once(expr.as_ref()).chain(list), None)?;
                Ok(Some(Flag))
            }
            Expr::Like { expr, pattern, .. }
            | Expr::ILike { expr, pattern, .. }
            | Expr::SimilarTo { expr, pattern, .. } => {
                self.alike([expr.as_ref(), pattern.as_ref()], Some(Text))?;
                Ok(Some(Flag))
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let whens = conditions.iter().map(|when| &when.condition);
                match operand {
                    Some(operand) => {
                        self.alike(std::iter::once(operand.as_ref()).chain(whens), None)?;
                    }
                    None => {
                        self.alike(whens, Some(Flag))?;
                    }
                }
                let results = conditions.iter().map(|when| &when.result);
                self.alike(results.chain(else_result.as_deref()), wanted)
            }
            Expr::Cast { expr, data_type, .. } => {
                let target = target_of(data_type);
                // Text can be of anything; anything else only of its like.
                let from = target.filter(|target| *target != Text);
                self.visit(expr, from)?;
                Ok(target)
            }
            Expr::Ceil { expr, .. } | Expr::Floor { expr, .. } => {
                self.visit(expr, Some(Number))?;
                Ok(Some(Number))
            }
            Expr::Position { expr, r#in } => {
                self.alike([expr.as_ref(), r#in.as_ref()], Some(Text))?;
                Ok(Some(Number))
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                self.visit(expr, Some(Text))?;
                for bound in [substring_from, substring_for].into_iter().flatten() {
                    self.visit(bound, Some(Number))?;
                }
                Ok(Some(Text))
            }
            Expr::Trim { trim_what, expr, .. } => {
                self.visit(expr, Some(Text))?;
                if let Some(what) = trim_what {
                    self.visit(what, Some(Text))?;
                }
                Ok(Some(Text))
            }
            Expr::Function(call) => self.function(call, wanted),
            _ => Err(
                "has a form that is not known for events: comparisons, arithmetic, case, cast, in, \
                 between, like and functions are"
                    .to_owned(),
            ),
        }
    }

    fn property(
        &mut self,
        name: &Ident,
        wanted: Option<Reading>,
    ) -> Result<Option<Reading>, String> {
        let column = match name.quote_style {
            Some(_) => name.value.clone(),
            None => name.value.to_lowercase(),
        };
        let position = self
            .properties
            .iter()
            .position(|known| known.column == column);
        let Some(known) = position.and_then(|position| self.properties.get_mut(position)) else {
            if self.properties.len() == MAX_PROPERTIES {
                return Err(format!(
                    "reads more than {MAX_PROPERTIES} properties; split it into several features"
                ));
            }
            self.learned = true;
            self.properties.push(Property {
                name: name.value.clone(),
                column,
                reading: wanted,
            });
            return Ok(wanted);
        };
        if known.name != name.value {
            return Err(format!(
                "reads {} and {}, which SQL takes for the same: put them in double quotes",
                known.name, name.value
            ));
        }
        match (known.reading, wanted) {
            (Some(reading), Some(wanted)) if reading != wanted => Err(format!(
                "reads {} as {} and as {}",
                name.value,
                reading.name(),
                wanted.name()
            )),
            (None, Some(_)) => {
                self.learned = true;
                known.reading = wanted;
                Ok(wanted)
            }
            (reading, _) => Ok(reading),
        }
    }

    /// Expressions that must be of the same type; which one.
    fn alike<'a>(
        &mut self,
        all: impl IntoIterator<Item = &'a Expr>,
        wanted: Option<Reading>,
    ) -> Result<Option<Reading>, String> {
        let all: Vec<&Expr> = all.into_iter().collect();
        let mut kinds = Vec::new();
        for expr in &all {
            kinds.extend(self.visit(expr, wanted)?);
        }
        let kind = wanted.or(kinds.first().copied());
        if wanted.is_none() {
            // Whether text and numbers that are computed can be compared is for the compiler to
            // say; a property has one type.
            let properties = all.iter().filter(|expr| lone_property(expr).is_some());
            for property in properties {
                for kind in &kinds {
                    self.visit(property, Some(*kind))?;
                }
            }
        }
        Ok(kind)
    }

    fn binary(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
    ) -> Result<Option<Reading>, String> {
        use BinaryOperator as Op;
        let (operands, result) = match op {
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq | Op::Spaceship => {
                (None, Reading::Flag)
            }
            Op::And | Op::Or | Op::Xor => (Some(Reading::Flag), Reading::Flag),
            Op::StringConcat => (Some(Reading::Text), Reading::Text),
            Op::PGRegexMatch
            | Op::PGRegexIMatch
            | Op::PGRegexNotMatch
            | Op::PGRegexNotIMatch
            | Op::PGLikeMatch
            | Op::PGILikeMatch
            | Op::PGNotLikeMatch
            | Op::PGNotILikeMatch => (Some(Reading::Text), Reading::Flag),
            _ => (Some(Reading::Number), Reading::Number),
        };
        self.alike([left, right], operands)?;
        Ok(Some(result))
    }

    fn function(
        &mut self,
        call: &Function,
        wanted: Option<Reading>,
    ) -> Result<Option<Reading>, String> {
        use Reading::{Flag, Number, Text};
        let name = call.name.to_string().to_lowercase();
        let mut arguments = Vec::new();
        if let FunctionArguments::List(list) = &call.args {
            for argument in &list.args {
                match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => arguments.push(expr),
                    _ => return Err(format!("calls {name}() with something that is no value")),
                }
            }
        }
        let (kinds, result): (&[Reading], Reading) = match name.as_str() {
            "coalesce" | "nullif" | "greatest" | "least" | "nvl" | "ifnull" => {
                return self.alike(arguments, wanted);
            }
            "nvl2" => {
                let mut arguments = arguments.into_iter();
                if let Some(asked) = arguments.next() {
                    self.visit(asked, None)?;
                }
                return self.alike(arguments, wanted);
            }
            "lower" | "upper" | "trim" | "btrim" | "ltrim" | "rtrim" | "concat" | "reverse"
            | "replace" | "translate" | "initcap" | "regexp_replace" | "concat_ws" => {
                (&[Text], Text)
            }
            "substr" | "substring" | "left" | "right" => (&[Text, Number], Text),
            "lpad" | "rpad" => (&[Text, Number, Text], Text),
            "split_part" => (&[Text, Text, Number], Text),
            "length" | "char_length" | "character_length" | "octet_length" | "bit_length"
            | "ascii" | "strpos" | "position" | "instr" | "levenshtein" | "find_in_set" => {
                (&[Text], Number)
            }
            "starts_with" | "ends_with" | "contains" | "regexp_like" => (&[Text], Flag),
            "isnan" | "iszero" => (&[Number], Flag),
            "chr" | "to_hex" => (&[Number], Text),
            _ => (&[Number], Number),
        };
        for (index, argument) in arguments.into_iter().enumerate() {
            // The last kind is that of all further ones.
            let kind = kinds.get(index).or(kinds.last()).copied();
            self.visit(argument, kind)?;
        }
        Ok(Some(result))
    }
}

/// What a cast makes; none when it is not one of the types of features.
fn target_of(data_type: &DataType) -> Option<Reading> {
    let name = data_type.to_string().to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["char", "text", "string"]) {
        Some(Reading::Text)
    } else if has(&["bool"]) {
        Some(Reading::Flag)
    } else if has(&["int", "double", "float", "real", "numeric", "decimal"]) {
        Some(Reading::Number)
    } else {
        None
    }
}
