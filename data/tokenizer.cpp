#include "data/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/byte_bpe.h"
#include "data/json_text.h"
#include "data/token_pipeline.h"
#include "data/tokenizer_json.h"
#include "data/unicode.h"
#include "data/wordpiece.h"
#include "engine/base/error.h"

namespace cald {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::size_t kMaxLineBytes = std::size_t{1} << 20;

/// Calls f(line, number) for each line, without its end.
template <class F>
void each_line(const std::string& path, F f) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw data_error(path, "cannot be read");
  std::string line;
  for (std::int64_t number = 1; std::getline(in, line); ++number) {
    if (line.size() > kMaxLineBytes) throw data_error(path + ":" + std::to_string(number), "the line is over 1 MiB");
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (const auto fault = find_utf8_fault(line))
      throw data_error(path + ":" + std::to_string(number),
                       "broken UTF-8 at byte " + std::to_string(fault->byte) + ": " + fault->what);
    f(line, number);
  }
}

Vocabulary read_vocab_txt(const std::string& path) {
  Vocabulary vocabulary;
  each_line(path, [&](const std::string& line, std::int64_t number) {
    vocabulary.add(line, static_cast<std::int32_t>(number - 1));
  });
  if (vocabulary.size() == 0) throw data_error(path, "the vocabulary is empty");
  return vocabulary;
}

ByteBpe::Merges read_merges(const std::string& path) {
  ByteBpe::Merges merges;
  each_line(path, [&](const std::string& line, std::int64_t number) {
    if (line.empty() || (number == 1 && line.starts_with("#version"))) return;
    const auto space = line.find(' ');
    if (space == 0 || space == std::string::npos || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string::npos)
      throw data_error(path + ":" + std::to_string(number), "wanted two tokens and one space between them");
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  });
  return merges;
}

/// tokenizer_config.json and its older companions, each of them optional.
struct Settings {
  std::string config_path, map_path, added_path;
  Json config = Json::object(), map = Json::object(), added = Json::object();

  explicit Settings(const fs::path& directory)
      : config_path((directory / "tokenizer_config.json").string()),
        map_path((directory / "special_tokens_map.json").string()),
        added_path((directory / "added_tokens.json").string()) {
    if (fs::exists(config_path)) config = read_json_object(config_path);
    if (fs::exists(map_path)) map = read_json_object(map_path);
    if (fs::exists(added_path)) added = read_json_object(added_path);
  }

  /// A flag; absent and null are `otherwise`.
  bool flag(const char* key, bool otherwise) const {
    const auto it = config.find(key);
    if (it == config.end() || it->is_null()) return otherwise;
    if (!it->is_boolean()) throw data_error(config_path, std::string(key) + " must be true, false or null");
    return it->get<bool>();
  }

  /// A special token under its key ("cls_token"), in tokenizer_config.json, else special_tokens_map.json.
  std::optional<AddedToken> special(const char* key) const {
    for (const auto& [source, path] : {std::pair{&config, &config_path}, std::pair{&map, &map_path}}) {
      const auto it = source->find(key);
      if (it == source->end() || it->is_null()) continue;
      AddedToken token;
      if (it->is_string()) {
        token.content = it->get<std::string>();
      } else if (it->is_object() && it->value("content", Json()).is_string()) {
        token = parse_added_token(*it, *path + ": " + key);
        if (!it->contains("normalized")) token.normalized = false;
      } else {
        throw data_error(*path, std::string(key) + " must be a string or an object with a string 'content'");
      }
      return token;
    }
    return std::nullopt;
  }

  AddedToken special_or(const char* key, const char* otherwise) const {
    auto token = special(key);
    if (!token) {
      token.emplace();
      token->content = otherwise;
    }
    return *token;
  }

  /// Tokens beyond the vocabulary file: added_tokens_decoder and added_tokens.json.
  std::vector<AddedToken> more_tokens() const {
    std::vector<AddedToken> tokens;
    for (const auto& [content, id] : added.items()) {
      if (!id.is_number_integer() || id < 0 || id > 0x7FFFFFFE)
        throw data_error(added_path, in_quotes(content) + " must have a token id");
      AddedToken token;
      token.content = content;
      token.id = id.get<std::int32_t>();
      token.normalized = true;
      token.file = added_path;
      tokens.push_back(token);
    }
    const auto decoder = config.find("added_tokens_decoder");
    if (decoder == config.end() || !decoder->is_object()) return tokens;
    for (const auto& [id, value] : decoder->items()) {
      AddedToken token = parse_added_token(value, config_path + ": added_tokens_decoder " + in_quotes(id));
      const bool number = !id.empty() && id.size() < 10 && id.find_first_not_of("0123456789") == std::string::npos;
      if (!number)
        throw data_error(config_path, "added_tokens_decoder has the key " + in_quotes(id) + ", wanted an id");
      token.id = static_cast<std::int32_t>(std::stol(id));
      token.file = config_path;
      std::erase_if(tokens, [&](const AddedToken& t) { return t.content == token.content; });
      tokens.push_back(token);
    }
    return tokens;
  }
};

/// Adds the special tokens, which must be in the vocabulary, and those beyond it; returns the ids of the former.
std::vector<std::int32_t> add_tokens(TokenPipelineParts& parts, const Settings& settings,
                                     std::vector<AddedToken> specials, const std::string& vocabulary_path) {
  std::vector<AddedToken> more = settings.more_tokens();
  const Vocabulary& vocabulary = parts.model->vocabulary();
  std::vector<std::int32_t> ids;
  for (AddedToken& token : specials) {
    token.id = vocabulary.find(token.content);
    const auto same = std::find_if(more.begin(), more.end(), [&](const auto& t) { return t.content == token.content; });
    if (same != more.end()) token = *same;
    if (token.id == kNoToken) throw data_error(vocabulary_path, "has no token " + in_quotes(token.content));
    ids.push_back(token.id);
  }
  parts.added_tokens = std::move(specials);
  parts.added_tokens.insert(parts.added_tokens.end(), more.begin(), more.end());
  return ids;
}

std::unique_ptr<Tokenizer> load_wordpiece(const std::string& path, const Settings& settings) {
  TokenPipelineParts parts;
  parts.file = path;
  BertNormalizer normalizer;
  normalizer.lowercase = settings.flag("do_lower_case", true);
  normalizer.strip_accents = settings.flag("strip_accents", normalizer.lowercase);
  normalizer.handle_chinese_chars = settings.flag("tokenize_chinese_chars", true);
  parts.normalizer.emplace_back([normalizer](std::u32string& text) { normalizer.apply(text); });
  const std::vector<AddedToken> specials = {
      settings.special_or("unk_token", "[UNK]"), settings.special_or("sep_token", "[SEP]"),
      settings.special_or("pad_token", "[PAD]"), settings.special_or("cls_token", "[CLS]")};
  try {
    parts.model = std::make_unique<WordPiece>(read_vocab_txt(path), WordPiece::Options{specials[0].content, "##", 100});
  } catch (const Error& e) {
    if (std::string_view(e.what()).starts_with(path)) throw;
    throw data_error(path, e.what());
  }
  std::vector<AddedToken> all = specials;
  // A vocabulary trimmed for classification may lack the mask.
  if (AddedToken mask = settings.special_or("mask_token", "[MASK]");
      parts.model->vocabulary().find(mask.content) != kNoToken)
    all.push_back(std::move(mask));
  const auto ids = add_tokens(parts, settings, std::move(all), path);
  parts.pad_id = ids[2];
  set_bert_templates(parts, ids[3], ids[1]);
  return std::make_unique<TokenPipeline>(std::move(parts));
}

std::unique_ptr<Tokenizer> load_byte_bpe(const std::string& vocab_path, const std::string& merges_path,
                                         const Settings& settings) {
  TokenPipelineParts parts;
  parts.file = vocab_path;
  ByteBpe::Options options;
  options.add_prefix_space = settings.flag("add_prefix_space", false);
  const auto name = settings.config.find("tokenizer_class");
  const bool gpt2 =
      name != settings.config.end() && name->is_string() && name->get_ref<const std::string&>().starts_with("GPT2");
  const Json json = read_json_object(vocab_path);
  parts.model = make_byte_bpe(parse_vocabulary(json, vocab_path), read_merges(merges_path), options, merges_path);
  std::vector<AddedToken> specials;
  if (gpt2) {
    if (const auto eos = settings.special_or("eos_token", "<|endoftext|>");
        parts.model->vocabulary().find(eos.content) != kNoToken)
      specials.push_back(eos);
    const auto pad = settings.special("pad_token");
    if (pad) specials.push_back(*pad);
    const auto ids = add_tokens(parts, settings, std::move(specials), vocab_path);
    if (pad) parts.pad_id = ids.back();
    set_bare_templates(parts);
    return std::make_unique<TokenPipeline>(std::move(parts));
  }
  specials = {settings.special_or("cls_token", "<s>"), settings.special_or("sep_token", "</s>"),
              settings.special_or("pad_token", "<pad>"), settings.special_or("unk_token", "<unk>")};
  if (AddedToken mask = settings.special_or("mask_token", "<mask>");
      parts.model->vocabulary().find(mask.content) != kNoToken)
    specials.push_back(std::move(mask));
  const auto ids = add_tokens(parts, settings, std::move(specials), vocab_path);
  parts.pad_id = ids[2];
  set_roberta_templates(parts, ids[0], ids[1]);
  return std::make_unique<TokenPipeline>(std::move(parts));
}

}  // namespace

std::int64_t TokenTemplate::added() const {
  return std::count_if(pieces.begin(), pieces.end(), [](const Piece& p) { return p.part == Part::special; });
}

void truncate_longest_first(std::size_t& a, std::size_t& b, std::size_t room) {
  if (a + b <= room) return;
  std::size_t& shorter = a > b ? b : a;
  std::size_t& longer = a > b ? a : b;
  if (2 * shorter <= room) {
    longer = room - shorter;
  } else {
    shorter = room / 2;
    longer = room - room / 2;
  }
}

Tokenizer::Encoding Tokenizer::encode(std::string_view text, std::optional<std::string_view> pair,
                                      std::int64_t max_length) const {
  const TokenTemplate& layout = pair ? pair_ : single_;
  const std::vector<std::int32_t> a = tokenize(text);
  const std::vector<std::int32_t> b = pair ? tokenize(*pair) : std::vector<std::int32_t>{};
  std::size_t a_size = a.size(), b_size = b.size();
  if (max_length != 0) {
    if (max_length < layout.added())
      throw usage_error("a length of " + std::to_string(max_length) + " tokens has no place for the " +
                        std::to_string(layout.added()) + " special tokens");
    const auto room = static_cast<std::size_t>(max_length - layout.added());
    if (pair) {
      truncate_longest_first(a_size, b_size, room);
    } else {
      a_size = std::min(a_size, room);
    }
  }
  Encoding e;
  for (const TokenTemplate::Piece& piece : layout.pieces) {
    if (piece.part == TokenTemplate::Part::special) {
      e.ids.push_back(piece.id);
    } else if (piece.part == TokenTemplate::Part::a) {
      e.ids.insert(e.ids.end(), a.begin(), a.begin() + static_cast<std::ptrdiff_t>(a_size));
    } else {
      e.ids.insert(e.ids.end(), b.begin(), b.begin() + static_cast<std::ptrdiff_t>(b_size));
    }
    e.type_ids.resize(e.ids.size(), piece.type);
  }
  return e;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& directory) {
  const fs::path folder(directory);
  const auto path = [&](const char* file) { return (folder / file).string(); };
  const auto has = [&](const char* file) { return fs::exists(folder / file); };
  if (!fs::is_directory(folder)) throw data_error(directory, "is not a folder");
  const Settings settings(folder);
  if (has("vocab.txt")) return load_wordpiece(path("vocab.txt"), settings);
  if (has("vocab.json") && has("merges.txt")) return load_byte_bpe(path("vocab.json"), path("merges.txt"), settings);
  if (has("tokenizer.json")) {
    const auto pad = settings.special("pad_token");
    return load_tokenizer_json(path("tokenizer.json"), pad ? pad->content : "");
  }
  throw data_error(directory, "has no vocabulary; wanted vocab.txt, vocab.json with merges.txt, or tokenizer.json");
}

}  // namespace cald
