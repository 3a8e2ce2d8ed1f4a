// Files and folders that appear whole or not at all, the append-only file, and reading small files.
// Every failure is an Error "<path>: <what>: <strerror>".
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "engine/base/error.h"

namespace cald {

/// The Error of a failed system call: "<path>: cannot <action>: <text of the errno value `code`>".
Error file_error(const std::string& path, const std::string& action, int code);

/// Owns a POSIX file descriptor; -1 if none.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~FileDescriptor();
  int get() const { return fd_; }
  /// Gives up the descriptor without closing it.
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

/// Writes "<path>.tmp-<pid>" and renames it to `path` in commit(); without commit() the destructor removes it, so that
/// `path` holds its old content or the new one, also after a kill or a power cut. A symbolic link is followed: what it
/// points to is replaced. An existing `path` that is a device or a pipe is written in place. Temporaries that killed
/// processes left beside `path` are removed. One writer for a path at a time.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::string& path() const { return path_; }
  /// Appends n bytes.
  void write(const void* data, std::size_t n);
  /// Writes n bytes at `offset`, leaving the position of write() as it is; the file grows as needed.
  void write_at(std::uint64_t offset, const void* data, std::size_t n);
  /// Flushes to disk, renames, and flushes the folder's entry. Nothing may be written afterwards.
  void commit();

 private:
  std::string path_, target_, temporary_;  // temporary_ is empty if there is nothing to rename or remove
  FileDescriptor fd_;
};

void write_file_atomically(const std::string& path, std::string_view content);

/// A file that only grows at its end, such as metrics.jsonl; created if absent. Each line reaches the kernel at once.
class AppendFile {
 public:
  explicit AppendFile(const std::string& path);

  const std::string& path() const { return path_; }
  /// Bytes in the file.
  std::uint64_t size() const;
  /// Adds `line` and a line feed. If that fails, what was written of the line is cut off again.
  void append_line(std::string_view line);
  /// Cuts the file back to its first `offset` bytes; an Error if it holds fewer.
  void truncate(std::uint64_t offset);
  /// Returns once all lines, and the file's entry in its folder, are on disk.
  void sync();

 private:
  std::string path_;
  FileDescriptor fd_;
};

/// A folder that is published whole: files go into staging(), commit() puts it in the place of `path`, whose former
/// content is deleted. Without commit() the destructor deletes staging(). Where the file system can exchange two names
/// (renameat2), `path` names a complete folder at every moment. Elsewhere the old folder is renamed to
/// "<path>.old-<pid>" first; a kill between the two renames leaves that one only, and recover_directory() (also run by
/// the constructor) names it `path` again.
class AtomicDirectory {
 public:
  /// Makes staging(), and the folders above `path` where they are missing.
  explicit AtomicDirectory(const std::string& path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  /// "<path>.tmp-<pid>", where files are to be written (and flushed, as AtomicFile does).
  const std::string& staging() const { return staging_; }
  void commit();

 private:
  std::string target_, staging_;
};

/// Puts right what a killed AtomicDirectory of `path` left: a former folder set aside comes back if `path` is missing;
/// leftovers of processes that no longer run are deleted.
void recover_directory(const std::string& path);

/// The way of AtomicDirectory::commit() where names cannot be exchanged: `path` to "<path>.old-<pid>", `fresh` to
/// `path`, then deletes the old one. If the second rename fails, the first is undone.
void replace_by_two_renames(const std::string& fresh, const std::string& path);

/// Whether two paths lead to one file, whether or not it is there yet; an empty path leads nowhere.
bool is_same_file(const std::string& a, const std::string& b);

/// Makes the folder `path` and those above it; fine if it is there already.
void make_directories(const std::string& path);

/// The content of a file of at most `max_bytes` bytes; a larger one is an Error.
std::string read_text_file(const std::string& path, std::size_t max_bytes);

}  // namespace cald
