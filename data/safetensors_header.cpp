#include "data/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/json_text.h"
#include "engine/base/error.h"

namespace cald {
using nlohmann::json;

namespace {

constexpr std::size_t kMaxTensorRank = 8;

/// Receives the parser's events and accepts nothing but the header's grammar, so that a hostile header is refused at
/// its first wrong value and takes no more memory than a good one.
class HeaderEvents : public json::json_sax_t {
 public:
  explicit HeaderEvents(const std::string& path) : path_(path) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool null() override { wrong("null"); }
  bool boolean(bool v) override { wrong(v ? "true" : "false"); }
  bool number_integer(number_integer_t v) override { wrong(std::to_string(v)); }
  bool number_float(number_float_t, const string_t& text) override { wrong(in_quotes(text)); }
  bool binary(binary_t&) override { wrong("binary data"); }

  bool number_unsigned(number_unsigned_t v) override {
    if (at_ == At::shape) {
      if (v > static_cast<std::uint64_t>(INT64_MAX)) wrong(std::to_string(v));
      if (tensor().shape.size() == kMaxTensorRank) fail("shape has more than 8 extents");
      tensor().shape.push_back(static_cast<std::int64_t>(v));
    } else if (at_ == At::offsets) {
      if (offsets_ == 2) fail("data_offsets must hold two numbers, not more");
      (offsets_++ == 0 ? tensor().begin : tensor().end) = v;
    } else {
      wrong(std::to_string(v));
    }
    return true;
  }

  bool string(string_t& v) override {
    if (at_ == At::tensor && field_ == kDType)
      tensor().dtype = v;
    else if (at_ == At::metadata)
      *metadata_value_ = v;
    else
      wrong("the string " + in_quotes(v));
    return true;
  }

  bool start_object(std::size_t) override {
    if (at_ == At::start)
      at_ = At::names;
    else if (at_ == At::names)
      at_ = in_metadata_ ? At::metadata : At::tensor;
    else
      wrong("an object");
    return true;
  }

  bool key(string_t& k) override {
    if (at_ == At::names) {
      in_metadata_ = k == "__metadata__";
      if (in_metadata_ && metadata_seen_) throw data_error(path_, "__metadata__ stands twice in the header");
      metadata_seen_ |= in_metadata_;
      fields_ = field_ = 0;
      if (!in_metadata_) header_.tensors.push_back({k, "", {}, 0, 0});
    } else if (at_ == At::metadata) {
      const auto [it, fresh] = header_.metadata.emplace(k, "");
      if (!fresh) throw data_error(path_, "__metadata__ has the key " + in_quotes(k) + " twice");
      metadata_value_ = &it->second;
    } else {
      field_ = k == "dtype" ? kDType : k == "shape" ? kShape : k == "data_offsets" ? kOffsets : 0;
      if (field_ == 0) fail("unknown key " + in_quotes(k) + "; known are dtype, shape, data_offsets");
      if (fields_ & field_) fail(k + " stands twice");
      fields_ |= field_;
    }
    return true;
  }

  bool end_object() override {
    if (at_ == At::tensor)
      for (const auto& [bit, name] : {std::pair{kDType, "dtype"}, {kShape, "shape"}, {kOffsets, "data_offsets"}})
        if (!(fields_ & bit)) fail(std::string(name) + " is missing");
    at_ = at_ == At::names ? At::start : At::names;
    return true;
  }

  bool start_array(std::size_t) override {
    if (at_ == At::tensor && field_ == kShape) {
      at_ = At::shape;
    } else if (at_ == At::tensor && field_ == kOffsets) {
      at_ = At::offsets;
      offsets_ = 0;
    } else {
      wrong("an array");
    }
    return true;
  }

  bool end_array() override {
    if (at_ == At::offsets && offsets_ != 2)
      fail("data_offsets must hold two numbers, not " + std::to_string(offsets_));
    at_ = At::tensor;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
    throw data_error(path_, "the header is not JSON: " + json_error_text(e.what()));
  }

 private:
  enum class At { start, names, tensor, shape, offsets, metadata };
  static constexpr int kDType = 1, kShape = 2, kOffsets = 4;

  TensorInfo& tensor() { return header_.tensors.back(); }
  [[noreturn]] void fail(const std::string& what) { throw data_error(tensor_where(path_, tensor().name), what); }
  /// A value of a kind or size that does not belong where it stands.
  [[noreturn]] void wrong(const std::string& got) {
    switch (at_) {
      case At::start:
        throw data_error(path_, "the header must be a JSON object, not " + got);
      case At::metadata:
        throw data_error(path_, "__metadata__ must hold strings only, not " + got);
      case At::names:
        if (in_metadata_) throw data_error(path_, "__metadata__ must be an object, not " + got);
        fail("must be described by an object, not " + got);
      case At::shape:
        fail("shape must hold whole numbers from 0 to 2^63 - 1, not " + got);
      case At::offsets:
        fail("data_offsets must hold whole numbers >= 0, not " + got);
      case At::tensor:
        break;
    }
    fail(std::string(field_ == kDType ? "dtype must be a string" : "shape and data_offsets must be arrays") + ", not " +
         got);
  }

  const std::string& path_;
  SafetensorsHeader header_;
  At at_ = At::start;
  bool in_metadata_ = false, metadata_seen_ = false;
  std::string* metadata_value_ = nullptr;
  int fields_ = 0;  // those seen of this tensor
  int field_ = 0;   // the one that is being read
  int offsets_ = 0;
};

std::string range_str(const TensorInfo& t) { return std::to_string(t.begin) + " to " + std::to_string(t.end); }

void check_sizes(const std::string& path, const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes) {
  for (const TensorInfo& t : tensors) {
    const std::string where = tensor_where(path, t.name);
    const std::uint64_t bytes = checked_tensor_bytes(where, t.dtype, t.shape);
    if (t.begin > t.end) throw data_error(where, "data_offsets run backwards, " + range_str(t));
    if (t.end > data_bytes)
      throw data_error(where, "data_offsets " + range_str(t) + " pass the end of the file's " +
                                  std::to_string(data_bytes) + " data bytes");
    if (t.end - t.begin != bytes)
      throw data_error(where, "data_offsets span " + std::to_string(t.end - t.begin) + " bytes, but " + t.dtype + " " +
                                  t.shape_str() + " takes " + std::to_string(bytes));
  }
}

/// Taken in the order of their offsets, the tensors must follow one another and end where the file ends.
void check_coverage(const std::string& path, const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes) {
  std::vector<const TensorInfo*> order;
  for (const TensorInfo& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  std::uint64_t at = 0;
  for (const TensorInfo* t : order) {
    if (t->begin < at)
      throw data_error(tensor_where(path, t->name), "data_offsets " + range_str(*t) + " overlap another tensor's");
    if (t->begin > at)
      throw data_error(tensor_where(path, t->name), "no tensor covers the bytes " + std::to_string(at) + " to " +
                                                        std::to_string(t->begin) + " before it");
    at = t->end;
  }
  if (at != data_bytes)
    throw data_error(path, "no tensor covers the last " + std::to_string(data_bytes - at) + " bytes of the file");
}

}  // namespace

std::string tensor_where(const std::string& path, std::string_view name) {
  return path + ": tensor " + in_quotes(name);
}

std::uint64_t checked_tensor_bytes(const std::string& where, const std::string& dtype,
                                   const std::vector<std::int64_t>& shape) {
  const std::uint64_t size = safetensors_element_size(dtype);
  if (size == 0)
    throw data_error(
        where, "unknown dtype " + in_quotes(dtype) + "; known are F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL");
  if (shape.size() > kMaxTensorRank) throw data_error(where, "shape has more than 8 extents");
  std::int64_t bytes = static_cast<std::int64_t>(size);
  for (const std::int64_t d : shape) {
    if (d < 0) throw data_error(where, "shape has the extent " + std::to_string(d) + ", wanted >= 0");
    if (__builtin_mul_overflow(bytes, d, &bytes)) throw data_error(where, "shape overflows: 2^63 bytes or more");
  }
  return static_cast<std::uint64_t>(bytes);
}

SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view text, std::uint64_t data_bytes) {
  if (text.empty() || text.front() != '{') throw data_error(path, "the header does not begin with '{'");
  // The parser takes a NUL for the end of the text and would ignore what follows.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    throw data_error(path, "the header is not JSON: a NUL byte at offset " + std::to_string(nul));
  HeaderEvents events(path);
  json::sax_parse(text.begin(), text.end(), &events);
  SafetensorsHeader h = events.take();
  std::sort(h.tensors.begin(), h.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  for (std::size_t i = 1; i < h.tensors.size(); ++i)
    if (h.tensors[i].name == h.tensors[i - 1].name)
      throw data_error(tensor_where(path, h.tensors[i].name), "stands twice in the header");
  check_sizes(path, h.tensors, data_bytes);
  check_coverage(path, h.tensors, data_bytes);
  return h;
}

}  // namespace cald
