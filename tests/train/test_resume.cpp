// A run killed in the middle of a step, or of writing a file, and resumed ends with the bytes of one never stopped.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/gemm.h"
#include "tests/train/golden_run.h"

namespace cald {
namespace {

namespace fs = std::filesystem;

/// Kills its own process at the n-th launch.
class Killer : public LaunchObserver {
 public:
  explicit Killer(int launches) : left_(launches) {}
  void launched(const Launch&) override {
    if (--left_ == 0) kill(getpid(), SIGKILL);
  }

 private:
  int left_;
};

/// From the n-th launch on no file may grow beyond `bytes`: the first write that would ends the process on the spot.
class FileLimit : public LaunchObserver {
 public:
  FileLimit(int launches, std::uintmax_t bytes) : left_(launches), bytes_(bytes) {}
  void launched(const Launch&) override {
    if (--left_ != 0) return;
    const rlimit none{0, 0}, size{bytes_, bytes_};
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_FSIZE, &size);
  }

 private:
  int left_;
  std::uintmax_t bytes_;
};

/// Counts launches, and notes at which the update of each step ends.
class Counter : public LaunchObserver {
 public:
  void launched(const Launch& l) override {
    ++launches;
    if (std::string(l.kernel) == "adamw") updates.push_back(launches);
  }
  int launches = 0;
  std::vector<int> updates;
};

void train_and_die(const RunOptions& o, LaunchObserver& killer, int signal) {
  const pid_t child = fork();
  if (child == 0) {
    train(o, &killer);
    _exit(0);  // the kill did not come: the parent sees it
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << "the run ended before it was killed";
}

struct Case {
  const char* name;
  const char* golden;  // whose mode and models it uses
  const char* hybrid_stop;
};

class Resume : public ::testing::TestWithParam<Case> {};

RunOptions options_of(const Case& c, const std::string& output) {
  RunOptions o = golden_options(read_golden(c.golden), output);
  o.threads = 1;  // a forked child has no thread of its parent's
  o.steps = 12;   // three epochs of four steps, two waypoint phases of six
  o.order = Order::shuffled;
  o.dropout = 0.1;
  o.batch_size = 3;  // the last batch of an epoch is a single example
  o.dev = o.train;
  o.evaluate_every = StepOrShare{4, false};
  o.checkpoint_every = StepOrShare{5, false};
  if (std::string(c.name) == "drift") {
    o.drift = true;
    o.keep_waypoints = 2;
    o.waypoint_spacing = Spacing::drift;
  }
  if (std::string(c.name) == "bf16") o.dtype = DTypeOption::bf16;
  if (std::string(c.name) == "bf16_moments") o.moments = DTypeOption::bf16;
  if (o.mode == Mode::trajectory) o.teacher_dropout = 0.1;
  if (c.hybrid_stop[0]) o.hybrid_stop = StepOrShare{static_cast<double>(std::stoi(c.hybrid_stop)), false};
  return o;
}

/// Batches of more tokens than the model has positions (33), then of fewer: the positions' gradient is whole, then by
/// rows.
void set_long_and_short_texts(RunOptions& o, const std::string& path) {
  std::string table = "sentence\tlabel\n";
  for (int i = 0; i < 48; ++i)
    table += std::string(i / 4 % 4 < 2 ? "it is a very very long and dull film" : "a film") + "\t" +
             std::to_string(i % 3) + "\n";
  std::ofstream(path) << table;
  o.train = o.dev = path;
  o.order = Order::given;
  o.batch_size = 4;
}

TEST_P(Resume, GivesTheSameBytes) {
  if (std::string(GetParam().name) == "bf16" && !cpu_has_bf16())
    GTEST_SKIP() << "this processor has no bf16 instructions";
  TempFolder folder;
  RunOptions whole = options_of(GetParam(), folder / "whole");
  if (std::string(GetParam().name) == "tables") set_long_and_short_texts(whole, folder / "texts.tsv");
  Counter counter;
  train(whole, &counter);
  const std::string metrics = content_of(folder / "whole/metrics.jsonl");
  ASSERT_FALSE(metrics.empty());

  RandomStream random(7, stream_of(GetParam().name));
  // In the first step, just behind a checkpoint, and anywhere.
  const int per_step = counter.launches / 12;
  std::vector<int> kills = {per_step / 2, counter.updates[counter.updates.size() / 2] + per_step / 3};
  for (int i = 0; i < 2; ++i)
    kills.push_back(1 + static_cast<int>(random.below(static_cast<std::uint32_t>(counter.launches - 1))));
  const auto check = [&](LaunchObserver& killer, int signal, const std::string& when) {
    RunOptions part = whole;
    const std::string run = part.output = folder / when;
    train_and_die(part, killer, signal);
    part.resume = true;
    train(part);
    EXPECT_EQ(content_of(run + "/metrics.jsonl"), metrics) << when;
    for (const char* file :
         {"/model/model.safetensors", "/checkpoint/student.safetensors", "/checkpoint/optimizer.safetensors",
          "/checkpoint/teacher.safetensors", "/waypoints/1/model.safetensors", "/waypoints/2/model.safetensors"})
      EXPECT_TRUE(content_of(run + file) == content_of((folder / "whole") + file)) << file << " " << when;
  };
  for (const int launch : kills) {
    Killer killer(launch);
    check(killer, SIGKILL, "killed at launch " + std::to_string(launch));
  }
  // Behind the first checkpoint: within the best model of step 8, and within the optimizer's file, which is larger, of
  // step 10.
  const auto weights = fs::file_size(folder / "whole/checkpoint/student.safetensors");
  const auto moments = fs::file_size(folder / "whole/checkpoint/optimizer.safetensors");
  for (const std::uintmax_t bytes : {weights / 2, (weights + moments) / 2}) {
    FileLimit limit(counter.updates[5], bytes);
    check(limit, SIGXFSZ, "killed at byte " + std::to_string(bytes) + " of a file");
  }
}

INSTANTIATE_TEST_SUITE_P(AllModes, Resume,
                         ::testing::Values(Case{"finetune", "bert_finetune", ""}, Case{"tables", "bert_finetune", ""},
                                           Case{"drift", "bert_finetune", ""}, Case{"unguided", "bert_unguided", ""},
                                           Case{"target", "bert_target", ""}, Case{"hybrid", "bert_target", "7"},
                                           Case{"trajectory", "bert_trajectory_2", ""},
                                           Case{"bf16", "bert_trajectory_2", ""},
                                           Case{"bf16_moments", "bert_target", ""},
                                           Case{"waypoint", "bert_waypoint", ""}),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace cald
