#include "data/wordpiece.h"

#include <algorithm>

#include "data/unicode.h"
#include "engine/base/error.h"

namespace cald {

void BertNormalizer::apply(std::u32string& text) const {
  if (clean_text || handle_chinese_chars) {
    std::u32string out;
    out.reserve(text.size());
    for (const char32_t c : text) {
      if (clean_text && (c == 0 || c == 0xFFFD || is_bert_control(c))) continue;
      if (handle_chinese_chars && is_bert_chinese(c)) {
        out += {U' ', c, U' '};
      } else {
        out.push_back(clean_text && is_white_space(c) ? U' ' : c);
      }
    }
    text.swap(out);
  }
  if (strip_accents) {
    normalize(text, NormalForm::nfd);
    std::erase_if(text, is_nonspacing_mark);
  }
  if (lowercase) to_lower(text);
}

WordPiece::WordPiece(Vocabulary vocabulary, const Options& options)
    : vocabulary_(std::move(vocabulary)), unk_(vocabulary_.find(options.unk)), max_chars_(options.max_chars_per_word) {
  if (unk_ == kNoToken) throw Error(ErrorKind::data, "the vocabulary has no token '" + options.unk + "'");
  const auto add = [](Pieces& pieces, std::string_view piece, std::int32_t id) {
    pieces.ids.insert_or_assign(std::string(piece), id);
    pieces.longest = std::max(pieces.longest, piece.size());
  };
  for (const auto& [token, id] : vocabulary_.ids()) {
    add(first_, token, id);
    if (token.starts_with(options.prefix)) add(later_, std::string_view(token).substr(options.prefix.size()), id);
  }
}

void WordPiece::tokenize(std::u32string_view text, std::vector<std::int32_t>& ids) const {
  for (std::size_t at = 0; at < text.size();) {
    if (is_white_space(text[at])) {
      ++at;
      continue;
    }
    std::size_t end = at + 1;
    if (!is_bert_punctuation(text[at]))
      while (end < text.size() && !is_white_space(text[end]) && !is_bert_punctuation(text[end])) ++end;
    tokenize_word(text.substr(at, end - at), ids);
    at = end;
  }
}

void WordPiece::tokenize_word(std::u32string_view word, std::vector<std::int32_t>& ids) const {
  if (word.size() > max_chars_) {
    ids.push_back(unk_);
    return;
  }
  const std::string text = encode_utf8(word);
  const std::string_view rest(text);
  const std::size_t count = ids.size();
  for (std::size_t at = 0; at < text.size();) {
    const Pieces& pieces = at == 0 ? first_ : later_;
    std::size_t length = std::min(text.size() - at, pieces.longest);
    auto found = pieces.ids.end();
    for (; length > 0; --length) {
      const bool boundary = at + length == text.size() || (text[at + length] & 0xC0) != 0x80;
      if (boundary && (found = pieces.ids.find(rest.substr(at, length))) != pieces.ids.end()) break;
    }
    if (length == 0) {
      ids.resize(count);
      ids.push_back(unk_);
      return;
    }
    ids.push_back(found->second);
    at += length;
  }
}

}  // namespace cald
