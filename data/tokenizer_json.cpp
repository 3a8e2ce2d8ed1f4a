#include "data/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "data/json_text.h"
#include "data/unicode.h"
#include "data/wordpiece.h"
#include "engine/base/error.h"

namespace cald {
namespace {

using Json = nlohmann::json;

/// A value of tokenizer.json and its place in the file, for messages.
class Node {
 public:
  Node(const Json& value, std::string where) : value_(&value), where_(std::move(where)) {}

  const Json& json() const { return *value_; }
  const std::string& where() const { return where_; }
  bool is_null() const { return value_->is_null(); }
  Error error(const std::string& what) const { return data_error(where_, what); }

  /// The member `key`; null where it is absent.
  Node at(const char* key) const {
    static const Json null;
    if (!value_->is_object()) throw error("must be an object");
    const auto it = value_->find(key);
    return {it == value_->end() ? null : *it, where_ + (where_.ends_with(".json") ? ": " : ".") + key};
  }
  std::vector<Node> items() const {
    if (!value_->is_array()) throw error("must be an array");
    std::vector<Node> out;
    for (std::size_t i = 0; i < value_->size(); ++i)
      out.push_back({(*value_)[i], where_ + "[" + std::to_string(i) + "]"});
    return out;
  }
  std::string string() const {
    if (!value_->is_string()) throw error("must be a string");
    return value_->get<std::string>();
  }
  std::string string_or(const char* key, const std::string& otherwise) const {
    const Node n = at(key);
    return n.is_null() ? otherwise : n.string();
  }
  bool flag_or(const char* key, bool otherwise) const {
    const Node n = at(key);
    if (n.is_null()) return otherwise;
    if (!n.json().is_boolean()) throw n.error("must be true or false");
    return n.json().get<bool>();
  }
  std::int32_t id() const {
    if (!value_->is_number_integer() || *value_ < 0 || *value_ > 0x7FFFFFFE) throw error("must be a token id");
    return value_->get<std::int32_t>();
  }
  std::string type() const { return at("type").string(); }
  Error unsupported(const std::string& supported) const {
    return error("type " + in_quotes(type()) + " is not supported; supported: " + supported);
  }

 private:
  const Json* value_;
  std::string where_;
};

std::optional<NormalForm> normal_form(std::string_view type) {
  if (type == "NFC") return NormalForm::nfc;
  if (type == "NFD") return NormalForm::nfd;
  if (type == "NFKC") return NormalForm::nfkc;
  if (type == "NFKD") return NormalForm::nfkd;
  return std::nullopt;
}

void add_normalizer(const Node& node, std::vector<NormalizerStep>& steps) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "Sequence") {
    for (const Node& n : node.at("normalizers").items()) add_normalizer(n, steps);
  } else if (type == "BertNormalizer") {
    BertNormalizer b;
    b.clean_text = node.flag_or("clean_text", true);
    b.handle_chinese_chars = node.flag_or("handle_chinese_chars", true);
    b.lowercase = node.flag_or("lowercase", true);
    b.strip_accents = node.flag_or("strip_accents", b.lowercase);
    steps.emplace_back([b](std::u32string& text) { b.apply(text); });
  } else if (const auto form = normal_form(type)) {
    steps.emplace_back([form](std::u32string& text) { normalize(text, *form); });
  } else if (type == "Lowercase") {
    steps.emplace_back(to_lower);
  } else {
    throw node.unsupported("BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Sequence");
  }
}

/// The pre-tokenizer, which a Sequence of one may wrap.
Node single_pre_tokenizer(const Node& node) {
  if (node.is_null()) throw node.error("is missing; wanted BertPreTokenizer or ByteLevel");
  if (node.type() != "Sequence") return node;
  const auto items = node.at("pretokenizers").items();
  if (items.size() != 1) throw node.error("a Sequence of " + std::to_string(items.size()) + " is not supported");
  return single_pre_tokenizer(items[0]);
}

void refuse_affixes(const Node& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.string_or(key, "").empty()) throw model.at(key).error("is not supported with byte-level BPE");
  if (model.flag_or("byte_fallback", false)) throw model.at("byte_fallback").error("true is not supported");
  const Node dropout = model.at("dropout");
  if (!dropout.is_null() && dropout.json() != 0) throw dropout.error("is not supported; wanted null");
}

ByteBpe::Merges parse_merges(const Node& node) {
  ByteBpe::Merges merges;
  for (const Node& n : node.items()) {
    if (n.json().is_array()) {
      const auto sides = n.items();
      if (sides.size() != 2) throw n.error("must have two sides");
      merges.emplace_back(sides[0].string(), sides[1].string());
      continue;
    }
    const std::string s = n.string();
    const auto space = s.find(' ');
    if (space == std::string::npos || s.find(' ', space + 1) != std::string::npos)
      throw n.error("must be two tokens and one space between them");
    merges.emplace_back(s.substr(0, space), s.substr(space + 1));
  }
  return merges;
}

std::unique_ptr<TokenModel> parse_model(const Node& model, const Node& pre_tokenizer) {
  const std::string type = model.string_or("type", model.at("merges").is_null() ? "WordPiece" : "BPE");
  const Node split = single_pre_tokenizer(pre_tokenizer);
  const std::string splitter = split.type();
  Vocabulary vocabulary = parse_vocabulary(model.at("vocab").json(), model.at("vocab").where());
  if (type == "WordPiece") {
    if (splitter != "BertPreTokenizer") throw split.unsupported("BertPreTokenizer with WordPiece");
    WordPiece::Options options;
    options.unk = model.string_or("unk_token", options.unk);
    options.prefix = model.string_or("continuing_subword_prefix", options.prefix);
    const Node longest = model.at("max_input_chars_per_word");
    if (!longest.is_null()) options.max_chars_per_word = static_cast<std::size_t>(longest.id());
    try {
      return std::make_unique<WordPiece>(std::move(vocabulary), options);
    } catch (const Error& e) {
      throw model.error(e.what());
    }
  }
  if (type != "BPE") throw model.unsupported("WordPiece, BPE");
  if (splitter != "ByteLevel") throw split.unsupported("ByteLevel with BPE");
  refuse_affixes(model);
  ByteBpe::Options options;
  options.add_prefix_space = split.flag_or("add_prefix_space", true);
  options.use_regex = split.flag_or("use_regex", true);
  options.ignore_merges = model.flag_or("ignore_merges", false);
  options.fuse_unk = model.flag_or("fuse_unk", false);
  options.unk = model.string_or("unk_token", "");
  return make_byte_bpe(std::move(vocabulary), parse_merges(model.at("merges")), options, model.where());
}

/// ["[SEP]", 102]
std::int32_t parse_named_id(const Node& node) {
  const auto items = node.items();
  if (items.size() != 2) throw node.error("must be a token and its id");
  return items[1].id();
}

TokenTemplate parse_template(const Node& pieces, const Node& special_tokens) {
  TokenTemplate out;
  int seen_a = 0, seen_b = 0;
  for (const Node& node : pieces.items()) {
    TokenTemplate::Piece piece;
    if (const Node sequence = node.at("Sequence"); !sequence.is_null()) {
      const std::string id = sequence.at("id").string();
      if (id != "A" && id != "B") throw sequence.error("id must be A or B");
      piece.part = id == "A" ? TokenTemplate::Part::a : TokenTemplate::Part::b;
      ++(id == "A" ? seen_a : seen_b);
      piece.type = sequence.at("type_id").id();
      out.pieces.push_back(piece);
      continue;
    }
    const Node special = node.at("SpecialToken");
    if (special.is_null()) throw node.error("must be a Sequence or a SpecialToken");
    piece.type = special.at("type_id").id();
    const std::string name = special.at("id").string();
    const Node entry = special_tokens.at(name.c_str());
    if (entry.is_null()) throw special.error("names " + in_quotes(name) + ", which special_tokens lacks");
    for (const Node& id : entry.at("ids").items()) {
      piece.id = id.id();
      out.pieces.push_back(piece);
    }
  }
  if (seen_a > 1 || seen_b > 1) throw pieces.error("has the same sequence twice");
  return out;
}

void parse_post_processor(const Node& node, TokenPipelineParts& parts) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "Sequence") {
    for (const Node& n : node.at("processors").items()) parse_post_processor(n, parts);
  } else if (type == "TemplateProcessing") {
    parts.single = parse_template(node.at("single"), node.at("special_tokens"));
    parts.pair = parse_template(node.at("pair"), node.at("special_tokens"));
  } else if (type == "BertProcessing") {
    set_bert_templates(parts, parse_named_id(node.at("cls")), parse_named_id(node.at("sep")));
  } else if (type == "RobertaProcessing") {
    set_roberta_templates(parts, parse_named_id(node.at("cls")), parse_named_id(node.at("sep")));
  } else if (type != "ByteLevel") {  // ByteLevel touches offsets alone
    throw node.unsupported("BertProcessing, ByteLevel, RobertaProcessing, Sequence, TemplateProcessing");
  }
}

std::int32_t find_pad(const Node& root, const TokenPipelineParts& parts, const std::string& pad_token) {
  const auto find = [&](std::string_view name) {
    for (const AddedToken& t : parts.added_tokens)
      if (t.content == name) return t.id;
    return parts.model->vocabulary().find(name);
  };
  if (!pad_token.empty()) {
    const std::int32_t id = find(pad_token);
    if (id == kNoToken) throw root.error("has no token " + in_quotes(pad_token) + ", which is named as the pad");
    return id;
  }
  if (const Node padding = root.at("padding"); !padding.is_null()) return padding.at("pad_id").id();
  for (const char* name : {"[PAD]", "<pad>", "<|padding|>"})
    if (const std::int32_t id = find(name); id != kNoToken) return id;
  return 0;
}

}  // namespace

AddedToken parse_added_token(const Json& value, const std::string& where) {
  const Node node(value, where);
  AddedToken token;
  token.content = node.at("content").string();
  if (token.content.empty()) throw node.error("the token's content is empty");
  if (node.flag_or("single_word", false)) throw node.error("single_word is not supported");
  token.lstrip = node.flag_or("lstrip", false);
  token.rstrip = node.flag_or("rstrip", false);
  token.normalized = node.flag_or("normalized", !node.flag_or("special", false));
  if (const Node id = node.at("id"); !id.is_null()) token.id = id.id();
  return token;
}

Vocabulary parse_vocabulary(const Json& object, const std::string& where) {
  if (!object.is_object() || object.empty()) throw data_error(where, "must be an object of tokens and ids");
  Vocabulary vocabulary;
  for (const auto& [token, id] : object.items()) vocabulary.add(token, Node(id, where + " " + in_quotes(token)).id());
  return vocabulary;
}

std::unique_ptr<TokenModel> make_byte_bpe(Vocabulary vocabulary, const ByteBpe::Merges& merges,
                                          const ByteBpe::Options& options, const std::string& where) {
  try {
    return std::make_unique<ByteBpe>(std::move(vocabulary), merges, options);
  } catch (const Error& e) {
    throw data_error(where, e.what());
  }
}

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path, const std::string& pad_token) {
  const Json json = read_json_object(path);
  const Node root(json, path);
  TokenPipelineParts parts;
  parts.file = path;
  parts.model = parse_model(root.at("model"), root.at("pre_tokenizer"));
  add_normalizer(root.at("normalizer"), parts.normalizer);
  if (const Node tokens = root.at("added_tokens"); !tokens.is_null())
    for (const Node& n : tokens.items()) {
      parts.added_tokens.push_back(parse_added_token(n.json(), n.where()));
      if (parts.added_tokens.back().id == kNoToken) throw n.error("has no id");
    }
  set_bare_templates(parts);
  parse_post_processor(root.at("post_processor"), parts);
  parts.pad_id = find_pad(root, parts, pad_token);
  return std::make_unique<TokenPipeline>(std::move(parts));
}

}  // namespace cald
