//! `ZipMap`: names the columns of a classifier's probabilities.
//!
//! The maps it makes in the format become names here: the tensor is passed on as it is, and the
//! labels, in the order of its columns, are part of what [`crate::TensorInfo`] says of the output.

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::tensor::DataType;

pub(crate) const OPERATORS: &[(&str, Build)] = &[("ZipMap", zip_map)];

#[derive(Debug)]
struct ZipMap {
    labels: usize,
}

fn zip_map(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let integers = node.ints("classlabels_int64s")?.unwrap_or_default().len();
    let strings = node
        .strings("classlabels_strings")?
        .unwrap_or_default()
        .len();
    if (integers == 0) == (strings == 0) {
        return Err(format!(
            "classlabels_int64s has {integers} labels and classlabels_strings {strings}, expected \
             labels in one of them"
        ));
    }
    Ok(Box::new(ZipMap {
        labels: integers + strings,
    }))
}

impl Operator for ZipMap {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        if tensor.data_type() != DataType::F32 {
            return Err(OpError::data_type(0, tensor.data_type(), "float"));
        }
        let columns = match *tensor.shape() {
            [columns] | [_, columns] => columns,
            _ => {
                return Err(OpError::Value(format!(
                    "the input has {} dimensions, expected 1 or 2",
                    tensor.rank()
                )));
            }
        };
        if columns != self.labels {
            return Err(OpError::Value(format!(
                "the input has {columns} columns, but there are {} labels",
                self.labels
            )));
        }
        one(args.take(0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{ints, model, refusal, strings};
    use crate::interface::Labels;
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn the_tensor_is_passed_on_and_its_columns_are_named() {
        let attributes = vec![strings("classlabels_strings", &["no", "yes"])];
        let model = model("ZipMap", attributes, &[DataType::F32]).unwrap();
        let names = ["no", "yes"].map(String::from).to_vec();
        assert_eq!(model.outputs()[0].labels, Some(Labels::Strings(names)));
        for shape in [&[2][..], &[1, 2]] {
            let scores = Tensor::new(shape, vec![0.25_f32, 0.75]).unwrap();
            assert_eq!(model.run(vec![scores.clone()]).unwrap()[0], scores);
        }
        let three = Tensor::vector(vec![0.0_f32; 3]);
        assert!(model.run(vec![three]).is_err());
    }

    #[test]
    fn labels_of_both_kinds_or_none_are_refused() {
        refusal("ZipMap", Vec::new(), &[DataType::F32]);
        let both = vec![
            ints("classlabels_int64s", &[0]),
            strings("classlabels_strings", &["a"]),
        ];
        refusal("ZipMap", both, &[DataType::F32]);
    }
}
