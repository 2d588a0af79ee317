//! [`Shortcut`]: texts that are one-hot encoded and then multiplied by a matrix, without the ones and
//! zeros in between.
//!
//! Linear models of tabular data begin like this, and most of their time goes into writing zeros and
//! multiplying by them:
//!
//! ```text
//! [Concat of texts] -> OneHotEncoder -> Flatten or Reshape -> Concat with numbers -> Gemm or MatMul
//! ```
//!
//! Steps that belong together like that, and whose values in between nobody else reads, are put next to
//! each other in the plan. A run tries the shortcut first. Where the tensors at hand are not as it needs
//! them, or a text is refused, the steps are run one by one, so that results and errors are the same.

use smallvec::SmallVec;

use super::{Input, Plan, Slot, Source, Step, bytes};
use crate::operator::{Context, Kind, OpError};
use crate::ops::dense::addend;
use crate::ops::encoded_product::{Columns, EncodedProduct};
use crate::tensor::Tensor;

/// Some steps of a plan, one after the other.
#[derive(Debug)]
pub(super) struct Shortcut {
    /// The first of its steps, and how many they are; the last is the product.
    pub first: usize,
    steps: usize,
    /// The columns of the left matrix.
    parts: Vec<Part>,
    /// What the product adds.
    addend: Source,
}

#[derive(Debug)]
enum Part {
    Numbers(Source),
    /// Side by side, and which of the steps encodes them into how many columns, if that is fixed.
    Texts {
        texts: SmallVec<[Source; 4]>,
        encoder: usize,
        columns: Option<usize>,
    },
}

/// A shortcut whose steps are not yet next to each other.
struct Found {
    /// In the order of the plan; the last is the product.
    steps: Vec<usize>,
    parts: Vec<Part>,
    addend: Source,
}

impl Plan {
    /// Runs the steps of `shortcut` at once if that is possible. How many steps are done: all of them,
    /// or none.
    pub(super) fn take<'a>(
        &'a self,
        shortcut: &Shortcut,
        slots: &mut [Slot<'a>],
        context: &Context<'_>,
    ) -> Result<usize, OpError> {
        let tensor = {
            let Some(product) = self.encoded_product(shortcut, slots)? else {
                return Ok(0);
            };
            context.take_steps(1)?;
            let Some(results) = product.compute(context)? else {
                return Ok(0);
            };
            Tensor::new(&[product.rows, product.right.columns], results)?
        };
        let steps = &self.steps[shortcut.first..shortcut.first + shortcut.steps];
        let mut freed = 0;
        for input in steps.iter().flat_map(|step| &step.inputs) {
            if let (Source::Slot(place), true) = (input.source, input.last)
                && let Slot::Owned(tensor) = std::mem::replace(&mut slots[place], Slot::Empty)
            {
                freed += bytes(&tensor);
            }
        }
        let live = context.live_bytes.get().saturating_sub(freed);
        context.live_bytes.set(live);
        context.keep(bytes(&tensor))?;
        if let Some(place) = steps.last().and_then(|step| *step.outputs.first()?) {
            slots[place] = Slot::Owned(tensor);
        }
        Ok(shortcut.steps)
    }

    /// The product of the tensors at hand; `None` if they are not two-dimensional, of other types or
    /// of other sizes than the shortcut is for.
    fn encoded_product<'a>(
        &'a self,
        shortcut: &Shortcut,
        slots: &'a [Slot<'a>],
    ) -> Result<Option<EncodedProduct<'a>>, OpError> {
        let last = shortcut.first + shortcut.steps - 1;
        let Kind::Product(fixed) = self.steps[last].operator.kind() else {
            return Ok(None);
        };
        let mut left: SmallVec<[Columns<'a>; 4]> = SmallVec::new();
        let mut rows = None;
        let mut inner = 0usize;
        for part in &shortcut.parts {
            let sources = match part {
                Part::Numbers(source) => std::slice::from_ref(source),
                Part::Texts { texts, .. } => texts,
            };
            let before = inner;
            for source in sources {
                let Some(tensor) = self.tensor(*source, slots) else {
                    return Ok(None);
                };
                let [tensor_rows, width] = *tensor.shape() else {
                    return Ok(None);
                };
                let columns = self.columns(part, shortcut.first, tensor, width);
                let Some(columns) = columns.filter(|_| width > 0) else {
                    return Ok(None);
                };
                if *rows.get_or_insert(tensor_rows) != tensor_rows {
                    return Ok(None);
                }
                inner = inner.saturating_add(columns.inner());
                left.push(columns);
            }
            if let Part::Texts { columns, .. } = part
                && columns.is_some_and(|columns| columns != inner - before)
            {
                return Ok(None);
            }
        }
        let rows = rows.unwrap_or_default();
        if rows == 0 || inner != fixed.right.inner {
            return Ok(None);
        }
        let added = self.tensor(shortcut.addend, slots);
        Ok(Some(EncodedProduct {
            left,
            rows,
            right: fixed.right,
            scale: fixed.scale,
            addend: addend(added, rows, fixed.right.columns, fixed.addend_scale)?,
        }))
    }

    fn columns<'a>(
        &'a self,
        part: &Part,
        first: usize,
        tensor: &'a Tensor,
        width: usize,
    ) -> Option<Columns<'a>> {
        let Part::Texts { encoder, .. } = part else {
            let values = tensor.as_slice::<f32>()?;
            return Some(Columns::Numbers { values, width });
        };
        let Kind::OneHot(encoder) = self.steps[first + encoder].operator.kind() else {
            return None;
        };
        Some(Columns::Texts {
            values: tensor.as_slice()?,
            width,
            encoder,
            places: encoder.texts()?,
        })
    }

    fn tensor<'a>(&'a self, source: Source, slots: &'a [Slot<'a>]) -> Option<&'a Tensor> {
        match source {
            Source::Absent => None,
            Source::Constant(place) => Some(&self.constants[place]),
            Source::Slot(place) => match &slots[place] {
                Slot::Owned(tensor) => Some(tensor),
                Slot::Borrowed(tensor) => Some(tensor),
                Slot::Empty => None,
            },
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn drop_shortcuts(&mut self) -> usize {
        std::mem::take(&mut self.shortcuts).len()
    }

    /// Finds the shortcuts, and puts the steps of each next to each other.
    pub(super) fn find_shortcuts(&mut self) {
        let finder = Finder::new(self);
        let mut found: Vec<Found> = (0..self.steps.len())
            .filter_map(|step| finder.look_at(step))
            .collect();
        if found.is_empty() {
            return;
        }
        // The steps of a shortcut move to its product, behind whatever they need.
        let mut product_of: Vec<Option<usize>> = vec![None; self.steps.len()];
        for (number, found) in found.iter().enumerate() {
            for step in &found.steps {
                product_of[*step] = Some(number);
            }
        }
        let mut waiting: Vec<Vec<Step>> = found.iter().map(|_| Vec::new()).collect();
        let mut steps = Vec::with_capacity(self.steps.len());
        for (place, step) in std::mem::take(&mut self.steps).into_iter().enumerate() {
            let Some(number) = product_of[place] else {
                steps.push(step);
                continue;
            };
            waiting[number].push(step);
            if found[number].steps.last() == Some(&place) {
                self.shortcuts.push(Shortcut {
                    first: steps.len(),
                    steps: waiting[number].len(),
                    parts: std::mem::take(&mut found[number].parts),
                    addend: found[number].addend,
                });
                steps.append(&mut waiting[number]);
            }
        }
        self.steps = steps;
    }
}

/// Who makes each value of a plan, and how often it is read.
struct Finder<'p> {
    steps: &'p [Step],
    makers: Vec<Option<usize>>,
    reads: Vec<usize>,
}

impl<'p> Finder<'p> {
    fn new(plan: &'p Plan) -> Finder<'p> {
        let mut makers = vec![None; plan.slots];
        let mut reads = vec![0; plan.slots];
        for (number, step) in plan.steps.iter().enumerate() {
            for place in step.outputs.iter().flatten() {
                makers[*place] = Some(number);
            }
            for input in &step.inputs {
                if let Source::Slot(place) = input.source {
                    reads[place] += 1;
                }
            }
        }
        for output in &plan.outputs {
            if let Source::Slot(place) = output.source {
                reads[place] += 1;
            }
        }
        Finder {
            steps: &plan.steps,
            makers,
            reads,
        }
    }

    /// The step that makes the value, if nobody else reads it.
    fn maker(&self, source: Source) -> Option<usize> {
        match source {
            Source::Slot(place) if self.reads[place] == 1 => self.makers[place],
            _ => None,
        }
    }

    /// The inputs of a step that puts matrices side by side.
    fn side_by_side(&self, step: usize) -> Option<&'p [Input]> {
        match self.steps[step].operator.kind() {
            Kind::Concat(1 | -1) => Some(&self.steps[step].inputs),
            _ => None,
        }
    }

    /// The shortcut to the product that is this step.
    fn look_at(&self, product: usize) -> Option<Found> {
        let step = &self.steps[product];
        match step.operator.kind() {
            Kind::Product(fixed) if fixed.right.is_finite() => {}
            _ => return None,
        }
        let mut steps = vec![product];
        let mut parts = Vec::new();
        let left = step.inputs.first()?.source;
        match self.maker(left) {
            Some(maker) if self.side_by_side(maker).is_some() => {
                steps.push(maker);
                for input in self.side_by_side(maker)? {
                    parts.push(self.part(input.source, &mut steps));
                }
            }
            _ => parts.push(self.part(left, &mut steps)),
        }
        let is_encoded = |part: &Part| matches!(part, Part::Texts { .. });
        if !parts.iter().any(is_encoded) {
            return None;
        }
        steps.sort_unstable();
        for part in &mut parts {
            if let Part::Texts { encoder, .. } = part {
                *encoder = steps.binary_search(encoder).ok()?;
            }
        }
        Some(Found {
            steps,
            parts,
            addend: step
                .inputs
                .get(2)
                .map_or(Source::Absent, |input| input.source),
        })
    }

    /// What makes some columns of the left matrix; steps that do it go to `steps`.
    fn part(&self, source: Source, steps: &mut Vec<usize>) -> Part {
        let encoded = || {
            let matrix = self.maker(source)?;
            let Kind::Matrix(columns) = self.steps[matrix].operator.kind() else {
                return None;
            };
            let encoder = self.maker(self.steps[matrix].inputs.first()?.source)?;
            let Kind::OneHot(one_hot) = self.steps[encoder].operator.kind() else {
                return None;
            };
            one_hot.texts()?;
            Some((matrix, encoder, columns))
        };
        let Some((matrix, encoder, columns)) = encoded() else {
            return Part::Numbers(source);
        };
        steps.extend([matrix, encoder]);
        let mut texts: SmallVec<[Source; 4]> = SmallVec::new();
        let inputs = &self.steps[encoder].inputs;
        texts.extend(inputs.first().map(|input| input.source));
        if let Some(&text) = texts.first()
            && let Some(joined) = self.maker(text)
            && let Some(inputs) = self.side_by_side(joined)
        {
            steps.push(joined);
            texts = inputs.iter().map(|input| input.source).collect();
        }
        Part::Texts {
            texts,
            encoder,
            columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use crate::model::Model;
    use crate::ops::one_node::{int, strings};
    use crate::proto::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
        TensorType, TypeProto, TypeValue, ValueInfoProto,
    };
    use compact_str::CompactString;

    use crate::tensor::{DataType, Tensor};

    const CATEGORIES: [&str; 3] = ["Yes", "No", "a category of many letters"];

    fn node(operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
        let is_ml = operator == "OneHotEncoder";
        NodeProto {
            op_type: operator.to_string(),
            domain: if is_ml { "ai.onnx.ml" } else { "" }.to_string(),
            input: inputs.iter().map(|name| (*name).to_string()).collect(),
            output: vec![format!("{operator}_of_{}", inputs[0])],
            attribute: attributes,
            ..NodeProto::default()
        }
    }

    fn matrix(name: &str, of: DataType) -> ValueInfoProto {
        ValueInfoProto {
            name: name.to_string(),
            r#type: Some(TypeProto {
                value: Some(TypeValue::Tensor(TensorType {
                    elem_type: of as i32,
                    shape: None,
                })),
            }),
        }
    }

    /// Two columns of texts, encoded together, between two matrices of one number each.
    fn model(weights: &[f32], zeros: i64, joined: bool, output: &str) -> Model {
        let categories = || vec![strings("cats_strings", &CATEGORIES), int("zeros", zeros)];
        let mut nodes = Vec::new();
        let texts = if joined {
            nodes.push(node("Concat", &["s", "t"], vec![int("axis", 1)]));
            "Concat_of_s"
        } else {
            "s"
        };
        nodes.push(node("OneHotEncoder", &[texts], categories()));
        let ones = format!("OneHotEncoder_of_{texts}");
        nodes.push(node("Flatten", &[&ones], vec![]));
        nodes.push(node("Abs", &["y"], vec![]));
        let flat = format!("Flatten_of_{ones}");
        nodes.push(node(
            "Concat",
            &["x", &flat, "Abs_of_y"],
            vec![int("axis", -1)],
        ));
        nodes.push(node("Gemm", &["Concat_of_x", "w", "c"], vec![]));
        let columns = weights.len() / if joined { 8 } else { 5 };
        let fixed = |name: &str, dims: &[usize], values: &[f32]| TensorProto {
            name: name.to_string(),
            dims: dims.iter().map(|size| *size as i64).collect(),
            data_type: DataType::F32 as i32,
            float_data: values.to_vec(),
            ..TensorProto::default()
        };
        let inner = weights.len() / columns;
        let file = ModelProto {
            ir_version: 8,
            opset_import: [("", 15), ("ai.onnx.ml", 2)]
                .map(|(domain, version)| OperatorSetIdProto {
                    domain: domain.to_string(),
                    version,
                })
                .to_vec(),
            graph: Some(GraphProto {
                node: nodes,
                initializer: vec![
                    fixed("w", &[inner, columns], weights),
                    fixed("c", &[columns], &weights[..columns]),
                ],
                input: vec![
                    matrix("x", DataType::F32),
                    matrix("y", DataType::F32),
                    matrix("s", DataType::String),
                    matrix("t", DataType::String),
                ],
                output: vec![matrix(output, DataType::F32)],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        Model::from_bytes(&file.encode_to_vec()).unwrap()
    }

    fn inputs(rows: &[(f32, f32, usize, usize)]) -> Vec<Tensor> {
        let shape = [rows.len(), 1];
        let text = |place: usize| CATEGORIES.get(place).copied().unwrap_or("?").into();
        let texts = |of: fn(&(f32, f32, usize, usize)) -> usize| {
            let texts: Vec<CompactString> = rows.iter().map(|row| text(of(row))).collect();
            Tensor::new(&shape, texts).unwrap()
        };
        vec![
            Tensor::new(&shape, rows.iter().map(|row| row.0).collect()).unwrap(),
            Tensor::new(&shape, rows.iter().map(|row| row.1).collect()).unwrap(),
            texts(|row| row.2),
            texts(|row| row.3),
        ]
    }

    fn bits(outputs: &[Tensor]) -> Vec<u32> {
        let values = outputs[0].as_slice::<f32>().unwrap();
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn the_bits_are_those_of_the_steps_one_by_one(
            weights in prop::collection::vec(-4.0f32..4.0, 8 * 11),
            columns in 1usize..12,
            joined in any::<bool>(),
            rows in prop::collection::vec((-9.0f32..9.0, -9.0f32..9.0, 0usize..5, 0usize..5), 1..150),
        ) {
            let inner = if joined { 8 } else { 5 };
            let weights = &weights[..inner * columns.min(11)];
            let short = model(weights, 1, joined, "Gemm_of_Concat_of_x");
            let (long, shortcuts) = model(weights, 1, joined, "Gemm_of_Concat_of_x").without_shortcuts();
            prop_assert_eq!(shortcuts, 1);
            let expected = bits(&long.run(inputs(&rows)).unwrap());
            prop_assert_eq!(bits(&short.run(inputs(&rows)).unwrap()), expected);
        }
    }

    #[test]
    fn a_forbidden_category_is_refused_in_the_words_of_its_encoder() {
        let short = model(&[0.5; 8], 0, true, "Gemm_of_Concat_of_x");
        let (long, _) = model(&[0.5; 8], 0, true, "Gemm_of_Concat_of_x").without_shortcuts();
        let rows = [(1.0, 2.0, 0, 1), (1.0, 2.0, 1, 4)];
        let refused = short.run(inputs(&rows)).unwrap_err().to_string();
        assert!(refused.contains("unknown category"), "{refused}");
        assert_eq!(refused, long.run(inputs(&rows)).unwrap_err().to_string());
        assert!(short.run(inputs(&rows[..1])).is_ok());
    }

    #[test]
    fn what_somebody_else_reads_or_zero_does_not_undo_is_computed() {
        let read = model(&[0.5; 8], 1, true, "Concat_of_x");
        assert_eq!(read.without_shortcuts().1, 0);
        let mut weights = [0.5; 8];
        weights[3] = f32::INFINITY;
        let endless = model(&weights, 1, true, "Gemm_of_Concat_of_x");
        assert_eq!(endless.without_shortcuts().1, 0);
    }

    #[test]
    fn matrices_of_other_sizes_are_refused_as_without_it() {
        let short = model(&[0.5; 8], 1, true, "Gemm_of_Concat_of_x");
        let (long, _) = model(&[0.5; 8], 1, true, "Gemm_of_Concat_of_x").without_shortcuts();
        let mut given = inputs(&[(1.0, 2.0, 0, 1)]);
        given[0] = Tensor::new(&[1, 2], vec![0.0_f32, 1.0]).unwrap();
        let refused = short.run(given.clone()).unwrap_err().to_string();
        assert_eq!(refused, long.run(given).unwrap_err().to_string());
    }
}
