#include "data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "data/atomic_file.h"

namespace cald {

MappedFile::MappedFile(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its writer before it is refused.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) throw file_error(path, "open", errno);
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) throw file_error(path, "read the size of", errno);
  if (S_ISDIR(st.st_mode)) throw file_error(path, "read", EISDIR);
  if (!S_ISREG(st.st_mode)) throw data_error(path, "is not a regular file, so it cannot be mapped");
  if (st.st_size == 0) return;
  void* p = ::mmap(nullptr, static_cast<std::size_t>(st.st_size), PROT_READ, MAP_SHARED, fd.get(), 0);
  if (p == MAP_FAILED) throw file_error(path, "map", errno);
  data_ = static_cast<std::byte*>(p);
  size_ = static_cast<std::size_t>(st.st_size);
}

MappedFile::MappedFile(MappedFile&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

void MappedFile::drop(std::size_t offset, std::size_t length) const {
  const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin = std::min(offset, size_) / page * page;
  const std::size_t end = std::min(offset, size_) + std::min(length, size_ - std::min(offset, size_));
  // Advice only: if the kernel refuses, the content is the same.
  if (end > begin) ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace cald
