//! From ggml's quantised blocks to f32, bit for bit what the Python package `gguf` computes.
//!
//! Layouts and formulas are those of ggml's `ggml-quants.c` and of `gguf/quants.py`; each block function starts with its
//! layout. Products and sums are separate f32 operations, never fused, so the bits agree.

mod i_quants;
mod k_quants;
mod simple;
mod small_floats;

use half::f16;

use i_quants::{iq1_m, iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs, iq4_nl, iq4_xs};
use k_quants::{q2_k, q3_k, q4_k, q5_k, q6_k};
use simple::{q4_0, q4_1, q5_0, q5_1, q8_0};
use small_floats::{mxfp4, nvfp4, tq1_0, tq2_0};

use super::DType;

/// The elements of whole blocks of `dtype` in order, or `None` if `bytes` is not a whole number of blocks.
///
/// F32, F16 and BF16 are converted exactly.
pub fn dequantize(dtype: DType, bytes: &[u8]) -> Option<Vec<f32>> {
    if !bytes.len().is_multiple_of(dtype.block_bytes()) {
        return None;
    }
    let mut values = vec![0.0f32; bytes.len() / dtype.block_bytes() * dtype.block_elements()];
    dequantize_into(dtype, bytes, bytemuck::cast_slice_mut(&mut values));
    Some(values)
}

/// As [`dequantize`], into little-endian bytes; as many blocks as both have room for.
pub(super) fn dequantize_into(dtype: DType, bytes: &[u8], to: &mut [u8]) {
    match dtype {
        DType::F32 => each(bytes, to, |block, out: &mut [f32; 1]| out[0] = f32::from_le_bytes(*block)),
        DType::F16 => each(bytes, to, |&[low, high], out: &mut [f32; 1]| out[0] = half(low, high)),
        DType::BF16 => {
            each(bytes, to, |&[low, high], out: &mut [f32; 1]| out[0] = f32::from_le_bytes([0, 0, low, high]))
        }
        DType::Q8_0 => each(bytes, to, q8_0),
        DType::Q4_0 => each(bytes, to, q4_0),
        DType::Q4_1 => each(bytes, to, q4_1),
        DType::Q5_0 => each(bytes, to, q5_0),
        DType::Q5_1 => each(bytes, to, q5_1),
        DType::Q2K => each(bytes, to, q2_k),
        DType::Q3K => each(bytes, to, q3_k),
        DType::Q4K => each(bytes, to, q4_k),
        DType::Q5K => each(bytes, to, q5_k),
        DType::Q6K => each(bytes, to, q6_k),
        DType::IQ1S => each(bytes, to, iq1_s),
        DType::IQ1M => each(bytes, to, iq1_m),
        DType::IQ2XXS => each(bytes, to, iq2_xxs),
        DType::IQ2XS => each(bytes, to, iq2_xs),
        DType::IQ2S => each(bytes, to, iq2_s),
        DType::IQ3XXS => each(bytes, to, iq3_xxs),
        DType::IQ3S => each(bytes, to, iq3_s),
        DType::IQ4NL => each(bytes, to, iq4_nl),
        DType::IQ4XS => each(bytes, to, iq4_xs),
        DType::TQ1_0 => each(bytes, to, tq1_0),
        DType::TQ2_0 => each(bytes, to, tq2_0),
        DType::MXFP4 => each(bytes, to, mxfp4),
        DType::NVFP4 => each(bytes, to, nvfp4),
    }
}

/// Whether all elements are certainly finite, because the f16 factors that blocks begin with are. Never for types of which
/// that cannot be said.
pub(super) fn factors_are_finite(dtype: DType, bytes: &[u8]) -> bool {
    // An f16 times an integer of five bits or a byte is far below f32's largest value.
    match dtype {
        DType::Q8_0 => finite::<34, 1>(bytes),
        DType::Q4_0 => finite::<18, 1>(bytes),
        DType::Q5_0 => finite::<22, 1>(bytes),
        DType::Q4_1 => finite::<20, 2>(bytes),
        DType::Q5_1 => finite::<24, 2>(bytes),
        _ => false,
    }
}

/// Whether the `F` factors of all blocks of `B` bytes are finite. Without an early exit it takes less time.
fn finite<const B: usize, const F: usize>(bytes: &[u8]) -> bool {
    let infinite = |bits: u16| bits & 0x7c00 == 0x7c00;
    let blocks = bytes.as_chunks::<B>().0.iter();
    !blocks.fold(false, |found, block| {
        (0..F).fold(found, |found, at| found | infinite(u16::from_le_bytes([block[2 * at], block[2 * at + 1]])))
    })
}

/// Blocks of `B` bytes become `N` elements each. Fixed sizes spare the bounds checks inside the blocks.
fn each<const B: usize, const N: usize>(bytes: &[u8], to: &mut [u8], block: impl Fn(&[u8; B], &mut [f32; N])) {
    for (bytes, to) in bytes.as_chunks::<B>().0.iter().zip(to.chunks_exact_mut(N * 4)) {
        let mut values = [0.0; N];
        block(bytes, &mut values);
        for (value, to) in values.iter().zip(to.as_chunks_mut().0) {
            *to = value.to_le_bytes();
        }
    }
}

fn half(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use safetensors::SafeTensors;

    /// Random blocks (`Q4_K.blocks`) and what `gguf.quants.dequantize` makes of them (`Q4_K.values`), written by
    /// `../testdata/make_fixtures.py`.
    const GOLDEN: &[u8] = include_bytes!("../testdata/dequantize.safetensors");

    #[test]
    fn every_type_agrees_with_the_gguf_package_bit_for_bit() {
        let golden = SafeTensors::deserialize(GOLDEN).unwrap();
        for &dtype in DType::ALL {
            if dtype == DType::F32 {
                continue;
            }
            let blocks = golden.tensor(&format!("{dtype}.blocks")).unwrap();
            let values = golden.tensor(&format!("{dtype}.values")).unwrap();
            let expected: Vec<u32> = values.data().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
            let found = dequantize(dtype, blocks.data()).unwrap();
            assert!(expected.len() >= 32 && expected.len().is_multiple_of(dtype.block_elements()));
            assert_eq!(found.len(), expected.len(), "{dtype}");
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(found.to_bits(), *expected, "{dtype} element {i}");
            }
        }
    }

    #[test]
    fn block_sizes_match_the_block_functions() {
        for &dtype in DType::ALL {
            let values = dequantize(dtype, &vec![0; 2 * dtype.block_bytes()]).unwrap();
            assert_eq!(values.len(), 2 * dtype.block_elements(), "{dtype}");
            assert!(values.iter().all(|value| *value == 0.0), "{dtype}");
            assert!(dtype == DType::F32 || dequantize(dtype, &vec![0; dtype.block_bytes() + 1]).is_none());
        }
        assert!(dequantize(DType::F32, &[0; 5]).is_none());
    }
}
