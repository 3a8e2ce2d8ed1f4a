// A run killed with SIGKILL in the middle of a step and resumed ends with the bytes of one never stopped.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/train/golden_run.h"

namespace cald {
namespace {

/// Kills its own process at the n-th launch.
class Killer : public LaunchObserver {
 public:
  explicit Killer(int launches) : left_(launches) {}
  void launched(const char*, const char*, const std::string&, double) override {
    if (--left_ == 0) kill(getpid(), SIGKILL);
  }

 private:
  int left_;
};

/// Counts launches, and notes at which the update of each step ends.
class Counter : public LaunchObserver {
 public:
  void launched(const char* kernel, const char*, const std::string&, double) override {
    ++launches;
    if (std::string(kernel) == "adamw") updates.push_back(launches);
  }
  int launches = 0;
  std::vector<int> updates;
};

void train_and_die(const RunOptions& o, int launches) {
  const pid_t child = fork();
  if (child == 0) {
    Killer killer(launches);
    train(o, &killer);
    _exit(0);  // the kill did not come: the parent sees it
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the run ended before it was killed";
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
  if (o.mode == Mode::trajectory) o.teacher_dropout = 0.1;
  if (c.hybrid_stop[0]) o.hybrid_stop = StepOrShare{static_cast<double>(std::stoi(c.hybrid_stop)), false};
  return o;
}

TEST_P(Resume, GivesTheSameBytes) {
  TempFolder folder;
  const RunOptions whole = options_of(GetParam(), folder / "whole");
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
  for (std::size_t i = 0; i < kills.size(); ++i) {
    const std::string run = folder / ("killed" + std::to_string(i));
    RunOptions part = whole;
    part.output = run;
    train_and_die(part, kills[i]);
    part.resume = true;
    train(part);
    EXPECT_EQ(content_of(run + "/metrics.jsonl"), metrics) << "killed at launch " << kills[i];
    for (const char* file : {"/model/model.safetensors", "/checkpoint/student.safetensors",
                             "/checkpoint/optimizer.safetensors", "/checkpoint/teacher.safetensors"})
      EXPECT_TRUE(content_of(run + file) == content_of((folder / "whole") + file)) << file << ", launch " << kills[i];
  }
}

INSTANTIATE_TEST_SUITE_P(AllModes, Resume,
                         ::testing::Values(Case{"finetune", "bert_finetune", ""}, Case{"unguided", "bert_unguided", ""},
                                           Case{"target", "bert_target", ""}, Case{"hybrid", "bert_target", "7"},
                                           Case{"trajectory", "bert_trajectory_2", ""},
                                           Case{"waypoint", "bert_waypoint", ""}),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace cald
