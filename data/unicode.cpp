#include "data/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

#include "data/unicode_tables.h"
#include "engine/base/error.h"

namespace cald {
namespace {

namespace tables = unicode_tables;

/// A composite newer than the Unicode of the `tokenizers` package's normalization forms.
constexpr char32_t kNotDecomposed = 0x11938;

template <std::size_t N>
const tables::Range* find_range(const tables::Range (&ranges)[N], char32_t c) {
  const auto* r = std::lower_bound(std::begin(ranges), std::end(ranges), c,
                                   [](const tables::Range& x, char32_t v) { return x.last < v; });
  return r != std::end(ranges) && r->first <= c ? r : nullptr;
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

std::string hex_byte(unsigned char b) {
  const char* digits = "0123456789ABCDEF";
  return std::string("0x") + digits[b >> 4] + digits[b & 15];
}

/// Decodes the sequence at text[at], sets its length; returns why it is broken, or null.
const char* decode_one(std::string_view text, std::size_t at, char32_t& c, std::size_t& length) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0) return lead < 0xC0 ? "a continuation byte without a start" : "no sequence starts with this byte";
  if (length == 1) {
    c = lead;
    return nullptr;
  }
  c = lead & (0xFFu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return "the text ends inside a character";
    if ((byte(at + i) & 0xC0) != 0x80) return "a continuation byte is missing";
    c = c << 6 | (byte(at + i) & 0x3F);
  }
  if ((length == 3 && c < 0x800) || (length == 4 && c < 0x10000)) return "an overlong form";
  if (c >= 0xD800 && c < 0xE000) return "a lone surrogate";
  return c > 0x10FFFF ? "above U+10FFFF" : nullptr;
}

Utf8Fault fault_at(std::string_view text, std::size_t at, const char* why) {
  return {at, hex_byte(static_cast<unsigned char>(text[at])) + ", " + why};
}

int combining_class(char32_t c) {
  if (c < 0x300) return 0;
  const int k = utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
  return k && find_range(tables::kStarter, c) ? 0 : k;
}

void decompose(std::u32string& text, bool compatible) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  std::u32string out;
  out.reserve(text.size() + text.size() / 8);
  bool marks = false;
  for (const char32_t c : text) {
    if (c < 0x80 || c == kNotDecomposed) {
      out.push_back(c);
      continue;
    }
    std::array<utf8proc_int32_t, 32> parts;
    int boundary = 0;
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                           static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary);
    if (n < 0 || n > static_cast<utf8proc_ssize_t>(parts.size())) throw Error("a character has no decomposition");
    for (utf8proc_ssize_t i = 0; i < n; ++i) {
      out.push_back(static_cast<char32_t>(parts[static_cast<std::size_t>(i)]));
      marks = marks || combining_class(out.back()) != 0;
    }
  }
  text.swap(out);
  if (!marks) return;
  // Canonical ordering: each run of marks sorted by class, stably.
  for (auto run = text.begin(); run != text.end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, text.end(), [](char32_t c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
}

/// The character that `first` and `second` compose to, or 0.
char32_t compose_pair(char32_t first, char32_t second) {
  // No character below U+0300 is a second part. U+11A7 stands before the first trailing Hangul consonant; utf8proc 2.8
  // takes it for one.
  if (second < 0x300 || second == 0x11A7) return 0;
  std::array<utf8proc_int32_t, 2> pair = {static_cast<utf8proc_int32_t>(first), static_cast<utf8proc_int32_t>(second)};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  const bool composed = utf8proc_normalize_utf32(pair.data(), 2, options) == 1;
  return composed && pair[0] != kNotDecomposed ? static_cast<char32_t>(pair[0]) : 0;
}

/// Canonical composition (Unicode 3.11, D117) of decomposed text.
void compose(std::u32string& text) {
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t starter = kNone, kept = 0;
  int last_class = 0;  // of the last character kept after the starter
  for (const char32_t c : text) {
    const int k = combining_class(c);
    const bool adjacent = starter != kNone && starter + 1 == kept;
    if (starter != kNone && (adjacent || (last_class != 0 && last_class < k))) {
      if (const char32_t composed = compose_pair(text[starter], c)) {
        text[starter] = composed;
        continue;
      }
    }
    if (k == 0) starter = kept;
    last_class = k;
    text[kept++] = c;
  }
  text.resize(kept);
}

}  // namespace

std::optional<Utf8Fault> find_utf8_fault(std::string_view text) {
  char32_t c = 0;
  std::size_t length = 0;
  for (std::size_t at = 0; at < text.size(); at += length)
    if (const char* why = decode_one(text, at, c, length)) return fault_at(text, at, why);
  return std::nullopt;
}

std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  char32_t c = 0;
  std::size_t length = 0;
  for (std::size_t at = 0; at < text.size(); at += length) {
    if (const char* why = decode_one(text, at, c, length)) {
      const Utf8Fault fault = fault_at(text, at, why);
      throw Error(ErrorKind::data, "broken UTF-8 at byte " + std::to_string(fault.byte) + ": " + fault.what);
    }
    out.push_back(c);
  }
  return out;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](unsigned v) { out.push_back(static_cast<char>(v)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0u | c >> 6);
    put(0x80u | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0u | c >> 12);
    put(0x80u | (c >> 6 & 0x3F));
    put(0x80u | (c & 0x3F));
  } else {
    put(0xF0u | c >> 18);
    put(0x80u | (c >> 12 & 0x3F));
    put(0x80u | (c >> 6 & 0x3F));
    put(0x80u | (c & 0x3F));
  }
}

std::string encode_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) append_utf8(out, c);
  return out;
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_bert_control(char32_t c) {
  if (c < 0x80) return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7F;
  const auto k = category(c);
  return (k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO) &&
         !find_range(tables::kNotControl, c);
}

bool is_bert_punctuation(char32_t c) {
  if (c < 0x80) return (c > 0x20 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 0x7F);
  const auto k = category(c);
  if (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO) return !find_range(tables::kNotPunctuation, c);
  // Punctuation once, of another category today.
  return c == 0x166D || c == 0x111C9;
}

bool is_bert_chinese(char32_t c) {
  // Unicode's extension E begins at U+2B820; `tokenizers` has U+2B920, and ids must agree with it.
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0x2F800 && c <= 0x2FA1F);
}

bool is_letter(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const auto k = category(c);
  return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || find_range(tables::kLetter, c) != nullptr;
}

bool is_number(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto k = category(c);
  return (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) || find_range(tables::kNumber, c) != nullptr;
}

bool is_nonspacing_mark(char32_t c) {
  if (c < 0x300) return false;
  // U+1734 was a nonspacing mark until Unicode 14.
  return c == 0x1734 || (category(c) == UTF8PROC_CATEGORY_MN && !find_range(tables::kNotMark, c));
}

void normalize(std::u32string& text, NormalForm form) {
  if (std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x80; })) return;
  decompose(text, form == NormalForm::nfkd || form == NormalForm::nfkc);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) compose(text);
}

void to_lower(std::u32string& text) {
  constexpr char32_t kDottedI = 0x130, kDotAbove = 0x307;
  std::u32string out;
  out.reserve(text.size());
  for (const char32_t c : text) {
    if (c < 0x80) {
      out.push_back(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    } else if (c == kDottedI) {  // the only code point whose lower case is two
      out.push_back(U'i');
      out.push_back(kDotAbove);
    } else {
      const auto* r = std::find_if(std::begin(tables::kLower), std::end(tables::kLower),
                                   [c](const tables::LowerRange& x) { return x.first <= c && c <= x.last; });
      out.push_back(r == std::end(tables::kLower)
                        ? static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)))
                        : static_cast<char32_t>(static_cast<std::int32_t>(c) + r->shift));
    }
  }
  text.swap(out);
}

}  // namespace cald
