//! Ternary types, and floats of four bits with scales that are floats of eight.

use super::half;

/// An e2m1 float by its four bits, doubled.
const E2M1: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// 48 bytes of five ternary digits each, 4 bytes of four, d: f16. Of the first 32 bytes the first digits are elements 0-31, the
/// second 32-63, and so on; then the next 16 bytes alike, and the last 4. A byte is a fraction of 256, its next digit the whole
/// part of three times that. `d * (digit - 1)`
pub(super) fn tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = half(block[52], block[53]);
    for (bytes, digits, first) in [(0..32, 5, 0), (32..48, 5, 160), (48..52, 4, 240)] {
        let width = bytes.len();
        for (i, byte) in block[bytes].iter().enumerate() {
            let mut rest = *byte;
            for digit in 0..digits {
                let q = (u16::from(rest) * 3) >> 8;
                out[first + digit * width + i] = d * (f32::from(q) - 1.0);
                rest = rest.wrapping_mul(3);
            }
        }
    }
}

/// q: 64 bytes as in Q2_K, d: f16. `d * (q - 1)`
pub(super) fn tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half(block[64], block[65]);
    for i in 0..256 {
        let q = block[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        out[i] = d * (f32::from(q) - 1.0);
    }
}

/// exponent: u8, q: 16 bytes as in Q4_0. `2^(exponent - 128) * twice the float of q`
/// (<https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>)
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let exponent = u32::from(block[0]);
    // Below f32's normal numbers the one bit of the fraction says it.
    let d = f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 });
    for i in 0..16 {
        let q = block[1 + i];
        out[i] = d * E2M1[usize::from(q & 15)];
        out[16 + i] = d * E2M1[usize::from(q >> 4)];
    }
}

/// scales: 4 bytes, each for 16 elements, q: 8 bytes for each 16, of which low nibbles are elements 0-7, high ones 8-15.
/// `scale / 2 * twice the float of q`
pub(super) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    for group in 0..4 {
        let d = e4m3(block[group]) * 0.5;
        for i in 0..8 {
            let q = block[4 + group * 8 + i];
            out[group * 16 + i] = d * E2M1[usize::from(q & 15)];
            out[group * 16 + 8 + i] = d * E2M1[usize::from(q >> 4)];
        }
    }
}

/// An e4m3 float, exactly, without its sign; as in ggml, 0x7f, which is not a number, is 0.
fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    match exponent {
        _ if byte == 0x7f => 0.0,
        0 => fraction * 2f32.powi(-9),
        _ => (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
    }
}
