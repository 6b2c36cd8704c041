//! Blocks of 32 elements with one scale.

use super::half;

/// d: f16, q: 32 i8. `d * q`
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        out[i] = d * f32::from(block[2 + i] as i8);
    }
}

/// d: f16, q: 16 bytes, low nibbles are elements 0-15, high nibbles 16-31. `d * (q - 8)`
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for i in 0..16 {
        let q = block[2 + i];
        out[i] = d * f32::from((q & 15) as i8 - 8);
        out[16 + i] = d * f32::from((q >> 4) as i8 - 8);
    }
}

/// d, m: f16, q as in Q4_0. `d * q + m`
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    let m = half(block[2], block[3]);
    for i in 0..16 {
        let q = block[4 + i];
        out[i] = d * f32::from(q & 15) + m;
        out[16 + i] = d * f32::from(q >> 4) + m;
    }
}

/// d: f16, fifth bits: u32 (bit i is element i), low four bits as in Q4_0. `d * (q - 16)`
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for i in 0..16 {
        let (first, second) = five_bits(block[6 + i], high, i);
        out[i] = d * f32::from(first as i8 - 16);
        out[16 + i] = d * f32::from(second as i8 - 16);
    }
}

/// d, m: f16, then as Q5_0. `d * q + m`
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
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
