//! From ggml's quantised blocks to f32, bit for bit what the Python package `gguf` computes.
//!
//! Layouts and formulas are those of ggml's `ggml-quants.c` and of `gguf/quants.py`; each block function starts with its
//! layout. Products and sums are separate f32 operations, never fused, so the bits agree.

use half::f16;

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

/// d: f16, q: 32 i8. `d * q`
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        out[i] = d * f32::from(block[2 + i] as i8);
    }
}

/// d: f16, q: 16 bytes, low nibbles are elements 0-15, high nibbles 16-31. `d * (q - 8)`
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for i in 0..16 {
        let q = block[2 + i];
        out[i] = d * f32::from((q & 15) as i8 - 8);
        out[16 + i] = d * f32::from((q >> 4) as i8 - 8);
    }
}

/// d, m: f16, q as in Q4_0. `d * q + m`
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    let m = half(block[2], block[3]);
    for i in 0..16 {
        let q = block[4 + i];
        out[i] = d * f32::from(q & 15) + m;
        out[16 + i] = d * f32::from(q >> 4) + m;
    }
}

/// d: f16, fifth bits: u32 (bit i is element i), low four bits as in Q4_0. `d * (q - 16)`
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for i in 0..16 {
        let (first, second) = five_bits(block[6 + i], high, i);
        out[i] = d * f32::from(first as i8 - 16);
        out[16 + i] = d * f32::from(second as i8 - 16);
    }
}

/// d, m: f16, then as Q5_0. `d * q + m`
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    let m = half(block[2], block[3]);
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for i in 0..16 {
        let (first, second) = five_bits(block[8 + i], high, i);
        out[i] = d * f32::from(first) + m;
        out[16 + i] = d * f32::from(second) + m;
    }
}

/// Elements `i` and `16 + i` from the byte with their low four bits and the word with everybody's fifth.
fn five_bits(low: u8, high: u32, i: usize) -> (u8, u8) {
    let fifth = |element: usize| (((high >> element) & 1) as u8) << 4;
    (low & 15 | fifth(i), low >> 4 | fifth(16 + i))
}

/// scales: 16 bytes (low nibble scale, high nibble minimum of 16 elements), q: 64 bytes, d, dmin: f16.
/// A half of 128 elements has 32 bytes; bits `2k` and `2k + 1` of byte `i` are element `32k + i`.
/// `d * scale * q - dmin * min`
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let d = half(block[80], block[81]);
    let dmin = half(block[82], block[83]);
    for group in 0..16 {
        let scale = d * f32::from(block[group] & 15);
        let min = dmin * f32::from(block[group] >> 4);
        let (first, shift) = two_bit_group(group);
        for i in 0..16 {
            let q = block[16 + first + i] >> shift & 3;
            out[group * 16 + i] = scale * f32::from(q) - min;
        }
    }
}

/// high bits: 32 bytes (bit `k` of byte `i` is element `32k + i`; 0 means minus 4), q: 64 bytes as in Q2_K,
/// scales: 12 bytes, d: f16. `d * (scale - 32) * q`
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half(block[108], block[109]);
    for group in 0..16 {
        // Scales of six bits: four in the low (0-7) or high (8-15) nibble of bytes 0-7, two in bytes 8-11.
        let low = block[96 + group % 8] >> (group / 8 * 4) & 15;
        let high = block[104 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * f32::from((low | high << 4) as i8 - 32);
        let (first, shift) = two_bit_group(group);
        for i in 0..16 {
            let low = block[32 + first + i] >> shift & 3;
            let high = block[group % 2 * 16 + i] >> (group / 2) & 1;
            out[group * 16 + i] = scale * f32::from(low as i8 - 4 * (1 - high as i8));
        }
    }
}

/// First of the 16 bytes, of the 64 that hold two bits of every element, in which a group of 16 lies, and the bit.
fn two_bit_group(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// d, dmin: f16, scales: 12 bytes, q: 128 bytes. 64 elements have 32 bytes, low nibbles first.
/// `d * scale * q - dmin * min`
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    for group in 0..8 {
        let (scale, min) = scale_and_min([block[0], block[1], block[2], block[3]], &block[4..16], group);
        for i in 0..32 {
            let q = block[16 + group / 2 * 32 + i] >> (group % 2 * 4) & 15;
            out[group * 32 + i] = scale * f32::from(q) - min;
        }
    }
}

/// As Q4_K with 32 bytes of fifth bits before q: bit `k` of byte `i` is element `32k + i`.
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    for group in 0..8 {
        let (scale, min) = scale_and_min([block[0], block[1], block[2], block[3]], &block[4..16], group);
        for i in 0..32 {
            let low = block[48 + group / 2 * 32 + i] >> (group % 2 * 4) & 15;
            let high = block[16 + i] >> group & 1;
            out[group * 32 + i] = scale * f32::from(low | high << 4) - min;
        }
    }
}

/// Scale and minimum of a group of 32: six bits each, `d` and `dmin` (f16) in `halves`, packed in 12 bytes as
/// `EEAAAAAA.. eeaaaaaa.. eeeeEEEE..`: scales 0-3, minimums 0-3, then the low nibbles of both for 4-7.
fn scale_and_min(halves: [u8; 4], packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 2 & 48, low >> 4 | packed[group] >> 2 & 48)
    };
    (half(halves[0], halves[1]) * f32::from(scale), half(halves[2], halves[3]) * f32::from(min))
}

/// low bits: 128 bytes, high bits: 64 bytes, scales: 16 i8 (16 elements each), d: f16. Of a half of 128 elements, 64
/// bytes hold four low bits (low nibbles are elements 0-63) and 32 bytes two high bits as in Q2_K. `d * scale * (q - 32)`
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block[208], block[209]);
    for group in 0..16 {
        let scale = d * f32::from(block[192 + group] as i8);
        let (upper, within) = (group / 8, group % 8);
        let (first, shift) = two_bit_group(group);
        for i in 0..16 {
            let low = block[upper * 64 + within % 4 * 16 + i] >> (within / 4 * 4) & 15;
            let high = block[128 + first + i] >> shift & 3;
            out[group * 16 + i] = scale * f32::from((low | high << 4) as i8 - 32);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use safetensors::SafeTensors;

    /// Random blocks (`Q4_K.blocks`) and what `gguf.quants.dequantize` makes of them (`Q4_K.values`), written by
    /// `testdata/make_fixtures.py`.
    const GOLDEN: &[u8] = include_bytes!("testdata/dequantize.safetensors");

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
