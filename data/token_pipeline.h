// The one tokenizer behind all file layouts: added tokens, normalizer, model, template.
#pragma once
#include <bitset>
#include <functional>

#include "data/token_model.h"
#include "data/tokenizer.h"

namespace cald {

/// A token that is found in the text before the model sees it.
struct AddedToken {
  std::string content;
  std::int32_t id = kNoToken;
  bool lstrip = false, rstrip = false;  ///< takes the white space beside it
  bool normalized = false;              ///< is looked for in the normalized text
  std::string file;                     ///< that adds it; empty: the vocabulary's
};

/// Finds added tokens: the leftmost, of those the longest.
class AddedTokenFinder {
 public:
  /// `spelling` is the token as it stands in the text that is searched.
  void add(const AddedToken& token, std::u32string spelling);
  /// Calls emit(part, id) for the parts of `text` in order; id is kNoToken for text between tokens.
  void split(std::u32string_view text, const std::function<void(std::u32string_view, std::int32_t)>& emit) const;

 private:
  struct Entry {
    std::u32string spelling;
    std::int32_t id;
    bool lstrip, rstrip;
  };
  const Entry* match(std::u32string_view text, std::size_t at) const;

  std::unordered_map<char32_t, std::vector<Entry>> entries_;  // by first character, the longest first
  std::bitset<256> may_begin_;                                // by first character's lowest byte
};

/// One step of normalization, in place.
using NormalizerStep = std::function<void(std::u32string&)>;

struct TokenPipelineParts {
  std::string file;  ///< the vocabulary's
  std::vector<NormalizerStep> normalizer;
  std::vector<AddedToken> added_tokens;
  std::unique_ptr<TokenModel> model;
  TokenTemplate single, pair;
  std::int32_t pad_id = 0;
};

class TokenPipeline : public Tokenizer {
 public:
  explicit TokenPipeline(TokenPipelineParts parts);

  std::vector<std::int32_t> tokenize(std::string_view text) const override;
  const LastToken& last_token() const override { return last_; }
  std::int32_t token_id(std::string_view token) const override;

 private:
  void normalize_text(std::u32string& text) const;
  void note_id(std::string_view token, std::int32_t id, const std::string& file);

  std::vector<NormalizerStep> normalizer_;
  StringMap<std::int32_t> added_;
  AddedTokenFinder in_text_, in_normalized_;
  std::unique_ptr<TokenModel> model_;
  LastToken last_;
};

/// Both templates of BERT: <cls> A <sep> and <cls> A <sep> B <sep>, the second text and its end of type 1.
void set_bert_templates(TokenPipelineParts& parts, std::int32_t cls, std::int32_t sep);
/// Both templates of RoBERTa: <cls> A <sep> and <cls> A <sep> <sep> B <sep>, all of type 0.
void set_roberta_templates(TokenPipelineParts& parts, std::int32_t cls, std::int32_t sep);
/// Texts with nothing around them; the second is of type 1.
void set_bare_templates(TokenPipelineParts& parts);

}  // namespace cald
