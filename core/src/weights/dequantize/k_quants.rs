//! K-quants: super-blocks of 256 elements, whose groups have quantised scales.

use super::half;

/// scales: 16 bytes (low nibble scale, high nibble minimum of 16 elements), q: 64 bytes, d, dmin: f16.
/// A half of 128 elements has 32 bytes; bits `2k` and `2k + 1` of byte `i` are element `32k + i`.
/// `d * scale * q - dmin * min`
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
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
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
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
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    for group in 0..8 {
        let (scale, min) = scale_and_min([block[0], block[1], block[2], block[3]], &block[4..16], group);
        for i in 0..32 {
            let q = block[16 + group / 2 * 32 + i] >> (group % 2 * 4) & 15;
            out[group * 32 + i] = scale * f32::from(q) - min;
        }
    }
}

/// As Q4_K with 32 bytes of fifth bits before q: bit `k` of byte `i` is element `32k + i`.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
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
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
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
