//! Which vector instructions are used.

use std::sync::OnceLock;

/// A set of vector instructions. The results are the same with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Simd {
    /// Plain loops, which compilers turn into what the target has (NEON, SSE2, …).
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    /// The most that this processor has. The environment variable `ONNX_ML_SIMD` (`portable`,
    /// `avx2`), read once, asks for less, to compare or to rule out a processor's fault.
    pub fn detect() -> Simd {
        static DETECTED: OnceLock<Simd> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let wanted = std::env::var("ONNX_ML_SIMD").unwrap_or_default();
            let all = Simd::all();
            let found = all.iter().rev().find(|simd| match wanted.as_str() {
                "portable" => **simd == Simd::Portable,
                #[cfg(target_arch = "x86_64")]
                "avx2" => **simd != Simd::Avx512,
                _ => true,
            });
            found.copied().unwrap_or(Simd::Portable)
        })
    }

    /// All that this processor has, the best last.
    pub fn all() -> Vec<Simd> {
        let mut all = vec![Simd::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                all.push(Simd::Avx2);
                let wide = has!("avx512f") && has!("avx512bw");
                if wide && has!("avx512dq") && has!("avx512vl") {
                    all.push(Simd::Avx512);
                }
            }
        }
        all
    }
}
