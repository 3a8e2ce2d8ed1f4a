"""Writes tests/data/golden/tokenizer.json: texts with the ids that Hugging Face's fast tokenizers give them, small
vocabularies that the texts themselves are the source of, and hashes of what `tokenizers` makes of every code point.

    python scripts/golden/make_tokenizer_golden.py             writes the golden file
    python scripts/golden/make_tokenizer_golden.py --tables    prints the ranges of data/unicode_tables.h instead; needs
                                                               libutf8proc 2.8, against which they are the difference

Needs transformers and tokenizers (made with 5.24.0 and 0.23.3).
"""
import ctypes
import json
import pathlib
import random
import sys
import tempfile
import unicodedata

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast, RobertaTokenizerFast

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "golden" / "tokenizer.json"

SENTENCES = [
    "The quick brown fox isn't here; they're over there, and we've 12,345 more of them!",
    "An unflinchingly bleak and desperate film -- it 's a charming and often affecting journey .",
    "I'll say that she'd seen the film's ending 100 times, and I'm sure you can't, can you?",
    "Ünïcödé naïve café façade; Ångström, Łódź, 北京 東京 서울, Москва и Ελλάδα, हिन्दी, ไทย.",
]

TEXTS = [
    "", " ", "\n", "  \t ", "hello world", "Hello, World!", *SENTENCES,
    # Contractions and runs of white space, which the byte-level pattern tells apart.
    "I'M can'T we'Ve they'll's 'tis '' 's' ''ll", "a  b   c\n\nd\t\te \n f", "trailing  ", "  leading", "a\u00a0b\u00a0 c",
    "x\u0085y\u2028z\u2029w\u3000v\u1680u", "1a2b3c ½²Ⅷ٣४ 12.5%", "a_b-c.d/e\\f", "'''s", " 's", "don’t",
    # Combining marks: composed, decomposed, out of order, stacked, enclosing, spacing.
    "é e\u0301 \u1e69 s\u0323\u0307 s\u0307\u0323", "a\u0334\u0345\u0301\u0327b", "\u0301start", "q\u20dd \u0e33 \u0903\u093f",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324a\u0316\u0347", "\u0344 \u0340 \u0374 \u037e \u1fef",
    # Case: one to two, sharp s, final sigma, titlecase digraphs, letters that no longer map.
    "İstanbul ISTANBUL ıi", "STRASSE straße ẞ", "ΟΔΟΣ ὈΔΥΣΣΕΎΣ", "ǅ Ǆ ǆ ﬁ ﬀ Ⓐ Ａ", "\ua7cb\ua7da\ua7dc\u1c89\U00010d50\U00016ea0",
    # Hangul, composed and as jamo; U+11A7, which is no trailing consonant.
    "한국어 텍스트", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "각\u11a7\u11a8 가\u11a7", "가\u11a8",
    # CJK: the blocks' edges, compatibility ideographs, kana, the gap that `tokenizers` leaves.
    "漢字かな交じり文カタカナ", "\u3400\u4dbf\u4dc0\u4e00\u9fff\ua000", "\uf900\ufa0e\ufaff\ufb00", "\U00020000\U0002a6df\U0002a6e0",
    "\U0002a700\U0002b81f\U0002b820\U0002b91f\U0002b920\U0002ceaf\U0002ceb0\U0002f800\U0002fa1f\U0002fa20",
    # Emoji with joiners, selectors, skin tones, flags, keycaps.
    "👩\u200d👩\u200d👧\u200d👦 👍🏽 ❤\ufe0f 🇩🇪 1\ufe0f\u20e3", "a😀b 😀😀",
    # Control, format, bidi and private characters, noncharacters, the replacement character, a byte order mark.
    "a\u0000b\u0001c\u0007d\u001be\u007ff\u0080g\u009fh", "a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg",
    "\u202eright\u202c \u2066left\u2069 \u200f\u061c", "a\ufffdb\ue000c\uffffd\U0010ffff\U000f0000e", "\u0890\u08e2\U000110cd\U00013430x",
    # Punctuation of every kind; symbols that are none.
    "«a» “b” ‘c’ — – … ¿d? ¡e! 、。「」", "$a+b=c<d>e^f`g|h~ £€ ©® ×÷ §¶", "\u166da\U000111c9b\u2e52c\u061dd", "½a²b№c",
    # Marks of Unicode 9 and later, which parts of `tokenizers` do not know.
    "a\u0898b\u08cac\u1abfd\u1734e\u0b55f\u180fg", "a\u0301\u1ac5\u0334b", "\U00011935\U00011930 \U00011938",
    # Special tokens spelled in the text.
    "[CLS] a [SEP] b[MASK]c [PAD] [UNK]", "[cls] [ SEP ] [[SEP]] [SEP", "<s>a</s> <mask> b<mask>c  <pad><unk>", "a  <mask>  b",
    "<|endoftext|>x<|padding|>   y    z", "tok\u00e9n TOK\u00c9N tokE\u0301N",
    # Long words: 100 characters are spelled, 101 are not; so with two bytes each.
    "a" * 100, "a" * 101, "é" * 100, "é" * 101, "a" * 99 + ".", "-" * 120, "가" * 50, "가" * 51, "ab" * 60,
]

# Pairs and lengths: every case of longest_first.
PAIRS = [("a b c d e f", "u v w"), ("u v w", "a b c d e f"), ("a b c d", "u v w x"), ("", "a b"), ("a b", ""), ("[SEP] a", "b [SEP]")]


def fuzz(count):
    """Random texts of characters that trouble tokenizers."""
    draw = random.Random(7)
    pools = [range(0x20, 0x7F), range(0xA0, 0x250), range(0x300, 0x370), range(0x590, 0x780), range(0x900, 0xE80),
             range(0x1100, 0x1200), range(0x1AB0, 0x1B00), range(0x1E00, 0x2070), range(0xAC00, 0xAC40), [0x20], [9, 10, 13]]
    texts = []
    for _ in range(count):
        text = ""
        for _ in range(draw.randrange(1, 8)):
            pool = draw.choice(pools)
            text += "".join(chr(draw.choice(pool)) for _ in range(draw.randrange(1, 5)))
        texts.append(text)
    return texts


def wordpiece_vocabulary(texts):
    """Special tokens, words, and every character that a normalizer leaves of the texts, so that no difference between
    two tokenizers drowns in an unknown token."""
    characters = set()
    for lowercase in (False, True):
        for accents in (False, True):
            n = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
            for text in texts:
                characters.update(c for c in n.normalize_str(text) if not c.isspace())
    missing = set("zż")  # some characters stay unknown
    characters = sorted(characters - missing)
    words = ["hello", "world", "un", "##flinch", "##ingly", "##ing", "quick", "##ck", "over", "the", "film", "##aaa", "İ"]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *characters, *("##" + c for c in characters)]


def train_bpe(directory):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=420, min_frequency=1, show_progress=False,
                                  special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(SENTENCES + ["aaaaaa ababab abcabc bcabca " * 3], trainer)
    tokenizer.model.save(str(directory))
    return tokenizer


def answers(tokenizer, pad_id, texts, lengths):
    """Ids of every text alone, and of every pair and the first text of the first pair at every length."""
    encode = encoder(tokenizer)
    cut = []
    for a, b in [*PAIRS, (PAIRS[0][0], None)]:
        for length in lengths:
            e = encode(a, b, length)
            cut.append({"text": a, "pair": b, "max_length": length, "ids": e.ids, "type_ids": e.type_ids})
    return {"pad_id": pad_id, "ids": [encode(text, None, 0).ids for text in texts], "cut": cut}


def encoder(tokenizer):
    def encode(a, b, length):
        if length:
            tokenizer.enable_truncation(length)
        else:
            tokenizer.no_truncation()
        return tokenizer.encode(a, b)
    return encode


def wordpiece_models(directory, texts):
    vocabulary = "\n".join(wordpiece_vocabulary(texts)) + "\n"
    (directory / "vocab.txt").write_bytes(vocabulary.encode())
    files, found = {"wordpiece": vocabulary}, []
    ids = {token: i for i, token in enumerate(vocabulary.split("\n")[:-1])}
    for config in ({}, {"do_lower_case": False}, {"strip_accents": False},
                   {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}):
        tokenizer = BertTokenizerFast(vocab=ids, **config)._tokenizer
        found.append({"files": {"vocab.txt": "wordpiece"}, "config": config,
                      **answers(tokenizer, 0, texts, () if found else (0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))})
        if not config:
            files["wordpiece_json"] = tokenizer.to_str()
    found.append({"files": {"tokenizer.json": "wordpiece_json"}, "same_as": 0})
    return files, found


def bpe_models(directory, texts):
    trained = train_bpe(directory)
    files = {"bpe_vocab": (directory / "vocab.json").read_text(), "bpe_merges": (directory / "merges.txt").read_text()}
    found = []
    for config in ({"tokenizer_class": "RobertaTokenizer"}, {"add_prefix_space": True}):
        (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", **config}))
        tokenizer = RobertaTokenizerFast.from_pretrained(directory)._tokenizer
        found.append({"files": {"vocab.json": "bpe_vocab", "merges.txt": "bpe_merges"}, "config": config,
                      **answers(tokenizer, 1, texts, () if found else (0, 4, 5, 6, 7, 8, 9, 10, 11))})
    # GPT-NeoX's layout: NFC, tokens that are looked for after it, nothing around the text.
    trained.normalizer = normalizers.NFC()
    trained.post_processor = processors.ByteLevel(trim_offsets=True)
    trained.decoder = decoders.ByteLevel()
    trained.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)] + [AddedToken("tokén", normalized=True)])
    trained.add_special_tokens(["<|endoftext|>", "<|padding|>"])
    files["neox"] = trained.to_str()
    found.append({"files": {"tokenizer.json": "neox"},
                  **answers(trained, trained.token_to_id("<pad>"), texts, (0, 1, 2, 3, 4, 5, 6))})
    # A template with types and a lowercasing normalizer; tokens that take the white space beside them.
    trained.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trained.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
    trained.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)])
    files["template"] = trained.to_str()
    found.append({"files": {"tokenizer.json": "template"},
                  **answers(trained, trained.token_to_id("<pad>"), texts, (0, 5, 6, 7))})
    return files, found


BLOCK = 4096
# Everything that is assigned and not for private use.
CODE_POINTS = [c for c in [*range(1, 0x32400), *range(0xE0000, 0xE0200)] if not 0xD800 <= c < 0xE000]


def fnv(text):
    h = 0x811C9DC5
    for b in text.encode():
        h = (h ^ b) * 0x01000193 & 0xFFFFFFFF
    return h


def block_hashes(describe):
    """Hashes of the code points' descriptions, one for each block of 4096."""
    blocks = {}
    for c in CODE_POINTS:
        blocks.setdefault(c // BLOCK, []).append(describe(chr(c)))
    return {str(b): fnv("".join(parts)) for b, parts in blocks.items()}


def bert_kind(c):
    return "?wsp"[len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str("a" + c + "b"))]


def byte_level_kind(c):
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    if len(split("a" + c)) == 1:
        return "L"
    if len(split("1" + c)) == 1:
        return "N"
    return "S" if len(split("!" + c)) == 2 else "O"


def code_points():
    def normalizer(n):
        # A mark of class 1 behind the character shows whether it is reordered.
        return lambda c: n.normalize_str("a" + c + "\u0334b")
    bert = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return {
        "clean": block_hashes(normalizer(normalizers.BertNormalizer(**{**bert, "clean_text": True}))),
        "chinese": block_hashes(normalizer(normalizers.BertNormalizer(**{**bert, "handle_chinese_chars": True}))),
        "accents": block_hashes(normalizer(normalizers.BertNormalizer(**{**bert, "strip_accents": True}))),
        "lower": block_hashes(normalizer(normalizers.BertNormalizer(**{**bert, "lowercase": True}))),
        "nfd": block_hashes(normalizer(normalizers.NFD())),
        "nfc": block_hashes(normalizer(normalizers.NFC())),
        "bert_kind": block_hashes(bert_kind),
        "byte_level_kind": block_hashes(byte_level_kind),
    }


def print_tables():
    utf8proc = ctypes.CDLL("libutf8proc.so.2")

    class Property(ctypes.Structure):
        _fields_ = [("category", ctypes.c_int16), ("combining_class", ctypes.c_int16)]

    utf8proc.utf8proc_get_property.restype = ctypes.POINTER(Property)
    names = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co".split()
    every = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    properties = {c: utf8proc.utf8proc_get_property(c).contents for c in every}
    category = {c: names[p.category] for c, p in properties.items()}
    bert = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    clean = normalizers.BertNormalizer(**{**bert, "clean_text": True})
    accents = normalizers.BertNormalizer(**{**bert, "strip_accents": True})
    nfd, low, high = normalizers.NFD(), "\u0334", "\u0345"  # combining classes 1 and 240

    def is_starter(c):
        c = chr(c)
        return nfd.normalize_str("a" + c + low)[1:] == c + low and nfd.normalize_str("a" + high + c)[1:] == high + c

    tables = {
        "kNotControl": (c for c in every if category[c] in ("Cc", "Cf", "Co") and chr(c) not in "\t\n\r"
                        and clean.normalize_str("a" + chr(c) + "b") != "ab"),
        "kNotMark": (c for c in every if category[c] == "Mn" and accents.normalize_str("a" + chr(c) + "b") != "ab"),
        "kNotPunctuation": (c for c in every if category[c][0] == "P" and bert_kind(chr(c)) != "p"),
        "kStarter": (c for c in every if properties[c].combining_class
                     and unicodedata.normalize("NFD", chr(c)) == chr(c) and is_starter(c)),
        "kLetter": (c for c in every if category[c][0] != "L" and byte_level_kind(chr(c)) == "L"),
        "kNumber": (c for c in every if category[c][0] != "N" and byte_level_kind(chr(c)) == "N"),
    }
    for name, members in tables.items():
        ranges = []
        for c in members:
            if ranges and c == ranges[-1][1] + 1:
                ranges[-1][1] = c
            else:
                ranges.append([c, c])
        print(name, ", ".join("{0x%04X, 0x%04X}" % tuple(r) for r in ranges))


def main():
    if "--tables" in sys.argv[1:]:
        return print_tables()
    texts = TEXTS + fuzz(60)
    with tempfile.TemporaryDirectory() as folder:
        wordpiece = wordpiece_models(pathlib.Path(folder), texts)
    with tempfile.TemporaryDirectory() as folder:
        bpe = bpe_models(pathlib.Path(folder), texts)
    golden = {"texts": texts, "files": {**wordpiece[0], **bpe[0]}, "models": wordpiece[1] + bpe[1], "code_points": code_points()}
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes, {len(golden['models'])} models, {len(texts)} texts")


if __name__ == "__main__":
    main()
