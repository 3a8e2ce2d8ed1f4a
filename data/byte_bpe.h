// Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019), with the ids of Hugging Face's
// RobertaTokenizerFast, GPT2TokenizerFast and GPTNeoXTokenizerFast.
#pragma once
#include <array>
#include <shared_mutex>
#include <string>
#include <utility>

#include "data/token_model.h"

namespace cald {

/// Calls emit(begin, end) for each word that GPT-2's pattern finds, in order; they cover the text:
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
void split_byte_level(std::u32string_view text, const std::function<void(std::size_t, std::size_t)>& emit);

class ByteBpe : public TokenModel {
 public:
  struct Options {
    bool add_prefix_space = false;
    bool use_regex = true;       ///< false: the text is one word
    bool ignore_merges = false;  ///< a word that is a token is taken whole
    bool fuse_unk = false;
    std::string unk;  ///< for bytes that the vocabulary lacks; empty: they are dropped
  };
  using Merges = std::vector<std::pair<std::string, std::string>>;

  /// Tokens and merges are spelled in GPT-2's alphabet, one printable character a byte. Both sides of a merge and its
  /// result must be in the vocabulary.
  ByteBpe(Vocabulary vocabulary, const Merges& merges, const Options& options);

  void tokenize(std::u32string_view text, std::vector<std::int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Merge {
    std::int32_t rank, id;
  };

  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  void tokenize_word(std::u32string_view word, std::vector<std::int32_t>& ids) const;
  std::vector<std::int32_t> spell_word(const std::string& bytes) const;
  void merge(std::vector<std::int32_t>& symbols) const;

  Vocabulary vocabulary_;
  Options options_;
  std::int32_t unk_ = kNoToken;
  std::array<std::int32_t, 256> byte_ids_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  mutable std::shared_mutex seen_mutex_;
  mutable StringMap<std::vector<std::int32_t>> seen_;  // short words come again and again
};

}  // namespace cald
