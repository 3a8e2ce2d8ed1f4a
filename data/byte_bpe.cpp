#include "data/byte_bpe.h"

#include <mutex>
#include <queue>

#include "data/unicode.h"
#include "engine/base/error.h"

namespace cald {
namespace {

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 and up in their order.
std::array<char32_t, 256> byte_alphabet() {
  std::array<char32_t, 256> letters;
  char32_t next = 0x100;
  for (std::size_t b = 0; b < letters.size(); ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
    letters[b] = printable ? static_cast<char32_t>(b) : next++;
  }
  return letters;
}

std::string spell(std::string_view bytes) {
  static const auto letters = byte_alphabet();
  std::string out;
  for (const char b : bytes) append_utf8(out, letters[static_cast<unsigned char>(b)]);
  return out;
}

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

enum class Kind { letter, number, space, other };

Kind kind_of(char32_t c) {
  if (is_letter(c)) return Kind::letter;
  if (is_number(c)) return Kind::number;
  return is_white_space(c) ? Kind::space : Kind::other;
}

/// Length of the contraction at `at` ('s, 're, ...), or 0.
std::size_t contraction(std::u32string_view text, std::size_t at) {
  if (text[at] != U'\'' || at + 1 >= text.size()) return 0;
  const char32_t a = text[at + 1], b = at + 2 < text.size() ? text[at + 2] : 0;
  if (a == U's' || a == U't' || a == U'm' || a == U'd') return 2;
  return (a == U'r' && b == U'e') || (a == U'v' && b == U'e') || (a == U'l' && b == U'l') ? 3 : 0;
}

/// End of the word that begins at `at`.
std::size_t word_end(std::u32string_view text, std::size_t at) {
  if (const std::size_t n = contraction(text, at)) return at + n;
  const auto run_end = [&](std::size_t from, Kind kind) {
    while (from < text.size() && kind_of(text[from]) == kind) ++from;
    return from;
  };
  const std::size_t start = text[at] == U' ' && at + 1 < text.size() ? at + 1 : at;
  const Kind kind = kind_of(text[start]);
  if (kind != Kind::space) return run_end(start, kind);
  const std::size_t end = run_end(at, Kind::space);
  // \s+(?!\S) leaves the last space to the word that follows, unless it is the only one.
  return end < text.size() && end - at > 1 ? end - 1 : end;
}

}  // namespace

void split_byte_level(std::u32string_view text, const std::function<void(std::size_t, std::size_t)>& emit) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = word_end(text, at);
    emit(at, end);
    at = end;
  }
}

ByteBpe::ByteBpe(Vocabulary vocabulary, const Merges& merges, const Options& options)
    : vocabulary_(std::move(vocabulary)), options_(options) {
  if (!options.unk.empty() && (unk_ = vocabulary_.find(options.unk)) == kNoToken)
    throw Error(ErrorKind::data, "the vocabulary has no token '" + options.unk + "'");
  for (std::size_t b = 0; b < byte_ids_.size(); ++b) {
    const char byte = static_cast<char>(b);
    byte_ids_[b] = vocabulary_.find(spell({&byte, 1}));
  }
  std::int32_t rank = 0;
  for (const auto& [left, right] : merges) {
    const std::int32_t l = vocabulary_.find(left), r = vocabulary_.find(right), m = vocabulary_.find(left + right);
    if (l == kNoToken || r == kNoToken || m == kNoToken)
      throw Error(ErrorKind::data, "merge " + std::to_string(rank + 1) + " ('" + left + "' '" + right + "'): '" +
                                       (l == kNoToken   ? left
                                        : r == kNoToken ? right
                                                        : left + right) +
                                       "' is not in the vocabulary");
    merges_.insert_or_assign(pair_key(l, r), Merge{rank++, m});
  }
}

void ByteBpe::tokenize(std::u32string_view text, std::vector<std::int32_t>& ids) const {
  if (text.empty()) return;
  std::u32string prefixed;
  if (options_.add_prefix_space && text.front() != U' ') {
    prefixed.reserve(text.size() + 1);
    prefixed.push_back(U' ');
    prefixed += text;
    text = prefixed;
  }
  if (!options_.use_regex) return tokenize_word(text, ids);
  split_byte_level(text,
                   [&](std::size_t begin, std::size_t end) { tokenize_word(text.substr(begin, end - begin), ids); });
}

void ByteBpe::tokenize_word(std::u32string_view word, std::vector<std::int32_t>& ids) const {
  constexpr std::size_t kMaxSeen = 65536, kMaxSeenBytes = 32;
  const std::string bytes = encode_utf8(word);
  const bool remember = bytes.size() <= kMaxSeenBytes;
  if (remember) {
    const std::shared_lock lock(seen_mutex_);
    if (const auto it = seen_.find(bytes); it != seen_.end()) {
      ids.insert(ids.end(), it->second.begin(), it->second.end());
      return;
    }
  }
  std::vector<std::int32_t> symbols = spell_word(bytes);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
  if (!remember) return;
  const std::unique_lock lock(seen_mutex_);
  if (seen_.size() < kMaxSeen) seen_.emplace(bytes, std::move(symbols));
}

std::vector<std::int32_t> ByteBpe::spell_word(const std::string& bytes) const {
  if (options_.ignore_merges)
    if (const std::int32_t id = vocabulary_.find(spell(bytes)); id != kNoToken) return {id};
  std::vector<std::int32_t> symbols;
  symbols.reserve(bytes.size());
  bool after_unknown = false;
  for (const char b : bytes) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(b)];
    const bool unknown = id == kNoToken;
    if (!unknown) {
      symbols.push_back(id);
    } else if (unk_ != kNoToken && !(options_.fuse_unk && after_unknown)) {
      symbols.push_back(unk_);
    }
    after_unknown = unknown;
  }
  merge(symbols);
  return symbols;
}

const ByteBpe::Merge* ByteBpe::find_merge(std::int32_t left, std::int32_t right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

/// Applies the merge of the lowest rank, leftmost first, until none is left. A heap over a linked list keeps long words
/// at O(n log n).
void ByteBpe::merge(std::vector<std::int32_t>& symbols) const {
  struct Candidate {
    std::int32_t rank, id;
    std::size_t at;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  const std::size_t n = symbols.size();
  if (n < 2) return;
  std::vector<std::size_t> next(n), previous(n);  // n: none
  for (std::size_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i ? i - 1 : n;
  }
  std::priority_queue<Candidate> heap;
  const auto offer = [&](std::size_t at) {
    if (at >= n || next[at] >= n) return;
    if (const Merge* m = find_merge(symbols[at], symbols[next[at]])) heap.push({m->rank, m->id, at});
  };
  for (std::size_t i = 0; i + 1 < n; ++i) offer(i);
  while (!heap.empty()) {
    const Candidate c = heap.top();
    heap.pop();
    const std::size_t right = next[c.at];
    if (symbols[c.at] == kNoToken || right >= n) continue;
    // Overtaken by a merge, unless what stands there now gives the same token: that is how `tokenizers` has it.
    const Merge* m = find_merge(symbols[c.at], symbols[right]);
    if (!m || m->id != c.id) continue;
    symbols[c.at] = c.id;
    symbols[right] = kNoToken;
    next[c.at] = next[right];
    if (next[c.at] < n) previous[next[c.at]] = c.at;
    offer(previous[c.at]);
    offer(c.at);
  }
  std::erase(symbols, kNoToken);
}

}  // namespace cald
