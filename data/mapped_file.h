// A file mapped read-only into memory.
#pragma once
#include <cstddef>
#include <string>

namespace cald {

/// The whole content of a regular file; pages come in as they are touched. An empty file is fine. Errors name the path.
/// The content must not be changed or cut in place meanwhile; replacing the file by a rename is harmless.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& o) noexcept;
  MappedFile& operator=(MappedFile&& o) noexcept;
  ~MappedFile();

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  /// Gives back the memory of every page that [offset, offset + length) touches; they are read again when touched
  /// again. So a copy of the content does not stand beside the content.
  void drop(std::size_t offset, std::size_t length) const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace cald
