//! I-quants: groups of elements are points of a grid, or elements are steps of a scale that is not linear.
//!
//! The grids are those of ggml's `ggml-common.h`, in the packing of `gguf/quants.py`: two bytes a point. They are data that the
//! quantiser was trained to; `testdata/make_fixtures.py` writes them again.

use super::half;

/// Points of eight elements, two bits each: [`TWO_BIT_VALUES`].
const IQ2_XXS: &[u8; 2 * 256] = include_bytes!("grids/iq2_xxs.bin");
const IQ2_XS: &[u8; 2 * 512] = include_bytes!("grids/iq2_xs.bin");
const IQ2_S: &[u8; 2 * 1024] = include_bytes!("grids/iq2_s.bin");
/// Points of eight elements, two bits each: the number less 1.
const IQ1: &[u8; 2 * 2048] = include_bytes!("grids/iq1_s.bin");
/// Points of four elements, a nibble each: 4 to 52 in steps of 8, and 62.
const IQ3_XXS: &[u8; 2 * 256] = include_bytes!("grids/iq3_xxs.bin");
/// Points of four elements, a nibble each: odd numbers from 1.
const IQ3_S: &[u8; 2 * 512] = include_bytes!("grids/iq3_s.bin");

const TWO_BIT_VALUES: [f32; 4] = [8.0, 25.0, 43.0, 0.0];
const IQ3_XXS_VALUES: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
const IQ3_S_VALUES: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];
const IQ1_VALUES: [f32; 4] = [-1.0, 0.0, 1.0, 0.0];
/// What a point of the grid of IQ1 is shifted by, up or down.
const IQ1_DELTA: f32 = 0.125;
const IQ4_VALUES: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// The elements of a point of eight.
fn eight(grid: &[u8], point: usize, values: &[f32; 4]) -> [f32; 8] {
    let bits = word(grid, point);
    std::array::from_fn(|i| values[usize::from(bits >> (2 * i) & 3)])
}

/// The elements of two points of four.
fn twice_four(grid: &[u8], points: [usize; 2], values: &[f32; 8]) -> [f32; 8] {
    std::array::from_fn(|i| values[usize::from(word(grid, points[i / 4]) >> (4 * (i % 4)) & 7)])
}

/// `scale * point`, negative where a bit of `signs` is set.
fn signed(scale: f32, point: [f32; 8], signs: u8, out: &mut [f32]) {
    for i in 0..8 {
        let value = scale * point[i];
        out[i] = if signs >> i & 1 == 1 { -value } else { value };
    }
}

/// The signs of eight elements of which seven are stored: an even number is negative.
fn even_signs(stored: u32) -> u8 {
    let stored = (stored & 127) as u8;
    stored | (stored.count_ones() as u8 & 1) << 7
}

/// The little-endian word number `i`.
fn word(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

fn double_word(bytes: &[u8], i: usize) -> u32 {
    u32::from(word(bytes, 2 * i)) | u32::from(word(bytes, 2 * i + 1)) << 16
}

/// Nibble number `i`, low ones first.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (i % 2 * 4) & 15
}

/// d: f16, then 8 bytes for each 32 elements: four points, and a u32 of four times seven signs and four bits of scale.
/// `d * (0.5 + scale) * 0.25 * point`
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half(block[0], block[1]);
    for (group, bytes) in block[2..].as_chunks::<8>().0.iter().enumerate() {
        let packed = double_word(bytes, 1);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.25;
        for i in 0..4 {
            let point = eight(IQ2_XXS, usize::from(bytes[i]), &TWO_BIT_VALUES);
            signed(scale, point, even_signs(packed >> (7 * i)), &mut out[group * 32 + i * 8..]);
        }
    }
}

/// d: f16, 32 words of a point (9 bits) and seven signs, scales: 16 nibbles, each for two points. The formula of IQ2_XXS
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        let packed = word(&block[2..], i);
        let scale = d * (0.5 + f32::from(nibble(&block[66..], i / 2))) * 0.25;
        let point = eight(IQ2_XS, usize::from(packed & 511), &TWO_BIT_VALUES);
        signed(scale, point, even_signs(u32::from(packed >> 9)), &mut out[i * 8..]);
    }
}

/// d: f16, low 8 bits of 32 points, signs: 32 bytes, high 2 bits: 8 bytes, scales: 16 nibbles. The formula of IQ2_XXS
pub(super) fn iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        let high = usize::from(block[66 + i / 4] >> (i % 4 * 2) & 3);
        let scale = d * (0.5 + f32::from(nibble(&block[74..], i / 2))) * 0.25;
        let point = eight(IQ2_S, usize::from(block[2 + i]) | high << 8, &TWO_BIT_VALUES);
        signed(scale, point, block[34 + i], &mut out[i * 8..]);
    }
}

/// d: f16, 64 points, then for each 32 elements a u32 of four times seven signs and four bits of scale.
/// `d * (0.5 + scale) * 0.5 * point`
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        let packed = double_word(&block[66..], i / 4);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.5;
        let points = [2 + 2 * i, 3 + 2 * i].map(|at| usize::from(block[at]));
        let point = twice_four(IQ3_XXS, points, &IQ3_XXS_VALUES);
        signed(scale, point, even_signs(packed >> (i % 4 * 7)), &mut out[i * 8..]);
    }
}

/// d: f16, low 8 bits of 64 points, ninth bits: 8 bytes, signs: 32 bytes, scales: 8 nibbles. `d * (1 + 2 * scale) * point`
pub(super) fn iq3_s(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        let scale = d * f32::from(1 + 2 * nibble(&block[106..], i / 4));
        let points = [2 * i, 2 * i + 1].map(|at| {
            let ninth = usize::from(block[66 + at / 8] >> (at % 8) & 1);
            usize::from(block[2 + at]) | ninth << 8
        });
        signed(scale, twice_four(IQ3_S, points, &IQ3_S_VALUES), block[74 + i], &mut out[i * 8..]);
    }
}

/// d: f16, low 8 bits of 32 points, then for each 32 elements a word of four times three high bits, three bits of scale and
/// one that is set for a negative delta. `d * (2 * scale + 1) * (point + delta)`
pub(super) fn iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        let packed = word(&block[34..], i / 4);
        let high = usize::from(packed >> (i % 4 * 3) & 7);
        let scale = d * f32::from(2 * (packed >> 12 & 7) + 1);
        shifted(scale, usize::from(block[2 + i]) | high << 8, packed >> 15 == 1, &mut out[i * 8..]);
    }
}

/// Low 8 bits of 32 points, a nibble for each of three high bits and one that is set for a negative delta: 16 bytes, and four
/// words of four times three bits of scale, each for two points, whose highest four bits together are d: f16. The formula of
/// IQ1_S
pub(super) fn iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    let scales = &block[48..];
    let [low, high] = [0, 2].map(|i| (word(scales, i) >> 12 | word(scales, i + 1) >> 12 << 4) as u8);
    let d = half(low, high);
    for i in 0..32 {
        let packed = nibble(&block[32..], i);
        let scale = d * f32::from(2 * (word(scales, i / 8) >> (i % 8 / 2 * 3) & 7) + 1);
        let point = usize::from(block[i]) | usize::from(packed & 7) << 8;
        shifted(scale, point, packed >> 3 == 1, &mut out[i * 8..]);
    }
}

/// `scale * (point + delta)` of a point of IQ1's grid.
fn shifted(scale: f32, point: usize, down: bool, out: &mut [f32]) {
    let delta = if down { -IQ1_DELTA } else { IQ1_DELTA };
    for (out, value) in out.iter_mut().zip(eight(IQ1, point, &IQ1_VALUES)) {
        *out = scale * (value + delta);
    }
}

/// d: f16, q: 16 bytes as in Q4_0. `d * value of q`
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for i in 0..16 {
        let q = block[2 + i];
        out[i] = d * IQ4_VALUES[usize::from(q & 15)];
        out[16 + i] = d * IQ4_VALUES[usize::from(q >> 4)];
    }
}

/// d: f16, high bits of 8 scales: a word of two bits each, low bits: 8 nibbles, q: 16 bytes as in Q4_0 for each 32 elements.
/// `d * (scale - 32) * value of q`
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = half(block[0], block[1]);
    for group in 0..8 {
        let high = (word(block, 1) >> (2 * group) & 3) as u8;
        let scale = d * f32::from((nibble(&block[4..], group) | high << 4) as i8 - 32);
        for i in 0..16 {
            let q = block[8 + group * 16 + i];
            out[group * 32 + i] = scale * IQ4_VALUES[usize::from(q & 15)];
            out[group * 32 + 16 + i] = scale * IQ4_VALUES[usize::from(q >> 4)];
        }
    }
}
