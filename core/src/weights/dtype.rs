//! Types in which checkpoints store weights, and the float types they are handed out in.

use std::fmt;

/// A stored tensor type that can be read.
///
/// Quantised types are the block formats of ggml; the layouts are in `dequantize/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the file formats' own")]
#[allow(non_camel_case_types, reason = "the names are the file formats' own")]
#[non_exhaustive]
pub enum DType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    IQ1S,
    IQ1M,
    IQ2XXS,
    IQ2XS,
    IQ2S,
    IQ3XXS,
    IQ3S,
    IQ4NL,
    IQ4XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
}

impl DType {
    /// Every type that can be read.
    pub const ALL: &'static [DType] = &[
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q2K,
        DType::Q3K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::IQ1S,
        DType::IQ1M,
        DType::IQ2XXS,
        DType::IQ2XS,
        DType::IQ2S,
        DType::IQ3XXS,
        DType::IQ3S,
        DType::IQ4NL,
        DType::IQ4XS,
        DType::TQ1_0,
        DType::TQ2_0,
        DType::MXFP4,
        DType::NVFP4,
    ];

    /// The types that are floats as stored.
    pub const FLOATS: &'static [DType] = &[DType::F32, DType::F16, DType::BF16];

    /// Elements that are stored together: 1 for floats, 32, 64 or 256 for quantised types.
    pub fn block_elements(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 => 32,
            DType::IQ4NL | DType::MXFP4 => 32,
            DType::NVFP4 => 64,
            DType::Q2K | DType::Q3K | DType::Q4K | DType::Q5K | DType::Q6K => 256,
            DType::IQ1S | DType::IQ1M | DType::IQ2XXS | DType::IQ2XS | DType::IQ2S => 256,
            DType::IQ3XXS | DType::IQ3S | DType::IQ4XS | DType::TQ1_0 | DType::TQ2_0 => 256,
        }
    }

    /// Bytes of [`DType::block_elements`] elements.
    pub fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q2K => 84,
            DType::Q3K => 110,
            DType::Q4K => 144,
            DType::Q5K => 176,
            DType::Q6K => 210,
            DType::IQ1S => 50,
            DType::IQ1M => 56,
            DType::IQ2XXS => 66,
            DType::IQ2XS => 74,
            DType::IQ2S => 82,
            DType::IQ3XXS => 98,
            DType::IQ3S => 110,
            DType::IQ4NL => 18,
            DType::IQ4XS => 136,
            DType::TQ1_0 => 54,
            DType::TQ2_0 => 66,
            DType::MXFP4 => 17,
            DType::NVFP4 => 36,
        }
    }

    /// Whether the elements have to be computed from blocks.
    pub fn is_quantised(self) -> bool {
        self.block_elements() > 1
    }

    /// The float type in which [`super::Weights::read_rows`] hands the elements out.
    pub fn read_as(self) -> FloatType {
        match self {
            DType::F16 => FloatType::F16,
            DType::BF16 => FloatType::BF16,
            _ => FloatType::F32,
        }
    }

    /// Bytes that `elements` elements take, if they fill whole blocks and the number fits.
    pub fn bytes_of(self, elements: usize) -> Option<u64> {
        let blocks = elements / self.block_elements();
        if blocks * self.block_elements() != elements {
            return None;
        }
        (blocks as u64).checked_mul(self.block_bytes() as u64)
    }

    /// The name in the file formats: `F32`, `Q8_0`, `Q4_K`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Q8_0 => "Q8_0",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
            DType::Q5_0 => "Q5_0",
            DType::Q5_1 => "Q5_1",
            DType::Q2K => "Q2_K",
            DType::Q3K => "Q3_K",
            DType::Q4K => "Q4_K",
            DType::Q5K => "Q5_K",
            DType::Q6K => "Q6_K",
            DType::IQ1S => "IQ1_S",
            DType::IQ1M => "IQ1_M",
            DType::IQ2XXS => "IQ2_XXS",
            DType::IQ2XS => "IQ2_XS",
            DType::IQ2S => "IQ2_S",
            DType::IQ3XXS => "IQ3_XXS",
            DType::IQ3S => "IQ3_S",
            DType::IQ4NL => "IQ4_NL",
            DType::IQ4XS => "IQ4_XS",
            DType::TQ1_0 => "TQ1_0",
            DType::TQ2_0 => "TQ2_0",
            DType::MXFP4 => "MXFP4",
            DType::NVFP4 => "NVFP4",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A float type that the GPU code understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the file formats' own")]
pub enum FloatType {
    F32,
    F16,
    BF16,
}

impl FloatType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }

    /// The name as safetensors spells it: `F32`, `F16` or `BF16`.
    pub fn as_str(self) -> &'static str {
        match self {
            FloatType::F32 => "F32",
            FloatType::F16 => "F16",
            FloatType::BF16 => "BF16",
        }
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<FloatType> for DType {
    fn from(float: FloatType) -> Self {
        match float {
            FloatType::F32 => DType::F32,
            FloatType::F16 => DType::F16,
            FloatType::BF16 => DType::BF16,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn only_whole_blocks_have_a_size() {
        assert_eq!(DType::Q4K.bytes_of(512), Some(288));
        assert_eq!(DType::Q4K.bytes_of(500), None);
        assert_eq!(DType::BF16.bytes_of(3), Some(6));
        assert_eq!(DType::Q8_0.bytes_of(0), Some(0));
    }

    #[test]
    fn names_are_the_formats_own() {
        let names: Vec<_> = DType::ALL.iter().map(|dtype| dtype.to_string()).collect();
        assert_eq!(
            names.join(" "),
            "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K \
            IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4"
        );
        for float in [FloatType::F32, FloatType::F16, FloatType::BF16] {
            let dtype = DType::from(float);
            assert_eq!(dtype.as_str(), float.as_str());
            assert_eq!(dtype.read_as(), float);
            assert_eq!(dtype.block_bytes(), float.bytes());
        }
    }
}
