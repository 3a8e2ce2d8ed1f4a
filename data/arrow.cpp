#include "data/arrow.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>
#include <string_view>

#include "data/json_text.h"
#include "data/mapped_file.h"
#include "data/unicode.h"
#include "engine/base/error.h"

namespace cald {
namespace {

/// A stretch of the file; every read is checked against its bounds.
class Bytes {
 public:
  Bytes(const std::string& path, const std::byte* data, std::uint64_t size) : path_(&path), data_(data), size_(size) {}

  Error error(const std::string& what) const { return data_error(*path_, what); }
  std::uint64_t size() const { return size_; }

  Bytes slice(std::uint64_t at, std::uint64_t n) const {
    if (at > size_ || n > size_ - at) throw error("broken Arrow data: an offset leaves the part that it belongs to");
    return {*path_, data_ + at, n};
  }
  template <class T>
  T read(std::uint64_t at) const {
    T value;
    std::memcpy(&value, slice(at, sizeof(T)).data_, sizeof(T));
    return value;
  }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const std::string* path_;
  const std::byte* data_;
  std::uint64_t size_;
};

/// Elements that lie one after the other from `first` on.
struct FlatVector {
  std::uint64_t first = 0, count = 0;
};

/// A table of a FlatBuffer. It begins with the distance back to its vtable: u16 sizes of vtable and table, then where
/// each field lies within the table, 0 if it is absent. References are u32 distances forward from where they stand.
class FlatTable {
 public:
  FlatTable(const Bytes& buffer, std::uint64_t at) : buffer_(buffer), at_(at) {
    const std::int64_t vtable = static_cast<std::int64_t>(at) - buffer.read<std::int32_t>(at);
    if (vtable < 0) throw buffer.error("broken Arrow metadata: a vtable lies before its buffer");
    vtable_ = static_cast<std::uint64_t>(vtable);
    vtable_size_ = buffer.read<std::uint16_t>(vtable_);
  }
  static FlatTable root(const Bytes& buffer) { return {buffer, buffer.read<std::uint32_t>(0)}; }

  bool has(int field) const { return place(field) != 0; }
  template <class T>
  T scalar(int field, T absent) const {
    const std::uint64_t at = place(field);
    return at == 0 ? absent : buffer_.read<T>(at);
  }
  FlatTable table(int field) const {
    if (!has(field)) throw buffer_.error("broken Arrow metadata: a table that must be there is missing");
    return {buffer_, target(place(field))};
  }
  std::string_view text(int field) const {
    const FlatVector v = vector(field, 1);
    return buffer_.slice(v.first, v.count).text();
  }
  /// An absent vector has no elements.
  FlatVector vector(int field, std::uint64_t element_size) const {
    if (!has(field)) return {};
    const std::uint64_t at = target(place(field));
    const FlatVector v{at + 4, buffer_.read<std::uint32_t>(at)};
    buffer_.slice(v.first, v.count * element_size);
    return v;
  }
  /// Element i of a vector of tables.
  FlatTable element(const FlatVector& v, std::uint64_t i) const { return {buffer_, target(v.first + 4 * i)}; }
  const Bytes& buffer() const { return buffer_; }

 private:
  std::uint64_t place(int field) const {
    const std::uint64_t entry = 4 + 2 * static_cast<std::uint64_t>(field);
    if (entry + 2 > vtable_size_) return 0;
    const auto within = buffer_.read<std::uint16_t>(vtable_ + entry);
    return within == 0 ? 0 : at_ + within;
  }
  std::uint64_t target(std::uint64_t at) const { return at + buffer_.read<std::uint32_t>(at); }

  Bytes buffer_;
  std::uint64_t at_, vtable_ = 0, vtable_size_ = 0;
};

// Numbers of the schemas Message.fbs and Schema.fbs.
constexpr std::int16_t kVersion4 = 3, kVersion5 = 4;
constexpr std::uint8_t kSchema = 1, kDictionaryBatch = 2, kRecordBatch = 3;
constexpr std::uint8_t kInt = 2, kUtf8 = 5, kLargeUtf8 = 20;
constexpr const char* kTypeNames[] = {"none",
                                      "null",
                                      "int",
                                      "float",
                                      "binary",
                                      "utf8",
                                      "bool",
                                      "decimal",
                                      "date",
                                      "time",
                                      "timestamp",
                                      "interval",
                                      "list",
                                      "struct",
                                      "union",
                                      "fixed-size binary",
                                      "fixed-size list",
                                      "map",
                                      "duration",
                                      "large binary",
                                      "large utf8",
                                      "large list",
                                      "run-end encoded",
                                      "binary view",
                                      "utf8 view",
                                      "list view",
                                      "large list view"};

struct ColumnType {
  std::uint8_t type = 0;
  int bits = 0;
  bool is_signed = false;

  /// Buffers of a batch: validity, offsets of texts, values.
  std::uint64_t buffers() const { return type == kInt ? 2 : 3; }
};

class ArrowReader {
 public:
  explicit ArrowReader(const Bytes& file) : file_(file) {}

  std::vector<ArrowColumn> read() {
    // The file format is "ARROW1\0\0", a stream, and a footer that only random access needs, with "ARROW1" at its end.
    const bool framed = file_.text().substr(0, 6) == "ARROW1";
    std::uint64_t at = framed ? 8 : 0;
    while (read_message(at)) {
    }
    if (!seen_schema_) throw file_.error("the Arrow stream ends without a schema");
    if (framed && (file_.size() - at < 6 || file_.text().substr(file_.size() - 6) != "ARROW1"))
      throw file_.error("the Arrow file is cut short: its footer is missing");
    if (!framed && at != file_.size())
      throw file_.error(std::to_string(file_.size() - at) + " bytes follow the end of the Arrow stream");
    return std::move(columns_);
  }

 private:
  /// Reads the message at `at` and moves `at` behind it; false at the stream's end mark.
  bool read_message(std::uint64_t& at) {
    if (at == file_.size()) throw file_.error("the Arrow stream is cut short: its end mark is missing");
    const auto length_at = [&] {
      if (file_.size() - std::min(at, file_.size()) < 4) throw file_.error("no Arrow stream, or one that is cut short");
      const auto value = file_.read<std::uint32_t>(at);
      at += 4;
      return value;
    };
    std::uint64_t length = length_at();
    if (length == 0xFFFFFFFFu) length = length_at();  // streams older than format 0.15 have no such mark in front
    if (length == 0) return false;
    if (length > file_.size() - at) throw file_.error("no Arrow stream, or one that is cut short");
    const FlatTable message = FlatTable::root(file_.slice(at, length));
    at += length;
    const auto body_length = message.scalar<std::int64_t>(3, 0);
    if (body_length < 0 || static_cast<std::uint64_t>(body_length) > file_.size() - at)
      throw file_.error("the Arrow stream is cut short: a batch of " + std::to_string(body_length) + " bytes has " +
                        std::to_string(file_.size() - at));
    const auto version = message.scalar<std::int16_t>(0, 0);
    if (version != kVersion4 && version != kVersion5)
      throw file_.error("Arrow metadata of version V" + std::to_string(version + 1) + "; V4 and V5 are read");
    read_header(message, file_.slice(at, static_cast<std::uint64_t>(body_length)));
    at += static_cast<std::uint64_t>(body_length);
    return true;
  }

  void read_header(const FlatTable& message, const Bytes& body) {
    const auto type = message.scalar<std::uint8_t>(1, 0);
    if (type == kSchema && !seen_schema_) return read_schema(message.table(2));
    if (type == kRecordBatch && seen_schema_) return read_batch(message.table(2), body);
    if (type == kDictionaryBatch) throw file_.error("Arrow dictionaries aren't read");
    throw file_.error("broken Arrow data: a message of kind " + std::to_string(type) + " that doesn't belong there");
  }

  void read_schema(const FlatTable& schema) {
    seen_schema_ = true;
    if (schema.scalar<std::int16_t>(0, 0) != 0) throw file_.error("big-endian Arrow data isn't read");
    const FlatVector fields = schema.vector(1, 4);
    std::set<std::string_view> names;
    for (std::uint64_t i = 0; i < fields.count; ++i) {
      const FlatTable field = schema.element(fields, i);
      const std::string_view name = field.text(0);
      if (find_utf8_fault(name)) throw file_.error("the name of a column isn't UTF-8: " + in_quotes(name));
      if (!names.insert(name).second) throw file_.error("two columns have the name " + in_quotes(name));
      types_.push_back(column_type(field, name));
      columns_.push_back({std::string(name), {}});
    }
  }

  ColumnType column_type(const FlatTable& field, std::string_view name) const {
    ColumnType t;
    t.type = field.scalar<std::uint8_t>(2, 0);
    std::string found = t.type < std::size(kTypeNames) ? kTypeNames[t.type] : "number " + std::to_string(t.type);
    if (field.has(4)) found = "dictionary";
    if (t.type == kInt) {
      const FlatTable type = field.table(3);
      t.bits = type.scalar<std::int32_t>(0, 0);
      t.is_signed = type.scalar<std::uint8_t>(1, 0) != 0;
      if (t.bits != 8 && t.bits != 16 && t.bits != 32 && t.bits != 64)
        found += " of " + std::to_string(t.bits) + " bits";
    }
    if (found != "int" && found != "utf8" && found != "large utf8")
      throw file_.error("column " + in_quotes(name) + " has the Arrow type " + found +
                        "; utf8, large utf8 and int of 8 to 64 bits are read");
    return t;
  }

  void read_batch(const FlatTable& batch, const Bytes& body) {
    if (batch.has(3)) throw file_.error("compressed Arrow batches aren't read");
    const auto rows = batch.scalar<std::int64_t>(0, 0);
    const FlatVector nodes = batch.vector(1, 16), buffers = batch.vector(2, 16);
    std::uint64_t wanted = 0;
    for (const ColumnType& t : types_) wanted += t.buffers();
    if (rows < 0 || nodes.count != types_.size() || buffers.count != wanted)
      throw file_.error("broken Arrow data: a batch doesn't fit the schema");
    std::uint64_t next = 0, end = 0;
    for (std::size_t c = 0; c < types_.size(); ++c) {
      std::vector<Bytes> parts;
      for (std::uint64_t i = 0; i < types_[c].buffers(); ++i, ++next) {
        const auto at = batch.buffer().read<std::int64_t>(buffers.first + 16 * next);
        const auto size = batch.buffer().read<std::int64_t>(buffers.first + 16 * next + 8);
        // Buffers that overlapped could make a small file claim any amount of text.
        if (at < 0 || size < 0 || (size > 0 && static_cast<std::uint64_t>(at) < end))
          throw file_.error("broken Arrow data: the buffers of a batch overlap");
        parts.push_back(body.slice(size > 0 ? static_cast<std::uint64_t>(at) : 0, static_cast<std::uint64_t>(size)));
        if (size > 0) end = static_cast<std::uint64_t>(at) + static_cast<std::uint64_t>(size);
      }
      const std::uint64_t node = nodes.first + 16 * c;
      if (batch.buffer().read<std::int64_t>(node) != rows)
        throw file_.error("broken Arrow data: the columns of a batch differ in length");
      if (parts[0].size() == 0 && batch.buffer().read<std::int64_t>(node + 8) != 0)
        throw file_.error("broken Arrow data: a column with nulls doesn't say which");
      read_column(c, static_cast<std::uint64_t>(rows), parts);
    }
  }

  void read_column(std::size_t c, std::uint64_t rows, const std::vector<Bytes>& parts) {
    const ColumnType& t = types_[c];
    const std::uint64_t width = t.type == kInt ? static_cast<std::uint64_t>(t.bits) / 8 : t.type == kLargeUtf8 ? 8 : 4;
    const std::uint64_t entries = rows + (t.type != kInt && rows > 0 ? 1 : 0);
    if (entries > parts[1].size() / width || (parts[0].size() > 0 && rows > parts[0].size() * 8))
      throw file_.error("broken Arrow data: a batch of " + std::to_string(rows) + " rows has fewer values");
    auto& values = columns_[c].values;
    for (std::uint64_t r = 0; r < rows; ++r) {
      if (parts[0].size() > 0 && !(parts[0].read<std::uint8_t>(r / 8) >> (r % 8) & 1))
        values.emplace_back();
      else if (t.type == kInt)
        values.emplace_back(integer(t, parts[1], r));
      else
        values.emplace_back(t.type == kUtf8 ? text<std::int32_t>(c, parts, r) : text<std::int64_t>(c, parts, r));
    }
  }

  static std::string integer(const ColumnType& t, const Bytes& values, std::uint64_t row) {
    const auto as_text = [&]<class T>(T) { return std::to_string(values.read<T>(row * sizeof(T))); };
    if (t.bits == 8) return t.is_signed ? as_text(std::int8_t{}) : as_text(std::uint8_t{});
    if (t.bits == 16) return t.is_signed ? as_text(std::int16_t{}) : as_text(std::uint16_t{});
    if (t.bits == 32) return t.is_signed ? as_text(std::int32_t{}) : as_text(std::uint32_t{});
    return t.is_signed ? as_text(std::int64_t{}) : as_text(std::uint64_t{});
  }

  template <class Offset>
  std::string text(std::size_t c, const std::vector<Bytes>& parts, std::uint64_t row) const {
    const auto from = parts[1].read<Offset>(row * sizeof(Offset)),
               to = parts[1].read<Offset>((row + 1) * sizeof(Offset));
    if (from < 0 || to < from || static_cast<std::uint64_t>(to) > parts[2].size())
      throw file_.error("broken Arrow data: a text of column " + in_quotes(columns_[c].name) + " leaves its buffer");
    const std::string_view value =
        parts[2].slice(static_cast<std::uint64_t>(from), static_cast<std::uint64_t>(to - from)).text();
    if (const auto fault = find_utf8_fault(value))
      throw file_.error("row " + std::to_string(columns_[c].values.size() + 1) + " of column " +
                        in_quotes(columns_[c].name) + ": broken UTF-8 at byte " + std::to_string(fault->byte) + ": " +
                        fault->what);
    return std::string(value);
  }

  Bytes file_;
  bool seen_schema_ = false;
  std::vector<ColumnType> types_;
  std::vector<ArrowColumn> columns_;
};

}  // namespace

std::vector<ArrowColumn> read_arrow(const std::string& path) {
  const MappedFile file(path);
  return ArrowReader({path, file.data(), file.size()}).read();
}

}  // namespace cald
