//! How byte-level BPE vocabularies split a text into words before they merge.
//!
//! The names and rules are those of llama.cpp (`src/llama-vocab.cpp` and `src/unicode.cpp` of v0.5.0), because what a GGUF file
//! means is what llama.cpp makes of it. The models' own tokenizer.json differ in places: some normalise to form C first
//! (Qwen2, Command R) and some tell capitals from small letters beyond ASCII (Tekken, GPT-4o), which llama.cpp does not.
//! `tests/tests/llama_cpp.rs` compares every name with llama.cpp's own token ids.
//!
//! Expressions are written in what fancy-regex and Oniguruma, which Python's `tokenizers` use, both read: what is exported is to
//! load there.

use serde_json::{Value, json};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

use super::guard::guarded;

/// English contractions in either case. Not `(?i:..)`, under which `s` would also be U+017F.
macro_rules! contractions {
    () => {
        "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    };
}

/// What ends most rules since GPT-4: white space.
macro_rules! spaces {
    () => {
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}

/// Punctuation with the line ends behind it, then white space.
macro_rules! punctuation_and_spaces {
    () => {
        concat!(r"| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!())
    };
}

/// Letters with one other character before them, digits as given, and the rest.
macro_rules! words {
    ($digits:literal) => {
        concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|", $digits, punctuation_and_spaces!())
    };
}

/// As `words`, contractions first.
macro_rules! english_words {
    ($digits:literal) => {
        concat!(contractions!(), "|", words!($digits))
    };
}

/// Words in which capitals stand before small letters and contractions behind both. `$letter` is what a letter is.
macro_rules! cased_words {
    ($letter:literal, $contractions:expr, $digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[",
            $letter,
            "&&[^a-z]]*[",
            $letter,
            "&&[^A-Z]]+",
            $contractions,
            r"|[^\r\n\p{L}\p{N}]?[",
            $letter,
            "&&[^a-z]]+[",
            $letter,
            "&&[^A-Z]]*",
            $contractions,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*",
            spaces!()
        )
    };
}

/// Words with their combining marks, contractions behind them.
macro_rules! marked_words {
    ($digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
            contractions!(),
            "?|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*",
            spaces!()
        )
    };
}

/// The words of DeepSeek V3, `$punctuation` saying what goes with punctuation and behind it.
macro_rules! deepseek_words {
    ($punctuation:literal) => {
        concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"##,
            $punctuation,
            r"|\s+(?!\S)|\s+"
        )
    };
}

/// Han characters as llama.cpp lists them for Kimi K2.
macro_rules! han {
    () => {
        concat!(
            r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}",
            r"\x{2CEB0}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
        )
    };
}

/// The rules of GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = english_words!(r"\p{N}{1,3}");
const QWEN2: &str = english_words!(r"\p{N}");
const NUMBER: &str = r"\p{N}";
const NUMBERS_OF_3: &str = r"\p{N}{1,3}";
const HAN_AND_KANA: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";
/// Without the white space in the second range, which llama.cpp hides from classes.
const HAN_AND_HANGUL: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}&&[^\s]]+";
const DEEPSEEK3: &str = deepseek_words!(r"[\r\n]*|\s*[\r\n]+");
/// All but punctuation, white space, parentheses and bars, as BLOOM has it.
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";
/// Letters of the scripts that have two cases, as DeepSeek LLM lists them.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}",
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}",
    r"-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}",
    r"\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}",
    r"\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}",
    r"-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}",
    r"-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}",
    r"-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}",
    r"\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}",
    r"-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}",
    r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
    "]+"
);
/// Scripts of Asia, as AFMoE lists them.
const AFMOE_SCRIPTS: &str = concat!(
    "[",
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}",
    r"-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}",
    r"-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}",
    "]+"
);

/// How a byte-level BPE vocabulary splits a text before it merges.
#[derive(Debug)]
pub(super) struct WordRules {
    /// What `tokenizer.ggml.pre` calls it.
    pub names: &'static [&'static str],
    /// Unicode normalisation form C comes first.
    nfc: bool,
    /// Runs of digits are cut into threes from their end, before the expressions apply. What stands before a run stays with its
    /// first digits.
    digits_from_the_end: bool,
    /// Expressions, each applied to the pieces that the one before left.
    splits: &'static [&'static str],
    /// A word that is a token is taken whole, even where the merges would not build it.
    pub whole_words: bool,
    /// BOS is added unless the metadata says otherwise.
    pub add_bos: bool,
}

const PLAIN: WordRules =
    WordRules { names: &[], nfc: false, digits_from_the_end: false, splits: &[], whole_words: false, add_bos: false };

pub(super) const WORD_RULES: &[WordRules] = &[
    // llama.cpp's own rules for files that do not name theirs; no tokenizer.json stands behind them.
    WordRules { names: &["default"], splits: &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ..PLAIN },
    WordRules {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        splits: &[GPT2],
        ..PLAIN
    },
    WordRules {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        splits: &[NUMBER, GPT2],
        ..PLAIN
    },
    WordRules {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        splits: &[LLAMA3],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    WordRules { names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], splits: &[LLAMA3], ..PLAIN },
    WordRules {
        names: &["jais-2"],
        splits: &[concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)",
            r"|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
        )],
        ..PLAIN
    },
    WordRules { names: &["minicpm5"], splits: &[NUMBERS_OF_3, english_words!(r"\p{N}+")], whole_words: true, ..PLAIN },
    WordRules {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        splits: &[QWEN2],
        ..PLAIN
    },
    WordRules {
        names: &["qwen35"],
        splits: &[concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
            spaces!()
        )],
        ..PLAIN
    },
    WordRules { names: &["ufakzeka"], splits: &[words!(r"\p{N}")], ..PLAIN },
    WordRules { names: &["laguna"], splits: &[r"[^\n]+|[\n]+", QWEN2], ..PLAIN },
    WordRules {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        splits: &[concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
        )],
        ..PLAIN
    },
    WordRules {
        names: &["seed-coder"],
        splits: &[concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+", spaces!())],
        ..PLAIN
    },
    WordRules {
        names: &["exaone-moe"],
        splits: &[concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
        )],
        ..PLAIN
    },
    WordRules {
        names: &["deepseek-llm"],
        // U+3000 begins a range of the punctuation, but is hidden as white space, too.
        splits: &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3001}-\x{3002}]+",
            r"\s+\z",
            HAN_AND_HANGUL,
            r"\p{N}+",
        ],
        ..PLAIN
    },
    WordRules {
        names: &["deepseek-coder"],
        splits: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN_AND_HANGUL, NUMBER],
        ..PLAIN
    },
    WordRules {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        splits: &[NUMBERS_OF_3, HAN_AND_KANA, DEEPSEEK3],
        ..PLAIN
    },
    WordRules {
        names: &["spark2_5"],
        splits: &[NUMBERS_OF_3, HAN_AND_KANA, deepseek_words!(r"|[\r\n]"), NUMBER],
        ..PLAIN
    },
    WordRules { names: &["afmoe"], digits_from_the_end: true, splits: &[AFMOE_SCRIPTS, DEEPSEEK3], ..PLAIN },
    WordRules {
        names: &["youtu"],
        splits: &[
            concat!(
                r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+",
                r"|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+",
                r"|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
            ),
            marked_words!(r"\p{N}"),
        ],
        whole_words: true,
        ..PLAIN
    },
    WordRules {
        names: &["tekken"],
        splits: &[cased_words!(r"\p{L}", "", r"\p{N}")],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    WordRules {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        splits: &[cased_words!(r"\p{L}", concat!(contractions!(), "?"), r"\p{N}{1,3}")],
        ..PLAIN
    },
    WordRules {
        names: &["granite-embed-multi-97m"],
        splits: &[cased_words!(r"\p{L}\p{M}", concat!(contractions!(), "?"), r"\p{N}{1,3}")],
        whole_words: true,
        ..PLAIN
    },
    WordRules {
        names: &["tiny_aya", "cohere2moe"],
        digits_from_the_end: true,
        splits: &[marked_words!(r"\p{N}{1,3}")],
        ..PLAIN
    },
    WordRules { names: &["falcon"], splits: &[r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"], ..PLAIN },
    WordRules { names: &["poro-chat", "bloom", "gpt3-finnish"], splits: &[BLOOM], ..PLAIN },
    WordRules { names: &["viking"], splits: &[BLOOM, NUMBER], ..PLAIN },
    WordRules {
        names: &["chameleon"],
        splits: &["<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", r"[\t\n]|    |  ", NUMBER, r"[\p{P}!-/:-@\[-`{-~]", GPT2],
        add_bos: true,
        ..PLAIN
    },
    WordRules { names: &["superbpe"], splits: &[r"\p{N}+", "(?=(?:[0-9]{3})+(?![0-9]))"], ..PLAIN },
    WordRules {
        names: &["kimi-k2"],
        splits: &[concat!(
            "[",
            han!(),
            r"]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^",
            han!(),
            "]]+",
            contractions!(),
            r"?|\p{N}{1,3}",
            punctuation_and_spaces!()
        )],
        ..PLAIN
    },
];

/// The rules of transformers' classes GPT2Tokenizer and CodeGenTokenizer.
pub(super) const GPT2_CLASS: WordRules = WordRules { splits: &[GPT2], ..PLAIN };
/// Those of GPTNeoXTokenizer.
pub(super) const GPT_NEOX_CLASS: WordRules = WordRules { nfc: true, splits: &[GPT2], ..PLAIN };
/// Those of Qwen2Tokenizer.
pub(super) const QWEN2_CLASS: WordRules =
    WordRules { nfc: true, splits: &[concat!("(?i:'s|'t|'re|'ve|'m|'ll|'d)|", words!(r"\p{N}"))], ..PLAIN };

impl WordRules {
    /// The rules that `tokenizer.ggml.pre` calls so.
    pub fn named(name: &str) -> Option<&'static Self> {
        WORD_RULES.iter().find(|rules| rules.names.contains(&name))
    }

    /// All names, with commas between them.
    pub fn known() -> String {
        WORD_RULES.iter().flat_map(|rules| rules.names).copied().collect::<Vec<_>>().join(", ")
    }

    /// The `normalizer` of tokenizer.json.
    pub fn normalizer(&self) -> Value {
        if self.nfc { json!({ "type": "NFC" }) } else { Value::Null }
    }

    /// The `pre_tokenizer` of tokenizer.json.
    pub fn pre_tokenizer(&self) -> Value {
        let split = |regex: &str, behavior: &str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": behavior, "invert": false });
        let digits =
            self.digits_from_the_end.then(|| split(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", "MergedWithPrevious"));
        let splits = self.splits.iter().map(|regex| split(regex, "Isolated"));
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
        let steps: Vec<Value> = digits.into_iter().chain(splits).chain([bytes]).collect();
        json!({ "type": "Sequence", "pretokenizers": steps })
    }
}

/// Where the words of a text begin and end, in bytes; None if it cannot be split.
pub(super) type Words = Option<Vec<(usize, usize)>>;

/// How a tokenizer.json's `pre_tokenizer` splits texts; None if there are no such steps.
pub(super) fn words(pre_tokenizer: &Value, texts: &[&str]) -> Option<Vec<Words>> {
    let failed = |reason: String| super::TextError::Tokenizer { reason };
    let steps = || serde_json::from_value(pre_tokenizer.clone()).map_err(|error| failed(error.to_string()));
    let steps: PreTokenizerWrapper = guarded(steps).ok()?;
    let words = |text: &&str| {
        let split = || {
            let mut split = PreTokenizedString::from(*text);
            steps.pre_tokenize(&mut split).map_err(|error| failed(error.to_string()))?;
            Ok(split)
        };
        let split = guarded(split).ok()?;
        let places = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Some(places.into_iter().map(|(_, place, _)| place).collect())
    };
    Some(texts.iter().map(words).collect())
}
