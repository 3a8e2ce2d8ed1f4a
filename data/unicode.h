// UTF-8 and the Unicode properties that tokenizers ask for, with the answers that Hugging Face's `tokenizers` gives.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace cald {

/// Where text stops being UTF-8 and why (overlong forms, surrogates and code points above U+10FFFF included).
struct Utf8Fault {
  std::size_t byte = 0;
  std::string what;
};

std::optional<Utf8Fault> find_utf8_fault(std::string_view text);

/// The code points of `text`; broken UTF-8 is an Error "broken UTF-8 at byte N: ...".
std::u32string decode_utf8(std::string_view text);
/// Appends one code point. `c` is at most U+10FFFF.
void append_utf8(std::string& out, char32_t c);
std::string encode_utf8(std::u32string_view text);

/// Unicode's White_Space.
bool is_white_space(char32_t c);
/// What BERT's clean_text removes: categories Cc, Cf and Co other than tab, line feed and carriage return.
bool is_bert_control(char32_t c);
/// Where BERT splits: ASCII symbols and categories P*.
bool is_bert_punctuation(char32_t c);
/// The blocks that BERT's handle_chinese_chars sets apart.
bool is_bert_chinese(char32_t c);
/// \p{L}
bool is_letter(char32_t c);
/// \p{N}
bool is_number(char32_t c);
/// Category Mn.
bool is_nonspacing_mark(char32_t c);

/// Normalization forms of Unicode Standard Annex 15, in place.
enum class NormalForm { nfd, nfc, nfkd, nfkc };
void normalize(std::u32string& text, NormalForm form);

/// Every code point's full lower-case mapping, in place, without regard to context (no final sigma).
void to_lower(std::u32string& text);

}  // namespace cald
