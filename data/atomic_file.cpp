#include "data/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

namespace cald {
namespace fs = std::filesystem;

Error file_error(const std::string& path, const std::string& action, int code) {
  return Error(path + ": cannot " + action + ": " + std::generic_category().message(code));
}

namespace {

FileDescriptor open_file(const std::string& path, int flags, const char* action) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) throw file_error(path, action, errno);
  return FileDescriptor(fd);
}

/// Calls `put(bytes, n)`, which returns how many it took, until all n are written.
template <class Put>
void write_all(const std::string& path, const void* data, std::size_t n, Put put) {
  const char* p = static_cast<const char*>(data);
  while (n > 0) {
    const ssize_t done = put(p, std::min<std::size_t>(n, std::size_t{1} << 30));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw file_error(path, "write", errno);
    p += done;
    n -= static_cast<std::size_t>(done);
  }
}

std::string folder_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

int flush(const FileDescriptor& fd) {
  int rc;
  do rc = ::fsync(fd.get());
  while (rc != 0 && errno == EINTR);
  return rc;
}

/// Some file systems cannot flush a folder and say EINVAL; there is nothing better to do on them.
void sync_folder(const std::string& folder) {
  const FileDescriptor fd = open_file(folder, O_RDONLY | O_DIRECTORY, "open");
  if (flush(fd) != 0 && errno != EINVAL && errno != ENOTSUP) throw file_error(folder, "flush", errno);
}

/// What `path` stands for: the end of a symbolic link, without trailing slashes.
std::string target_of(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::error_code ec;
  if (!fs::is_symlink(path, ec)) return path;
  const fs::path end = fs::canonical(path, ec);
  return ec ? path : end.string();
}

std::string suffixed(const std::string& path, const char* suffix) { return path + suffix + std::to_string(::getpid()); }

bool runs_elsewhere(const std::string& pid_text) {
  const long pid = std::strtol(pid_text.c_str(), nullptr, 10);
  return pid != ::getpid() && (::kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM);
}

struct Leftover {
  std::string path;
  bool owner_runs;
};

/// Entries "<path><suffix><digits>"; those of this very process count as left by an earlier one of the same number.
std::vector<Leftover> leftovers(const std::string& path, const char* suffix) {
  std::vector<Leftover> found;
  const std::string start = fs::path(path).filename().string() + suffix;
  std::error_code ec;
  for (fs::directory_iterator it(folder_of(path), ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.size() <= start.size() || name.compare(0, start.size(), start) != 0) continue;
    const std::string pid = name.substr(start.size());
    if (pid.size() > 9 || pid.find_first_not_of("0123456789") != std::string::npos) continue;
    found.push_back({it->path().string(), runs_elsewhere(pid)});
  }
  return found;
}

void remove_stale(const std::string& path, const char* suffix) {
  std::error_code ec;
  for (const Leftover& l : leftovers(path, suffix))
    if (!l.owner_runs) fs::remove_all(l.path, ec);
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  struct stat st;
  const bool exists = ::stat(path.c_str(), &st) == 0;
  if (exists && S_ISDIR(st.st_mode)) throw file_error(path, "write", EISDIR);
  if (exists && !S_ISREG(st.st_mode)) {
    fd_ = open_file(path, O_WRONLY, "write");
    return;
  }
  target_ = target_of(path);
  remove_stale(target_, ".tmp-");
  const std::string temporary = suffixed(target_, ".tmp-");
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) throw file_error(path, "write", errno);
  fd_ = FileDescriptor(fd);
  temporary_ = temporary;
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t n) {
  write_all(path_, data, n, [&](const char* p, std::size_t m) { return ::write(fd_.get(), p, m); });
}

void AtomicFile::write_at(std::uint64_t offset, const void* data, std::size_t n) {
  write_all(path_, data, n, [&](const char* p, std::size_t m) {
    const ssize_t done = ::pwrite(fd_.get(), p, m, static_cast<off_t>(offset));
    if (done > 0) offset += static_cast<std::uint64_t>(done);
    return done;
  });
}

void AtomicFile::commit() {
  if (!temporary_.empty() && flush(fd_) != 0) throw file_error(path_, "flush", errno);
  // Network file systems report a full disk here at the latest.
  if (::close(fd_.release()) != 0 && errno != EINTR) throw file_error(path_, "write", errno);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) throw file_error(path_, "rename onto", errno);
  temporary_.clear();
  sync_folder(folder_of(target_));
}

void write_file_atomically(const std::string& path, std::string_view content) {
  AtomicFile f(path);
  f.write(content.data(), content.size());
  f.commit();
}

AppendFile::AppendFile(const std::string& path)
    : path_(path), fd_(open_file(path, O_WRONLY | O_APPEND | O_CREAT, "append to")) {}

std::uint64_t AppendFile::size() const {
  struct stat st;
  if (::fstat(fd_.get(), &st) != 0) throw file_error(path_, "read the size of", errno);
  return static_cast<std::uint64_t>(st.st_size);
}

void AppendFile::append_line(std::string_view line) {
  const std::string text = std::string(line) + '\n';
  const std::uint64_t before = size();
  try {
    write_all(path_, text.data(), text.size(), [&](const char* p, std::size_t m) { return ::write(fd_.get(), p, m); });
  } catch (const Error&) {
    if (size() > before) truncate(before);
    throw;
  }
}

void AppendFile::truncate(std::uint64_t offset) {
  const std::uint64_t now = size();
  if (now < offset)
    throw data_error(path_,
                     "holds " + std::to_string(now) + " bytes, so it cannot be cut back to " + std::to_string(offset));
  int rc;
  do rc = ::ftruncate(fd_.get(), static_cast<off_t>(offset));
  while (rc != 0 && errno == EINTR);
  if (rc != 0) throw file_error(path_, "cut back", errno);
}

void AppendFile::sync() {
  if (flush(fd_) != 0 && errno != EINVAL) throw file_error(path_, "flush", errno);
  sync_folder(folder_of(path_));
}

AtomicDirectory::AtomicDirectory(const std::string& path) : target_(target_of(path)) {
  recover_directory(target_);
  std::error_code ec;
  if (fs::exists(target_, ec) && !fs::is_directory(target_, ec)) throw file_error(target_, "replace", ENOTDIR);
  const std::string staging = suffixed(target_, ".tmp-");
  make_directories(staging);
  staging_ = staging;
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ec;
  if (!staging_.empty()) fs::remove_all(staging_, ec);
}

void AtomicDirectory::commit() {
  sync_folder(staging_);
  std::error_code ec;
  if (!fs::exists(target_, ec)) {
    if (::rename(staging_.c_str(), target_.c_str()) != 0) throw file_error(target_, "put in place", errno);
  } else if (::renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
    // staging_ now names the former folder. If it cannot be deleted, the next AtomicDirectory tries again.
    sync_folder(folder_of(target_));
    fs::remove_all(staging_, ec);
  } else if (errno == EINVAL || errno == ENOSYS) {
    replace_by_two_renames(staging_, target_);
  } else {
    throw file_error(target_, "replace", errno);
  }
  staging_.clear();
  sync_folder(folder_of(target_));
}

void replace_by_two_renames(const std::string& fresh, const std::string& path) {
  const std::string aside = suffixed(path, ".old-");
  if (::rename(path.c_str(), aside.c_str()) != 0) throw file_error(path, "set aside", errno);
  if (::rename(fresh.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::rename(aside.c_str(), path.c_str());
    throw file_error(path, "put in place", code);
  }
  std::error_code ec;
  fs::remove_all(aside, ec);
}

void recover_directory(const std::string& path) {
  const std::string target = target_of(path);
  std::error_code ec;
  if (!fs::exists(target, ec)) {
    const auto aside = leftovers(target, ".old-");
    if (!aside.empty() && ::rename(aside[0].path.c_str(), target.c_str()) != 0)
      throw file_error(aside[0].path, "rename to " + target, errno);
  }
  remove_stale(target, ".old-");
  remove_stale(target, ".tmp-");
}

bool is_same_file(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  std::error_code ec;
  return fs::equivalent(a, b, ec) || fs::absolute(a).lexically_normal() == fs::absolute(b).lexically_normal();
}

void make_directories(const std::string& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) return;
  const std::string above = folder_of(target_of(path));
  if (above != path) make_directories(above);
  if (::mkdir(path.c_str(), 0777) != 0 && !(errno == EEXIST && fs::is_directory(path, ec)))
    throw file_error(path, "make the folder", errno);
  sync_folder(above);
}

std::string read_text_file(const std::string& path, std::size_t max_bytes) {
  const FileDescriptor fd = open_file(path, O_RDONLY, "open");
  std::string text;
  char piece[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd.get(), piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw file_error(path, "read", errno);
    if (n == 0) return text;
    text.append(piece, static_cast<std::size_t>(n));
    if (text.size() > max_bytes)
      throw data_error(path, "is larger than the " + std::to_string(max_bytes) + " bytes that are read of such a file");
  }
}

}  // namespace cald
