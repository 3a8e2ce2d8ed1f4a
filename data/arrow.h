// Reads Arrow IPC streams and files: the columns of text and integers in which data sets are published.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace cald {

/// A column with its values as text (integers in decimal); a null is nullopt.
struct ArrowColumn {
  std::string name;
  std::vector<std::optional<std::string>> values;
};

/// All columns of the stream or file, which all have as many values. Read are utf8, large_utf8 and integers of 8 to 64
/// bits, of the metadata versions V4 and V5, little-endian. Compressed or dictionary-encoded batches, other types, a
/// file that is cut short, and anything that its own bytes contradict are an Error that names the file. What is
/// allocated is bounded by the file's size, whatever its headers claim.
///
/// Source: Apache Arrow, Columnar Format, "Serialization and Interprocess Communication (IPC)", with Message.fbs and
/// Schema.fbs; FlatBuffers, "FlatBuffer Internals".
std::vector<ArrowColumn> read_arrow(const std::string& path);

}  // namespace cald
