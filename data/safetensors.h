// Safetensors files, read and written (format: https://huggingface.co/docs/safetensors).
// A file is 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the tensors' bytes.
// Errors are data_error("<path>: tensor '<name>'", what) where a tensor is at fault, data_error("<path>", what) else.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/atomic_file.h"
#include "data/mapped_file.h"
#include "engine/base/shape.h"

namespace cald {

struct TensorInfo {
  std::string name;
  std::string dtype;                 ///< one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL
  std::vector<std::int64_t> shape;   ///< at most 8 extents; empty: a scalar
  std::uint64_t begin = 0, end = 0;  ///< bytes, counted from the first byte behind the header

  /// Number of elements.
  std::int64_t numel() const;
  /// "[8, 128]"
  std::string shape_str() const;
};

/// Bytes of one element; 0 if the format's reader here does not know the dtype.
std::size_t safetensors_element_size(std::string_view dtype);

/// IEEE half to single; exact, NaN stays NaN.
float f16_to_f32(std::uint16_t bits);
/// Upper half of a single; exact.
float bf16_to_f32(std::uint16_t bits);

/// A file opened for reading. The constructor checks the header completely: a header of at most 100 MB that lies within
/// the file, strict JSON without duplicate names, known dtypes, at most 8 extents >= 0 whose product does not overflow,
/// and tensors that cover the bytes behind the header exactly, without gap or overlap.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  /// Sorted by name.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Null if there is none of that name.
  const TensorInfo* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// The tensor's bytes, row-major, little-endian; not necessarily aligned to the element size.
  const std::byte* bytes(const TensorInfo& t) const { return file_.data() + data_start_ + t.begin; }

  /// Reads F32, F16, BF16 or F64 (rounded to nearest) into `out`. With `pitch` != 0, rows of the innermost extent are
  /// `pitch` elements apart in `out` and what lies between them is left alone; pitch >= that extent.
  void read_f32(const TensorInfo& t, float* out, std::int64_t pitch = 0) const;
  /// The tensor `name`, which must be there with as many elements as `shape` has; else an Error.
  void read_f32(const std::string& name, const Shape& shape, float* out) const;
  /// The same bit for bit: the tensor must have this dtype.
  void read_bytes(const std::string& name, const char* dtype, const Shape& shape, void* out) const;
  /// Reads I64, I32, I16, I8, U8 or BOOL.
  void read_i64(const TensorInfo& t, std::int64_t* out) const;

  /// Gives back the memory of the pages that hold the tensor; they are read again when touched again.
  void drop(const TensorInfo& t) const { file_.drop(data_start_ + t.begin, t.end - t.begin); }

  /// Calls f(offset, bytes, n) over consecutive pieces of the tensor's bytes (offset within the tensor, no element
  /// split) and gives back the memory of each piece behind it.
  template <class F>
  void for_each_piece(const TensorInfo& t, F f) const {
    for (std::uint64_t at = t.begin; at < t.end;) {
      const std::uint64_t n = std::min<std::uint64_t>(t.end - at, kPieceBytes);
      f(at - t.begin, file_.data() + data_start_ + at, static_cast<std::size_t>(n));
      file_.drop(data_start_ + at, n);
      at += n;
    }
  }

 private:
  static constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;

  template <class Stored, class Out, class Convert>
  void read_as(const TensorInfo& t, Out* out, std::int64_t pitch, Convert convert) const;
  const TensorInfo& info_of(const std::string& name, const Shape& shape) const;
  [[noreturn]] void wrong_dtype(const TensorInfo& t, const char* want) const;

  std::string path_;
  MappedFile file_;
  std::size_t data_start_ = 0;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes a file through AtomicFile: declare() every tensor, then write() or copy() each exactly once in any order (the
/// bytes go straight to disk), then commit(). The same declarations give the same bytes in whatever order they come:
/// the header is sorted by name, the data by element size (so that every tensor is aligned), then by name. The metadata
/// holds format=pt, which transformers asks for.
class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(const std::string& path);

  void set_metadata(const std::string& key, const std::string& value);
  void declare(const std::string& name, const std::string& dtype, const std::vector<std::int64_t>& shape);
  /// An F32 tensor of the engine's shape.
  void declare(const std::string& name, const Shape& shape);
  /// `data` holds the elements in the declared dtype, row-major; with `pitch` != 0, rows of the innermost extent are
  /// `pitch` elements apart in it.
  void write(const std::string& name, const void* data, std::int64_t pitch = 0);
  /// Writes the bytes of from's tensor `t`, which must have been declared here with its name, dtype and shape.
  void copy(const SafetensorsFile& from, const TensorInfo& t);
  /// An Error if a declared tensor was not written.
  void commit();

 private:
  struct Slot {
    TensorInfo info;
    bool written = false;
  };
  void write_header();
  TensorInfo& take(const std::string& name);
  std::string where(const std::string& name) const;

  AtomicFile file_;
  std::map<std::string, Slot> slots_;
  std::map<std::string, std::string> metadata_{{"format", "pt"}};
  std::uint64_t data_start_ = 0;  // 0 until the header is written
};

/// Writes `to_path` with the tensors of `from` that have these names, under the same names, bit for bit.
void copy_tensors(const SafetensorsFile& from, const std::vector<std::string>& names, const std::string& to_path);

}  // namespace cald
