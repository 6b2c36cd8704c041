//! From f32 to ggml's blocks Q8_0 and Q4_0, bit for bit what the Python package `gguf` computes (`gguf/quants.py`).
//!
//! Layouts are in `dequantize/simple.rs`.

use half::f16;

use super::DType;

/// Elements of a block of either type.
const BLOCK: usize = 32;

/// Whole blocks of `dtype` of these values, or None if there is no such function here, or the values are not a whole number of
/// blocks.
pub(crate) fn quantize(dtype: DType, values: &[f32]) -> Option<Vec<u8>> {
    let (blocks, rest) = values.as_chunks();
    match dtype {
        DType::Q8_0 if rest.is_empty() => Some(blocks.iter().flat_map(q8_0).collect()),
        DType::Q4_0 if rest.is_empty() => Some(blocks.iter().flat_map(q4_0).collect()),
        _ => None,
    }
}

/// What values are divided by, as a factor.
fn reciprocal(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// f16 scale, 32 i8: the largest magnitude becomes 127.
fn q8_0(values: &[f32; BLOCK]) -> [u8; 34] {
    let scale = values.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
    let factor = reciprocal(scale);
    let mut block = [0; 34];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (to, value) in block[2..].iter_mut().zip(values) {
        // Halves are rounded away from zero.
        *to = (value * factor).round() as i8 as u8;
    }
    block
}

/// f16 scale, 32 nibbles, the low ones first: the value of the largest magnitude becomes -8.
fn q4_0(values: &[f32; BLOCK]) -> [u8; 18] {
    let largest = values.iter().fold(0.0f32, |most, value| if value.abs() > most.abs() { *value } else { most });
    let scale = largest / -8.0;
    let factor = reciprocal(scale);
    let nibble = |value: f32| (value * factor + 8.5).trunc().clamp(0.0, 15.0) as u8;
    let mut block = [0; 18];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    let (low, high) = values.split_at(BLOCK / 2);
    for ((to, low), high) in block[2..].iter_mut().zip(low).zip(high) {
        *to = nibble(*low) | nibble(*high) << 4;
    }
    block
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::digest::hex;
    use crate::weights::dequantize::dequantize;

    /// So many values in -1..1, by a generator (xorshift, Marsaglia, 2003) that is a few lines in Python, too.
    fn random(seed: u32, count: usize) -> impl Iterator<Item = f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        (0..count).map(move |_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    }

    /// Expected bytes are those of `gguf.quants.quantize` (gguf 0.19).
    #[test]
    fn blocks_have_the_bits_of_the_python_package() {
        let block = |of: fn(usize) -> f32| (0..BLOCK).map(of).collect::<Vec<f32>>();
        let halves = block(|i| i as f32 * 0.5 - 8.0);
        let ties = block(|i| if i % 2 == 0 { 1.0 } else { -1.0 });
        let tiny = block(|i| (1e-9 * (i as f64 - 15.0)) as f32);
        let cases = [
            (&halves, DType::Q8_0, "082c81899199a1a9b1b9c0c8d0d8e0e8f0f8000810182028303840474f575f676f77"),
            (&halves, DType::Q4_0, "003c809191a2a2b3b3c4c4d5d5e6e6f7f7f8"),
            (&vec![0.0; BLOCK], DType::Q8_0, "00000000000000000000000000000000000000000000000000000000000000000000"),
            (&vec![0.0; BLOCK], DType::Q4_0, "008088888888888888888888888888888888"),
            (&ties, DType::Q8_0, "08207f817f817f817f817f817f817f817f817f817f817f817f817f817f817f817f81"),
            (&ties, DType::Q4_0, "00b000ff00ff00ff00ff00ff00ff00ff00ff"),
            (&tiny, DType::Q8_0, "0000899199a1a9b1b9c0c8d0d8e0e8f0f8000810182028303840474f575f676f777f"),
            (&tiny, DType::Q4_0, "00808f7f7f6e6e5d5d4c4c3b3b2a2a191908"),
        ];
        for (values, dtype, expected) in cases {
            assert_eq!(hex(quantize(dtype, values).unwrap()), expected, "{dtype}: {values:?}");
        }
        for (seed, scale, dtype, expected) in [
            (1, 0.03, DType::Q8_0, "ae2db6f3b4f84f9f"),
            (1, 0.03, DType::Q4_0, "c0bf95fda7bf6b21"),
            (2, 1.0, DType::Q8_0, "966411aee9186ec3"),
            (2, 1.0, DType::Q4_0, "bdc71c80da2e2a62"),
        ] {
            let values: Vec<f32> = random(seed, 64 * BLOCK).map(|value| value * scale).collect();
            let blocks = quantize(dtype, &values).unwrap();
            assert!(hex(Sha256::digest(blocks)).starts_with(expected), "{dtype}, seed {seed}");
        }
    }

    #[test]
    fn only_whole_blocks_of_two_types_are_made() {
        assert!(quantize(DType::Q8_0, &[1.0; 31]).is_none() && quantize(DType::Q4K, &[1.0; 256]).is_none());
        assert_eq!(quantize(DType::Q4_0, &[]).unwrap().len(), 0);
    }

    /// What writes zeros counts on that.
    #[test]
    fn no_bits_set_are_zeros_in_every_type() {
        for dtype in DType::ALL {
            let values = dequantize(*dtype, &vec![0; dtype.block_bytes()]).unwrap();
            assert!(values.iter().all(|value| *value == 0.0), "{dtype}: {values:?}");
        }
    }
}
