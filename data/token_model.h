// What turns normalized text into token ids: WordPiece and byte-level BPE implement TokenModel over a Vocabulary.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace cald {

/// A hash map from strings that is asked with string_views.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
template <class V>
using StringMap = std::unordered_map<std::string, V, StringHash, std::equal_to<>>;

inline constexpr std::int32_t kNoToken = -1;

/// Token strings (as their file spells them) and their ids. A token added twice has the later id.
class Vocabulary {
 public:
  void add(std::string token, std::int32_t id) {
    if (id >= size_) size_ = std::int64_t{id} + 1;
    ids_.insert_or_assign(std::move(token), id);
  }
  /// kNoToken where there is none.
  std::int32_t find(std::string_view token) const {
    const auto it = ids_.find(token);
    return it == ids_.end() ? kNoToken : it->second;
  }
  /// The largest id, plus one.
  std::int64_t size() const { return size_; }
  const StringMap<std::int32_t>& ids() const { return ids_; }

 private:
  StringMap<std::int32_t> ids_;
  std::int64_t size_ = 0;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Splits `text` (normalized, free of added tokens) into words and appends their ids. Safe to call from several
  /// threads.
  virtual void tokenize(std::u32string_view text, std::vector<std::int32_t>& ids) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

}  // namespace cald
