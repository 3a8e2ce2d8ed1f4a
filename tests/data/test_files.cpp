// Files that appear whole or not at all, the append-only file, folders published whole, mapped files.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "data/atomic_file.h"
#include "data/mapped_file.h"
#include "tests/data/temp_folder.h"

namespace cald {
namespace fs = std::filesystem;
namespace {

using Names = std::set<std::string>;

/// Within its scope no file of this process can grow past `bytes`: a write fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit now{bytes, old_.rlim_max};
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

/// A process number that belonged to a child which has ended.
std::string dead_pid() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  return std::to_string(child);
}

TEST(AtomicFile, AppearsAtCommitOnly) {
  TempFolder dir;
  const std::string path = dir.put("a", "old");
  AtomicFile f(path);
  f.write("new ", 4);
  f.write("text", 4);
  EXPECT_EQ(content_of(path), "old");
  f.commit();
  EXPECT_EQ(content_of(path), "new text");
  EXPECT_EQ(dir.names(), Names{"a"});
}

TEST(AtomicFile, WithoutCommitNothingIsLeft) {
  TempFolder dir;
  { AtomicFile(dir / "a").write("x", 1); }
  EXPECT_EQ(dir.names(), Names{});
  const std::string old = dir.put("b", "old");
  { AtomicFile(old).write("x", 1); }
  EXPECT_EQ(content_of(old), "old");
  EXPECT_EQ(dir.names(), Names{"b"});
}

TEST(AtomicFile, WritesAtOffsets) {
  TempFolder dir;
  AtomicFile f(dir / "a");
  f.write_at(4, "efgh", 4);
  f.write_at(0, "abcd", 4);
  f.write("AB", 2);
  f.commit();
  EXPECT_EQ(content_of(dir / "a"), "ABcdefgh");
}

TEST(AtomicFile, FullDiskIsOneLineAndLeavesTheOldFile) {
  TempFolder dir;
  const std::string path = dir.put("a", "old");
  const std::string big(1 << 16, 'x');
  std::string message;
  {
    FileSizeLimit limit(1000);
    message = error_of([&] { write_file_atomically(path, big); });
  }
  EXPECT_EQ(message, path + ": cannot write: File too large");
  EXPECT_EQ(content_of(path), "old");
  EXPECT_EQ(dir.names(), Names{"a"});
}

TEST(AtomicFile, DevicesAreWrittenInPlace) {
  EXPECT_EQ(error_of([] { write_file_atomically("/dev/full", "x"); }),
            "/dev/full: cannot write: No space left on device");
  EXPECT_EQ(error_of([] { write_file_atomically("/dev/null", "x"); }), "no error");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(AtomicFile, ErrorsNameThePath) {
  TempFolder dir;
  EXPECT_EQ(error_of([&] { AtomicFile f(dir / "none/a"); }), dir / "none/a: cannot write: No such file or directory");
  EXPECT_EQ(error_of([&] { AtomicFile f(dir.path()); }), dir.path() + ": cannot write: Is a directory");
  dir.put("file", "");
  EXPECT_EQ(error_of([&] { AtomicFile f(dir / "file/a"); }), dir / "file/a: cannot write: Not a directory");
  AtomicFile f(dir / "a");
  f.commit();
  EXPECT_CONTAINS(error_of([&] { f.write("x", 1); }), "cannot write: Bad file descriptor");
}

TEST(AtomicFile, ReplacesWhatALinkPointsTo) {
  TempFolder dir;
  dir.put("real", "old");
  fs::create_symlink("real", dir / "link");
  write_file_atomically(dir / "link", "new");
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(content_of(dir / "real"), "new");
}

TEST(AtomicFile, RemovesWhatKilledWritersLeft) {
  TempFolder dir;
  const std::string living = "a.tmp-" + std::to_string(::getppid());
  dir.put("a.tmp-" + dead_pid(), "half");
  for (const std::string& other : {living, std::string("a.tmp-12x"), std::string("a.tmp-"), std::string("b.tmp-1")})
    dir.put(other, "");
  write_file_atomically(dir / "a", "x");
  EXPECT_EQ(dir.names(), (Names{"a", living, "a.tmp-12x", "a.tmp-", "b.tmp-1"}));
}

TEST(AtomicFile, AKillLeavesTheOldFile) {
  TempFolder dir;
  const std::string path = dir.put("a", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile f(path);
    f.write("new", 3);
    ::_exit(0);  // as a kill: no destructor runs
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(content_of(path), "old");
  EXPECT_EQ(dir.names().size(), 2u);
  write_file_atomically(path, "newer");
  EXPECT_EQ(content_of(path), "newer");
  EXPECT_EQ(dir.names(), Names{"a"});
}

TEST(AppendFile, GrowsAndIsCutBack) {
  TempFolder dir;
  {
    AppendFile f(dir / "m");
    EXPECT_EQ(f.size(), 0u);
    f.append_line("{\"step\":1}");
    f.sync();
    EXPECT_EQ(f.size(), 11u);
  }
  AppendFile f(dir / "m");
  EXPECT_EQ(f.size(), 11u);
  f.append_line("two");
  EXPECT_EQ(content_of(dir / "m"), "{\"step\":1}\ntwo\n");
  f.truncate(11);
  f.append_line("2");
  EXPECT_EQ(content_of(dir / "m"), "{\"step\":1}\n2\n");
  EXPECT_EQ(error_of([&] { f.truncate(99); }), dir / "m: holds 13 bytes, so it cannot be cut back to 99");
  EXPECT_EQ(f.size(), 13u);
}

TEST(AppendFile, AFailedLineIsTakenBack) {
  TempFolder dir;
  AppendFile f(dir / "m");
  f.append_line("first");
  std::string message;
  {
    FileSizeLimit limit(10);
    message = error_of([&] { f.append_line("a line that does not fit"); });
  }
  EXPECT_EQ(message, dir / "m: cannot write: File too large");
  EXPECT_EQ(content_of(dir / "m"), "first\n");
  AppendFile full("/dev/full");
  EXPECT_EQ(error_of([&] { full.append_line("x"); }), "/dev/full: cannot write: No space left on device");
  EXPECT_EQ(error_of([&] { AppendFile g(dir / "none/m"); }),
            dir / "none/m: cannot append to: No such file or directory");
}

TEST(AtomicDirectory, AppearsAtCommitAndReplacesAll) {
  TempFolder dir;
  for (const std::string text : {"one", "two"}) {
    AtomicDirectory d(dir / "runs/model/");
    write_file_atomically(d.staging() + "/" + text, text);
    EXPECT_FALSE(fs::exists(dir / ("runs/model/" + text)));
    d.commit();
  }
  EXPECT_FALSE(fs::exists(dir / "runs/model/one"));
  EXPECT_EQ(content_of(dir / "runs/model/two"), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "runs"), {}), 1);
}

TEST(AtomicDirectory, WithoutCommitTheOldOneStays) {
  TempFolder dir;
  fs::create_directory(dir / "d");
  dir.put("d/old", "old");
  {
    AtomicDirectory d(dir / "d");
    write_file_atomically(d.staging() + "/new", "new");
  }
  EXPECT_EQ(content_of(dir / "d/old"), "old");
  EXPECT_EQ(dir.names(), Names{"d"});
}

TEST(AtomicDirectory, TwoRenamesReplaceAsWell) {
  TempFolder dir;
  fs::create_directory(dir / "d");
  dir.put("d/old", "old");
  fs::create_directory(dir / "fresh");
  dir.put("fresh/new", "new");
  replace_by_two_renames(dir / "fresh", dir / "d");
  EXPECT_EQ(dir.names(), Names{"d"});
  EXPECT_EQ(content_of(dir / "d/new"), "new");
  EXPECT_FALSE(fs::exists(dir / "d/old"));
  EXPECT_EQ(error_of([&] { replace_by_two_renames(dir / "none", dir / "d"); }),
            dir / "d: cannot put in place: No such file or directory");
  EXPECT_EQ(content_of(dir / "d/new"), "new");
  EXPECT_EQ(dir.names(), Names{"d"});
}

TEST(AtomicDirectory, RecoversFromAKillBetweenTheRenames) {
  TempFolder dir;
  const std::string pid = dead_pid();
  for (const char* name : {"d.old-", "d.tmp-"}) {
    fs::create_directory(dir / (name + pid));
    dir.put(name + pid + "/file", name);
  }
  recover_directory(dir / "d");
  EXPECT_EQ(dir.names(), Names{"d"});
  EXPECT_EQ(content_of(dir / "d/file"), "d.old-");
  // A kill before the old one was deleted: the new one stands, the leftovers go.
  fs::create_directory(dir / ("d.old-" + pid));
  recover_directory(dir / "d");
  EXPECT_EQ(dir.names(), Names{"d"});
  EXPECT_EQ(content_of(dir / "d/file"), "d.old-");
}

TEST(AtomicDirectory, RefusesAFileInItsPlace) {
  TempFolder dir;
  const std::string path = dir.put("d", "precious");
  EXPECT_EQ(error_of([&] { AtomicDirectory d(path); }), path + ": cannot replace: Not a directory");
  EXPECT_EQ(content_of(path), "precious");
  EXPECT_EQ(dir.names(), Names{"d"});
}

TEST(Files, MakesFoldersAndReadsText) {
  TempFolder dir;
  make_directories(dir / "a/b/c");
  make_directories(dir / "a/b/c/");
  EXPECT_TRUE(fs::is_directory(dir / "a/b/c"));
  dir.put("file", "12345");
  EXPECT_EQ(error_of([&] { make_directories(dir / "file"); }), dir / "file: cannot make the folder: File exists");
  EXPECT_CONTAINS(error_of([&] { make_directories(dir / "file/x"); }), "cannot make the folder");
  EXPECT_EQ(read_text_file(dir / "file", 5), "12345");
  EXPECT_CONTAINS(error_of([&] { read_text_file(dir / "file", 4); }), "file: is larger than the 4 bytes");
  EXPECT_EQ(error_of([&] { read_text_file(dir / "none", 4); }), dir / "none: cannot open: No such file or directory");
  EXPECT_EQ(error_of([&] { read_text_file(dir.path(), 4); }), dir.path() + ": cannot read: Is a directory");
}

TEST(MappedFile, MapsAndDrops) {
  TempFolder dir;
  const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::string text(4 * page + 5, 'x');
  text[2 * page] = 'y';
  const MappedFile f(dir.put("a", text));
  const auto now = [&] { return std::string(reinterpret_cast<const char*>(f.data()), f.size()); };
  EXPECT_EQ(now(), text);
  f.drop(page + 1, 2 * page);
  f.drop(0, f.size());
  f.drop(f.size() + 9, 1);
  f.drop(5, SIZE_MAX);
  EXPECT_EQ(now(), text);
}

/// Bytes of this process's mappings of files (those of a file system in memory count apart) that are in memory.
std::size_t resident_file_bytes() {
  std::ifstream status("/proc/self/status");
  std::size_t sum = 0;
  for (std::string word; status >> word;)
    if (word == "RssFile:" || word == "RssShmem:") {
      std::size_t kib = 0;
      status >> kib;
      sum += kib * 1024;
    }
  return sum;
}

TEST(MappedFile, DroppedPagesLeaveMemory) {
  TempFolder dir;
  constexpr std::size_t kBytes = 64 << 20;
  const MappedFile f(dir.put("a", std::string(kBytes, 'x')));
  const std::size_t before = resident_file_bytes();
  if (before == 0) GTEST_SKIP() << "the kernel does not report RssFile";
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kBytes; i += 512) sum += static_cast<std::size_t>(f.data()[i]);
  EXPECT_EQ(sum, kBytes / 512 * 'x');
  const std::size_t touched = resident_file_bytes();
  EXPECT_GT(touched, before + kBytes / 2);
  f.drop(0, kBytes);
  EXPECT_LT(resident_file_bytes(), touched - kBytes / 2);
}

TEST(MappedFile, EmptyAndMoved) {
  TempFolder dir;
  MappedFile f(dir.put("empty", ""));
  EXPECT_EQ(f.size(), 0u);
  f.drop(0, 10);
  f = MappedFile(dir.put("a", "abc"));
  const MappedFile g(std::move(f));
  EXPECT_EQ(g.size(), 3u);
  EXPECT_EQ(static_cast<char>(g.data()[1]), 'b');
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  TempFolder dir;
  EXPECT_EQ(error_of([&] { MappedFile f(dir / "none"); }), dir / "none: cannot open: No such file or directory");
  EXPECT_EQ(error_of([&] { MappedFile f(dir.path()); }), dir.path() + ": cannot read: Is a directory");
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { MappedFile f(dir / "pipe"); }), dir / "pipe: is not a regular file, so it cannot be mapped");
}

}  // namespace
}  // namespace cald
