//! The kernels of support vector machines: how alike a row is to each support vector.

use super::linear::dot;
use crate::node::Node;

/// Support vectors side by side, so that the processor works on them at the same time while each
/// sum keeps its order.
const LANES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// The kernel function with its parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel {
    kind: Kind,
    gamma: f32,
    coef0: f32,
    degree: f32,
}

impl Kernel {
    /// The attributes `kernel_type` and `kernel_params`.
    pub fn read(node: &Node<'_>) -> Result<Kernel, String> {
        let kind = match node.string("kernel_type")?.unwrap_or("LINEAR") {
            "LINEAR" => Kind::Linear,
            "POLY" => Kind::Poly,
            "RBF" => Kind::Rbf,
            "SIGMOID" => Kind::Sigmoid,
            other => {
                return Err(format!(
                    "kernel_type `{other}` is none of LINEAR, POLY, RBF and SIGMOID"
                ));
            }
        };
        let parameters = node.floats("kernel_params")?.unwrap_or_default();
        let (gamma, coef0, degree) = match *parameters {
            [gamma, coef0, degree, ..] => (gamma, coef0, degree),
            [] if kind == Kind::Linear => (0.0, 0.0, 0.0),
            _ => {
                return Err(format!(
                    "kernel_params has {} numbers, expected gamma, coef0 and degree",
                    parameters.len()
                ));
            }
        };
        Ok(Kernel {
            kind,
            gamma,
            coef0,
            degree,
        })
    }

    /// The kernel's value from the product of row and vector.
    fn of_product(&self, product: f64) -> f32 {
        let scaled = f64::from(self.gamma) * product + f64::from(self.coef0);
        match self.kind {
            Kind::Linear | Kind::Rbf => product as f32,
            Kind::Poly if self.degree == 2.0 => (scaled * scaled) as f32,
            Kind::Poly if self.degree == 3.0 => (scaled * scaled * scaled) as f32,
            Kind::Poly => scaled.powf(f64::from(self.degree)) as f32,
            Kind::Sigmoid => scaled.tanh() as f32,
        }
    }
}

/// The support vectors of a model.
#[derive(Debug)]
pub(crate) struct SupportVectors {
    kernel: Kernel,
    pub count: usize,
    pub features: usize,
    /// Blocks of [`LANES`] vectors: for each feature the values of all vectors of the block. Lanes
    /// without a vector are zero.
    blocks: Vec<[f32; LANES]>,
}

impl SupportVectors {
    /// `count` vectors of equal length; `count` is not zero.
    pub fn new(kernel: Kernel, values: &[f32], count: usize) -> Result<SupportVectors, String> {
        let features = values.len().checked_div(count).unwrap_or(0);
        if features == 0 || features.checked_mul(count) != Some(values.len()) {
            return Err(format!(
                "support_vectors has {} numbers for {count} vectors, expected as many for each",
                values.len()
            ));
        }
        let vectors: Vec<&[f32]> = values.chunks_exact(features).collect();
        let mut blocks = Vec::new();
        for group in vectors.chunks(LANES) {
            for feature in 0..features {
                let mut lanes = [0.0; LANES];
                for (lane, vector) in lanes.iter_mut().zip(group) {
                    *lane = vector[feature];
                }
                blocks.push(lanes);
            }
        }
        Ok(SupportVectors {
            kernel,
            count,
            features,
            blocks,
        })
    }

    /// The kernel's value for the row and each vector. `row` has [`SupportVectors::features`]
    /// numbers, `values` [`SupportVectors::count`].
    ///
    /// Distances are summed in float32 from the first feature to the last, as ONNX Runtime does;
    /// products in float64.
    pub fn evaluate(&self, row: &[f32], values: &mut [f32]) {
        for (block, values) in self
            .blocks
            .chunks_exact(self.features)
            .zip(values.chunks_mut(LANES))
        {
            if self.kernel.kind == Kind::Rbf {
                let distances = distances(row, block);
                for (value, distance) in values.iter_mut().zip(distances) {
                    *value = (-self.kernel.gamma * distance).exp();
                }
            } else {
                let products = products(row, block);
                for (value, product) in values.iter_mut().zip(products) {
                    *value = self.kernel.of_product(product);
                }
            }
        }
    }
}

fn distances(row: &[f32], block: &[[f32; LANES]]) -> [f32; LANES] {
    let mut sums = [0.0_f32; LANES];
    for (x, lanes) in row.iter().zip(block) {
        for lane in 0..LANES {
            let difference = x - lanes[lane];
            sums[lane] += difference * difference;
        }
    }
    sums
}

fn products(row: &[f32], block: &[[f32; LANES]]) -> [f64; LANES] {
    let mut sums = [0.0_f64; LANES];
    for (x, lanes) in row.iter().zip(block) {
        for lane in 0..LANES {
            sums[lane] += f64::from(*x) * f64::from(lanes[lane]);
        }
    }
    sums
}

/// What stands in place of support vectors when there are none: weights of the columns, one row for
/// each score, and one constant for all. The kernel is then linear whatever the file says.
#[derive(Debug)]
pub(crate) struct Weights {
    pub features: usize,
    weights: Vec<f64>,
    constant: f64,
}

impl Weights {
    pub fn new(coefficients: &[f32], scores: usize, constant: f32) -> Result<Weights, String> {
        let features = coefficients.len().checked_div(scores).unwrap_or(0);
        if features == 0 || features.checked_mul(scores) != Some(coefficients.len()) {
            return Err(format!(
                "{} coefficients for {scores} scores, expected as many for each",
                coefficients.len()
            ));
        }
        Ok(Weights {
            features,
            weights: coefficients.iter().map(|x| f64::from(*x)).collect(),
            constant: f64::from(constant),
        })
    }

    pub fn evaluate(&self, row: &[f32], scores: &mut [f32]) {
        let weights = self.weights.chunks_exact(self.features);
        for (score, weights) in scores.iter_mut().zip(weights) {
            *score = (dot(row, weights) + self.constant) as f32;
        }
    }
}
