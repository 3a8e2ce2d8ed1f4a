// BERT's normalizer, pre-tokenizer and WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019), with the ids of
// Hugging Face's BertTokenizerFast.
#pragma once
#include <string>

#include "data/token_model.h"

namespace cald {

struct BertNormalizer {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;

  void apply(std::u32string& text) const;
};

/// Splits at white space and around punctuation; a word becomes the longest pieces of the vocabulary from the left,
/// those after the first spelled with `prefix`; a word that cannot be spelled, or is too long, becomes `unk`.
class WordPiece : public TokenModel {
 public:
  struct Options {
    std::string unk = "[UNK]";
    std::string prefix = "##";
    std::size_t max_chars_per_word = 100;
  };

  /// `unk` must be in the vocabulary.
  WordPiece(Vocabulary vocabulary, const Options& options);

  void tokenize(std::u32string_view text, std::vector<std::int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  /// Pieces that may stand at one place of a word, by their spelling without prefix.
  struct Pieces {
    StringMap<std::int32_t> ids;
    std::size_t longest = 0;  ///< bytes
  };

  void tokenize_word(std::u32string_view word, std::vector<std::int32_t>& ids) const;

  Vocabulary vocabulary_;
  Pieces first_, later_;
  std::int32_t unk_;
  std::size_t max_chars_;
};

}  // namespace cald
