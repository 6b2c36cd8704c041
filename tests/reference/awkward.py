"""Texts that tokenizers treat differently, shared by the scripts that write token ids down."""

import random

PAGE = [
    "Hello world, the quick brown fox jumps over the lazy dog. The quick brown fox again.",
    " a space before, two  spaces,   three    and at the end ",
    "I'll they're DON'T WE'LL YOU'RE I'VE I'M HE'D IT'S it's don't O'Neill's 'tis \u2019s 'S'T'RE'LLx 'll'd",
    "'\u017f '\u212a I\u2019LL",
    "12345 1,234.56 007 3e-7 \u00bd \u00b2\u2075 1234567890123456789 12 1 123 1234 \u0661\u0662\u0663\u0664 \u2163\u2167 a12345b 1 000 000",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u4e2d\u6587\u5b57\u7b26\uff0c\u6df7\u5408English\u6587\u672c123\u4e2d\u6587\u3002 \u4e2d\u6587 \u3042\u308a\u304c\u3068\u3046\u30fc\u30fb \u3007\u3005 \uff21\uff22\uff43\uff11\uff12\uff13\uff01\uff1f\u3000\u5168\u89d2",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8 \u3131\u3134 \u0e44\u0e17\u0e22\u0e20\u0e32\u0e29\u0e32 \u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e \u0995\u09cd\u09b7 \u1019\u103c\u1014\u103a\u1019\u102c",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629\u060c \u0646\u0635\u064c \u0645\u064f\u0634\u064e\u0643\u064e\u0651\u0644\u061f \u05e2\u05d1\u05e8\u05d9\u05ea \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u06d4 \u200f\u05d0\u200e",
    "na\u00efve caf\u00e9 Stra\u00dfe \u00c5ngstr\u00f6m e\u0301 a\u0308o\u0302 \ufb01 \u1e9b\u0323 \u01c5 \u02b0\u02b2 CamelCaseXMLHttp \u0416\u0443\u0440\u043d\u0430\u043b \u0388\u03bb\u03bb\u03b7\u03bd\u03b1\u03c2 \u0130\u0131",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3f3\ufe0f\u200d\U0001f308 \U00010348\U00010400\U00010428 \U0001f9ff\u200d 1\ufe0f\u20e3 \U0001f1e9\U0001f1ea \U0001d54f\U0001d7d8 \U00020000\U0002a6d6",
    "lines\nand\n\nblank\n\n\n\nlines\r\nand\ttabs\t\t\r\n\r\n  indent\n    more\n\t\tx \n \n  \n",
    "\r\r\n \r \n\n \t\n\x0b\x0c x",
    "no-break\u00a0space \u00a0\u00a0 thin\u2009\u2009x \u3000 wide\u3000\u3000y \u2028z\u2029 \x85next \u200bzero\u2060 \ufeffbom \u1680ogham \u202fx",
    "def f(x: int) -> str:\n    return f'{x!r}'  # <b>html</b>\n\tif (a && b || !c) { x += 1; }\n\n    }\n",
    "a.b_c-d/e\\f|g~h`i^j$k+l=m<n>o@p#q%r&s*t(u)v[w]x{y}z;: ,.?!\" ~~~ === --- ... ___ ``` $$$ +++ ^^^ ||| <<>> //\n\n//\n",
    "!hello #tag @user $var %d &amp; *bold* (paren) [x] {y} ~tilde _under `code` \u2014dash \u2026dots \u201cquotes\u201d \u00abx\u00bb \u20ac5 \u00a310 \u00a9 \u2122 \u2211x \u2260 \u00b0C",
    "\x00\x01\x1b[0m\x1c\x1d\x1e\x1f\x7f\x80\x9f \ufffd\ufffe\ue000\U000e0001\U0010ffff \u0378\U0001fbff",
    "https://example.com/a?b=c&d=%20#e user@mail.org C:\\Users\\x\n/usr/bin/env",
    "pneumonoultramicroscopicsilicovolcanoconiosis" + "ab" * 40 + "=" * 40 + " " * 40 + "x" + "\n" * 20 + "1" * 30,
    "<sentinel:12> IMGIMGABCDZ IMGIMGAZ <0x41> <s> </s> <unk> [INST] <table>",
    "\u2581 \u2581word \u2581\u2581 _ \u2582",
    "\u01c4\u01c5\u01c6 \u1c80\u1c90 \ua64a\u13a0\uab70 \u2c00\u2c30 \u10a0\u10d0",
    "x\u0301 \u0301x \u0301\u0302 1\u0301 \u0301 \n\u0301 !\u0301 \u0301! A\u0301B a\u0301'S",
    "",
    " ",
    "\n",
    "   ",
    "x",
]
ALPHABET = list(" '\n\t\r.,!?~$+_-/\\aAsSlLdDrReE019") + [
    "  ", "   ", "\n\n", "'s", "'LL", "123", "1234", "abc", "ABC", "\u00e9", "\u00c9", "\u00df", "\u0301", "\u4e2d", "\u6587",
    "\u3042", "\u30a2", "\u3002", "\uff0c", "\ud55c", "\u0e01", "\u0639", "\u060c", "\u00bd", "\u0663", "\u00a0", "\u3000", "\u2019",
    "\u2026", "\U0001f642", "\u200d", "\x00", "\x85", "\u20ac", "\u01c5", "\u02b0",
]


def texts(count=60, length=24):
    """The page, and as many texts drawn from its characters."""
    draw = random.Random(7)
    return PAGE + ["".join(draw.choice(ALPHABET) for _ in range(length)) for _ in range(count)]
