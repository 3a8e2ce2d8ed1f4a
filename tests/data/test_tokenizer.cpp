// Tokenizers against the ids of Hugging Face's fast ones (tests/data/golden/tokenizer.json, whose maker is
// scripts/golden/make_tokenizer_golden.py), and what they refuse.
#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "data/byte_bpe.h"
#include "data/unicode.h"
#include "data/wordpiece.h"
#include "tests/data/temp_folder.h"

namespace cald {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;

const Json& golden() {
  static const Json json = Json::parse(content_of(CALD_SOURCE_DIR "/tests/data/golden/tokenizer.json"));
  return json;
}

std::unique_ptr<Tokenizer> load_golden(const Json& model) {
  const TempFolder folder;
  for (const auto& [name, key] : model["files"].items())
    folder.put(name, golden()["files"][key.get<std::string>()].get<std::string>());
  if (model.contains("config")) folder.put("tokenizer_config.json", model["config"].dump());
  return load_tokenizer(folder.path());
}

TEST(Tokenizer, GivesTheReferenceIds) {
  for (const Json& model : golden()["models"]) {
    const Json& answers = model.contains("same_as") ? golden()["models"][model["same_as"].get<std::size_t>()] : model;
    const auto tokenizer = load_golden(model);
    EXPECT_EQ(tokenizer->pad_id(), answers["pad_id"]) << model["files"];
    const Json& texts = golden()["texts"];
    ASSERT_EQ(texts.size(), answers["ids"].size());
    for (std::size_t i = 0; i < texts.size(); ++i)
      EXPECT_EQ(tokenizer->encode(texts[i].get<std::string>(), {}, 0).ids, answers["ids"][i].get<Ids>())
          << model["files"] << model.value("config", Json()) << " text " << i << ": " << texts[i].dump(-1, ' ', true);
    for (const Json& c : answers["cut"]) {
      const std::string pair = c["pair"].is_null() ? "" : c["pair"].get<std::string>();
      const auto e = tokenizer->encode(c["text"].get<std::string>(),
                                       c["pair"].is_null() ? std::nullopt : std::optional<std::string_view>(pair),
                                       c["max_length"].get<int>());
      EXPECT_EQ(e.ids, c["ids"].get<Ids>()) << model["files"] << c;
      EXPECT_EQ(e.type_ids, c["type_ids"].get<Ids>()) << model["files"] << c;
    }
  }
}

/// FNV-1a over descriptions of the code points, by blocks of 4096, as the golden file's maker takes them.
std::map<std::string, std::uint32_t> block_hashes(const std::function<std::string(char32_t)>& describe) {
  std::map<std::string, std::uint32_t> out;
  const auto add = [&](char32_t from, char32_t to) {
    std::uint32_t* hash = nullptr;
    for (char32_t c = from; c < to; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      if (!hash || c % 4096 == 0 || c == 0xE000)
        hash = &out.try_emplace(std::to_string(c / 4096), 0x811C9DC5u).first->second;
      for (const char b : describe(c)) *hash = (*hash ^ static_cast<unsigned char>(b)) * 0x01000193u;
    }
  };
  add(1, 0x32400);
  add(0xE0000, 0xE0200);
  return out;
}

/// The character between 'a' and a mark of combining class 1, normalized.
template <class F>
std::function<std::string(char32_t)> normalized(F f) {
  return [f](char32_t c) {
    std::u32string text{U'a', c, U'\u0334', U'b'};
    f(text);
    return encode_utf8(text);
  };
}

TEST(Unicode, EveryCodePointIsWhatTheReferenceTakesItFor) {
  const auto want = [](const char* key) {
    return golden()["code_points"][key].get<std::map<std::string, std::uint32_t>>();
  };
  const auto bert = [](BertNormalizer n) { return normalized([n](std::u32string& t) { n.apply(t); }); };
  EXPECT_EQ(block_hashes(bert({true, false, false, false})), want("clean"));
  EXPECT_EQ(block_hashes(bert({false, true, false, false})), want("chinese"));
  EXPECT_EQ(block_hashes(bert({false, false, true, false})), want("accents"));
  EXPECT_EQ(block_hashes(bert({false, false, false, true})), want("lower"));
  EXPECT_EQ(block_hashes(normalized([](std::u32string& t) { normalize(t, NormalForm::nfd); })), want("nfd"));
  EXPECT_EQ(block_hashes(normalized([](std::u32string& t) { normalize(t, NormalForm::nfc); })), want("nfc"));
  EXPECT_EQ(block_hashes([](char32_t c) { return is_white_space(c)        ? "s"
                                                 : is_bert_punctuation(c) ? "p"
                                                                          : "w"; }),
            want("bert_kind"));
  EXPECT_EQ(block_hashes([](char32_t c) {
              return is_letter(c) ? "L" : is_number(c) ? "N" : is_white_space(c) ? "S" : "O";
            }),
            want("byte_level_kind"));
}

TEST(Unicode, BrokenUtf8IsNamedWithItsByte) {
  const std::pair<std::string, std::string> cases[] = {
      {"ab\x80", "byte 2: 0x80, a continuation byte without a start"},
      {"a\xC0\x80", "byte 1: 0xC0, no sequence starts with this byte"},
      {"\xC1\xBF", "byte 0: 0xC1, no sequence starts with this byte"},
      {"\xF5\x80\x80\x80", "byte 0: 0xF5, no sequence starts with this byte"},
      {"abc\xE2\x82", "byte 3: 0xE2, the text ends inside a character"},
      {"\xE2(\xA1", "byte 0: 0xE2, a continuation byte is missing"},
      {"x\xE0\x9F\xBF", "byte 1: 0xE0, an overlong form"},
      {"\xF0\x8F\xBF\xBF", "byte 0: 0xF0, an overlong form"},
      {"\xED\xA0\x80", "byte 0: 0xED, a lone surrogate"},
      {"\xED\xBF\xBF", "byte 0: 0xED, a lone surrogate"},
      {"\xF4\x90\x80\x80", "byte 0: 0xF4, above U+10FFFF"},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(error_of([&] { decode_utf8(text); }), "broken UTF-8 at " + want);
  const auto tokenizer = load_golden(golden()["models"][0]);
  EXPECT_CONTAINS(error_of([&] { tokenizer->tokenize("good \xED\xA0\x80"); }), "broken UTF-8 at byte 5");
}

TEST(Unicode, EncodingIsTheInverseOfDecoding) {
  std::u32string all;
  for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 101)
    if (c < 0xD800 || c >= 0xE000) all.push_back(c);
  all += {0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF};
  const std::string text = encode_utf8(all);
  EXPECT_EQ(find_utf8_fault(text), std::nullopt);
  EXPECT_EQ(decode_utf8(text), all);
}

TEST(Tokenizer, CutsTheLongerTextFirst) {
  // Against the definition, tokens taken one by one from the longer: the same up to the odd token, whose place the
  // reference decides (GivesTheReferenceIds).
  for (std::size_t a = 0; a < 9; ++a)
    for (std::size_t b = 0; b < 9; ++b)
      for (std::size_t room = 0; room < 18; ++room) {
        std::size_t x = a, y = b, want_x = a, want_y = b;
        truncate_longest_first(x, y, room);
        while (want_x + want_y > room) --(want_x >= want_y ? want_x : want_y);
        EXPECT_EQ(x + y, want_x + want_y);
        EXPECT_LE(x > want_x ? x - want_x : want_x - x, 1u) << a << ' ' << b << ' ' << room;
      }
}

TEST(Tokenizer, ALengthWithoutPlaceForTheSpecialTokensIsAnError) {
  const auto tokenizer = load_golden(golden()["models"][0]);
  EXPECT_EQ(tokenizer->encode("hello", {}, 2).ids.size(), 2u);
  EXPECT_CONTAINS(error_of([&] { tokenizer->encode("hello", {}, 1); }), "1 tokens has no place for the 2 special");
  EXPECT_CONTAINS(error_of([&] { tokenizer->encode("hello", "world", 2); }), "no place for the 3 special tokens");
  EXPECT_CONTAINS(error_of([&] { tokenizer->encode("hello", {}, -5); }), "no place");
}

TEST(Tokenizer, KnowsItsVocabulary) {
  const auto tokenizer = load_golden(golden()["models"][0]);
  EXPECT_EQ(tokenizer->token_id("[SEP]"), 3);
  EXPECT_EQ(tokenizer->token_id("nowhere"), -1);
  const auto& text = golden()["files"]["wordpiece"].get_ref<const std::string&>();
  EXPECT_EQ(tokenizer->vocab_size(), std::count(text.begin(), text.end(), '\n'));
}

constexpr const char* kVocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\nworld\n";

TEST(WordPieceFolder, NamesOfSpecialTokensAndAddedTokensAreRead) {
  const TempFolder folder;
  folder.put("vocab.txt", "<p>\r\n<u>\r\n<c>\r\n<s>\r\nhello\r\nworld\r\n");
  folder.put("special_tokens_map.json", R"({"pad_token": "<p>", "cls_token": "<c>", "unk_token": {"content": "<u>"}})");
  folder.put("tokenizer_config.json", R"({"sep_token": "<s>", "added_tokens_decoder": {
      "9": {"content": "NEW", "special": true}, "7": {"content": "Loud", "normalized": true}}})");
  folder.put("added_tokens.json", R"({"Old": 6})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("hello<s>x NEW new loud LOUD old", {}, 0).ids, (Ids{2, 4, 3, 1, 9, 1, 7, 7, 6, 3}));
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_EQ(tokenizer->pad_id(), 0);
}

TEST(WordPieceFolder, WhatIsMissingOrWrongIsNamed) {
  const TempFolder folder;
  const auto error = [&] { return error_of([&] { load_tokenizer(folder.path()); }); };
  EXPECT_CONTAINS(error(), "has no vocabulary; wanted vocab.txt, vocab.json with merges.txt, or tokenizer.json");
  EXPECT_CONTAINS(error_of([&] { load_tokenizer(folder / "none"); }), "none: is not a folder");
  folder.put("vocab.txt", "");
  EXPECT_CONTAINS(error(), "vocab.txt: the vocabulary is empty");
  folder.put("vocab.txt", "[PAD]\n[CLS]\n[SEP]\n");
  EXPECT_CONTAINS(error(), "vocab.txt: the vocabulary has no token '[UNK]'");
  folder.put("vocab.txt", "[PAD]\n[UNK]\n[SEP]\n");
  EXPECT_CONTAINS(error(), "vocab.txt: has no token '[CLS]'");
  folder.put("vocab.txt", "[PAD]\n[UNK]\n\xFF\n");
  EXPECT_CONTAINS(error(), "vocab.txt:3: broken UTF-8 at byte 0");
  folder.put("vocab.txt", kVocabulary);
  folder.put("tokenizer_config.json", R"({"do_lower_case": "yes"})");
  EXPECT_CONTAINS(error(), "tokenizer_config.json: do_lower_case must be true, false or null");
  folder.put("tokenizer_config.json", R"({"sep_token": 3})");
  EXPECT_CONTAINS(error(), "tokenizer_config.json: sep_token must be a string");
  folder.put("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "a"}}})");
  EXPECT_CONTAINS(error(), "has the key 'x', wanted an id");
  folder.put("tokenizer_config.json", R"({"added_tokens_decoder": {"8": {"content": "a", "single_word": true}}})");
  EXPECT_CONTAINS(error(), "single_word is not supported");
  folder.put("tokenizer_config.json", "{");
  EXPECT_CONTAINS(error(), "tokenizer_config.json");
}

TEST(ByteBpeFolder, WhatIsMissingOrWrongIsNamed) {
  const TempFolder folder;
  const auto error = [&] { return error_of([&] { load_tokenizer(folder.path()); }); };
  const char* vocabulary = R"({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6})";
  folder.put("vocab.json", vocabulary);
  EXPECT_CONTAINS(error(), "has no vocabulary");  // without merges.txt
  folder.put("merges.txt", "#version: 0.2\na b c\n");
  EXPECT_CONTAINS(error(), "merges.txt:2: wanted two tokens and one space between them");
  folder.put("merges.txt", "#version: 0.2\na b\na c\n");
  EXPECT_CONTAINS(error(), "merges.txt: merge 2 ('a' 'c'): 'c' is not in the vocabulary");
  folder.put("merges.txt", "#version: 0.2\na b\n");
  EXPECT_EQ(load_tokenizer(folder.path())->encode("abxa", {}, 0).ids, (Ids{0, 6, 4, 2}));
  folder.put("vocab.json", R"({"a": 4, "b": 5, "ab": 6})");
  EXPECT_CONTAINS(error(), "vocab.json: has no token '<s>'");
  folder.put("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");
  EXPECT_EQ(load_tokenizer(folder.path())->encode("ab", "b", 0).ids, (Ids{6, 5}));
  folder.put("vocab.json", R"({"a": "4"})");
  EXPECT_CONTAINS(error(), "vocab.json 'a': must be a token id");
}

/// tokenizer.json of the golden WordPiece with one of its parts replaced; the message of its Error.
std::string refusal(const char* file, const char* pointer, const Json& value) {
  Json json = Json::parse(golden()["files"][file].get<std::string>());
  json[Json::json_pointer(pointer)] = value;
  const TempFolder folder;
  folder.put("tokenizer.json", json.dump());
  return error_of([&] { load_tokenizer(folder.path()); });
}

TEST(TokenizerJson, UnsupportedPartsAreRefusedByName) {
  EXPECT_EQ(refusal("wordpiece_json", "/version", "1.0"), "no error");
  EXPECT_CONTAINS(refusal("wordpiece_json", "/model/type", "Unigram"), "model: type 'Unigram' is not supported");
  EXPECT_CONTAINS(refusal("wordpiece_json", "/normalizer", {{"type", "Replace"}}),
                  "normalizer: type 'Replace' is not supported; supported: BertNormalizer");
  EXPECT_CONTAINS(refusal("wordpiece_json", "/pre_tokenizer", {{"type", "Metaspace"}}),
                  "pre_tokenizer: type 'Metaspace' is not supported; supported: BertPreTokenizer with WordPiece");
  EXPECT_CONTAINS(refusal("neox", "/pre_tokenizer", {{"type", "Whitespace"}}), "supported: ByteLevel with BPE");
  EXPECT_CONTAINS(refusal("neox", "/pre_tokenizer", nullptr), "pre_tokenizer: is missing");
  EXPECT_CONTAINS(refusal("neox", "/model/byte_fallback", true), "model.byte_fallback: true is not supported");
  EXPECT_CONTAINS(refusal("neox", "/model/dropout", 0.1), "model.dropout: is not supported");
  EXPECT_CONTAINS(refusal("neox", "/model/end_of_word_suffix", "</w>"), "model.end_of_word_suffix: is not supported");
  EXPECT_CONTAINS(refusal("neox", "/post_processor", {{"type", "Magic"}}), "post_processor: type 'Magic' is not");
  EXPECT_CONTAINS(refusal("neox", "/added_tokens/0/single_word", true),
                  "added_tokens[0]: single_word is not supported");
  EXPECT_CONTAINS(refusal("neox", "/added_tokens/0/id", nullptr), "added_tokens[0]: has no id");
  EXPECT_CONTAINS(refusal("neox", "/added_tokens/0/content", 7), "added_tokens[0].content: must be a string");
  EXPECT_CONTAINS(refusal("neox", "/model/merges", {"a b c"}), "model.merges[0]: must be two tokens");
  EXPECT_CONTAINS(refusal("neox", "/model/vocab", Json::object()), "model.vocab: must be an object of tokens and ids");
  EXPECT_CONTAINS(refusal("template", "/post_processor/single/0/SpecialToken/id", "<x>"),
                  "names '<x>', which special_tokens lacks");
}

/// A vocabulary of single bytes and the merges' results.
ByteBpe make_bpe(const ByteBpe::Merges& merges, const ByteBpe::Options& options) {
  Vocabulary v;
  for (const char* token : {"a", "b", "c", "d", "U"}) v.add(token, static_cast<std::int32_t>(v.size()));
  for (const auto& [left, right] : merges)
    if (v.find(left + right) == kNoToken) v.add(left + right, static_cast<std::int32_t>(v.size()));
  return ByteBpe(std::move(v), merges, options);
}

Ids bpe_ids(const ByteBpe& bpe, std::u32string_view text) {
  Ids ids;
  bpe.tokenize(text, ids);
  return ids;
}

TEST(ByteBpe, BytesThatTheVocabularyLacks) {
  ByteBpe::Options options;
  EXPECT_EQ(bpe_ids(make_bpe({{"a", "b"}}, options), U"axyb"), (Ids{5}));  // dropped
  options.unk = "U";
  EXPECT_EQ(bpe_ids(make_bpe({{"a", "b"}}, options), U"axyb"), (Ids{0, 4, 4, 1}));
  options.fuse_unk = true;
  EXPECT_EQ(bpe_ids(make_bpe({{"a", "b"}}, options), U"axyb"), (Ids{0, 4, 1}));
  options.unk = "V";
  EXPECT_EQ(error_of([&] { make_bpe({}, options); }), "the vocabulary has no token 'V'");
}

TEST(ByteBpe, WholeWordsBeforeMergesWhereAsked) {
  // "abc" is a token that the merges do not lead to.
  const ByteBpe::Merges merges = {{"b", "c"}, {"a", "b"}, {"ab", "c"}};
  ByteBpe::Options options;
  const Ids merged = bpe_ids(make_bpe(merges, options), U"abc");
  EXPECT_EQ(merged, (Ids{0, 5}));
  options.ignore_merges = true;
  EXPECT_EQ(bpe_ids(make_bpe(merges, options), U"abc"), (Ids{7}));
}

TEST(ByteBpe, MergesByRankThenFromTheLeft) {
  // The definition: while there is a merge, apply the one of the lowest rank, leftmost.
  const ByteBpe::Merges merges = {{"a", "b"}, {"b", "a"}, {"ab", "ab"}, {"a", "a"}, {"c", "ab"}, {"ba", "ba"}};
  const ByteBpe bpe = make_bpe(merges, {});
  std::uint32_t state = 1;
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> word;
    std::u32string text;
    for (int i = 0; i < 40; ++i) {
      state = state * 1664525u + 1013904223u;
      text.push_back(U"aabbcd"[(state >> 16) % 6]);
      word.push_back(encode_utf8(text.substr(text.size() - 1)));
    }
    for (bool found = true; found;) {
      found = false;
      for (const auto& [left, right] : merges) {
        for (std::size_t i = 0; i + 1 < word.size() && !found; ++i) {
          if (word[i] != left || word[i + 1] != right) continue;
          word[i] += right;
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          found = true;
        }
        if (found) break;
      }
    }
    Ids want;
    for (const std::string& token : word) want.push_back(bpe.vocabulary().find(token));
    EXPECT_EQ(bpe_ids(bpe, text), want) << encode_utf8(text);
  }
}

TEST(ByteBpe, AVeryLongWordTakesNoMoreThanAMoment) {
  const ByteBpe bpe = make_bpe({{"a", "b"}, {"ab", "ab"}}, {});
  std::u32string text;
  for (int i = 0; i < 100000; ++i) text += U"ab";
  EXPECT_EQ(bpe_ids(bpe, text), Ids(50000, 6));
}

TEST(WordPiece, WithoutWordsThereAreNoIds) {
  const TempFolder folder;
  folder.put("vocab.txt", kVocabulary);
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->tokenize("  \n\t \x01 "), Ids{});
  EXPECT_EQ(tokenizer->encode("", "", 0).ids, (Ids{2, 3, 3}));
  EXPECT_EQ(tokenizer->encode("", "", 0).type_ids, (Ids{0, 0, 1}));
}

}  // namespace
}  // namespace cald
