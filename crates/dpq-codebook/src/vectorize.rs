//! Functions compiled twice: for every CPU of the target, and for CPUs with AVX2 and fused
//! multiply-add.

/// Defines a function that calls `$fused`, compiled for AVX2 and fused multiply-add, if the CPU has
/// them, and `$any` otherwise. Both are always inlined.
macro_rules! vectorize {
    ($visibility:vis fn $name:ident($($argument:ident: $type:ty),*) $(-> $output:ty)? = $fused:expr, $any:expr) => {
        $visibility fn $name($($argument: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) $(-> $output)? {
                    $fused($($argument),*)
                }
                #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
                // SAFETY: the line above found AVX2 and FMA.
                return unsafe { avx2($($argument),*) };
            }
            $any($($argument),*)
        }
    };
}

pub(crate) use vectorize;
