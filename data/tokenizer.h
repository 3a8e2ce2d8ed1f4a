// Tokenizers: text to token ids, exactly as Hugging Face's fast tokenizers give them.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cald {

/// What stands around the texts: the special tokens' ids, and the places of the first text (A) and the second (B).
struct TokenTemplate {
  enum class Part { special, a, b };
  struct Piece {
    Part part = Part::special;
    std::int32_t id = 0;  ///< of a special token
    std::int32_t type = 0;
  };
  std::vector<Piece> pieces;

  /// Tokens that it adds to the texts'.
  std::int64_t added() const;
};

/// Safe to use from several threads.
class Tokenizer {
 public:
  struct Encoding {
    std::vector<std::int32_t> ids, type_ids;
  };

  virtual ~Tokenizer() = default;

  /// Ids of the text without special tokens around it; those that the text itself spells ("[SEP]") are taken as tokens.
  /// Broken UTF-8 is an Error that says at which byte.
  virtual std::vector<std::int32_t> tokenize(std::string_view text) const = 0;
  /// The token with the largest id that an encoding may hold, and the file that says so.
  struct LastToken {
    std::string content;
    std::int32_t id = -1;
    std::string file;
  };
  virtual const LastToken& last_token() const = 0;
  /// Number of ids: the largest, plus one.
  std::int64_t vocab_size() const { return std::int64_t{last_token().id} + 1; }
  /// The id of a token as its vocabulary spells it; -1 where there is none.
  virtual std::int32_t token_id(std::string_view token) const = 0;

  /// Ids with special tokens around the text or texts, at most max_length (0: any number). What is too long is cut at
  /// its end as the strategy longest_first of `tokenizers` does. An Error if max_length has no place for the special
  /// tokens.
  Encoding encode(std::string_view text, std::optional<std::string_view> pair, std::int64_t max_length) const;

  /// The token that fills up a batch; 0 where the vocabulary names none.
  std::int32_t pad_id() const { return pad_id_; }

 protected:
  TokenTemplate single_, pair_;
  std::int32_t pad_id_ = 0;
};

/// Cuts the lengths of two texts so that they sum to at most `room`: the longer first; where both must be cut, half of
/// `room` for the shorter, the odd token for the longer (the second if they are equally long).
void truncate_longest_first(std::size_t& a, std::size_t& b, std::size_t room);

/// The tokenizer of a model directory: vocab.txt (BERT's WordPiece), vocab.json with merges.txt (byte-level BPE of
/// RoBERTa or GPT-2), else tokenizer.json. tokenizer_config.json, special_tokens_map.json and added_tokens.json are
/// read where they are there. Errors name the file and what it lacks.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& directory);

}  // namespace cald
