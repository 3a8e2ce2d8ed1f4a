// tokenizer.json, the format of Hugging Face's `tokenizers` package: WordPiece and byte-level BPE.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/byte_bpe.h"
#include "data/token_pipeline.h"

namespace cald {

/// Reads the model, normalizer, pre_tokenizer, post_processor and added_tokens; a part that is not supported is refused
/// by its name. `pad_token` (empty: unknown) names the pad; else the file's padding section does, else a token usual
/// for it.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path, const std::string& pad_token);

/// {"content": ..., "lstrip": ..., "rstrip": ..., "normalized": ..., "special": ..., "single_word": ...}, and "id" if
/// it is there. single_word is refused.
AddedToken parse_added_token(const nlohmann::json& value, const std::string& where);

/// {"token": id, ...}
Vocabulary parse_vocabulary(const nlohmann::json& object, const std::string& where);

/// ByteBpe whose errors begin with `where`.
std::unique_ptr<TokenModel> make_byte_bpe(Vocabulary vocabulary, const ByteBpe::Merges& merges,
                                          const ByteBpe::Options& options, const std::string& where);

}  // namespace cald
