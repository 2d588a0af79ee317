//! The operators, one file per family, and their registration with tract.
//!
//! tract finds an operator by its name alone; `check` has verified by then that the name came with
//! the domain it belongs to.

mod cast;
mod concat;
mod dense;
mod imputer;
mod kernel;
mod normalizer;
mod numbers;
mod one_hot_encoder;
mod scaler;
mod sigmoid;

use std::sync::OnceLock;

use tract_onnx::Onnx;

/// tract's operators with this crate's added or put in their place.
pub(crate) fn framework() -> &'static Onnx {
    static FRAMEWORK: OnceLock<Onnx> = OnceLock::new();
    FRAMEWORK.get_or_init(|| {
        let mut framework = tract_onnx::onnx();
        // The hints a file gives about inner tensors are not needed, and are one more thing from
        // outside to trust.
        framework.ignore_value_info = true;
        let register = &mut framework.op_register;
        register.insert("OneHotEncoder", one_hot_encoder::build);
        register.insert("Imputer", imputer::build);
        register.insert("Normalizer", normalizer::build);
        register.insert("Scaler", scaler::build);
        register.insert("Cast", cast::build);
        register.insert("Concat", concat::build);
        register.insert("Sigmoid", sigmoid::build);
        register.insert("Gemm", dense::build_gemm);
        register.insert("MatMul", dense::build_matmul);
        framework
    })
}

/// tract's own operators, for the cases in which a replacement hands over to the original.
pub(crate) fn tract_operators() -> &'static Onnx {
    static ORIGINAL: OnceLock<Onnx> = OnceLock::new();
    ORIGINAL.get_or_init(tract_onnx::onnx)
}
