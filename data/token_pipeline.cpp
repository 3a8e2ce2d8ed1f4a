#include "data/token_pipeline.h"

#include <algorithm>

#include "data/unicode.h"

namespace cald {

void AddedTokenFinder::add(const AddedToken& token, std::u32string spelling) {
  if (spelling.empty()) return;
  may_begin_.set(spelling.front() & 0xFF);
  auto& bucket = entries_[spelling.front()];
  const auto shorter = [&](const Entry& e) { return e.spelling.size() < spelling.size(); };
  const auto same = std::find_if(bucket.begin(), bucket.end(), [&](const Entry& e) { return e.spelling == spelling; });
  Entry entry{std::move(spelling), token.id, token.lstrip, token.rstrip};
  if (same != bucket.end()) {
    *same = std::move(entry);
  } else {
    bucket.insert(std::find_if(bucket.begin(), bucket.end(), shorter), std::move(entry));
  }
}

const AddedTokenFinder::Entry* AddedTokenFinder::match(std::u32string_view text, std::size_t at) const {
  if (!may_begin_[text[at] & 0xFF]) return nullptr;
  const auto bucket = entries_.find(text[at]);
  if (bucket == entries_.end()) return nullptr;
  for (const Entry& e : bucket->second)
    if (text.substr(at).starts_with(e.spelling)) return &e;
  return nullptr;
}

void AddedTokenFinder::split(std::u32string_view text,
                             const std::function<void(std::u32string_view, std::int32_t)>& emit) const {
  std::size_t done = 0;  // end of what was emitted
  if (!entries_.empty()) {
    for (std::size_t at = 0; at < text.size();) {
      const Entry* e = match(text, at);
      if (!e) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at + e->spelling.size();
      at = end;
      if (e->lstrip)
        while (begin > done && is_white_space(text[begin - 1])) --begin;
      if (e->rstrip)
        while (end < text.size() && is_white_space(text[end])) ++end;
      if (done < begin) emit(text.substr(done, begin - done), kNoToken);
      emit(text.substr(begin, end - begin), e->id);
      done = std::max(done, end);
    }
  }
  if (done < text.size()) emit(text.substr(done), kNoToken);
}

TokenPipeline::TokenPipeline(TokenPipelineParts parts)
    : normalizer_(std::move(parts.normalizer)), model_(std::move(parts.model)) {
  single_ = std::move(parts.single);
  pair_ = std::move(parts.pair);
  pad_id_ = parts.pad_id;
  for (const auto& [token, id] : model_->vocabulary().ids())
    if (!token.empty()) note_id(token, id, parts.file);  // vocab.txt may end in an empty line: no text holds that token
  for (const TokenTemplate* layout : {&single_, &pair_})
    for (const TokenTemplate::Piece& piece : layout->pieces)
      if (piece.part == TokenTemplate::Part::special) note_id("", piece.id, parts.file);
  for (const AddedToken& token : parts.added_tokens) {
    note_id(token.content, token.id, token.file.empty() ? parts.file : token.file);
    added_.insert_or_assign(token.content, token.id);
    std::u32string spelling = decode_utf8(token.content);
    if (token.normalized) {
      normalize_text(spelling);
      in_normalized_.add(token, std::move(spelling));
    } else {
      in_text_.add(token, std::move(spelling));
    }
  }
}

void TokenPipeline::note_id(std::string_view token, std::int32_t id, const std::string& file) {
  if (id > last_.id) last_ = {std::string(token), id, file};
}

void TokenPipeline::normalize_text(std::u32string& text) const {
  for (const NormalizerStep& step : normalizer_) step(text);
}

std::vector<std::int32_t> TokenPipeline::tokenize(std::string_view text) const {
  const std::u32string decoded = decode_utf8(text);
  std::vector<std::int32_t> ids;
  in_text_.split(decoded, [&](std::u32string_view part, std::int32_t id) {
    if (id != kNoToken) {
      ids.push_back(id);
      return;
    }
    std::u32string normalized(part);
    normalize_text(normalized);
    in_normalized_.split(normalized, [&](std::u32string_view words, std::int32_t added) {
      if (added != kNoToken) {
        ids.push_back(added);
      } else {
        model_->tokenize(words, ids);
      }
    });
  });
  return ids;
}

std::int32_t TokenPipeline::token_id(std::string_view token) const {
  const auto it = added_.find(token);
  return it != added_.end() ? it->second : model_->vocabulary().find(token);
}

using Part = TokenTemplate::Part;

void set_bert_templates(TokenPipelineParts& parts, std::int32_t cls, std::int32_t sep) {
  parts.single.pieces = {{Part::special, cls, 0}, {Part::a, 0, 0}, {Part::special, sep, 0}};
  parts.pair.pieces = parts.single.pieces;
  parts.pair.pieces.push_back({Part::b, 0, 1});
  parts.pair.pieces.push_back({Part::special, sep, 1});
}

void set_roberta_templates(TokenPipelineParts& parts, std::int32_t cls, std::int32_t sep) {
  parts.single.pieces = {{Part::special, cls, 0}, {Part::a, 0, 0}, {Part::special, sep, 0}};
  parts.pair.pieces = parts.single.pieces;
  parts.pair.pieces.push_back({Part::special, sep, 0});
  parts.pair.pieces.push_back({Part::b, 0, 0});
  parts.pair.pieces.push_back({Part::special, sep, 0});
}

void set_bare_templates(TokenPipelineParts& parts) {
  parts.single.pieces = {{Part::a, 0, 0}};
  parts.pair.pieces = {{Part::a, 0, 0}, {Part::b, 0, 1}};
}

}  // namespace cald
