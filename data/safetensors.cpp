#include "data/safetensors.h"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "data/json_text.h"
#include "data/safetensors_header.h"
#include "engine/base/error.h"

namespace cald {

static_assert(std::endian::native == std::endian::little, "the format is little-endian and is read as it lies");

namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::uint64_t kLengthBytes = 8;

struct ElementType {
  const char* name;
  std::size_t size;
};
constexpr ElementType kElementTypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                         {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};

}  // namespace

std::size_t safetensors_element_size(std::string_view dtype) {
  for (const ElementType& t : kElementTypes)
    if (dtype == t.name) return t.size;
  return 0;
}

float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u;
  std::uint32_t bits;
  if (exponent == 31)
    bits = 0x7F800000u | mantissa << 13;
  else if (exponent == 0)  // subnormal: mantissa * 2^-24, a normal single
    bits = std::bit_cast<std::uint32_t>(static_cast<float>(mantissa) * 0x1p-24f);
  else
    bits = (exponent + 112) << 23 | mantissa << 13;
  return std::bit_cast<float>(sign | bits);
}

float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

std::int64_t TensorInfo::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::string TensorInfo::shape_str() const {
  std::string s = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path), file_(path) {
  const char* text = reinterpret_cast<const char*>(file_.data());
  const std::uint64_t size = file_.size();
  if (std::string_view(text, size).substr(0, 26) == "version https://git-lfs.gi")
    throw data_error(path, "is a Git LFS pointer instead of the weights; `git lfs pull` fetches them");
  if (size < kLengthBytes)
    throw data_error(path, "has " + std::to_string(size) + " bytes, too short for a safetensors file");
  std::uint64_t header_bytes;
  std::memcpy(&header_bytes, file_.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes)
    throw data_error(path, "not a safetensors file: its header would have " + std::to_string(header_bytes) +
                               " bytes, allowed are 100000000");
  if (header_bytes > size - kLengthBytes)
    throw data_error(path, "cut short: the header's " + std::to_string(header_bytes) + " bytes pass the end of the " +
                               std::to_string(size) + " byte file");
  data_start_ = static_cast<std::size_t>(kLengthBytes + header_bytes);
  SafetensorsHeader h = parse_safetensors_header(path, {text + kLengthBytes, header_bytes}, size - data_start_);
  tensors_ = std::move(h.tensors);
  metadata_ = std::move(h.metadata);
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const TensorInfo& t, std::string_view n) { return t.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

void SafetensorsFile::wrong_dtype(const TensorInfo& t, const char* want) const {
  throw data_error(tensor_where(path_, t.name), "is " + t.dtype + ", wanted " + want);
}

template <class Stored, class Out, class Convert>
void SafetensorsFile::read_as(const TensorInfo& t, Out* out, std::int64_t pitch, Convert convert) const {
  std::int64_t cols = t.shape.empty() ? 1 : t.shape.back();
  if (pitch == 0 || pitch == cols) cols = pitch = t.numel();  // dense: all of it is one row
  if (pitch < cols)
    throw Error(tensor_where(path_, t.name) + ": rows of " + std::to_string(cols) + " elements into " +
                std::to_string(pitch));
  for_each_piece(t, [&](std::uint64_t offset, const std::byte* p, std::size_t bytes) {
    std::int64_t i = static_cast<std::int64_t>(offset / sizeof(Stored));
    for (const std::byte* const end = p + bytes; p < end;) {
      const std::int64_t row = i / cols, col = i % cols;
      const std::int64_t n = std::min<std::int64_t>(cols - col, (end - p) / static_cast<std::int64_t>(sizeof(Stored)));
      Out* to = out + row * pitch + col;
      for (std::int64_t j = 0; j < n; ++j, p += sizeof(Stored)) {
        Stored v;
        std::memcpy(&v, p, sizeof v);
        to[j] = convert(v);
      }
      i += n;
    }
  });
}

void SafetensorsFile::read_f32(const TensorInfo& t, float* out, std::int64_t pitch) const {
  if (t.dtype == "F32")
    read_as<float>(t, out, pitch, [](float v) { return v; });
  else if (t.dtype == "F16")
    read_as<std::uint16_t>(t, out, pitch, f16_to_f32);
  else if (t.dtype == "BF16")
    read_as<std::uint16_t>(t, out, pitch, bf16_to_f32);
  else if (t.dtype == "F64")
    read_as<double>(t, out, pitch, [](double v) { return static_cast<float>(v); });
  else
    wrong_dtype(t, "F32, F16, BF16 or F64");
}

const TensorInfo& SafetensorsFile::info_of(const std::string& name, const Shape& shape) const {
  const TensorInfo* t = find(name);
  if (!t || t->numel() != shape.numel())
    throw data_error(path_, "tensor '" + name + "' is missing or has another size than the model's");
  return *t;
}

void SafetensorsFile::read_f32(const std::string& name, const Shape& shape, float* out) const {
  read_f32(info_of(name, shape), out);
}

void SafetensorsFile::read_bytes(const std::string& name, const char* dtype, const Shape& shape, void* out) const {
  const TensorInfo& t = info_of(name, shape);
  if (t.dtype != dtype) wrong_dtype(t, dtype);
  for_each_piece(t, [&](std::uint64_t offset, const std::byte* p, std::size_t bytes) {
    std::memcpy(static_cast<std::byte*>(out) + offset, p, bytes);
  });
}

void SafetensorsFile::read_i64(const TensorInfo& t, std::int64_t* out) const {
  const auto same = [](auto v) { return static_cast<std::int64_t>(v); };
  if (t.dtype == "I64")
    read_as<std::int64_t>(t, out, 0, same);
  else if (t.dtype == "I32")
    read_as<std::int32_t>(t, out, 0, same);
  else if (t.dtype == "I16")
    read_as<std::int16_t>(t, out, 0, same);
  else if (t.dtype == "I8")
    read_as<std::int8_t>(t, out, 0, same);
  else if (t.dtype == "U8" || t.dtype == "BOOL")
    read_as<std::uint8_t>(t, out, 0, same);
  else
    wrong_dtype(t, "I64, I32, I16, I8, U8 or BOOL");
}

SafetensorsWriter::SafetensorsWriter(const std::string& path) : file_(path) {}

std::string SafetensorsWriter::where(const std::string& name) const { return tensor_where(file_.path(), name); }

void SafetensorsWriter::set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }

void SafetensorsWriter::declare(const std::string& name, const Shape& shape) {
  std::vector<std::int64_t> extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  declare(name, "F32", extents);
}

void SafetensorsWriter::declare(const std::string& name, const std::string& dtype,
                                const std::vector<std::int64_t>& shape) {
  if (data_start_) throw Error(where(name) + ": declared after the first write");
  if (name == "__metadata__") throw Error(where(name) + ": the format reserves this name");
  const std::uint64_t bytes = checked_tensor_bytes(where(name), dtype, shape);
  if (!slots_.try_emplace(name, Slot{{name, dtype, shape, 0, bytes}}).second)
    throw Error(where(name) + ": declared twice");
}

void SafetensorsWriter::write_header() {
  std::vector<TensorInfo*> order;
  for (auto& [name, slot] : slots_) order.push_back(&slot.info);
  std::stable_sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return safetensors_element_size(a->dtype) > safetensors_element_size(b->dtype);
  });
  std::uint64_t at = 0;
  for (TensorInfo* t : order) {
    t->end = at + (t->end - t->begin);
    t->begin = at;
    at = t->end;
  }
  nlohmann::json header{{"__metadata__", metadata_}};
  for (const auto& [name, slot] : slots_)
    header[name] = {
        {"dtype", slot.info.dtype}, {"shape", slot.info.shape}, {"data_offsets", {slot.info.begin, slot.info.end}}};
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& e) {
    throw Error(file_.path() + ": a tensor's name or the metadata is not UTF-8: " + json_error_text(e.what()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes) throw Error(file_.path() + ": the header passes the format's 100000000 bytes");
  const std::uint64_t length = text.size();
  file_.write_at(0, &length, kLengthBytes);
  file_.write_at(kLengthBytes, text.data(), text.size());
  data_start_ = kLengthBytes + length;
}

TensorInfo& SafetensorsWriter::take(const std::string& name) {
  const auto it = slots_.find(name);
  if (it == slots_.end()) throw Error(where(name) + ": written but not declared");
  if (it->second.written) throw Error(where(name) + ": written twice");
  if (!data_start_) write_header();
  it->second.written = true;
  return it->second.info;
}

void SafetensorsWriter::write(const std::string& name, const void* data, std::int64_t pitch) {
  const TensorInfo& t = take(name);
  const std::uint64_t size = safetensors_element_size(t.dtype), bytes = t.end - t.begin;
  const std::uint64_t row = size * static_cast<std::uint64_t>(t.shape.empty() ? 1 : t.shape.back());
  const std::uint64_t stride = pitch ? size * static_cast<std::uint64_t>(pitch) : row;
  if (stride < row)
    throw Error(where(name) + ": rows of " + std::to_string(row) + " bytes from " + std::to_string(stride));
  if (stride == row) return file_.write_at(data_start_ + t.begin, data, bytes);
  // Rows are gathered, so that a padded matrix costs few system calls.
  constexpr std::size_t kGather = std::size_t{1} << 20;
  std::vector<std::byte> gathered;
  const auto* p = static_cast<const std::byte*>(data);
  std::uint64_t at = data_start_ + t.begin;
  for (std::uint64_t done = 0; done < bytes; done += row, p += stride) {
    gathered.insert(gathered.end(), p, p + row);
    if (gathered.size() < kGather && done + row < bytes) continue;
    file_.write_at(at, gathered.data(), gathered.size());
    at += gathered.size();
    gathered.clear();
  }
}

void SafetensorsWriter::copy(const SafetensorsFile& from, const TensorInfo& t) {
  const TensorInfo& own = take(t.name);
  if (own.dtype != t.dtype || own.shape != t.shape)
    throw Error(where(t.name) + ": declared " + own.dtype + " " + own.shape_str() + ", but the copied one is " +
                t.dtype + " " + t.shape_str());
  from.for_each_piece(t, [&](std::uint64_t offset, const std::byte* p, std::size_t n) {
    file_.write_at(data_start_ + own.begin + offset, p, n);
  });
}

void SafetensorsWriter::commit() {
  for (const auto& [name, slot] : slots_)
    if (!slot.written) throw Error(where(name) + ": declared but not written");
  if (!data_start_) write_header();
  file_.commit();
}

void copy_tensors(const SafetensorsFile& from, const std::vector<std::string>& names, const std::string& to_path) {
  SafetensorsWriter to(to_path);
  std::vector<const TensorInfo*> tensors;
  for (const std::string& name : names) {
    const TensorInfo* t = from.find(name);
    if (!t) throw data_error(tensor_where(from.path(), name), "is missing");
    to.declare(t->name, t->dtype, t->shape);
    tensors.push_back(t);
  }
  for (const TensorInfo* t : tensors) to.copy(from, *t);
  to.commit();
}

}  // namespace cald
